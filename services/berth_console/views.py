"""Read models: rows of the folded state in the JSON shapes of DESIGN section 5, "Other shapes".

Pure: state in, rows out, each with the cursor by which a page can go on behind it. Amounts are whole
numbers by dimension, as in events; times are RFC 3339. Rows come in the order of their names.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from berth.ids import Namespace, NodeId, RequestId, RequestKey
from berth.messages.documents import time_text
from berth.model.answers import amounts, reservation_row
from berth.model.cluster import Allocation, AllocationState, Drain, Node
from berth.model.fragmentation import Usage, usage_by_node
from berth.model.ledger import State
from berth.model.ordering import NOBODY_WAITS, Line
from berth.model.read_models import Row, quota_explanation, quota_row, request_rows
from berth.subjects import CLUSTER

Rows = Iterator[tuple[str, Row]]
Name = TypeVar("Name", bound=str)
Key = TypeVar("Key", bound=tuple[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which rows are wanted. `namespace` `_`: of all. `ids` empty: all; each bare or `namespace/id`.

    `everything`: those that are over too. `decisions`: rows of requests with their decision.
    `after`: only rows behind this cursor.
    """

    namespace: str = CLUSTER
    ids: frozenset[str] = frozenset()
    everything: bool = False
    decisions: bool = False
    after: str | None = None

    def names(self, namespace: str, id: str) -> bool:
        """Whether the row of `id` in `namespace` is wanted, as far as its name says."""
        return (self.namespace in (CLUSTER, namespace)) and (
            not self.ids or id in self.ids or f"{namespace}/{id}" in self.ids
        )


def requests(state: State, wanted: Selection) -> Rows:
    """`berth requests`: every request that is known, settled ones included until they are forgotten."""
    selected = _selected(state.queue.requests, wanted)
    line = Line(state) if any(key in state.queue.waiting for key in selected) else NOBODY_WAITS
    owner = None if wanted.namespace == CLUSTER else Namespace(wanted.namespace)
    yield from request_rows(state, selected, line, owner=owner, with_decisions=wanted.decisions)


def allocations(state: State, wanted: Selection) -> Rows:
    """`berth allocations`: the live ones, or all. An id is an allocation's or that of its request."""
    table = state.cluster.allocations
    for key in _keys_behind((key for key in table if wanted.namespace in (CLUSTER, key[0])), wanted.after):
        allocation = table[key]
        if (wanted.everything or allocation.is_live) and (
            wanted.names(allocation.namespace, allocation.id) or wanted.names(allocation.namespace, allocation.request)
        ):
            yield _cursor(key), allocation_row(allocation)


def nodes(state: State, wanted: Selection) -> Rows:
    """`berth nodes list`: nodes belong to no namespace."""
    for id in _names_behind((id for id in state.cluster.nodes if not wanted.ids or id in wanted.ids), wanted.after):
        yield id, node_row(state, state.cluster.nodes[id])


def quotas(state: State, wanted: Selection) -> Rows:
    """`berth quota list`: every namespace that has a quota or uses anything."""
    named = dict.fromkeys((*state.quotas.quotas, *state.quotas.used))
    for namespace in _names_behind((one for one in named if wanted.names(one, one)), wanted.after):
        yield namespace, quota_row(state, namespace)


def usage(state: State, wanted: Selection) -> Rows:
    """`berth top`: what each node that is not lost has, uses, has free, and what of that is stranded."""
    found = usage_by_node(state)
    for name in _names_behind((name for name in found if wanted.names(name, name)), wanted.after):
        yield name, usage_row(state.cluster.nodes[name], found[name])


def quota_explanations(state: State, wanted: Selection) -> Rows:
    """`berth quota explain`: the namespaces that are named, whether or not they have a quota."""
    for name in sorted(wanted.ids):
        if wanted.names(name, name):
            yield name, quota_explanation(state, Namespace(name))


def reservations(state: State, wanted: Selection) -> Rows:
    """`berth reservation list`: those that are not over, or all."""
    table = state.reservations.reservations
    for id in _names_behind((id for id in table if wanted.names(table[id].namespace, id)), wanted.after):
        if wanted.everything or wanted.ids or not table[id].is_over:
            yield id, reservation_row(state, table[id])


# --- one row ----------------------------------------------------------------------------------------


def allocation_row(allocation: Allocation) -> Row:
    return {
        "id": allocation.id,
        "request": allocation.request,
        "namespace": allocation.namespace,
        "node": allocation.node,
        "state": allocation.state.value,
        "resources": amounts(allocation.charge),
        "reservation": allocation.reservation,
    }


def node_row(state: State, node: Node) -> Row:
    """`used`: by live allocations; what reservations hold besides is not in it. `drain`: None while there is none."""
    return {
        "id": node.id,
        "state": node.state.value,
        "schedulable": node.schedulable,
        "draining": node.draining,
        "drain": None if node.drain is None else drain_row(state, node.id, node.drain),
        "capacity": amounts(node.capacity),
        "reserved": amounts(node.reserved),
        "used": amounts(state.cluster.used_on(node.id)),
        "labels": dict(node.labels),
        "taints": [taint.model_dump(mode="json") for taint in node.taints],
    }


def drain_row(state: State, node: NodeId, drain: Drain) -> Row:
    """How far it has come, in allocations: `left` ones still run there, `releasing` ones have been told to stop.

    `moved` went elsewhere in the transaction that took them away, `evicted` found no place at once.
    """
    left = Counter(one.state for one in state.cluster.on_node(node).values())
    return {
        "since": time_text(drain.since),
        "deadline": None if drain.until is None else time_text(drain.until),
        "moved": drain.moved,
        "evicted": drain.departed - drain.moved,
        "left": left[AllocationState.PLACED],
        "releasing": left[AllocationState.RELEASING],
    }


def usage_row(node: Node, usage: Usage) -> Row:
    return {
        "id": node.id,
        "labels": dict(node.labels),
        "capacity": usage.capacity.as_mapping(),
        "used": usage.used.as_mapping(),
        "free": usage.free.as_mapping(),
        "stranded": usage.stranded.as_mapping(),
    }


# --- selecting --------------------------------------------------------------------------------------


def _selected(table: Mapping[RequestKey, object], wanted: Selection) -> list[RequestKey]:
    """Keys that are wanted, sorted; with ids in one namespace only those are looked up."""
    if wanted.ids and wanted.namespace != CLUSTER:
        namespace = Namespace(wanted.namespace)
        named = {(namespace, RequestId(id.rpartition("/")[2])) for id in wanted.ids}
        return _keys_behind((key for key in named if key in table and wanted.names(*key)), wanted.after)
    return _keys_behind((key for key in table if wanted.names(*key)), wanted.after)


def _keys_behind(keys: Iterable[Key], after: str | None) -> list[Key]:
    """The keys behind the cursor, sorted."""
    if after is None:
        return sorted(keys)
    namespace, _, id = after.partition("/")
    return sorted(key for key in keys if key > (namespace, id))


def _names_behind(names: Iterable[Name], after: str | None) -> list[Name]:
    return sorted(name for name in names if after is None or name > after)


def _cursor(key: tuple[str, str]) -> str:
    return f"{key[0]}/{key[1]}"

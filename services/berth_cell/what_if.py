"""A cluster that is a little different: the transactions that make it so, and who loses its place by them.

They are folded on a copy, never proposed. A document that contradicts the cluster is refused with its path.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from berth.errors import InvalidCommand, Problem
from berth.ids import RequestKey, Sequence
from berth.messages.commands import ApplyQuotas
from berth.messages.documents import NodeState
from berth.messages.events import Event, How, NodeChanged, NodeLeft, QuotaRemoved, RequestStatus, Transaction
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Capacity
from berth.messages.what_if import NodeChangeDocument, WhatIfDocument
from berth.model.ledger import State
from berth.resources import Resources, resources
from berth_cell.seed import node_as_described
from berth_quota.administration import cohort_set, problems_of, quota_set
from berth_scheduler.departure import Cause, departures


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`displaced`: requests that run nowhere any more and are queued again, in the order of their names."""

    changes: tuple[Transaction, ...]
    displaced: tuple[RequestKey, ...]


def difference(state: State, document: WhatIfDocument, *, at_ms: int) -> Difference:
    """What `document` would change about `state`, which is left as it was.

    Raises:
        InvalidCommand: it adds a node that is there, changes or removes one that is not, or quotas contradict.
    """
    problems = list(_problems(state, document))
    if problems:
        raise InvalidCommand(problems)
    changes: list[Transaction] = []
    waiting = set(state.queue.waiting)
    with state.journal.trial():
        for transaction in _transactions(state, document, at_ms):
            state.fold_transaction(transaction, at=at_ms, sequence=Sequence(state.sequence))
            changes.append(transaction)
        displaced = tuple(
            key
            for key in sorted(set(state.queue.waiting) - waiting)
            if state.queue.requests[key].status is RequestStatus.QUEUED and not state.queue.requests[key].live
        )
    return Difference(changes=tuple(changes), displaced=displaced)


def _problems(state: State, document: WhatIfDocument) -> Iterator[Problem]:
    known = {node: place for place, node in enumerate(state.cluster.nodes)}
    for place, added in enumerate(document.add_nodes):
        if added.id in known:
            yield Problem(path=f"what_if.add_nodes[{place}].id", expected=f"expected a new node, {added.id} is there")
    known |= {added.id: -1 for added in document.add_nodes}
    for place, changed in enumerate(document.change_nodes):
        if changed.id not in known:
            yield Problem(path=f"what_if.change_nodes[{place}].id", expected="expected a node of the cluster")
    for place, removed in enumerate(document.remove_nodes):
        if removed not in known or removed in document.remove_nodes[:place]:
            yield Problem(path=f"what_if.remove_nodes[{place}]", expected="expected a node of the cluster, each once")
    for place, namespace in enumerate(document.remove_quotas):
        if namespace not in state.quotas.quotas:
            yield Problem(path=f"what_if.remove_quotas[{place}]", expected="expected a namespace with a quota")
    command = ApplyQuotas(quotas=document.quotas, cohorts=document.cohorts)
    for one in problems_of(state, command):
        yield Problem(path=f"what_if.{one.path}", expected=one.expected)


def _transactions(state: State, document: WhatIfDocument, at_ms: int) -> Iterator[Transaction]:
    """Each is folded before the next is asked for."""
    for cohort in document.cohorts:
        yield (cohort_set(cohort),)
    for quota in document.quotas:
        yield (quota_set(quota),)
    for namespace in document.remove_quotas:
        yield (Event(QuotaRemoved(), namespace),)
    for added in document.add_nodes:
        if added.state is not NodeState.LEFT:
            yield node_as_described(added)
    for changed in document.change_nodes:
        yield (Event(_changed(state, changed)),)
    for removed in document.remove_nodes:
        cause = Cause(how=How.EVICTED, reason=ReasonCode.DRAINED, at=at_ms, graceful=False)
        yield from departures(state, state.cluster.on_node(removed).values(), cause)
        yield (Event(NodeLeft(node=removed)),)


def _changed(state: State, document: NodeChangeDocument) -> NodeChanged:
    node = state.cluster.nodes[document.id]
    labels = {**node.labels, **document.labels}
    return NodeChanged(
        node=node.id,
        capacity=_amounts(node.capacity, document.capacity),
        reserved=_amounts(node.reserved, document.reserved),
        labels={key: value for key, value in labels.items() if value is not None},
        taints=document.taints,
        schedulable=document.schedulable,
    )


def _amounts(before: Resources, change: Capacity | None) -> Resources | None:
    """`before` with the amounts that were written; None: none were."""
    if change is None:
        return None
    return resources({**dict(before.dimensions()), **change.said()})

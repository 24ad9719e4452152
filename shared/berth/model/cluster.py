"""Nodes and allocations: what there is, what runs where, and how much of each node is taken."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from berth.ids import AllocationId, AllocationKey, Namespace, NodeId, RequestId, RequestKey, ReservationId, Sequence
from berth.messages.documents import NodeState
from berth.messages.events import How
from berth.messages.reasons import ReasonCode
from berth.messages.requests import AffinityTerm, Mode, Taint
from berth.model.tables import CountedTable, DigestedTable, Journal, Table
from berth.resources import NOTHING, Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Work is being taken from a node. Times are milliseconds UTC of the ledger.

    `until`: its deadline; None: it has none. `departed`: instances it has taken from the node so far; `moved`:
    those of them that were given another place in the same transaction.
    """

    since: int
    until: int | None = None
    departed: int = 0
    moved: int = 0

    def waits_at(self, at: int) -> bool:
        """Whether what has no other place may stay at `at`: until the deadline the drain moves, and evicts nothing."""
        return self.until is not None and at < self.until

    def is_overdue_at(self, at: int) -> bool:
        """Whether what has no other place must leave nevertheless."""
        return self.until is not None and at >= self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """`changed`: sequence of its last change. Times are milliseconds UTC.

    `drain`: while it is being drained, and afterwards until somebody ends that. `lost_at`: while it is lost.
    `tainted_at`: since when it has each of `taints`, in their order.
    """

    id: NodeId
    capacity: Resources
    reserved: Resources = NOTHING
    labels: Mapping[str, str]
    taints: tuple[Taint, ...] = ()
    state: NodeState = NodeState.READY
    schedulable: bool = True
    drain: Drain | None = None
    changed: Sequence = Sequence(0)
    lost_at: int | None = None
    tainted_at: tuple[int, ...] = ()

    @property
    def draining(self) -> bool:
        return self.drain is not None

    @property
    def allocatable(self) -> Resources:
        """What work may use: capacity without what is reserved for the system; never negative."""
        return self.capacity.beyond(self.reserved)

    def label(self, key: str) -> str | None:
        """The label's value; `node.id` and `node` are the node itself."""
        if key in ("node.id", "node"):
            return self.id
        return self.labels.get(key)


class AllocationState(StrEnum):
    PLACED = "placed"
    RELEASING = "releasing"
    RELEASED = "released"
    EVICTED = "evicted"
    EXPIRED = "expired"
    LOST = "lost"


_FINAL: frozenset[AllocationState] = frozenset()
_ENDS = frozenset({AllocationState.RELEASED, AllocationState.EVICTED, AllocationState.EXPIRED, AllocationState.LOST})

LIFECYCLE: dict[AllocationState, frozenset[AllocationState]] = {
    AllocationState.PLACED: _ENDS | {AllocationState.RELEASING},
    AllocationState.RELEASING: _ENDS,
    AllocationState.RELEASED: _FINAL,
    AllocationState.EVICTED: _FINAL,
    AllocationState.EXPIRED: _FINAL,
    AllocationState.LOST: _FINAL,
}


class Allocation(NamedTuple):
    """One instance of a request on one node. `charge` is given back exactly as it was taken. A tuple, because every
    fold makes one per placement (ADR 13).

    Times are milliseconds UTC. `ends_at`: its declared end, beyond which it may run for `overrun_ms` (None: for ever;
    `overran`: it does, and it was said). `late_ms`: so much later than promised it started. `until`: when a releasing
    one ends at the latest, `how` it then ends.
    """

    id: AllocationId
    namespace: Namespace
    request: RequestId
    node: NodeId
    charge: Resources
    state: AllocationState
    labels: Mapping[str, str]
    priority: int
    anti_affinity: tuple[AffinityTerm, ...]
    placed_at: int
    ends_at: int | None
    reservation: ReservationId | None
    sequence: Sequence
    overrun_ms: int | None = 0
    late_ms: int = 0
    overran: bool = False
    until: int | None = None
    how: How | None = None
    reason: ReasonCode | None = None

    @property
    def key(self) -> AllocationKey:
        return (self.namespace, self.id)

    @property
    def request_key(self) -> RequestKey:
        return (self.namespace, self.request)

    @property
    def index(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride] nobody looks for a field by its value
        """Which instance of its request it is; -1 for an imported id that does not say."""
        rest = self.id.removeprefix(f"{self.request}.").partition(".")[0]
        return int(rest) if rest.isdigit() else -1

    @property
    def is_live(self) -> bool:
        """It consumes: placed, or releasing and not stopped yet (R45)."""
        return self.state is AllocationState.PLACED or self.state is AllocationState.RELEASING

    @property
    def gone_by(self) -> int | None:
        """When it is surely gone, reservations aside (milliseconds UTC); None: nothing ends it.

        What is releasing has its time, the rest its declared end and some grace.
        """
        if self.state is AllocationState.RELEASING:
            return self.until
        return None if self.ends_at is None or self.overrun_ms is None else self.ends_at + self.overrun_ms

    @property
    def repels(self) -> bool:
        """Its anti-affinity keeps others away (R31); what is only preferred does not."""
        return any(term.mode is Mode.REQUIRED for term in self.anti_affinity)

    def moved(self, to: AllocationState, **changes: Any) -> "Allocation":
        assert to in LIFECYCLE[self.state], f"I13: {self.state.name} never becomes {to.name} ({self.id})"
        return self._replace(state=to, **changes)


def _describe_node(node: Node) -> Any:
    """How far a drain has come is for people: nothing is judged by it, so it does not stand here."""
    until = node.drain.until if node.drain else None
    return (
        node.capacity.as_mapping(),
        node.reserved.as_mapping(),
        node.labels,
        [str(taint) for taint in node.taints],
        node.state.value,
        node.schedulable,
        node.draining,
        node.changed,
        node.lost_at,
        *node.tainted_at,
        *(() if until is None else (until,)),
    )


def _describe_allocation(allocation: Allocation) -> Any:
    return (
        allocation.request,
        allocation.node,
        allocation.charge.as_mapping(),
        allocation.state,
        allocation.placed_at,
        allocation.ends_at,
        allocation.reservation,
        allocation.until,
        allocation.sequence,
    )


class Cluster:
    """Nodes, allocations, and what follows from them for each node.

    `used` and `on_node` cover live allocations, and those that a scheduler assumes (`occupy`); `repelling`
    those of them that require others to stay away (R31), so that nobody looks for them among all; `ending`
    those that end by themselves.
    """

    def __init__(self, journal: Journal) -> None:
        self.nodes: DigestedTable[NodeId, Node] = DigestedTable(journal, _describe_node)
        self.allocations: DigestedTable[AllocationKey, Allocation] = DigestedTable(journal, _describe_allocation)
        self.used: Table[NodeId, Resources] = Table(journal)
        self.lost: Table[NodeId, None] = Table(journal)
        self.repelling: Table[AllocationKey, Allocation] = Table(journal)
        self.ending: Table[AllocationKey, None] = Table(journal)
        self._on_node: dict[NodeId, CountedTable[AllocationKey, Allocation]] = {}
        self._journal = journal

    @property
    def digest(self) -> int:
        return (self.nodes.digest + self.allocations.digest) % 2**64

    def on_node(self, node: NodeId) -> CountedTable[AllocationKey, Allocation]:
        """What consumes on `node`, assumed allocations included."""
        table = self._on_node.get(node)
        if table is None:
            table = self._on_node[node] = CountedTable(self._journal)
        return table

    def used_on(self, node: NodeId) -> Resources:
        return self.used.get(node, NOTHING)

    def occupy(self, allocation: Allocation) -> None:
        """`allocation` consumes on its node from now on (placed, or assumed by a scheduler)."""
        self._occupy(allocation.key, allocation)

    def _occupy(self, key: AllocationKey, allocation: Allocation) -> None:
        node = allocation.node
        self.used.put(node, self.used.get(node, NOTHING) + allocation.charge)
        self.on_node(node).put(key, allocation)
        if allocation.anti_affinity and allocation.repels:
            self.repelling.put(key, allocation)
        if allocation.gone_by is not None:
            self.ending.put(key, None)

    def vacate(self, allocation: Allocation) -> None:
        """It consumes no longer; exactly its charge comes back."""
        node = allocation.node
        self.used.put(node, self.used[node] - allocation.charge)
        self.on_node(node).drop(allocation.key)
        if allocation.repels:
            self.repelling.drop(allocation.key)
        if allocation.key in self.ending:
            self.ending.drop(allocation.key)

    def add(self, allocation: Allocation) -> None:
        key = allocation.key
        assert key not in self.allocations, f"I8: {allocation.id} is placed twice"
        assert allocation.node in self.nodes, f"I13: {allocation.id} is placed on a node that nobody registered"
        self.allocations.put(key, allocation)
        self._occupy(key, allocation)

    def change(self, allocation: Allocation) -> None:
        """A new state of a known allocation; a final one frees what it consumed."""
        before = self.allocations[allocation.key]
        self.allocations.put(allocation.key, allocation)
        if before.state is AllocationState.PLACED and allocation.reason is ReasonCode.DRAINED:
            self.count_drained(allocation.node, departed=1)
        if before.is_live and not allocation.is_live:
            self.vacate(before)
        elif before.is_live:
            self.on_node(allocation.node).put(allocation.key, allocation)
            if allocation.gone_by is not None:
                self.ending.put(allocation.key, None)

    def count_drained(self, name: NodeId, *, departed: int = 0, moved: int = 0) -> None:
        """The drain of the node has come so much further; a sibling that leaves elsewhere is nobody's progress."""
        node = self.nodes.get(name)
        if node is not None and node.drain is not None:
            drain = node.drain
            drain = replace(drain, departed=drain.departed + departed, moved=drain.moved + moved)
            self.nodes.put(name, replace(node, drain=drain))

    def index(self) -> None:
        """Find what follows from allocations that were restored from a snapshot."""
        for allocation in self.allocations.values():
            if allocation.is_live:
                self.occupy(allocation)

    def recount(self) -> dict[NodeId, Resources]:
        """`used` computed anew from the live allocations (R-rules on leaks: it must equal the running sums)."""
        total: dict[NodeId, Resources] = {}
        for allocation in self.allocations.values():
            if allocation.is_live:
                total[allocation.node] = total.get(allocation.node, NOTHING) + allocation.charge
        return total

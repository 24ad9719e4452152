"""Allocations that consume on a view before the ledger has them: siblings in a search, proposals in flight."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from berth.ids import AllocationId, Attempt, NodeId, RequestKey, Sequence
from berth.messages.events import AllocationPlaced
from berth.messages.requests import Request
from berth.model.cluster import Allocation, AllocationState
from berth.model.feasibility import ends_at
from berth.model.ledger import State, draws_on

AttemptKey = tuple[RequestKey, Attempt]


def provisional(request: Request, name: AllocationId, node: NodeId, *, at: int) -> Allocation:
    """The allocation as the ledger would have it, if it were placed at `at` (milliseconds UTC)."""
    return Allocation(
        id=name,
        namespace=request.namespace,
        request=request.id,
        node=node,
        charge=request.charge,
        state=AllocationState.PLACED,
        labels=request.labels,
        priority=request.priority,
        anti_affinity=request.anti_affinity,
        placed_at=at,
        ends_at=ends_at(request, at),
        reservation=request.reservation,
        sequence=Sequence(0),
    )


def assume(state: State, allocation: Allocation) -> None:
    """`allocation` consumes on its node and draws on its reservation, until the caller's trial is undone."""
    assert state.journal.recording, "what is assumed is taken back exactly"
    state.cluster.occupy(allocation)
    if draws_on(state, allocation) is not None and allocation.reservation is not None:
        state.reservations.draw(allocation.reservation, allocation.node, allocation.charge)


@dataclass(slots=True)
class Assumptions:
    """What proposals in flight would place, laid on a view while decisions are made on it.

    A fold must never see it: lift it before, lay it again before the next decision. What is laid comes off
    exactly, by the view's journal.
    """

    state: State
    _entries: dict[AttemptKey, tuple[Allocation, ...]] = field(
        default_factory=dict["AttemptKey", "tuple[Allocation, ...]"]
    )
    _mark: int | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: AttemptKey) -> bool:
        return key in self._entries

    def add(self, key: AttemptKey, request: Request, placed: Iterable[AllocationPlaced], *, at: int) -> None:
        """From now on `placed` counts as taken, for this attempt."""
        assert key not in self._entries, f"I8: {key} is assumed twice"
        allocations = tuple(provisional(request, one.id, one.node, at=at) for one in placed)
        self._entries[key] = allocations
        if self._mark is not None:
            self._lay(allocations)

    def drop(self, key: AttemptKey) -> bool:
        """It was committed, refused or given up; whether it was assumed at all."""
        if key not in self._entries:
            return False
        self.lift()
        del self._entries[key]
        return True

    def lay(self) -> None:
        """Put everything assumed on the view."""
        if self._mark is None:
            self._mark = self.state.journal.begin()
            for allocations in self._entries.values():
                self._lay(allocations)

    def lift(self) -> None:
        """Take everything assumed off the view."""
        if self._mark is not None:
            self.state.journal.undo(self._mark)
            self._mark = None

    def _lay(self, allocations: tuple[Allocation, ...]) -> None:
        for allocation in allocations:
            present = allocation.node in self.state.cluster.nodes
            if present and allocation.key not in self.state.cluster.on_node(allocation.node):
                assume(self.state, allocation)

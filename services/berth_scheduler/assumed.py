"""Allocations that consume on a view before the ledger has them: siblings in a search, proposals in flight."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from berth.ids import AllocationId, Attempt, NodeId, RequestKey, Sequence
from berth.messages.events import AllocationPlaced, RequestStatus
from berth.messages.requests import Request
from berth.model.charging import draws_on
from berth.model.cluster import Allocation, AllocationState
from berth.model.durations import declared_end, overrun_ms
from berth.model.ledger import State
from berth.model.queue import Promise, RequestState


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
        ends_at=declared_end(request, at),
        overrun_ms=overrun_ms(request),
        reservation=request.reservation,
        sequence=Sequence(0),
    )


def assume(state: State, allocation: Allocation) -> None:
    """`allocation` consumes on its node and draws on its reservation, until the caller's trial is undone."""
    assert state.journal.recording, "what is assumed is taken back exactly"
    state.cluster.occupy(allocation)
    if draws_on(state, allocation) is not None and allocation.reservation is not None:
        state.reservations.draw(allocation.reservation, allocation.node, allocation.charge)


@dataclass(frozen=True, slots=True)
class _Assumed:
    """What one proposal in flight would do for its request at `attempt`."""

    attempt: Attempt
    placed: tuple[Allocation, ...]
    evicted: tuple[Allocation, ...]


@dataclass(slots=True)
class Assumptions:
    """What proposals in flight would place and evict, laid on a view while decisions are made on it.

    A fold must never see it: lift it before, lay it again before the next decision. What is laid comes off
    exactly, by the view's journal. A request is assumed for one attempt at a time.

    `released`: how many have been dropped so far; what only they kept from its place may have it now.
    """

    state: State
    released: int = 0
    _entries: dict[RequestKey, "_Assumed"] = field(default_factory=dict["RequestKey", "_Assumed"])
    _mark: int | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: RequestKey) -> bool:
        return key in self._entries

    def add(
        self,
        request: Request,
        attempt: Attempt,
        placed: Iterable[AllocationPlaced],
        *,
        at: int,
        evicted: Iterable[Allocation] = (),
    ) -> None:
        """From now on `placed` counts as taken for this request, and what is `evicted` for it as gone."""
        assert request.key not in self._entries, f"I8: {request.key} is assumed twice"
        allocations = tuple(provisional(request, one.id, one.node, at=at) for one in placed)
        entry = self._entries[request.key] = _Assumed(attempt, allocations, tuple(evicted))
        if self._mark is not None:
            self._lay(entry)

    def promise(self, request: Request, digest: str, promise: Promise) -> None:
        """From now on, until all is lifted, its room is kept as if the ledger had promised it."""
        assert self._mark is not None, "what is assumed is taken back exactly"
        known = self.state.queue.requests.get(request.key) or RequestState(
            request=request,
            digest=digest,
            status=RequestStatus.QUEUED,
            attempt=Attempt(1),
            order=self.state.sequence,
            submitted_at=self.state.at,
            decided=self.state.sequence,
            decided_at=self.state.at,
        )
        self.state.queue.put(request.key, known._replace(promise=promise))

    def drop(self, key: RequestKey, attempt: Attempt) -> None:
        """It was refused or given up, if that attempt was assumed at all."""
        if key in self._entries and self._entries[key].attempt == attempt:
            self.lift()
            self._forget(key)

    def folded(self, keys: Iterable[RequestKey]) -> None:
        """The ledger decided about these requests: older attempts are no longer assumed."""
        assert self._mark is None, "a fold must not see what is only assumed"
        for key in keys:
            known = self.state.queue.requests.get(key)
            if key in self._entries and (known is None or known.attempt > self._entries[key].attempt):
                self._forget(key)

    def _forget(self, key: RequestKey) -> None:
        del self._entries[key]
        self.released += 1

    def lay(self) -> None:
        """Put everything assumed on the view."""
        if self._mark is None:
            self._mark = self.state.journal.begin()
            for entry in self._entries.values():
                self._lay(entry)

    def lift(self) -> None:
        """Take everything assumed off the view."""
        if self._mark is not None:
            self.state.journal.undo(self._mark)
            self._mark = None

    def _lay(self, entry: "_Assumed") -> None:
        for allocation in entry.evicted:
            if allocation.key in self.state.cluster.on_node(allocation.node):
                self.state.cluster.vacate(allocation)
                if self._is_counted(allocation):
                    self.state.quotas.release(allocation.namespace, allocation.charge)
        for allocation in entry.placed:
            if allocation.node in self.state.cluster.nodes:
                assume(self.state, allocation)
                if self._is_counted(allocation):
                    self.state.quotas.charge(allocation.namespace, allocation.charge)

    def _is_counted(self, allocation: Allocation) -> bool:
        """Whether anything depends on what its namespace uses: two in flight must not take back the same excess."""
        is_limited = allocation.namespace in self.state.quotas.quotas
        return is_limited and draws_on(self.state, allocation) is None

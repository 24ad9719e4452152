"""Requests: where each one stands, at which attempt, and what would wake those that wait."""

from typing import Any, NamedTuple

from berth.ids import AllocationId, Attempt, RequestKey, Sequence
from berth.messages.events import RequestStatus, Wake
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth.model.tables import DigestedTable, Journal, Table

SETTLED = frozenset(
    {
        RequestStatus.RELEASED,
        RequestStatus.EXPIRED,
        RequestStatus.EVICTED,
        RequestStatus.LOST,
        RequestStatus.REJECTED,
    }
)


class RequestState(NamedTuple):
    """Immutable; a tuple rather than a dataclass because a fold makes three of them per placement, five times as fast.

    `attempt` is the one that the next transaction must name; decisions were made for `attempt - 1`.

    `live`: allocations that consume; `allocations`: all there ever were. Times are milliseconds UTC.
    `evaluated_at`: the sequence that the last refusal to place was judged on. `order`: sequence of submission.
    `decided`: sequence of its last change, `victims`: what its placement evicted, for the decision.
    """

    request: Request
    digest: str
    status: RequestStatus
    attempt: Attempt
    order: Sequence
    submitted_at: int
    decided: Sequence
    decided_at: int
    live: tuple[AllocationId, ...] = ()
    allocations: tuple[AllocationId, ...] = ()
    reasons: tuple[Reason, ...] = ()
    wake: tuple[Wake, ...] = ()
    evaluated_at: Sequence = Sequence(0)
    ended: ReasonCode | None = None
    traceparent: str | None = None
    promised_start: int | None = None
    victims: tuple[tuple[str, str, str, str], ...] = ()

    @property
    def key(self) -> RequestKey:
        return self.request.key

    @property
    def is_settled(self) -> bool:
        return self.status in SETTLED


def _describe(state: RequestState) -> Any:
    return (
        state.digest,
        state.status.value,
        state.attempt,
        state.live,
        [reason.as_mapping() for reason in state.reasons],
        [(wake.on.value, wake.name) for wake in state.wake],
        state.evaluated_at,
        state.order,
        state.decided,
        state.promised_start,
    )


class Queue:
    """Every request that is known, and which of them wait."""

    def __init__(self, journal: Journal) -> None:
        self.requests: DigestedTable[RequestKey, RequestState] = DigestedTable(journal, _describe)
        self.waiting: Table[RequestKey, None] = Table(journal)

    @property
    def digest(self) -> int:
        return self.requests.digest

    def put(self, state: RequestState) -> None:
        key = state.key
        self.requests.put(key, state)
        waits = state.status is RequestStatus.QUEUED
        if waits and key not in self.waiting:
            self.waiting.put(key, None)
        elif not waits and key in self.waiting:
            self.waiting.drop(key)

    def forget(self, key: RequestKey) -> None:
        assert self.requests[key].is_settled, f"I8: {key} is forgotten before it is settled"
        self.requests.drop(key)

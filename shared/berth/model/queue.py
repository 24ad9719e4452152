"""Requests: where each one stands, at which attempt, and what would wake those that wait."""

from typing import Any, NamedTuple

from berth.ids import AllocationId, Attempt, NodeId, RequestKey, Sequence
from berth.messages.events import MovedBecause, RequestStatus, Wake
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.stored import RequestField
from berth.model.tables import CountedTable, DigestedTable, Journal, Table

SETTLED = frozenset(
    {
        RequestStatus.RELEASED,
        RequestStatus.EXPIRED,
        RequestStatus.EVICTED,
        RequestStatus.LOST,
        RequestStatus.REJECTED,
    }
)


HISTORY_MAX = 32
"""Promises of one request that are remembered, the newest."""


class Promise(NamedTuple):
    """A start that is promised: instances are kept room for on `nodes` in [start, end) (milliseconds UTC).

    `end` None: without end.
    """

    start: int
    end: int | None
    nodes: tuple[tuple[NodeId, int], ...]


class PromiseMade(NamedTuple):
    """One line of a request's history: what was promised at `at`. `start` None: it was taken back."""

    sequence: Sequence
    at: int
    start: int | None
    cause: MovedBecause | None


class RequestState(NamedTuple):
    """Immutable; a tuple rather than a dataclass because a fold makes three of them per placement, five times as fast.

    `attempt` is the one that the next transaction must name; decisions were made for `attempt - 1`.

    `live`: allocations that consume; `allocations`: all there ever were. Times are milliseconds UTC.
    `evaluated_at`: the sequence that the last refusal to place was judged on. `order`: sequence of submission.
    `decided`: sequence of its last change, `victims`: what its placement evicted, for the decision.
    `promise`: the start that it is promised while it waits; `promised`: every promise there was, oldest first.
    """

    request: RequestField
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
    promise: Promise | None = None
    promised: tuple[PromiseMade, ...] = ()
    victims: tuple[tuple[str, str, str, str], ...] = ()

    @property
    def key(self) -> RequestKey:
        return self.request.key

    def placed(self, names: tuple[AllocationId, ...]) -> "RequestState":
        """With further allocations, and nothing to wait for any more."""
        fields: list[Any] = list(self)  # a third of what `_replace` takes, once for every placement
        fields[_STATUS], fields[_PROMISED] = RequestStatus.PLACED, None
        fields[_LIVE] += names
        fields[_ALLOCATIONS] += names
        fields[_REASONS] = fields[_WAKE] = ()
        return RequestState._make(fields)

    def decided_again(
        self, sequence: Sequence, at: int, victims: tuple[tuple[str, str, str, str], ...]
    ) -> "RequestState":
        """As the transaction of the record at `sequence` leaves it: at the next attempt."""
        fields: list[Any] = list(self)
        fields[_ATTEMPT] += 1
        fields[_DECIDED], fields[_DECIDED_AT], fields[_VICTIMS] = sequence, at, victims
        return RequestState._make(fields)

    @property
    def waiting_since(self) -> int:
        """Of a queued request: when it was submitted, or when what it ran on was taken from it."""
        return self.decided_at if self.allocations else self.submitted_at

    @property
    def promised_start(self) -> int | None:
        """When it starts at the latest, while it waits and that is known (milliseconds UTC)."""
        return None if self.promise is None else self.promise.start

    @property
    def is_settled(self) -> bool:
        return self.status in SETTLED


_ATTEMPT, _DECIDED, _DECIDED_AT, _VICTIMS, _STATUS, _LIVE, _ALLOCATIONS, _REASONS, _WAKE, _PROMISED = map(
    RequestState._fields.index,
    (
        "attempt",
        "decided",
        "decided_at",
        "victims",
        "status",
        "live",
        "allocations",
        "reasons",
        "wake",
        "promise",
    ),
)


def _describe(state: RequestState) -> Any:
    return (
        state.digest,
        state.status,
        state.attempt,
        state.live,
        [reason.as_mapping() for reason in state.reasons] if state.reasons else (),
        [(wake.on, wake.name) for wake in state.wake] if state.wake else (),
        state.evaluated_at,
        state.order,
        state.decided,
        None if state.promise is None else tuple(state.promise),
    )


class Queue:
    """Every request that is known, which of them wait, and which are promised a start, on which nodes.

    `pages`: derived, not state; `berth.model.promises` keeps it and trusts it only while the versions agree.
    """

    def __init__(self, journal: Journal) -> None:
        self.requests: DigestedTable[RequestKey, RequestState] = DigestedTable(journal, _describe)
        self.waiting: Table[RequestKey, None] = Table(journal)
        self.promised: Table[RequestKey, Promise] = Table(journal)
        self.pages: dict[NodeId, Any] = {}
        self._promised_on: dict[NodeId, CountedTable[RequestKey, int]] = {}
        self._journal = journal

    @property
    def digest(self) -> int:
        return self.requests.digest

    def put(self, key: RequestKey, state: RequestState) -> None:
        if self.promised.get(key) is not state.promise:
            self._keep_promise(key, state.promise)
        self.requests.put(key, state)
        waits = state.status is RequestStatus.QUEUED
        if waits and key not in self.waiting:
            self.waiting.put(key, None)
        elif not waits and key in self.waiting:
            self.waiting.drop(key)

    def index(self) -> None:
        """Find what is promised to requests that were restored from a snapshot."""
        for key in self.waiting:
            self._keep_promise(key, self.requests[key].promise)

    def promised_on(self, node: NodeId) -> CountedTable[RequestKey, int]:
        """Which requests are promised room on a node, each with its number of instances there."""
        table = self._promised_on.get(node)
        if table is None:
            table = self._promised_on[node] = CountedTable(self._journal)
        return table

    def promised_nodes(self) -> list[NodeId]:
        """The nodes on which anything is kept for anybody."""
        return [node for node, keys in self._promised_on.items() if keys] if self.promised else []

    def _keep_promise(self, key: RequestKey, promise: Promise | None) -> None:
        """The indexes follow."""
        before = self.promised.get(key)
        if before is not None:
            self.promised.drop(key)
            for node, _ in before.nodes:
                self.promised_on(node).drop(key)
        if promise is not None:
            self.promised.put(key, promise)
            for node, count in promise.nodes:
                self.promised_on(node).put(key, count)

    def forget(self, key: RequestKey) -> None:
        assert self.requests[key].is_settled, f"I8: {key} is forgotten before it is settled"
        self.requests.drop(key)

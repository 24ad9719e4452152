"""Which queued requests are promised a start, and when a promise is kept, improved or moved (R86). Times are
milliseconds UTC.

What must live here: when to look at a promise again, and what to propose about it. What must not: the search for
a start (a scheduler's) and the law (`berth.model.promises`).
"""

import heapq
from collections.abc import Iterator

from berth.ids import NodeId, RequestKey
from berth.messages.commands import StartOffer
from berth.messages.envelope import Record
from berth.messages.events import (
    MovedBecause,
    NodeChanged,
    NodeLeft,
    NodeLost,
    NodeRegistered,
    RequestPlaced,
    RequestStatus,
    StartPromised,
    Wake,
    WakeOn,
)
from berth.messages.requests import Request, RequestPreemption
from berth.model.charging import UNFORESEEN
from berth.model.durations import LATE_MAX_MS
from berth.model.feasibility import admits
from berth.model.ledger import State
from berth.model.promises import broken_by
from berth.model.queue import Promise, RequestState

SOONER_PART = 10
"""A promise is made anew for a start that is sooner by this part of what is left to wait, and by a second."""
SOONER_MS = 1_000
ROOM_WITHIN_MS = 100
"""At its start a promised request waits this long for the room to come free, then it is driven whatever happens."""
TOO_LATE_MS = LATE_MAX_MS + 1
NODE_EVENTS = (NodeRegistered, NodeChanged, NodeLost, NodeLeft)


class Promises:
    """What is promised, by when it is due. `promises_max`: so many at one time, those of lower priority not counted."""

    def __init__(self, state: State, promises_max: int) -> None:
        self._state = state
        self._max = promises_max
        self._starts: list[tuple[int, int, RequestKey]] = []
        self._due: dict[RequestKey, None] = {}

    def load(self) -> None:
        """Everything that is promised, read anew from the state."""
        self._starts = [(promise.start, 0, key) for key, promise in self._state.queue.promised.items()]
        heapq.heapify(self._starts)
        self._due.clear()

    def note(self, known: RequestState) -> None:
        """The ledger decided something about a request."""
        self._due.pop(known.key, None)
        if known.promise is not None:
            heapq.heappush(self._starts, (known.promise.start, 0, known.key))

    def are_wanted(self, request: Request) -> bool:
        """Whether the request, if it has no place, is to be promised a start, or has been."""
        if request.reservation is not None or self._max == 0:
            return False
        known, promised = self._state.queue.requests.get(request.key), self._state.queue.promised
        if known is not None and known.status is not RequestStatus.QUEUED:
            return False
        if request.key in promised or len(promised) < self._max:
            return True
        return sum(self._priority(key) >= request.priority for key in promised) < self._max

    def _priority(self, key: RequestKey) -> int:
        return self._state.queue.requests[key].request.priority

    # --- when to look again -----------------------------------------------------------------------------

    def come_due(self, now_ms: int) -> list[RequestKey]:
        """Whose start has come and is not late for room that comes free now: that wakes it (`overdue`)."""
        found: list[RequestKey] = []
        while self._starts and self._starts[0][0] <= now_ms:
            due, waited, key = heapq.heappop(self._starts)
            promise = self._state.queue.promised.get(key)
            if promise is None or promise.start != due - waited:
                continue
            self._due[key] = None
            if waited or self._has_room(key, promise):
                found.append(key)
            again = ROOM_WITHIN_MS if not waited else TOO_LATE_MS
            if waited < TOO_LATE_MS:
                heapq.heappush(self._starts, (promise.start + again, again, key))
        return found

    def _has_room(self, key: RequestKey, promise: Promise) -> bool:
        """Whether what it is promised is free already, so that nothing else will wake it."""
        charge, cluster = self._state.queue.requests[key].request.charge, self._state.cluster
        return all(
            node in cluster.nodes
            and charge.times(count).fits_in(cluster.nodes[node].allocatable.minus(cluster.used_on(node)))
            for node, count in promise.nodes
        )

    def deadline(self) -> int | None:
        return self._starts[0][0] if self._starts else None

    def overdue(self) -> list[RequestKey]:
        """Whose start has come and who has no place yet."""
        return list(self._due)

    def broken(self, record: Record, now_ms: int) -> list[RequestKey]:
        """Whose promise holds no longer since a record that was just folded."""
        found: dict[RequestKey, None] = {}
        for node, above in _touched(record, self._state):
            for key in self._state.queue.promised_on(node):
                if above is None or self._priority(key) < above:
                    found[key] = None
        return [key for key in found if self._is_broken(key, now_ms)]

    def _is_broken(self, key: RequestKey, now_ms: int) -> bool:
        known = self._state.queue.requests[key]
        return broken_by(self._state, known, max(now_ms, self._state.at), takes=admits) is not None


def _touched(record: Record, state: State) -> Iterator[tuple[NodeId, int | None]]:
    """Nodes on which promises may be broken now, and below which priority; None: all."""
    for transaction in record.transactions:
        for event in transaction:
            data = event.data
            if isinstance(data, NODE_EVENTS):
                yield data.node, None
            elif isinstance(data, RequestPlaced | StartPromised):
                known = state.queue.requests.get(event.key) if event.key else None
                nodes = data.allocations if isinstance(data, RequestPlaced) else data.nodes
                for one in nodes if known is not None else ():
                    yield one.node, known.request.priority if known else None


# --- what to propose ----------------------------------------------------------------------------------------


def renewed(state: State, key: RequestKey, offer: StartOffer | None, now_ms: int) -> StartPromised | None:
    """What to write about a request that has no place, when a scheduler sees `offer` for it; None: nothing.

    A promise that holds is only ever made sooner; one that does not is moved or taken back, and says why.
    """
    at = max(now_ms, state.at)
    if offer is not None and offer.start < at:
        offer = None
    known = state.queue.requests.get(key)
    before = known.promise if known is not None else None
    if known is None or before is None:
        return None if offer is None else StartPromised(start=offer.start, nodes=offer.nodes)
    cause = broken_by(state, known, at, takes=admits)
    if cause is None:
        sooner = offer is not None and offer.start + max(SOONER_MS, (before.start - at) // SOONER_PART) <= before.start
        return StartPromised(start=offer.start, nodes=offer.nodes) if offer is not None and sooner else None
    if offer is None or cause is MovedBecause.LIMIT_CHANGED:
        return StartPromised(cause=cause)
    is_later = offer.start > before.start
    return StartPromised(start=offer.start, nodes=offer.nodes, cause=cause if is_later else None)


def wake_of(request: Request, wake: tuple[Wake, ...], *, is_promised: bool) -> tuple[Wake, ...]:
    """What wakes it: room that comes free when it was expected to is in the promise already.

    Who may evict others may start sooner than any gap: whatever comes free may be what it still lacked.
    """
    if not is_promised or request.preemption is not RequestPreemption.NEVER:
        return wake
    plain, unforeseen = Wake(on=WakeOn.CAPACITY), Wake(on=WakeOn.CAPACITY, name=UNFORESEEN)
    return tuple(unforeseen if one == plain else one for one in wake)

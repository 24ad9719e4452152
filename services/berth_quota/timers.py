"""What becomes due with time: ends of grace, queue deadlines, forgetting. Times are milliseconds UTC.

A timer only says when to look; whether there is anything to do is read from the state then.
"""

import heapq
from enum import StrEnum

from berth.ids import Namespace, RequestId, RequestKey
from berth.messages.events import RequestStatus
from berth.model.ledger import State
from berth.model.queue import RequestState
from berth.model.victims import spared_until
from berth_quota.bounds import Bounds
from berth_quota.tasks import EndGrace, Forget, PassDeadline, Timed
from berth_quota.transactions import graces


class Due(StrEnum):
    GRACE = "grace"
    DEADLINE = "deadline"
    FORGET = "forget"
    RECLAIM = "reclaim"
    """What others run has been spared for long enough (R65): who waits below its share looks again."""


class Timers:
    """The times at which something may be due, soonest first."""

    def __init__(self, state: State, bounds: Bounds) -> None:
        self._state = state
        self._bounds = bounds
        self._heap: list[tuple[int, Due, RequestKey]] = []
        self._deadlines: dict[RequestKey, int] = {}
        self._looks: dict[RequestKey, int] = {}

    def load(self) -> None:
        """All timers, read anew from the state."""
        self._heap.clear()
        self._deadlines.clear()
        self._looks.clear()
        for known in self._state.queue.requests.values():
            self.note(known, leaves=bool(known.live))

    def note(self, known: RequestState, *, leaves: bool) -> None:
        """The ledger decided something about a request; `leaves`: some of its allocations may be releasing."""
        key = known.key
        if known.is_settled:
            self._deadlines.pop(key, None)
            self._push(known.decided_at + self._bounds.retention_ms, Due.FORGET, key)
            return
        grace = graces(self._state, known.live, known.request.namespace) if leaves else None
        if grace is not None:
            self._push(grace, Due.GRACE, key)
        self._look_later(known, self._state.at)
        seconds = known.request.queue_deadline_seconds
        if known.status is not RequestStatus.QUEUED or seconds is None:
            self._deadlines.pop(key, None)
        elif key not in self._deadlines:
            began = known.decided_at if known.allocations else known.submitted_at
            self._deadlines[key] = began + seconds * 1000
            self._push(self._deadlines[key], Due.DEADLINE, key)

    def _look_later(self, known: RequestState, at: int) -> None:
        """When it waits below its share: when the next of what others run may be taken back."""
        waits = known.status is RequestStatus.QUEUED
        due = spared_until(self._state, known.request, at) if waits else None
        if due is None:
            self._looks.pop(known.key, None)
        elif self._looks.get(known.key) != due:
            self._looks[known.key] = due
            self._push(due, Due.RECLAIM, known.key)

    def looking(self, now_ms: int) -> list[RequestKey]:
        """Who may find victims now although nothing changed; each is told again when there is more to find."""
        keys = [key for key, due in self._looks.items() if due <= now_ms]
        for key in keys:
            known = self._state.queue.requests.get(key)
            if known is None:
                del self._looks[key]
            else:
                self._look_later(known, now_ms)
        return keys

    def _push(self, due: int, what: Due, key: RequestKey) -> None:
        heapq.heappush(self._heap, (due, what, key))

    def deadline(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    def due(self, now_ms: int) -> list[Timed]:
        """What to bring about now; each timer is told once."""
        tasks: list[Timed] = []
        forgotten: dict[Namespace, list[RequestId]] = {}
        while self._heap and self._heap[0][0] <= now_ms:
            due, what, key = heapq.heappop(self._heap)
            known = self._state.queue.requests.get(key)
            if known is None:
                continue
            match what:
                case Due.GRACE:
                    tasks.append(EndGrace(key=key, instances=len(known.live)))
                    later = graces(self._state, known.live, known.request.namespace, after=due)
                    if later is not None:
                        self._push(later, Due.GRACE, key)
                case Due.DEADLINE:
                    if self._deadlines.get(key) == due:
                        tasks.append(PassDeadline(key=key))
                case Due.RECLAIM:
                    pass  # `looking` says who
                case Due.FORGET:
                    forgotten.setdefault(key[0], []).append(key[1])
        many = self._bounds.forgotten_max
        tasks += [
            Forget(namespace=namespace, requests=tuple(requests[start : start + many]))
            for namespace, requests in forgotten.items()
            for start in range(0, len(requests), many)
        ]
        return tasks

    def is_late(self, now_ms: int) -> bool:
        """Whether something was due `nudge_ms` ago and nobody did it; what is done meanwhile is dropped."""
        late = self.due(now_ms - self._bounds.nudge_ms)
        return any(task.transaction(self._state, now_ms) is not None for task in late)

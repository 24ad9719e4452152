"""Now and then somebody is driven whom nothing woke: whoever is placed then should have been woken, which is a defect.

What must live here: who is tried, and whether that was a find. What must not: order, drives. Times are milliseconds
UTC.
"""

from collections.abc import Callable, Sequence
from itertools import islice

from berth.ids import RequestKey
from berth_quota.bounds import Bounds
from berth_quota.lanes import Lane, Waiting


class Sweep:
    """`is_due`: whether something that a request waits for changed since it was judged.

    `missed`: how many were placed although nothing had woken them, since this process began (0, or there is a bug).
    """

    def __init__(self, bounds: Bounds, is_due: Callable[[Waiting], bool]) -> None:
        self._bounds = bounds
        self._is_due = is_due
        self._tried: dict[RequestKey, Waiting] = {}
        self._found: list[RequestKey] = []
        self._next_ms: int | None = None
        self._place = 0
        self.missed = 0

    def lanes(self, lanes: Sequence[Lane], now_ms: int) -> list[Lane]:
        """Of which lanes the first is to be tried now: a few at a time, one after the other, all of them in turn."""
        if self._next_ms is None:
            self._next_ms = now_ms + self._bounds.sweep_ms
        if now_ms < self._next_ms or not lanes:
            return []
        self._next_ms = now_ms + self._bounds.sweep_ms
        first = self._place % len(lanes)
        chosen = list(islice((*lanes[first:], *lanes[:first]), self._bounds.swept_max))
        self._place = first + len(chosen)
        return [lane for lane in chosen if lane.queued and not lane.is_driven]

    def deadline(self) -> int | None:
        return self._next_ms

    def sent(self, lane: Lane, waiting: Waiting) -> None:
        """It is being evaluated; it counts where nothing else would have brought that about."""
        if lane.is_swept and not waiting.is_new and not self._is_due(waiting):
            self._tried[waiting.key] = waiting

    def failed(self, key: RequestKey) -> None:
        """It waits with reason."""
        self._tried.pop(key, None)

    def placed(self, key: RequestKey) -> None:
        """Called before the same record's changes are told to `news`."""
        if self._tried.pop(key, None) is not None:
            self.missed += 1
            self._found.append(key)

    def news(self) -> None:
        """The state moved on: who is due now would have been driven anyway."""
        for key in [key for key, waiting in self._tried.items() if self._is_due(waiting)]:
            del self._tried[key]

    def take_found(self) -> list[RequestKey]:
        found, self._found = self._found, []
        return found

    def clear(self) -> None:
        """This process is not the active one any more."""
        self._tried.clear()
        self._next_ms = None

"""One evaluation at a time. Pure; times are milliseconds UTC.

Schedulers that place on one view choose the same nodes: of two evaluations under way together, much of the
second loses its race at the leader, is placed and judged again, and waits for a retry (measured at load: two
refusals for three placements). So the next one leaves when the last is answered, with everything that arrived
meanwhile, and names the record that holds the outcome. A scheduler that stays
silent holds up the others for a few turns' time at most.
"""

from collections.abc import Callable, Iterable

from berth_quota.bounds import Bounds
from berth_quota.inflight import Sent

TURNS_MAX = 4
"""So many times as long as the last turn took, the next is waited for."""


class Turns:
    """The turn under way. `is_awaited`: whether an entry is still without an answer."""

    def __init__(self, bounds: Bounds, is_awaited: Callable[[Sent], bool]) -> None:
        self._bounds = bounds
        self._is_awaited = is_awaited
        self._open: list[Sent] = []
        self._began = 0
        self._patience = bounds.turn_ms

    def begin(self, entries: Iterable[Sent], now_ms: int) -> None:
        """These are sent together now."""
        self._open = list(entries)
        self._began = now_ms

    def is_open(self, now_ms: int) -> bool:
        """Whether answers are outstanding, and worth waiting for."""
        if not self._open:
            return False
        while self._open and not self._is_awaited(self._open[-1]):
            self._open.pop()
        took = now_ms - self._began
        if self._open and took < self._patience:
            return True
        self._open.clear()
        self._patience = min(max(self._bounds.turn_ms, TURNS_MAX * took), self._bounds.evaluation_ms // 2)
        return False

    def deadline(self) -> int | None:
        """When the next may begin although this one is not answered."""
        return self._began + self._patience if self._open else None

    def clear(self) -> None:
        """This process is not the active one any more."""
        self._open.clear()

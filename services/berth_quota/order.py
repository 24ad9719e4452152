"""The lanes in the order of their first: a heap in which places that became better are found again.

A place only becomes worse while requests are admitted, and is looked at again when its turn comes. What makes it
better, something that was given back or a failure, is told to `renew` by what limits it.
"""

import heapq
from collections.abc import Callable

from berth.model.ordering import Rank
from berth_quota.lanes import Lane

Scope = Callable[[Lane], str | None]
"""What limits a lane, with whom it shares it; None when nothing does, and then its place never changes."""


class Order:
    """Every lane stands in it at most once (`is_listed`)."""

    def __init__(self, scope_of: Scope, rank_of: Callable[[Lane], Rank | None]) -> None:
        self._scope_of = scope_of
        self._rank_of = rank_of
        self._heap: list[tuple[Rank, int, Lane]] = []
        self._serial = 0
        self._better: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, place: Rank, lane: Lane) -> None:
        lane.is_listed = True
        self._serial += 1
        heapq.heappush(self._heap, (place, self._serial, lane))

    def pop(self) -> Lane:
        _, _, lane = heapq.heappop(self._heap)
        lane.is_listed = False
        return lane

    def is_first(self, place: Rank) -> bool:
        """Whether nobody who is listed comes before `place`."""
        return not self._heap or place <= self._heap[0][0]

    def better(self, scope: str | None) -> None:
        """Who shares `scope` may come before others now."""
        if scope is not None and self._heap:
            self._better[scope] = None

    def renew(self, *, everybody: bool) -> None:
        """Look again at the places that may be better. It costs in proportion to the lanes that are listed."""
        if not (self._better or everybody):
            return
        for index, (_, serial, lane) in enumerate(self._heap):
            scope = self._scope_of(lane)
            if scope is not None and (everybody or scope in self._better):
                place = self._rank_of(lane)
                if place is not None:
                    self._heap[index] = (place, serial, lane)
        heapq.heapify(self._heap)
        self._better.clear()

    def clear(self) -> None:
        self._heap.clear()
        self._better.clear()

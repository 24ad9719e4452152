"""When to look at what again: one time per key, the earliest first, without looking at all the others."""

from collections.abc import Iterator
from enum import IntEnum
from heapq import heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K")


class Phase(IntEnum):
    """Of what is due at the same millisecond, what makes room comes first."""

    DURATION = 0
    END = 1
    START = 2


class Timers(Generic[K]):
    """Times are milliseconds UTC. A key that is set again has only its newer time."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, Phase, int, K]] = []
        self._newest: dict[K, int] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._newest)

    def set(self, key: K, due: int, phase: Phase) -> None:
        self._number += 1
        self._newest[key] = self._number
        heappush(self._heap, (due, phase, self._number, key))
        if len(self._heap) > 2 * len(self._newest) + 64:
            self._heap = [entry for entry in self._heap if self._is_newest(entry)]
            self._heap.sort()

    def drop(self, key: K) -> None:
        """Forget the key, if it is there."""
        self._newest.pop(key, None)

    def next(self) -> int | None:
        """The earliest time of all, or None."""
        while self._heap and not self._is_newest(self._heap[0]):
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: int) -> Iterator[K]:
        """Take out one key after the other that is due by `now`, earliest first, as long as the caller wants more."""
        while (due := self.next()) is not None and due <= now:
            _, _, _, key = heappop(self._heap)
            del self._newest[key]
            yield key

    def _is_newest(self, entry: tuple[int, Phase, int, K]) -> bool:
        return self._newest.get(entry[3]) == entry[2]

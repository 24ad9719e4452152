"""Time that jumps: an event loop on which ten seconds of waiting take none, and the clocks that belong to it.

Same program, same seed, same order of events: nothing here looks at a real clock. Threads and sockets have
no place on this loop.
"""

import asyncio
import selectors
from typing import Any

_ORIGIN_MS = 1_700_000_000_000
_STEP_SECONDS = 0.001
_ROUNDS_MAX = 50_000
"""More rounds of the loop than this within one step are no simulation any more."""


class Deadlock(RuntimeError):
    """Every task waits and no timer is set: nothing would ever happen again."""


class Livelock(RuntimeError):
    """Tasks keep each other busy and time stands still: nothing else would ever happen."""


class _JumpingSelector(selectors.SelectSelector):
    """Instead of waiting for `timeout` seconds, moves the loop's time on by them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._step = 0.0
        self._rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._count()
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise Deadlock("every task waits and no timer is set")
        self.now += max(0.0, timeout)
        return []

    def _count(self) -> None:
        self._rounds += 1
        if self.now >= self._step + _STEP_SECONDS:
            self._step, self._rounds = self.now, 0
        elif self._rounds > _ROUNDS_MAX:
            self._rounds = 0
            raise Livelock(f"{_ROUNDS_MAX} rounds of the loop, and it is still {self.now:.3f} s")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time moves only when nothing is left to do now. It starts at 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class SimulatedClock:
    """The Clock port on the running loop's time. `skew_ms`: how far this machine's wall clock is off."""

    def __init__(self, *, skew_ms: int = 0) -> None:
        self.skew_ms = skew_ms

    def now_ms(self) -> int:
        return _ORIGIN_MS + self.skew_ms + self.monotonic_us() // 1_000

    def monotonic_us(self) -> int:
        return round(asyncio.get_running_loop().time() * 1_000_000)


def run(story: Any) -> Any:
    """`asyncio.run` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(story)

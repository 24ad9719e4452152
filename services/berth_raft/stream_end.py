"""Where the stream ends, and with that answer whether the server's clock is ours.

While it leads, domain time is a node's own clock: it must be near the server's (DESIGN section 2, "Time").
"""

from berth.ids import Sequence
from berth.ports import Clock, Ledger

CLOCK_DIFFERS_MS = 500


class StreamEnd:
    """`clock_agrees`: as of the last answer."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self.clock_agrees = True
        self._ledger = ledger
        self._clock = clock

    async def last_sequence(self) -> Sequence:
        """Raises:
        Unreachable: the stream did not answer.
        """
        last = await self._ledger.last_sequence()
        server_ms = self._ledger.server_ms
        self.clock_agrees = server_ms is None or abs(server_ms - self._clock.now_ms()) <= CLOCK_DIFFERS_MS
        return last

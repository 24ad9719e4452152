"""The machine's clocks behind the Clock port."""

import time


class SystemClock:
    """Wall time for stamps and deadlines, monotonic time for intervals (RAFT section 3: elections use the latter)."""

    def now_ms(self) -> int:
        """Milliseconds UTC; may step when the machine's clock is set."""
        return time.time_ns() // 1_000_000

    def monotonic_us(self) -> int:
        """Microseconds that never go back; the origin means nothing."""
        return time.monotonic_ns() // 1_000

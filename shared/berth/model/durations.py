"""How long work runs: what it declares, and when it is surely gone. Times are milliseconds UTC."""

from berth.messages.overrun import Overrun
from berth.messages.requests import Request

SECOND_MS = 1000
LATE_MAX_MS = 60_000
"""So late a promised start may be and is still kept as it was planned: what comes next is as late, not in the way."""


def lateness(start: int | None, at: int) -> int:
    """How late a start promised for `start` is at `at`; 0 where none was promised, it is sooner, or far too late."""
    late = 0 if start is None else at - start
    return late if 0 < late <= LATE_MAX_MS else 0


def declared_end(request: Request, at: int) -> int | None:
    """When an instance placed at `at` has run as long as it declares; None: it declares nothing."""
    return None if request.duration_seconds is None else at + request.duration_seconds * SECOND_MS


def overrun_ms(request: Request) -> int | None:
    """How long it may run beyond its declared end; None: as long as it likes, somebody is warned."""
    return None if request.overrun is Overrun.WARN else request.overrun_grace_seconds * SECOND_MS


def ends_at(request: Request, at: int) -> int | None:
    """When an instance placed at `at` is surely gone; None: nothing ends it, so it counts as endless (R87)."""
    end, more = declared_end(request, at), overrun_ms(request)
    return None if end is None or more is None else end + more

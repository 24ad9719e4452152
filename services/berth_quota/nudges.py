"""When a passive quota service says that somebody should be active: an empty message on `berth.v1.request._`.

Whoever receives it holds the pin and drives. At most one in two seconds; those of several services about
the same record are one for the stream, because they have one id. Times are milliseconds UTC.
"""

from berth import subjects
from berth.effects import Publish
from berth.ids import Sequence
from berth_quota.bounds import Bounds


class Nudges:
    """`boot` tells this start of the process from others: what no record asked for is asked for by each of them."""

    def __init__(self, bounds: Bounds, boot: str) -> None:
        self._every_ms = bounds.nudge_ms
        self._boot = boot
        self._wanted: str | None = None
        self._last_ms = 0
        self._number = 0

    def want(self, sequence: Sequence) -> None:
        """The record at `sequence` gives a queued request reason to be driven."""
        self._wanted = f"nudge-{sequence}"

    def want_once(self) -> None:
        """Something waits since before this process began, or is due and nobody does it."""
        self._number += 1
        self._wanted = f"nudge-{self._boot}-{self._number}"

    def due(self, now_ms: int) -> list[Publish]:
        if self._wanted is None or now_ms < self._last_ms + self._every_ms:
            return []
        name, self._wanted = self._wanted, None
        self._last_ms = now_ms
        tokens = {"namespace": subjects.CLUSTER}
        return [Publish(subject=subjects.REQUEST, body=None, tokens=tokens, message_id=name)]

    def deadline(self) -> int | None:
        return self._last_ms + self._every_ms if self._wanted is not None else None

    def forget(self) -> None:
        """This process is the active one now."""
        self._wanted = None

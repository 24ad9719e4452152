"""The work queue's messages that are held: each is acknowledged when everything in it has an outcome."""

from collections.abc import Iterable
from dataclasses import dataclass

from berth import subjects
from berth.effects import Acknowledge, Delivery, InProgress
from berth.ids import RequestKey

RELEASE = "release"
COMES_AGAIN_WITHIN_MS = (2 * subjects.ACK_WAIT_SECONDS + 5) * 1000
"""What another process was handed and did not acknowledge comes again within this: that process may still have said,
until it heard that it lost the pin, that it works on it.
"""
Matter = tuple[RequestKey, str]
"""Something in a message that needs an outcome: a request with the digest of its body, or its release."""


@dataclass(slots=True, eq=False)
class _Held:
    delivery: Delivery
    open: dict[Matter, None]


class Deliveries:
    """By their place in the stream; a message that is delivered again is the same one with a newer handle."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._holders: dict[Matter, dict[int, None]] = {}
        self._told_at = 0
        self._seen = 0
        self.complete_at = 0

    def __len__(self) -> int:
        return len(self._held)

    def arrived(self, delivery: Delivery, now_ms: int) -> None:
        """The work queue is handed over in order; what is skipped was acknowledged, or may still come again.

        From `complete_at` on, everything that was stored before what arrived has arrived too.
        """
        place = delivery.stream_sequence
        if place > self._seen + 1:
            self.complete_at = now_ms + COMES_AGAIN_WITHIN_MS
        self._seen = max(self._seen, place)

    def hold(self, delivery: Delivery, matters: Iterable[Matter], now_ms: int) -> None:
        """Held until each of `matters` is settled. Not called for a message in which nothing is open."""
        if not self._held:
            self._told_at = now_ms
        place = delivery.stream_sequence
        held = self._held.get(place)
        if held is None:
            held = self._held[place] = _Held(delivery, {})
        held.delivery = delivery
        for matter in matters:
            held.open[matter] = None
            self._holders.setdefault(matter, {})[place] = None
        assert held.open, "a message in which nothing is open is acknowledged, not held"

    def is_wanted(self, matter: Matter) -> bool:
        return matter in self._holders

    def settle(self, matter: Matter) -> list[Acknowledge]:
        """It has an outcome; the messages in which it was the last one."""
        done: list[Acknowledge] = []
        for place in self._holders.pop(matter, ()):
            held = self._held[place]
            del held.open[matter]
            if not held.open:
                del self._held[place]
                done.append(Acknowledge(delivery=held.delivery))
        return done

    def in_progress(self, now_ms: int, every_ms: int) -> list[InProgress]:
        """Now and then, for every message that is held."""
        if not self._held or now_ms < self._told_at + every_ms:
            return []
        self._told_at = now_ms
        return [InProgress(delivery=held.delivery) for held in self._held.values()]

    def deadline(self, every_ms: int) -> int | None:
        return self._told_at + every_ms if self._held else None

    def clear(self) -> None:
        """They will be delivered again, to whoever is active then."""
        self._held.clear()
        self._holders.clear()
        self._seen = 0

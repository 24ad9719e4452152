"""What goes wrong in a world: drawn from its seed, each kind on or off as a whole (swarm testing)."""

from dataclasses import dataclass, fields
from random import Random


@dataclass(slots=True, kw_only=True)
class Faults:
    """Rates are per message or per sync; times are microseconds."""

    lost: float = 0.0
    twice: float = 0.0
    delay_us: tuple[int, int] = (200, 2_000)
    late: float = 0.0
    late_us: int = 150_000
    sync_us: tuple[int, int] = (500, 4_000)
    syncs_that_fail: float = 0.0
    crash_after_vote: float = 0.0
    tick_late_us: int = 1_000
    clock_drift: float = 0.0

    def stop(self) -> None:
        """As on a good day, from now on. Clocks keep their drift."""
        calm = Faults()
        for field in fields(self):
            if field.name != "clock_drift":
                setattr(self, field.name, getattr(calm, field.name))


def drawn_faults(random: Random) -> Faults:
    """Some kinds of faults, each at a rate of its own."""

    def maybe(highest: float) -> float:
        return random.choice([0.0, 0.0, random.uniform(0, highest)])

    return Faults(
        lost=maybe(0.3),
        twice=maybe(0.3),
        delay_us=(200, random.choice([2_000, 10_000, 60_000])),
        late=maybe(0.15),
        late_us=random.choice([150_000, 1_000_000]),
        sync_us=(500, random.choice([4_000, 40_000, 250_000])),
        syncs_that_fail=maybe(0.3),
        crash_after_vote=random.choice([0.0, 0.05, 0.3]),
        tick_late_us=random.choice([1_000, 20_000, 90_000]),
        clock_drift=maybe(0.02),
    )

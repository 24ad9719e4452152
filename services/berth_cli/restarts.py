"""How long a process that ended waits before it is started again. Pure."""

from dataclasses import dataclass, field

HEALTHY_MS = 1_000
"""A process that lived so long was not ended by its own start: it comes back at once."""
FIRST_MS = 50
LONGEST_MS = 5_000
HOPELESS = 6
"""Short lives in a row, while the cluster starts, after which it is given up."""

BAD_SETTINGS = 2
"""The exit code of a process whose settings cannot be: starting it again changes nothing."""


@dataclass(slots=True, kw_only=True)
class Lives:
    """What became of the processes of one name: how often it was started again, and the short lives in a row."""

    restarts: int = 0
    short: int = field(default=0)

    def ended(self, *, lived_ms: int) -> int:
        """Milliseconds to wait now; doubles with each short life, from 50 to 5,000."""
        self.restarts += 1
        if lived_ms >= HEALTHY_MS:
            self.short = 0
            return 0
        self.short += 1
        return min(LONGEST_MS, FIRST_MS * 2 ** (self.short - 1))

    @property
    def is_hopeless(self) -> bool:
        return self.short >= HOPELESS

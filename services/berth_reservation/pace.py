"""How patient the service is: milliseconds and counts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Defaults are what we run ourselves; `settings` lets an operator change what may be changed."""

    answer_ms: int = 2_000
    """A proposal that is not answered is made again after this."""
    command_ms: int = 8_000
    """A command whose fate is not known by then is answered so; clients wait 10 s."""
    retry_min_ms: int = 50
    retry_max_ms: int = 2_000
    refill_ms: int = 500
    """How often at most those that hold less than they ask for are looked at because room may have come."""
    tries_max: int = 6
    """A command that the leader refused so often is answered with its refusal."""
    transactions_max: int = 128
    """Looked at in one go, offered in one proposal."""
    offers_max: int = 4
    """Proposals of what is due on their way at a time."""
    commands_max: int = 1_000
    """More of them wait for their answer: `overloaded`."""

    def after(self, tries: int) -> int:
        """How long to wait after so many refusals: doubling, bounded."""
        return min(self.retry_max_ms, self.retry_min_ms << min(tries, 16))


USUAL = Pace()

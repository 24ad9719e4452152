"""How long a scheduler waits for others, and how much it lets wait."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Defaults are what we run ourselves. Times are milliseconds."""

    waiting_max: int = 4_096
    """Requests under evaluation at once; beyond it an evaluation is answered `unavailable` at once."""
    conflicts_max: int = 3
    """Races that one evaluation may lose before it goes back as `contended`."""
    retry_ms: int = 25
    """After a lost race, for the record that won it to arrive; and before a leader is looked for again."""
    behind_ms: int = 500
    """For the record because of which something is evaluated, if this view is behind it; then it is judged as it is."""
    answer_ms: int = 200
    """Without an answer for so long, the same proposal is sent again, under the same id."""
    give_up_ms: int = 5_000
    """Without an outcome for so long, an evaluation is answered `unavailable` and a command `unknown`."""
    sweep_ms: int = 500
    """Between two looks at who is silent, what has outlived its toleration, and what is still to be drained."""


USUAL = Limits()

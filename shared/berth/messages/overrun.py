"""What a request says about running longer than it declares."""

from enum import StrEnum


class Overrun(StrEnum):
    """What becomes of work that runs longer than it declares."""

    EVICT = "evict"
    """It is ended, after `overrun_grace_seconds`."""
    WARN = "warn"
    """It runs on, and an event says so. Nobody can count on its end: it counts as endless."""

"""Waiting for a condition outside the test's own event loop: files, processes, other programs."""

import time
from collections.abc import Callable

LONG_SECONDS = 30.0
"""Ends a test that would wait for ever; says nothing about how quick something is."""


def until(condition: Callable[[], object], *, seconds: float = LONG_SECONDS) -> None:
    """Return as soon as `condition` holds; in a test's event loop, run it in a thread.

    Raises:
        TimeoutError: it did not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain")
        time.sleep(0.01)

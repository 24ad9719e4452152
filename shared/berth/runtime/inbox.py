"""What waits to be handled: bounded in number and bytes, emptied whole.

Everything that waits is taken together: under load many messages share one turn, one evaluation, one
append, without a timer (PERFORMANCE section 1: natural batching).
"""

from collections import deque
from dataclasses import dataclass

from berth.effects import Delivery
from berth.ports import Envelope
from berth.subjects import Subject

TURN_MAX = 2_048
"""Messages of one turn, so that records and signals are seen in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A message as it came. `token`: for answers, that of the question asked on `subject`.

    `at_ns`: when it came, nanoseconds UTC.
    """

    subject: Subject
    envelope: Envelope
    at_ns: int
    token: str | None = None
    delivery: Delivery | None = None


class Inbox:
    """First in, first out. Answers may take as much room again: their number is bounded by our own questions."""

    def __init__(self, *, messages_max: int, bytes_max: int) -> None:
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._waiting: deque[Incoming] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_half_full(self) -> bool:
        """Whether to stop pulling from streams: what stays there is safe, and others may take it."""
        return len(self._waiting) * 2 >= self._messages_max or self._bytes * 2 >= self._bytes_max

    def put(self, incoming: Incoming) -> bool:
        """Take it, or False when there is no room."""
        allowance = 2 if incoming.token is not None else 1
        if len(self._waiting) >= self._messages_max * allowance or self._bytes >= self._bytes_max * allowance:
            return False
        self._bytes += len(incoming.envelope.payload)
        self._waiting.append(incoming)
        return True

    def take(self) -> list[Incoming]:
        """Everything that waits, at most TURN_MAX."""
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), TURN_MAX))]
        self._bytes -= sum(len(incoming.envelope.payload) for incoming in taken)
        return taken

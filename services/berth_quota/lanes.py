"""One lane for each shape of request: who of it waits, in which order they are evaluated.

A shape is a request without its id, so what holds for the first of a lane holds for all of it: one rank,
one headroom, one reason to wait. A *drive* takes the queued of a lane in order of age, a few at a time, and
stops after so many failures in a row. New arrivals come after the queued that are being driven: nothing
overtakes.
"""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from berth.ids import Attempt, Namespace, RequestKey, Sequence
from berth.messages.events import Wake
from berth.messages.requests import Request
from berth.model.ordering import Age

FIRST: Age = (-1, 0)
"""Before every queued request."""


@dataclass(slots=True, eq=False, kw_only=True)
class Waiting:
    """One request that waits. `is_new`: the ledger does not know it yet. `size`: bytes of its body.

    `judged_at`: the newest sequence at which it was found to have no place. `is_gone`: decided meanwhile.
    `is_repair`: it runs, and something of it was lost or evicted.
    `alone`: to be evaluated in a message of its own. `failed`: how often in a row schedulers failed on it.
    """

    key: RequestKey
    request: Request
    digest: str
    attempt: Attempt
    age: Age
    size: int
    is_new: bool
    traceparent: str | None
    wake: tuple[Wake, ...] = ()
    judged_at: Sequence = Sequence(0)
    in_flight: bool = False
    is_gone: bool = False
    is_repair: bool = False
    alone: bool = False
    failed: int = 0


@dataclass(slots=True, eq=False)
class Lane:
    """All that wait with one shape. `cursor`: the last queued one that was driven; None when none are.

    `returned` go first: they were on their way and came back. `out`: how many of the drive are in flight.
    `stop_after`: failures in a row that end the drive; None drives everybody once. `due_only`: only whom something
    woke. `is_swept`: nobody has reason to be driven; it is driven to find out whether that is so.
    `again`: something changed during the drive, so one more follows. `is_listed`: it stands in the order.
    """

    shape: bytes
    namespace: Namespace
    queued: dict[Age, Waiting] = field(default_factory=dict["Age", Waiting])
    ages: list[Age] = field(default_factory=list["Age"])
    arrivals: deque[Waiting] = field(default_factory=deque[Waiting])
    returned: deque[Waiting] = field(default_factory=deque[Waiting])
    cursor: Age | None = None
    failures: int = 0
    stop_after: int | None = None
    due_only: bool = True
    is_swept: bool = False
    window: int = 1
    out: int = 0
    again: bool = False
    is_listed: bool = False

    @property
    def is_empty(self) -> bool:
        return not (self.queued or self.arrivals or self.returned or self.out)

    @property
    def is_driven(self) -> bool:
        return self.cursor is not None

    def start(self, *, stop_after: int | None, window: int, due_only: bool = True, is_swept: bool = False) -> None:
        """Drive the queued from the oldest on."""
        self.cursor, self.failures, self.again = FIRST, 0, False
        self.stop_after, self.window = stop_after, window
        self.due_only, self.is_swept = due_only, is_swept

    def head(self, is_due: Callable[[Waiting], bool]) -> Waiting | None:
        """Who is next; None when nobody is, or when answers must come first. `is_due`: worth driving."""
        for back in (self.returned, self.arrivals):
            while back and (back[0].is_gone or back[0].in_flight):
                back.popleft()
        if self.returned:
            return self.returned[0]
        if self.cursor is not None and not self._is_stopped():
            waiting = self._next_queued(is_due)
            if waiting is not None:
                return waiting if self.out < self.window else None
        return self.arrivals[0] if self.arrivals else None

    def _next_queued(self, is_due: Callable[[Waiting], bool]) -> Waiting | None:
        assert self.cursor is not None
        for place in range(bisect_right(self.ages, self.cursor), len(self.ages)):
            waiting = self.queued[self.ages[place]]
            if not waiting.in_flight and (not self.due_only or is_due(waiting)):
                return waiting
            self.cursor = self.ages[place]
        return None

    def take(self, waiting: Waiting) -> None:
        """`waiting`, the head, leaves: it was ruled on."""
        if self.returned and self.returned[0] is waiting:
            self.returned.popleft()
        elif waiting.is_new:
            self.arrivals.popleft()
        else:
            self.cursor = waiting.age

    def add_queued(self, waiting: Waiting) -> None:
        assert waiting.age not in self.queued, f"I8: two requests of {self.namespace} have the age {waiting.age}"
        self.queued[waiting.age] = waiting
        insort(self.ages, waiting.age)

    def drop_queued(self, waiting: Waiting) -> None:
        del self.queued[waiting.age]
        del self.ages[bisect_right(self.ages, waiting.age) - 1]
        waiting.is_gone = True

    def is_over(self) -> bool:
        """Whether a drive has nothing more to do: all were driven or too many failed, and all have answered."""
        if self.cursor is None or self.out:
            return False
        return self._is_stopped() or bisect_right(self.ages, self.cursor) == len(self.ages)

    def _is_stopped(self) -> bool:
        return self.stop_after is not None and self.failures >= self.stop_after

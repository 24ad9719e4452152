"""Who is the first of each namespace by priority and then age: where that is strict_fifo, nobody else may go (R73).

What must live here: who waits in which namespace. What must not: whether they may be placed.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass, field

from berth.ids import Namespace
from berth.model.ordering import Age
from berth_quota.lanes import Waiting

Turn = tuple[int, Age]


@dataclass(slots=True)
class _Row:
    turns: list[Turn] = field(default_factory=list[Turn])
    waiting: dict[Turn, Waiting] = field(default_factory=dict[Turn, Waiting])


class Heads:
    """Everybody who waits, new or queued, in flight or not; what runs and wants more is not in the queue."""

    def __init__(self) -> None:
        self._rows: dict[Namespace, _Row] = {}

    def add(self, waiting: Waiting) -> None:
        row = self._rows.setdefault(waiting.request.namespace, _Row())
        turn = _turn(waiting)
        row.waiting[turn] = waiting
        insort(row.turns, turn)

    def remove(self, waiting: Waiting) -> None:
        """Whether or not it was there."""
        row = self._rows.get(waiting.request.namespace)
        turn = _turn(waiting)
        if row is None or row.waiting.get(turn) is not waiting:
            return
        del row.waiting[turn]
        del row.turns[bisect_left(row.turns, turn)]
        if not row.turns:
            del self._rows[waiting.request.namespace]

    def before(self, waiting: Waiting) -> Waiting | None:
        """The first of its namespace, if that is somebody else who comes before it."""
        row = self._rows.get(waiting.request.namespace)
        if row is None or row.turns[0] >= _turn(waiting):
            return None
        return row.waiting[row.turns[0]]

    def forget_new(self) -> None:
        """Only what the ledger says is kept."""
        for row in list(self._rows.values()):
            for waiting in list(row.waiting.values()):
                if waiting.is_new:
                    self.remove(waiting)


def _turn(waiting: Waiting) -> Turn:
    return (-waiting.request.priority, waiting.age)

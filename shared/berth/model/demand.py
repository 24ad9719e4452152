"""What has been asked for of late: the shapes of the last submissions, each with how often it came.

The strategy `fragmentation`, the metrics of the same name and `berth defrag` judge free capacity by these.
They follow from `RequestSubmitted` alone, so every process that folds the same records has the same ones;
nothing lawful depends on them, so they have no digest.

Counted are the last RECENT_MAX submissions. The *typical* shapes, which readers use, are renewed only now and
then: whoever has judged every node by them need not begin again with each submission.
"""

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from berth.messages.requests import Constraint, Mode, Request, Toleration
from berth.model.tables import Journal, Table
from berth.resources import Resources

K = TypeVar("K")
V = TypeVar("V")

RECENT_MAX = 1_024
"""Submissions that count."""

RENEWED_EVERY = 256
"""Submissions between two renewals of the typical shapes; at the beginning whenever their number has doubled."""

_RING = RECENT_MAX + RENEWED_EVERY

TYPICAL_MAX = 128
"""Shapes that are told apart; rarer ones do not count."""


class RequestShape(NamedTuple):
    """What one instance asks of a node: of its room, and of its row."""

    charge: Resources
    constraints: tuple[Constraint, ...]
    any_of: tuple[tuple[Constraint, ...], ...]
    tolerations: tuple[Toleration, ...]


class Typical(NamedTuple):
    """A shape that `times` of the last submissions had; `sample` is the oldest of them that has it."""

    sample: Request
    times: int


class Demand:
    """The recent shapes. A request for one named node or for a reservation's capacity says nothing about others.

    A submission is only noted, since every process folds it and few ever ask. `last`: a ring of the last ones, of
    which there were `seen` in all; long enough that the typical shapes of the last renewal can be counted late.
    """

    def __init__(self, journal: Journal) -> None:
        self.last: Table[int, Request] = Table(journal)
        self.seen: Table[str, int] = Table(journal)
        self._counted: tuple[Request, tuple[Typical, ...]] | None = None

    @property
    def typical(self) -> tuple[Typical, ...]:
        """The most frequent shapes, most frequent first, as of the last renewal; the same object until the next."""
        end = _last_renewal(self.seen.get("", 0))
        if end == 0:
            return ()
        newest = self.last[(end - 1) % _RING]
        if self._counted is None or self._counted[0] is not newest:  # also where a trial was taken back meanwhile
            places = range(max(0, end - RECENT_MAX), end)
            self._counted = (newest, _most_frequent(self.last[place % _RING] for place in places))
        return self._counted[1]

    def submitted(self, request: Request) -> None:
        """One more submission; the oldest is forgotten for it."""
        if request.node is not None or request.reservation is not None:
            return
        number = self.seen.get("", 0)
        self.last.put(number % _RING, request)
        self.seen.put("", number + 1)

    def resume(self, other: "Demand") -> None:
        """Go on from where `other` is: for a copy of a state that is made without its past."""
        _replace(self.last, other.last)
        _replace(self.seen, other.seen)


def _most_frequent(requests: Iterable[Request]) -> tuple[Typical, ...]:
    """Among equals the one that came first."""
    counted: dict[RequestShape, list[Request]] = {}
    for request in requests:
        counted.setdefault(shape_of(request), []).append(request)
    ranked = sorted(counted.values(), key=len, reverse=True)
    return tuple(Typical(alike[0], len(alike)) for alike in ranked[:TYPICAL_MAX])


def shape_of(request: Request) -> RequestShape:
    """What is only preferred, and neighbours, are no part of it."""
    constraints = request.constraints
    if constraints:
        constraints = tuple(one for one in constraints if one.mode is Mode.REQUIRED)
    return RequestShape(request.charge, constraints, request.any_of, request.tolerations)


def _last_renewal(seen: int) -> int:
    """How many submissions there were then."""
    return seen - seen % RENEWED_EVERY if seen >= RENEWED_EVERY else 1 << seen.bit_length() >> 1


def _replace(mine: Table[K, V], its: Table[K, V]) -> None:
    for key in list(mine):
        mine.drop(key)
    for key, value in its.items():
        mine.put(key, value)

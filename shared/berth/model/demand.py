"""What has been asked for of late: the shapes of the last submissions, each with how often it came.

The strategy `fragmentation`, the metrics of the same name and `berth defrag` judge free capacity by these.
They follow from `RequestSubmitted` alone, so every process that folds the same records has the same ones;
nothing lawful depends on them, so they have no digest.

Counted are the last RECENT_MAX submissions. The *typical* shapes, which readers use, are renewed only now and
then: whoever has judged every node by them need not begin again with each submission.
"""

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


class Counted(NamedTuple):
    """`times`: how often it stands among the last ones. `since`: the submission that brought it; breaks ties."""

    times: int
    since: int
    sample: Request


class Demand:
    """The recent shapes. A request for one named node or for a reservation's capacity says nothing about others.

    `last`: a ring of the shapes of the last submissions, `seen` of which there were in all; `counted` is that by
    shape. `renewed`: the typical ones.
    """

    def __init__(self, journal: Journal) -> None:
        self.last: Table[int, RequestShape] = Table(journal)
        self.counted: Table[RequestShape, Counted] = Table(journal)
        self.seen: Table[str, int] = Table(journal)
        self.renewed: Table[str, tuple[Typical, ...]] = Table(journal)

    @property
    def typical(self) -> tuple[Typical, ...]:
        """The most frequent shapes, most frequent first, as of the last renewal; the same object until the next."""
        return self.renewed.get("", ())

    def submitted(self, request: Request) -> None:
        """One more submission; the oldest that counts is forgotten for it."""
        if request.node is not None or request.reservation is not None:
            return
        number = self.seen.get("", 0)
        place = number % RECENT_MAX
        if place in self.last:
            self._forget(self.last[place])
        shape = shape_of(request)
        known = self.counted.get(shape)
        counted = Counted(1, number, request) if known is None else known._replace(times=known.times + 1)
        self.counted.put(shape, counted)
        self.last.put(place, shape)
        self.seen.put("", number + 1)
        if _is_due(number + 1):
            self.renewed.put("", self._most_frequent())

    def resume(self, other: "Demand") -> None:
        """Go on from where `other` is: for a copy of a state that is made without its past."""
        _replace(self.last, other.last)
        _replace(self.counted, other.counted)
        _replace(self.seen, other.seen)
        _replace(self.renewed, other.renewed)

    def _forget(self, shape: RequestShape) -> None:
        known = self.counted[shape]
        if known.times == 1:
            self.counted.drop(shape)
        else:
            self.counted.put(shape, known._replace(times=known.times - 1))

    def _most_frequent(self) -> tuple[Typical, ...]:
        ranked = sorted(self.counted.values(), key=lambda one: (-one.times, one.since))
        return tuple(Typical(one.sample, one.times) for one in ranked[:TYPICAL_MAX])


def shape_of(request: Request) -> RequestShape:
    """What is only preferred, and neighbours, are no part of it."""
    constraints = request.constraints
    if constraints:
        constraints = tuple(one for one in constraints if one.mode is Mode.REQUIRED)
    return RequestShape(request.charge, constraints, request.any_of, request.tolerations)


def _is_due(seen: int) -> bool:
    return seen % RENEWED_EVERY == 0 or (seen < RENEWED_EVERY and seen & (seen - 1) == 0)


def _replace(mine: Table[K, V], its: Table[K, V]) -> None:
    for key in list(mine):
        mine.drop(key)
    for key, value in its.items():
        mine.put(key, value)

"""Who comes first among all that wait: what repairs a gang that runs, then not borrowing before borrowing, then
priority, then the namespace's dominant share, then age (R72). Pure.

Quota drives in this order, and whoever is asked for a request's place in the queue tells this order. In a
namespace that is strict_fifo nobody overtakes who has a higher priority, or the same and more age (R73).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from berth.ids import Namespace, RequestKey
from berth.messages.documents import Queueing
from berth.messages.requests import Request
from berth.model.decay import THOUSAND
from berth.model.entitlement import NOBODY, Assumption, borrows, share
from berth.model.ledger import State
from berth.resources import NOTHING, Resources, resources

Age = tuple[int, int]
"""Sequence of submission, then the order within it; what is not yet in the ledger is younger than all of it."""

YOUNG = 2**62
Rank = tuple[bool, bool, int, tuple[int, int], Age]
"""Smaller comes first."""

NO_SHARE = (0, 0)


def rank(state: State, request: Request, age: Age, assumed: Assumption = NOBODY, *, is_repair: bool = False) -> Rank:
    """Where the request stands now, counting what is in flight as used."""
    quota = state.quotas.quotas.get(request.namespace)
    if quota is None:
        return (not is_repair, False, -request.priority, NO_SHARE, age)
    borrowing = borrows(state, request, request.total, assumed)
    dominant = NO_SHARE
    if borrowing:
        wanted = request.total + surplus(state, request.namespace)
        dominant = share(state, request.namespace, wanted, assumed).rank
    return (not is_repair, borrowing, -request.priority, dominant, age)


def surplus(state: State, namespace: Namespace) -> Resources:
    """How much more the namespace used lately than it uses now; nothing where its quota has no half-life.

    So its share is that of now or, where that is more, of lately: neither a burst nor the past is free (R82).
    """
    past = state.quotas.used_over_time(namespace, state.at) if state.quotas.decayed else None
    if not past:
        return NOTHING
    used = state.quotas.used_by(namespace)
    more = {dimension: amount // THOUSAND - used.amount(dimension) for dimension, amount in past.items()}
    return resources({dimension: amount for dimension, amount in more.items() if amount > 0})


def is_strict(state: State, namespace: Namespace) -> bool:
    """Whether a request that does not fit keeps back those behind it in the namespace."""
    quota = state.quotas.quotas.get(namespace)
    return quota is not None and quota.queueing is Queueing.STRICT_FIFO


# --- the queue as it stands ----------------------------------------------------------------------------------


class Because(StrEnum):
    """The first thing in which one request comes before another."""

    NOT_BORROWING = "not_borrowing"
    PRIORITY = "priority"
    SHARE = "share"
    AGE = "age"
    STRICT_FIFO = "strict_fifo"


_DECIDES = (Because.NOT_BORROWING, Because.NOT_BORROWING, Because.PRIORITY, Because.SHARE, Because.AGE)
"""By place in a rank; what only a gang that runs has never decides between queued requests."""

AHEAD_MAX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Of a queued request. `position`: from 1. `because`: how many are ahead for which reason, position − 1 in all.
    `next`: the nearest of those ahead, nearest last, with why.
    """

    position: int
    because: tuple[tuple[Because, int], ...]
    next: tuple[tuple[RequestKey, Because], ...]


class Line:
    """All queued requests of one state, in order."""

    def __init__(self, state: State) -> None:
        ranked = sorted((*_ranked(state),))
        self._keys = [key for _, _, key in ranked]
        self._orders = [(*found, followed) for found, followed, _ in ranked]
        self._index = {key: index for index, key in enumerate(self._keys)}

    def __contains__(self, key: RequestKey) -> bool:
        return key in self._index

    def place(self, key: RequestKey) -> Place:
        """Of a request that is queued."""
        index = self._index[key]
        near = range(max(0, index - AHEAD_MAX), index)
        return Place(
            position=index + 1,
            because=tuple(self._counted(index)),
            next=tuple((self._keys[one], self._why(one, index)) for one in near),
        )

    def _why(self, ahead: int, behind: int) -> Because:
        one, other = self._orders[ahead], self._orders[behind]
        for decides, mine, theirs in zip(_DECIDES, one, other, strict=False):
            if mine != theirs:
                return decides
        return Because.STRICT_FIFO

    def _counted(self, index: int) -> Iterator[tuple[Because, int]]:
        """The order is that of tuples, so those with the same beginning stand together."""
        counts: dict[Because, int] = {}
        first = 0
        for length, decides in enumerate((*_DECIDES, Because.STRICT_FIFO), start=1):
            begins = self._first_like(index, length)
            counts[decides] = counts.get(decides, 0) + begins - first
            first = begins
        return ((decides, count) for decides, count in counts.items() if count)

    def _first_like(self, index: int, length: int) -> int:
        """Where those begin whose order has the same first `length` parts."""
        wanted = self._orders[index][:length]
        low, high = 0, index
        while low < high:
            middle = (low + high) // 2
            if self._orders[middle][:length] < wanted:
                low = middle + 1
            else:
                high = middle
        return low


def _ranked(state: State) -> Iterator[tuple[Rank, int, RequestKey]]:
    """Rank and key of everybody who is queued. Who follows another in a strict_fifo namespace has that one's rank,
    and the number of those it follows.
    """
    ranks: dict[tuple[Namespace, Resources, int], Rank] = {}
    strict: dict[Namespace, list[tuple[int, Age, RequestKey, Rank]]] = {}
    for serial, key in enumerate(state.queue.waiting):
        known = state.queue.requests[key]
        request, age = known.request, (known.order, serial)
        alike = (request.namespace, request.total, request.priority)
        if alike not in ranks:
            ranks[alike] = rank(state, request, age)
        found = (*ranks[alike][:4], age)
        if is_strict(state, request.namespace):
            strict.setdefault(request.namespace, []).append((-request.priority, age, key, found))
        else:
            yield found, 0, key
    for waiting in strict.values():
        head: Rank | None = None
        followed = 0
        for _, _, key, found in sorted(waiting):
            if head is None or found > head:
                head, followed = found, 0
            else:
                followed += 1
            yield head, followed, key


NOBODY_WAITS = Line(State())

"""Why a request has no place: counted reasons, and what would have to change first.

Each node counts once, under the first of its reasons by precedence, so the counts sum to the nodes of the
cluster. `infeasible` stands in front, about no node, where only a change of nodes could help.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from berth.messages.events import Wake, WakeOn
from berth.messages.reasons import PRECEDENCE, Reason, ReasonCode, insufficient
from berth.model.feasibility import reservation_reason, why_not
from berth_scheduler.never import why_never
from berth_scheduler.search import Search

NEIGHBOURLY = frozenset({ReasonCode.AFFINITY_NOT_MET, ReasonCode.SPREAD_SKEW})
"""What somebody else's placement may mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaceable:
    """No assignment exists on this view. Any one of `wake` may change that."""

    reasons: tuple[Reason, ...]
    wake: tuple[Wake, ...]


def explained(search: Search, *, least: int) -> Unplaceable:
    """Why not even `least` instances of the request have a place. The search has taken nothing."""
    request, state = search.request, search.board.state
    blocked = reservation_reason(state, request)
    if blocked is not None:
        whole = blocked.model_copy(update={"nodes": len(search.board.ids)})
        return Unplaceable(reasons=(whole,), wake=(Wake(on=WakeOn.RESERVATION, name=request.reservation),))
    search.fill(least)
    together = (_siblings(len(search.picks), least),) if search.picks else ()
    reasons = (*together, *_counted(search))
    search.clear()
    never = why_never(search, least)
    if never is not None:
        return Unplaceable(reasons=(never, *reasons), wake=(Wake(on=WakeOn.NODES),))
    return Unplaceable(reasons=reasons, wake=_wake(search, reasons))


def _siblings(placed: int, least: int) -> Reason:
    return Reason(code=ReasonCode.SIBLINGS_DO_NOT_FIT, needed=least, best_available=placed, dimension="instances")


def _wake(search: Search, reasons: Iterable[Reason]) -> tuple[Wake, ...]:
    found = [Wake(on=WakeOn.CAPACITY), Wake(on=WakeOn.NODES)]
    if any(reason.code in NEIGHBOURLY for reason in reasons):
        found.append(Wake(on=WakeOn.PLACEMENT))
    if search.request.reservation is not None:
        found.append(Wake(on=WakeOn.RESERVATION, name=search.request.reservation))
    return tuple(found)


# --- counting -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tally:
    """Nodes that count under one code and dimension."""

    nodes: int = 0
    needed: int | None = None
    best_available: int | None = None
    details: set[str | None] = field(default_factory=set["str | None"])

    def add(self, needed: int | None, best_available: int | None, detail: str | None) -> None:
        self.nodes += 1
        self.needed = needed if self.needed is None else self.needed
        if best_available is not None:
            self.best_available = max(best_available, self.best_available or 0)
        self.details.add(detail)


def _counted(search: Search) -> tuple[Reason, ...]:
    """One reason per code and dimension; a detail only where all its nodes share it."""
    tallies: dict[tuple[ReasonCode, str | None], _Tally] = {}
    for position in range(len(search.board.ids)):
        code, dimension, needed, best_available, detail = _first(search, position)
        tally = tallies.setdefault((code, dimension), _Tally())
        tally.add(needed, best_available, detail)
    return tuple(
        Reason(
            code=code,
            nodes=tally.nodes,
            dimension=dimension,
            needed=tally.needed,
            best_available=tally.best_available,
            detail=next(iter(tally.details)) if len(tally.details) == 1 else None,
        )
        for (code, dimension), tally in sorted(
            tallies.items(), key=lambda item: (PRECEDENCE[item[0][0]], item[0][1] or "")
        )
    )


_First = tuple[ReasonCode, str | None, int | None, int | None, str | None]
"""Code, dimension, needed, best available and detail of the reason that stands for a node."""


def _first(search: Search, position: int) -> _First:
    """The node's first reason, from what the board knows where that is enough."""
    board, request = search.board, search.request
    node = board.nodes[position]
    if not search.shape.admitted[position]:
        return _parts(board.barred(search.shape, request, position))
    if not search.minds and not board.is_held(position) and request.reservation is None:
        free = board.free[position]
        for dimension, needed in request.charge.dimensions():
            if needed > free.amount(dimension):
                return insufficient(dimension), dimension, needed, max(0, free.amount(dimension)), None
    else:
        reasons = why_not(board.state, node, request, search.at, search.around)
        if reasons:
            return _parts(reasons[0])
    assert node.id in board.silent, f"{node.id} has room for {request.id} after all"
    return ReasonCode.NODE_LOST, None, None, None, "not heard of lately"


def _parts(reason: Reason) -> _First:
    return reason.code, reason.dimension, reason.needed, reason.best_available, reason.detail

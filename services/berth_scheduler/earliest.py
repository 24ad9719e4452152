"""When could a request that has no place now start at the latest, and where: the earliest gap that is long enough.

Every node's room over time is a step function: it grows where durations, reservations and promises end, and shrinks
where windows and promises to come begin. Promises of lower priority do not count (R86). Work without an end never
makes room. Pure; times are milliseconds UTC.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from berth.ids import Attempt, NodeId
from berth.messages.commands import StartOffer
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth.messages.reservation_events import HeldOnNode
from berth.model.cluster import Node
from berth.model.durations import LATE_MAX_MS, ends_at
from berth.model.ledger import State
from berth.model.promises import Kept, kept_on, taken_at
from berth.model.queue import Promise
from berth.model.windows import ends_by, free_now, takes_along_by, times_that_fit
from berth.resources import NOTHING, Resources
from berth_scheduler.board import Board
from berth_scheduler.search import search_for

LATE_MS = 1_000
"""What should have ended already is expected to be gone after this."""
NEVER_FORESEEN = frozenset({ReasonCode.INFEASIBLE, ReasonCode.QUOTA_HARD, ReasonCode.QUOTA_CEILING})
TRIES_MAX = 32
"""Gaps looked at where instances get into each other's way, so that counting room is not enough."""


class Step(NamedTuple):
    """From `at` on so many instances may start on a node, each with room for as long as it runs."""

    at: int
    units: int


def earliest_start(board: Board, request: Request, *, least: int, at: int, seed: str = "") -> Promise | None:
    """The earliest start after `at` of `least` instances, and where; None: nothing that is known would make room.

    The board is up to date. What draws on a reservation waits for that, not for a gap.
    """
    state = board.state
    if request.reservation is not None or not _will_change(state):
        return None
    admitted = board.shape(request, at).admitted
    steps = {
        node.id: startable(state, node, request, at, board.allocatable[position])
        for position, node in enumerate(board.nodes)
        if admitted[position] and request.charge.fits_in(board.allocatable[position])
    }
    minds = search_for(board, request, at=at, attempt=Attempt(1), seed=seed).minds
    for tried, start in enumerate(_starts(steps.values(), least, after=at)):
        nodes = _together(board, request, steps, start, least, seed) if minds else _chosen(steps, start, least)
        if nodes:
            return Promise(start, ends_at(request, start), nodes)
        if tried == TRIES_MAX:
            break
    return None


def is_foreseeable(reasons: Iterable[Reason]) -> bool:
    """Whether the end of something may mend it; a quota's is for nobody here to foresee."""
    return not any(reason.code in NEVER_FORESEEN for reason in reasons)


def offered(earliest: Promise | None) -> StartOffer | None:
    """As it is told to the quota service, which may promise it."""
    if earliest is None:
        return None
    return StartOffer(
        start=earliest.start, nodes=tuple(HeldOnNode(node=node, count=count) for node, count in earliest.nodes)
    )


def _will_change(state: State) -> bool:
    """Whether anything ends by itself."""
    return bool(state.cluster.ending or state.reservations.open or state.queue.promised)


# --- one node -------------------------------------------------------------------------------------------


def startable(state: State, node: Node, request: Request, at: int, allocatable: Resources | None = None) -> list[Step]:
    """How many instances of `request` may start on `node` from when on; from `at` on, in order of time."""
    kept = [one for one in kept_on(state, node.id) if one.priority >= request.priority and one.key != request.key]
    kept = [_late(one, at) for one in kept]
    runs_ms = None if (end := ends_at(request, at)) is None else end - at
    if not state.reservations.on_node(node.id):
        return list(_windowed(_units_by_ends(state, node, request, kept, at, allocatable or node.allocatable), runs_ms))
    if runs_ms is not None:
        runs_ms += LATE_MAX_MS  # a start that is a little late must not run into a window
    return list(_windowed(_units_by_calendar(state, node, request, kept, at), runs_ms))


def _late(kept: Kept, at: int) -> Kept:
    """A promise that is late is kept from now on."""
    if kept.start >= at:
        return kept
    return kept._replace(start=at, end=None if kept.end is None else kept.end + at - kept.start)


def _gone(by: int, at: int) -> int:
    return by if by > at else at + LATE_MS


Units = list[tuple[int, int]]
"""From when on how many instances would fit, if they ran for no time."""


def _units_by_ends(
    state: State, node: Node, request: Request, kept: list[Kept], at: int, allocatable: Resources
) -> Units:
    """Where no reservation holds anything: what runs leaves one after the other, what is kept comes and goes."""
    asked = list(request.charge.dimensions())
    free = [allocatable.amount(dimension) for dimension, _ in asked]
    changes: list[tuple[int, Resources, int]] = []
    for allocation in state.cluster.on_node(node.id).values():
        changes.append((at, allocation.charge, -1))
        if allocation.gone_by is not None:
            changes.append((_gone(allocation.gone_by, at), allocation.charge, 1))
    for one in kept:
        changes.append((one.start, one.amount, -1))
        if one.end is not None:
            changes.append((one.end, one.amount, 1))
    changes.sort(key=_moment_of)
    found: Units = [(at, min(left // amount for left, (_, amount) in zip(free, asked, strict=True)))]
    for moment, change, sign in changes:
        for place, (dimension, _) in enumerate(asked):
            free[place] += sign * change.amount(dimension)
        units = max(0, min(left // amount for left, (_, amount) in zip(free, asked, strict=True)))
        if found[-1][0] == moment:
            found[-1] = (moment, units)
        else:
            found.append((moment, units))
    return found


def _moment_of(change: tuple[int, Resources, int]) -> int:
    return change[0]


def _units_by_calendar(state: State, node: Node, request: Request, kept: list[Kept], at: int) -> Units:
    """Beside reservations: looked up at each moment at which anything begins or ends."""
    moments: set[int] = set()
    for allocation in state.cluster.on_node(node.id).values():
        by = ends_by(state, allocation)
        moments |= set() if by is None else {_gone(by, at)}
    for name in state.reservations.on_node(node.id):
        reservation = state.reservations.reservations[name]
        moments |= {reservation.body.start, reservation.body.end, takes_along_by(reservation) or at}
    for one in kept:
        moments |= {one.start} if one.end is None else {one.start, one.end}
    found = [(at, free_now(state, node).minus(_kept_at(kept, at)))]
    for moment in sorted(one for one in moments if one > at):
        taken = taken_at(state, node.id, moment) + _kept_at(kept, moment)
        found.append((moment, node.allocatable.minus(taken)))
    return [(moment, times_that_fit(request.charge, free)) for moment, free in found]


def _kept_at(kept: list[Kept], moment: int) -> Resources:
    return sum((one.amount for one in kept if one.is_open(moment)), NOTHING)


def _windowed(units: Units, runs_ms: int | None) -> Iterator[Step]:
    """The least of `units` over the time that an instance runs, from each start on."""
    last: int | None = None
    for place, (begins, now) in enumerate(units):
        until = units[place + 1][0] if place + 1 < len(units) else None
        least, starts = now, begins
        for later, there in units[place + 1 :]:
            if runs_ms is not None and until is not None and later >= until - 1 + runs_ms:
                break  # whatever starts before `until` is gone by then
            if there >= least:
                continue
            first_in_the_way = begins if runs_ms is None else max(begins, later - runs_ms + 1)
            if first_in_the_way > starts:
                if least != last:
                    yield Step(starts, least)
                    last = least
                starts = first_in_the_way
            least = there
            if least == 0:
                break
        if least != last:
            yield Step(starts, least)
            last = least


# --- all nodes ------------------------------------------------------------------------------------------


def _starts(nodes: Iterable[list[Step]], least: int, *, after: int) -> Iterator[int]:
    """The times after `after` at which `least` instances may start, each the first of a stretch, in order."""
    changes: list[tuple[int, int]] = []
    for steps in nodes:
        before = 0
        for step in steps:
            changes.append((step.at, step.units - before))
            before = step.units
    changes.sort()
    total = 0
    for place, (moment, change) in enumerate(changes):
        total += change
        is_last = place + 1 == len(changes) or changes[place + 1][0] > moment
        if is_last and total >= least and moment > after:
            yield moment


def _chosen(steps: dict[NodeId, list[Step]], start: int, least: int) -> tuple[tuple[NodeId, int], ...]:
    """Where the room has come last: what has been free for longer is left to work that is shorter."""
    there = [(step.at, name, step.units) for name, found in steps.items() if (step := _step_at(found, start)).units]
    nodes: list[tuple[NodeId, int]] = []
    for _, name, units in sorted(there, key=lambda one: (-one[0], one[1])):
        nodes.append((name, min(units, least)))
        least -= nodes[-1][1]
        if not least:
            break
    return tuple(nodes)


def _step_at(steps: list[Step], start: int) -> Step:
    found = steps[0]
    for step in steps:
        if step.at > start:
            break
        found = step
    return found


def _together(
    board: Board, request: Request, steps: dict[NodeId, list[Step]], start: int, least: int, seed: str
) -> tuple[tuple[NodeId, int], ...]:
    """Where instances that mind each other, or others, would go when all that ends before `start` is gone."""
    state = board.state
    counts: dict[NodeId, int] = {}
    with state.journal.trial():
        for name in board.ids:
            for allocation in list(state.cluster.on_node(name).values()):
                by = ends_by(state, allocation)
                if by is not None and by <= start:
                    state.cluster.vacate(allocation)
            for key in list(state.queue.promised_on(name)):
                state.queue.promised_on(name).drop(key)  # `steps` have counted them
        board.renew()
        search = search_for(board, request, at=start, attempt=Attempt(1), seed=seed)
        if search.at_least(least, least):
            for position in search.picks:
                counts[board.ids[position]] = counts.get(board.ids[position], 0) + 1
        search.clear()
    board.renew()
    fits = all(name in steps and count <= _step_at(steps[name], start).units for name, count in counts.items())
    return tuple(sorted(counts.items())) if fits else ()

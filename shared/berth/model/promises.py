"""Promised starts: room kept for queued requests, who must respect it, and what alone may break it (R86).

A promise keeps its room from every placement but those of higher priority, from its start on until it is kept, moved
or taken back, also when it is late. Load only rises where a window or a promise starts, so it is enough to look
there (`windows`). Times are milliseconds UTC.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from berth.ids import NodeId, RequestKey, ReservationId
from berth.messages.commands import Refusal, RefusalCode
from berth.messages.documents import time_text
from berth.messages.events import MovedBecause, RequestStatus, StartPromised
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth.model.cluster import Node
from berth.model.durations import LATE_MAX_MS, lateness
from berth.model.entitlement import shortfall
from berth.model.ledger import State
from berth.model.queue import Promise, RequestState
from berth.model.windows import (
    drawn_reservation,
    ends_by,
    load_at,
    takes_along_by,
    times_that_fit,
    units_that_fit,
    windows_of,
)
from berth.resources import NOTHING, Resources

Takes = Callable[[Node, Request], bool]


class Kept(NamedTuple):
    """Room kept on one node for one request in [start, end); `end` None: without end."""

    key: RequestKey
    priority: int
    start: int
    end: int | None
    amount: Resources

    def is_open(self, moment: int) -> bool:
        return self.start <= moment and (self.end is None or moment < self.end)


class Moment(NamedTuple):
    """A start on one node: what runs and is reserved there then, and what is kept."""

    at: int
    taken: Resources
    kept: tuple[Kept, ...]

    def kept_from(self, priority: int, without: RequestKey | None) -> Resources:
        """What work of `priority` must leave alone: what is kept for others that are not below it."""
        total = NOTHING
        for one in self.kept:
            if one.priority >= priority and one.key != without:
                total = one.amount if total is NOTHING else total + one.amount
        return total


class Page(NamedTuple):
    """What is kept on one node, and its moments, by the versions of what they were derived from."""

    versions: tuple[int, int, int]
    kept: tuple[Kept, ...]
    moments: tuple[Moment, ...]


def kept_on(state: State, node: NodeId) -> tuple[Kept, ...]:
    """Everything that is kept on `node`, by start."""
    return _page(state, node).kept if state.queue.promised_on(node) else ()


def moments_of(state: State, node: NodeId) -> tuple[Moment, ...]:
    """The starts of promises and windows on `node`, in order."""
    return _page(state, node).moments


def _page(state: State, node: NodeId) -> Page:
    """Derived anew only where something on the node has changed."""
    promised = state.queue.promised_on(node)
    versions = (state.cluster.on_node(node).version, state.reservations.on_node(node).version, promised.version)
    page: Page | None = state.queue.pages.get(node)
    if page is None or page.versions != versions:
        kept = tuple(sorted((_kept(state, key, count) for key, count in promised.items()), key=_by_start))
        starts = {one.start for one in kept} | {window.start for window in windows_of(state, node)}
        moments = tuple(
            Moment(at, taken_at(state, node, at), tuple(one for one in kept if one.is_open(at)))
            for at in sorted(starts)
        )
        page = state.queue.pages[node] = Page(versions, kept, moments)
    return page


def _kept(state: State, key: RequestKey, count: int) -> Kept:
    known = state.queue.requests[key]
    assert known.promise is not None, f"{key} is promised nothing and kept room for"
    request, promise = known.request, known.promise
    return Kept(key, request.priority, promise.start, promise.end, request.charge.times(count))


def _by_start(kept: Kept) -> tuple[int, RequestKey]:
    return (kept.start, kept.key)


def taken_at(state: State, node: NodeId, moment: int) -> Resources:
    """What no promise may count on at `moment`: what runs and is reserved then, and what is not surely given back.

    Whoever draws on a reservation may stay beyond its end, for its grace or (`on_expiry: keep`) without end. Work that
    started later than it was promised is in nobody's way for that: what follows it is as late.
    """
    taken = load_at(state, node, moment).total
    for allocation in state.cluster.on_node(node).values():
        by = allocation.gone_by if allocation.late_ms else None
        if by is not None and by - allocation.late_ms <= moment < by:
            taken = taken.minus(allocation.charge)
    for name in state.reservations.on_node(node):
        reservation = state.reservations.reservations[name]
        until = takes_along_by(reservation)
        if reservation.body.end <= moment and (until is None or moment < until):
            held = state.reservations.held_on(reservation, node)
            taken += held.beyond(_still_there(state, node, name, moment))
    return taken


def _still_there(state: State, node: NodeId, reservation: ReservationId, moment: int) -> Resources:
    total = NOTHING
    for allocation in state.cluster.on_node(node).values():
        by = ends_by(state, allocation)
        if allocation.reservation == reservation and (by is None or by > moment):
            total += allocation.charge
    return total


# --- may it be placed beside them? --------------------------------------------------------------------------


def promise_reason(state: State, node: Node, request: Request, *, at: int, ends_at: int | None) -> Reason | None:
    """Why an instance of `request` may not run on `node` from `at` until `ends_at` (None: without end).

    Whose own start is due counts from then, though it is a little late.
    What it draws of a reservation is taken already, as long as it may run.
    """
    if not state.queue.promised_on(node.id):
        return None
    owner = drawn_reservation(state, node.id, request.reservation)
    own = state.queue.promised.get(request.key)
    if ends_at is not None and own is not None:
        ends_at -= lateness(own.start, at)
    for moment, free in _free_beside(state, node, request.priority, request.key, before=ends_at):
        charge = request.charge
        if owner is not None:
            undrawn = state.reservations.held_on(owner, node.id).beyond(state.reservations.drawn_on(owner.id, node.id))
            charge = charge.beyond(undrawn)
        for dimension, needed in charge.dimensions():
            if needed > free.amount(dimension):
                return _kept_for(moment, dimension, needed, free, request.priority, request.key)
    return None


def overpromised(
    state: State, node: Node, request: Request, *, raised: Resources, ends_at: int | None
) -> Reason | None:
    """Which promise no longer holds on `node` after `request` was placed there, in the dimensions that it `raised`."""
    if not state.queue.promised_on(node.id):
        return None
    for moment, free in _free_beside(state, node, request.priority, request.key, before=ends_at):
        for dimension, _ in raised.dimensions():
            if free.amount(dimension) < 0:
                return _kept_for(moment, dimension, -free.amount(dimension), free, request.priority, request.key)
    return None


def units_to_book(state: State, node: Node, unit: Resources, *, start: int, end: int, at: int, priority: int) -> int:
    """How many times `unit` fits in the window [start, end) beside what requests not below `priority` are promised."""
    units = units_that_fit(state, node, unit, start=start, end=end, at=at)
    kept = [
        one
        for one in kept_on(state, node.id)
        if one.priority >= priority and one.start < end and (one.end is None or start < one.end)
    ]
    if not kept or not units:
        return units
    looked_at = {start, *(moment.at for moment in moments_of(state, node.id) if start < moment.at < end)}
    free = [
        node.allocatable.minus(load_at(state, node.id, at).total).minus(
            sum((one.amount for one in kept if one.is_open(at)), NOTHING)
        )
        for at in sorted(looked_at)
    ]
    return min(units, *(times_that_fit(unit, left) for left in free))


def _free_beside(
    state: State, node: Node, priority: int, without: RequestKey | None, *, before: int | None
) -> Iterator[tuple[Moment, Resources]]:
    """What is free at each moment at which anything must be left alone, until `before` (None: ever)."""
    allocatable = node.allocatable
    for moment in moments_of(state, node.id):
        if before is not None and moment.at >= before:
            return
        kept = moment.kept_from(priority, without)
        if kept is not NOTHING:
            yield moment, allocatable.minus(moment.taken).minus(kept)


def _kept_for(
    moment: Moment, dimension: str, needed: int, free: Resources, priority: int, without: RequestKey
) -> Reason:
    first = next(one for one in moment.kept if one.priority >= priority and one.key != without)
    return Reason(
        code=ReasonCode.HELD_BY_PROMISE,
        nodes=1,
        dimension=dimension,
        needed=needed,
        best_available=max(0, free.amount(dimension)),
        detail=f"{'/'.join(first.key)} from {time_text(first.start)}",
    )


# --- does a promise hold? -------------------------------------------------------------------------------------


def broken_by(state: State, known: RequestState, at: int, *, takes: Takes) -> MovedBecause | None:
    """What keeps the request's promise from being kept, or None: it holds.

    `takes`: whether a node takes work of a request (`feasibility.admits`). A limit counts when the start has come.
    """
    promise = known.promise
    assert promise is not None, f"{known.key} is promised nothing"
    request = known.request
    for name, count in promise.nodes:
        node = state.cluster.nodes.get(name)
        if node is None or not takes(node, request):
            return MovedBecause.NODE_LOST
        if not request.charge.times(count).fits_in(node.allocatable):
            return MovedBecause.NODE_LOST
        if not _is_kept(state, node, request, promise):
            return MovedBecause.HIGHER_PRIORITY if _is_outranked(state, name, request) else MovedBecause.NODE_LOST
    if at >= promise.start and shortfall(state, request, request.charge.times(request.needed), at=at):
        return MovedBecause.LIMIT_CHANGED
    return MovedBecause.LATE if at > promise.start + LATE_MAX_MS else None


def _is_kept(state: State, node: Node, request: Request, promise: Promise) -> bool:
    """Whether what is kept on `node` fits beside what runs, is reserved, and is kept for others not below it."""
    for moment in moments_of(state, node.id):
        if promise.end is not None and moment.at >= promise.end:
            break
        if moment.at < promise.start:
            continue
        free = node.allocatable.minus(moment.taken).minus(moment.kept_from(request.priority, None))
        if any(free.amount(dimension) < 0 for dimension, _ in request.charge.dimensions()):
            return False
    return True


def _is_outranked(state: State, node: NodeId, request: Request) -> bool:
    """Whether anything on the node, that runs or is kept, has a higher priority."""
    runs = any(one.priority > request.priority for one in state.cluster.on_node(node).values())
    return runs or any(one.priority > request.priority for one in kept_on(state, node))


# --- may it be promised? --------------------------------------------------------------------------------------


def refuse_promised(state: State, known: RequestState, data: StartPromised, at: int, *, takes: Takes) -> Refusal | None:
    """Why the promise may not be made: nobody waits, a node does not suit, or it moves later without a true cause."""
    request, before = known.request, known.promise
    if known.status is not RequestStatus.QUEUED:
        return _no(RefusalCode.INVALID, f"{request.id} is {known.status}: only what waits is promised a start")
    is_worse = before is not None and (data.start is None or data.start > before.start)
    if is_worse != (data.cause is not None):
        return _no(RefusalCode.INVALID, f"a promise of {request.id} has a cause if and only if it is moved later")
    if is_worse and broken_by(state, known, at, takes=takes) is not data.cause:
        return _no(RefusalCode.RULE, f"the promise of {request.id} is not broken by {data.cause}")
    if data.start is None:
        return None if before is not None else _no(RefusalCode.INVALID, f"{request.id} is promised nothing")
    if data.start < at:
        return _no(RefusalCode.WINDOW, f"{time_text(data.start)} has passed")
    counts = [one.count for one in data.nodes]
    names = {one.node for one in data.nodes}
    if len(names) != len(counts) or min(counts, default=0) < 1 or not request.needed <= sum(counts) <= request.count:
        return _no(RefusalCode.INVALID, f"{request.id} needs {request.needed} to {request.count}, not {sum(counts)}")
    for name in sorted(names):
        node = state.cluster.nodes.get(name)
        if node is None or not takes(node, request):
            return _no(RefusalCode.RULE, f"{name} does not take {request.id}")
    return None


def judge_promise(state: State, known: RequestState) -> Refusal | None:
    """Why the promise that was just made does not fit."""
    promise = known.promise
    for name, _ in promise.nodes if promise is not None else ():
        assert promise is not None
        if not _is_kept(state, state.cluster.nodes[name], known.request, promise):
            when = time_text(promise.start)
            return _no(RefusalCode.WINDOW, f"{name} has no room for {known.request.id} at {when}")
    return None


def _no(code: RefusalCode, detail: str) -> Refusal:
    return Refusal(code=code, detail=detail)

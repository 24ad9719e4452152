"""The calendar: how much of each node is free at every time to come, and when a window of some length works.

Free capacity is a step function of time, built from running durations, active reservations and held ones; what has
no duration is endless. Pure; times are milliseconds UTC. `windows.units_that_fit` says the same of one window.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from berth.ids import NodeId
from berth.messages.documents import time_text
from berth.messages.reservation_events import ReservationBody
from berth.model.cluster import Node
from berth.model.ledger import State
from berth.model.reservation import ReservationState, unit_of
from berth.model.windows import ends_by, free_now, load_at, times_that_fit
from berth.resources import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From `since` until the next step `free` is what a node has beside all that is held and runs."""

    since: int
    free: Resources


def free_over_time(state: State, node: Node, at: int) -> list[Step]:
    """The free capacity of `node` from `at` on, as a step function; neighbouring steps differ."""
    moments = sorted({at, *(moment for moment in _turning_points(state, node.id) if moment > at)})
    if state.reservations.on_node(node.id):
        steps = [Step(since=one, free=node.allocatable.minus(load_at(state, node.id, one).total)) for one in moments]
    else:
        steps = _without_holds(state, node, moments)
    return [steps[0]] + [later for earlier, later in pairwise(steps) if later.free != earlier.free]


def _turning_points(state: State, node: NodeId) -> Iterator[int]:
    """When what is taken on the node may change."""
    for name in state.reservations.on_node(node):
        body = state.reservations.reservations[name].body
        yield body.start
        yield body.end
    for allocation in state.cluster.on_node(node).values():
        end = ends_by(state, allocation)
        if end is not None:
            yield end


def _without_holds(state: State, node: Node, moments: Sequence[int]) -> list[Step]:
    """As `load_at` would say, without asking every allocation again for every moment."""
    free = node.allocatable
    leaving: dict[int, Resources] = {}
    for allocation in state.cluster.on_node(node.id).values():
        end = ends_by(state, allocation)
        if end is None or end > moments[0]:
            free = free.minus(allocation.charge)
        if end is not None and end > moments[0]:
            leaving[end] = leaving[end] + allocation.charge if end in leaving else allocation.charge
    later = accumulate((leaving[moment] for moment in moments[1:]), lambda left, gone: left + gone, initial=free)
    return [Step(since=moment, free=free) for moment, free in zip(moments, later, strict=True)]


# --- when a window works -------------------------------------------------------------------------------------


def starts_that_may_work(state: State, body: ReservationBody, nodes: Iterable[Node], at: int) -> Iterator[int]:
    """When a window as long as the body's might begin, soonest first, not before its start nor `at`.

    At each of them the nodes have room for all units for the whole window; between them nothing gets freer.
    """
    length, lower = body.end - body.start, max(body.start, at)
    changes: dict[int, int] = {}
    turns: dict[int, None] = {lower: None}
    for node in nodes:
        before = 0
        for since, units in _room_over_time(state, node, body, lower, length, at):
            changes[since] = changes.get(since, 0) + units - before
            if units > before:
                turns[since] = None
            before = units
        turns.update((moment, None) for moment in _turning_points(state, node.id) if moment > lower)
    moments = sorted({*changes, *turns})
    room = 0
    for moment in moments:
        room += changes.get(moment, 0)
        if moment in turns and room >= body.count:
            yield moment


def _room_over_time(
    state: State, node: Node, body: ReservationBody, lower: int, length: int, at: int
) -> Iterator[tuple[int, int]]:
    """(start, units): how many units fit on `node` for a window of `length` that begins there or later."""
    steps = free_over_time(state, node, at)
    since = [step.since for step in steps]
    units = [min(body.count, times_that_fit(unit_of(body), step.free)) for step in steps]
    units[0] = min(units[0], times_that_fit(unit_of(body), free_now(state, node)))
    opens = sorted({lower, *(one for one in since if one > lower), *_closings(since, length, lower)})
    inside: deque[int] = deque()  # steps that the window touches, those that may be its fullest, fullest first
    following = bisect_right(since, lower) - 1
    for start in opens:
        while following < len(since) and since[following] < start + length:
            while inside and units[inside[-1]] >= units[following]:
                inside.pop()
            inside.append(following)
            following += 1
        while inside[0] + 1 < len(since) and since[inside[0] + 1] <= start:
            inside.popleft()
        yield start, units[inside[0]]


def _closings(since: Iterable[int], length: int, lower: int) -> Iterator[int]:
    """The first starts whose windows reach into a later step."""
    for one in since:
        if one - length + 1 > lower:
            yield one - length + 1


# --- who is in the way -----------------------------------------------------------------------------------------


def in_the_way(state: State, body: ReservationBody, nodes: Iterable[Node], at: int) -> tuple[str, ...]:
    """What takes room from the window on nodes where it lacks some, each with its end; who leaves last comes first."""
    first = max(body.start, at)
    found: dict[str, int | None] = {}
    for node in nodes:
        for name in state.reservations.on_node(node.id):
            other = state.reservations.reservations[name]
            is_open = other.state is ReservationState.ACTIVE or other.body.start < body.end
            if other.id != body.id and is_open and other.body.end > first:
                found[f"reservation {name}"] = other.body.end
        for allocation in state.cluster.on_node(node.id).values():
            end = ends_by(state, allocation)
            if end is None or end > first:
                found.setdefault(f"{allocation.namespace}/{allocation.request}", end)
    listed = sorted(found.items(), key=lambda one: (one[1] is not None, -(one[1] or 0), one[0]))
    return tuple(f"{name} (until {time_text(end)})" if end is not None else f"{name} (endless)" for name, end in listed)

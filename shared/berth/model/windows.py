"""Held capacity over time: what a node has free now, and whether work fits beside windows that are promised.

Scheduler, leader and reservation service ask these same functions. Between the starts of windows what is
taken only falls (allocations end, reservations end), so a node is never fuller than now or at one of
those starts: it is enough to look there. Times are milliseconds UTC.
"""

from berth.ids import NodeId, ReservationId
from berth.messages.documents import OnExpiry, Use, time_text
from berth.messages.reasons import Reason, ReasonCode
from berth.model.charging import draws_on
from berth.model.cluster import Allocation, Node
from berth.model.ledger import State
from berth.model.reservation import CalendarPage, Load, Reservation, ReservationState, Window
from berth.resources import NOTHING, Resources, resources

# --- now ----------------------------------------------------------------------------------------------


def free_now(state: State, node: Node, drawing: ReservationId | None = None) -> Resources:
    """Allocatable, without what is used and without what active reservations hold undrawn.

    For work that draws on `drawing`, its own hold on the node is free, and in the dimensions that it
    reserves nothing else is where its use is restricted (R95); `instances` and what it does not reserve come from
    the node. Negative where the node is over-committed, also for what draws: it then takes nothing more.
    """
    free = node.allocatable.minus(state.cluster.used_on(node.id))
    reservations = state.reservations
    if not reservations.on_node(node.id):
        return free
    free = free.minus(reservations.undrawn_on(node.id))
    owner = drawn_reservation(state, node.id, drawing)
    if owner is None:
        return free
    undrawn = reservations.held_on(owner, node.id).beyond(reservations.drawn_on(owner.id, node.id))
    return _with_hold(free, undrawn, owner.body.resources if owner.body.use is Use.RESTRICTED else NOTHING)


def reservation_full(state: State, node: Node, charge: Resources, drawing: ReservationId) -> Reason | None:
    """The dimension in which what `drawing` holds on `node` is used up for `charge`, or None (R95, restricted)."""
    owner = drawn_reservation(state, node.id, drawing)
    if owner is None or owner.body.use is Use.ALIGNED:
        return None
    held, drawn = state.reservations.held_on(owner, node.id), state.reservations.drawn_on(owner.id, node.id)
    for dimension, _ in owner.body.resources.dimensions():
        needed, left = charge.amount(dimension), held.amount(dimension) - drawn.amount(dimension)
        if needed > left:
            return Reason(
                code=ReasonCode.RESERVATION_FULL,
                nodes=1,
                dimension=dimension,
                needed=needed,
                best_available=max(0, left),
                detail=owner.id,
            )
    return None


def drawn_reservation(state: State, node: NodeId, drawing: ReservationId | None) -> Reservation | None:
    """The active reservation `drawing`, if it holds something on `node`."""
    if drawing is None or drawing not in state.reservations.on_node(node):
        return None
    owner = state.reservations.reservations[drawing]
    return owner if owner.state is ReservationState.ACTIVE else None


def _with_hold(free: Resources, undrawn: Resources, reserved: Resources) -> Resources:
    """`free`, opened by what the own hold has left; nothing of a dimension in which the node is over-committed.

    Of the dimensions of `reserved` nothing but the hold.
    """
    amounts = dict(free.dimensions())
    for dimension, left in undrawn.dimensions():
        if amounts.get(dimension, 0) >= 0:
            amounts[dimension] = amounts.get(dimension, 0) + left
    for dimension, _ in reserved.dimensions():
        amounts[dimension] = min(amounts.get(dimension, 0), undrawn.amount(dimension))
    return resources(amounts)


# --- later --------------------------------------------------------------------------------------------


def window_reason(
    state: State,
    node: Node,
    charge: Resources,
    *,
    at: int,
    ends_at: int | None,
    drawing: ReservationId | None = None,
) -> Reason | None:
    """Why `charge` may not run on `node` from `at` until `ends_at` (None: without end), for a window that is held.

    Work that ends by a window's start never disturbs it (R87); other work must fit beside it in every
    dimension it asks for, also where its own hold covers it: an over-committed window takes nothing.
    Work that draws on a reservation with `on_expiry: evict` ends with it at the latest, and its grace. Whether it
    fits now: `free_now`.
    """
    if not state.reservations.on_node(node.id):
        return None
    owner = drawn_reservation(state, node.id, drawing)
    end = _earlier(ends_at, None if owner is None else takes_along_by(owner))
    for window in windows_of(state, node.id):
        if end is not None and window.start >= end:
            break
        if window.end <= at:
            continue  # its end is due already
        raised = charge if owner is None else _raised(state, node.id, window, owner, charge)
        free = node.allocatable.minus(window.load.total)
        for dimension, _ in charge.dimensions():
            needed, left = raised.amount(dimension), free.amount(dimension)
            if needed > left:
                return _reason(window, dimension, needed=needed, best_available=max(0, left))
    return None


def overheld(state: State, node: Node, *, at: int, raised: Resources | None = None) -> Reason | None:
    """Which window on `node` no longer fits beside what runs beyond its start, or None.

    Judged after a whole transaction, in the dimensions of what it `raised` (None: in all): a node that
    came back smaller must not refuse what takes nothing of what it lacks.
    """
    if not state.reservations.on_node(node.id):
        return None
    for window in windows_of(state, node.id):
        if window.end <= at:
            continue
        free = node.allocatable.minus(window.load.total)
        for dimension, amount in free.dimensions():
            if amount < 0 and (raised is None or raised.amount(dimension)):
                return _reason(window, dimension, needed=-amount, best_available=0)
    return None


def units_that_fit(state: State, node: Node, unit: Resources, *, start: int, end: int, at: int) -> int:
    """How many times `unit` may be held on `node` for [start, end), beside all that is held and runs (R89).

    A window that has begun counts from `at` on and must fit now.
    """
    assert start < end and unit != NOTHING
    first = max(start, at)
    free = [node.allocatable.minus(load_at(state, node.id, first).total)]
    if start <= at:
        free.append(free_now(state, node))
    if state.reservations.on_node(node.id):
        free += [
            node.allocatable.minus(window.load.total)
            for window in windows_of(state, node.id)
            if first < window.start < end
        ]
    return min(times_that_fit(unit, left) for left in free)


def times_that_fit(unit: Resources, free: Resources) -> int:
    """How many times `unit` is contained in `free`; 0 where it lacks something."""
    return max(0, min(free.amount(dimension) // amount for dimension, amount in unit.dimensions()))


def _raised(state: State, node: NodeId, window: Window, owner: Reservation, charge: Resources) -> Resources:
    """What `charge` adds to what `window` finds taken: nothing where the hold it draws on covers it."""
    if owner.body.end <= window.start:
        return charge
    held = state.reservations.held_on(owner, node)
    before = window.load.drawn.get(owner.id, NOTHING)
    return (before + charge).beyond(held).minus(before.beyond(held))


def _reason(window: Window, dimension: str, *, needed: int, best_available: int) -> Reason:
    return Reason(
        code=ReasonCode.HELD_BY_RESERVATION,
        nodes=1,
        dimension=dimension,
        needed=needed,
        best_available=best_available,
        detail=f"{window.reservation} from {time_text(window.start)}",
    )


# --- the calendar of one node -----------------------------------------------------------------------------


def windows_of(state: State, node: NodeId) -> tuple[Window, ...]:
    """The windows held on `node` that are not active yet, by start; each with what it finds taken there.

    Derived anew only when an allocation or a hold on the node has changed.
    """
    allocations, holders = state.cluster.on_node(node).version, state.reservations.on_node(node).version
    page = state.reservations.pages.get(node)
    if page is None or page.allocations != allocations or page.holders != holders:
        page = CalendarPage(allocations=allocations, holders=holders, windows=_windows(state, node))
        state.reservations.pages[node] = page
    return page.windows


def _windows(state: State, node: NodeId) -> tuple[Window, ...]:
    held = [one for one in _holders(state, node) if one.state is ReservationState.HELD]
    held.sort(key=lambda one: (one.body.start, one.id))
    return tuple(
        Window(start=one.body.start, end=one.body.end, reservation=one.id, load=load_at(state, node, one.body.start))
        for one in held
    )


def _holders(state: State, node: NodeId) -> list[Reservation]:
    return [state.reservations.reservations[name] for name in state.reservations.on_node(node)]


def load_at(state: State, node: NodeId, moment: int) -> Load:
    """What is taken on `node` at `moment`, when what must end before has ended."""
    open_then = {one.id: one for one in _holders(state, node) if _is_open(one, moment)}
    drawn: dict[ReservationId, Resources] = {}
    committed = NOTHING
    for allocation in state.cluster.on_node(node).values():
        runs_until = ends_by(state, allocation)
        if runs_until is not None and runs_until <= moment:
            continue
        owner = draws_on(state, allocation)
        if owner is not None and owner.id in open_then:
            drawn[owner.id] = drawn.get(owner.id, NOTHING) + allocation.charge
        else:
            committed += allocation.charge
    held = NOTHING
    for name, one in open_then.items():
        units, used = state.reservations.held_on(one, node), drawn.get(name, NOTHING)
        held += used + units.beyond(used)
    return Load(held=held, committed=committed, drawn=drawn)


def _is_open(reservation: Reservation, moment: int) -> bool:
    started = reservation.state is ReservationState.ACTIVE or reservation.body.start <= moment
    return started and moment < reservation.body.end


def ends_by(state: State, allocation: Allocation) -> int | None:
    """When a live allocation will be gone at the latest (milliseconds UTC); None: nothing ends it."""
    owner = draws_on(state, allocation)
    return _earlier(allocation.gone_by, None if owner is None else takes_along_by(owner))


def takes_along_by(reservation: Reservation) -> int | None:
    """When what draws on it will be gone at the latest because it is over; None: it keeps what draws."""
    body = reservation.body
    return body.end + body.grace_seconds * 1000 if body.on_expiry is OnExpiry.EVICT else None


def _earlier(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)

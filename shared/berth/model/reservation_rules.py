"""What may become of a reservation: asked before each of its events is folded, and judged after the transaction.

Terminal states are final (R96). Whether there is room is judged once the transaction is whole, in the
dimensions that the reservation holds; times are milliseconds UTC.
"""

from collections.abc import Iterable, Iterator, Sequence

from berth.ids import Namespace, NodeId, RequestKey, ReservationId, is_name
from berth.messages.commands import Refusal, RefusalCode
from berth.messages.documents import OnExpiry, Use, time_text
from berth.messages.events import (
    AllocationsEnded,
    AllocationsReleasing,
    Event,
    ReservationActivated,
    ReservationCreated,
    ReservationEnded,
    ReservationHeld,
    Transaction,
)
from berth.messages.reasons import ReasonCode, sentence
from berth.messages.reservation_events import HeldOnNode, ReservationStatus
from berth.model.charging import draws_on
from berth.model.cluster import Allocation, AllocationState
from berth.model.ledger import State
from berth.model.reservation import Reservation, ReservationState, unit_of
from berth.model.windows import ends_by, free_now, overheld
from berth.resources import NOTHING, Resources

# --- before each event ------------------------------------------------------------------------------------


def refuse_created(state: State, event: Event, at: int) -> Refusal | None:
    """Why a reservation may not be created. Ids are unique in the cluster; the same body again is done already."""
    data = event.data
    assert isinstance(data, ReservationCreated)
    body = data.reservation
    known = state.reservations.reservations.get(body.id)
    if known is not None:
        if (known.namespace, known.digest) == (event.namespace, data.digest):
            return _no(RefusalCode.ALREADY_DONE, f"{body.id} exists already")
        return _no(RefusalCode.CONFLICT, f"the id {body.id} is taken by another reservation")
    if event.namespace is None or not is_name(body.id):
        return _no(RefusalCode.INVALID, f"{body.id!r} of {event.namespace!r} is no name of a reservation")
    if body.count < 1 or body.resources == NOTHING or not body.resources.is_non_negative():
        return _no(RefusalCode.INVALID, f"{body.id} reserves nothing")
    if body.start >= body.end:
        return _no(RefusalCode.INVALID, f"{body.id} ends before it starts")
    if body.end <= at:
        return _no(RefusalCode.INVALID, f"{body.id} ends at {time_text(body.end)}, it is {time_text(at)}")
    return None


def refuse_activated(state: State, event: Event, at: int) -> Refusal | None:
    """Why it may not become active: not held, before its start, or after its end."""
    data = event.data
    assert isinstance(data, ReservationActivated)
    reservation = named_open(state, event, data.reservation)
    if isinstance(reservation, Refusal):
        return reservation
    body = reservation.body
    if reservation.state is ReservationState.ACTIVE:
        return _no(RefusalCode.ALREADY_DONE, f"{body.id} is active already")
    if reservation.state is not ReservationState.HELD:
        return _no(RefusalCode.INVALID, f"{body.id} is {reservation.state}, not held")
    if at < body.start:
        return _no(RefusalCode.TOO_EARLY, f"{body.id} starts at {time_text(body.start)}, it is {time_text(at)}")
    if at >= body.end:
        return _no(RefusalCode.WINDOW, f"{body.id} is over since {time_text(body.end)}")
    return None


def refuse_ended(state: State, event: Event, at: int) -> Refusal | None:
    """Why it may not end so. `expired`: not before its end, and with `evict` not before what draws on it is gone.

    `released`: active, and nobody draws on it (R90), unless it is to be used once. `cancelled`: before it is active.
    """
    data = event.data
    assert isinstance(data, ReservationEnded)
    reservation = named_open(state, event, data.reservation)
    if isinstance(reservation, Refusal):
        return reservation
    body = reservation.body
    drawers = len(staying_drawers(state, reservation))
    match data.status:
        case ReservationStatus.EXPIRED if at < body.end:
            return _no(RefusalCode.TOO_EARLY, f"{body.id} ends at {time_text(body.end)}, it is {time_text(at)}")
        case ReservationStatus.EXPIRED if drawers and body.on_expiry is OnExpiry.EVICT:
            return _no(RefusalCode.STALE_VICTIM, f"{drawers} allocations still draw on {body.id}")
        case ReservationStatus.EXPIRED:
            return None
        case ReservationStatus.RELEASED if reservation.state is not ReservationState.ACTIVE:
            return _no(RefusalCode.RULE, f"{body.id} is {reservation.state}, only an active one is released")
        case ReservationStatus.RELEASED if drawers and not body.allocate_once:
            return _no(RefusalCode.RULE, f"{drawers} allocations draw on {body.id}")
        case ReservationStatus.CANCELLED if reservation.state is ReservationState.ACTIVE:
            return _no(RefusalCode.RULE, f"{body.id} is active, so it is released, not cancelled")
        case ReservationStatus.RELEASED | ReservationStatus.CANCELLED:
            return None


def named_open(state: State, event: Event, name: ReservationId) -> Reservation | Refusal:
    """The reservation of the event's namespace, or why nothing more may become of it (R96)."""
    reservation = state.reservations.reservations.get(name)
    if reservation is None:
        return _no(RefusalCode.NOT_FOUND, f"no reservation {name}")
    if event.namespace != reservation.namespace:
        return _no(RefusalCode.INVALID, f"{name} belongs to {reservation.namespace}")
    if reservation.is_over:
        return _no(RefusalCode.ALREADY_DONE, f"{name} is {reservation.state}, and that is final")
    return reservation


def staying_drawers(state: State, reservation: Reservation) -> list[Allocation]:
    """What draws on it and is not on its way out."""
    if not state.reservations.drawers.get(reservation.id):
        return []
    return [
        allocation
        for node, _ in reservation.holds
        for allocation in state.cluster.on_node(node).values()
        if allocation.reservation == reservation.id and allocation.state is AllocationState.PLACED
    ]


# --- what ends with time ------------------------------------------------------------------------------------


def is_due(state: State, allocation: Allocation, at: int) -> bool:
    """Its duration is over at `at`, or the reservation that takes what draws on it along."""
    by = ends_by(state, allocation)
    return by is not None and by <= at and allocation.state is AllocationState.PLACED


def is_told_to_leave(state: State, allocation: Allocation, at: int) -> bool:
    """The reservation that it draws on, and that takes what draws along, is over: its grace begins."""
    owner = draws_on(state, allocation)
    return owner is not None and owner.body.on_expiry is OnExpiry.EVICT and owner.body.end <= at


def grace_seconds(state: State, allocation: Allocation) -> int:
    """How long it may take to leave at most: as its request says, or the reservation that it draws on."""
    asked = state.queue.requests[allocation.request_key].request.grace_seconds
    owner = draws_on(state, allocation)
    return asked if owner is None else max(asked, owner.body.grace_seconds)


def refuse_duration_end(state: State, allocation: Allocation, at: int, *, releasing: bool) -> Refusal | None:
    """Why `allocation` may not expire at `at`: it is not due, and neither are so many of its request's others
    that the request would fall below what it needs. `releasing`: it is only told to leave.
    """
    if is_due(state, allocation, at) or (releasing and is_told_to_leave(state, allocation, at)):
        return None
    known = state.queue.requests[allocation.request_key]
    live = [state.cluster.allocations[allocation.namespace, name] for name in known.live]
    due = sum(is_due(state, one, at) for one in live)
    staying = sum(one.state is AllocationState.PLACED for one in live) - due
    if due and staying < known.request.needed:
        return None
    by = ends_by(state, allocation)
    until = "without end" if by is None else f"until {time_text(by)}"
    return _no(RefusalCode.TOO_EARLY, f"{allocation.id} runs {until}, it is {time_text(at)}")


# --- who leaves with a reservation that is cancelled --------------------------------------------------------


def refuse_taken_along(state: State, transaction: Transaction) -> Refusal | None:
    """Why nobody may be evicted because a reservation is given back: it is not, in this transaction."""
    given_back = {
        event.data.reservation
        for event in transaction
        if isinstance(event.data, ReservationEnded) and event.data.status is ReservationStatus.RELEASED
    }
    for event in transaction:
        data = event.data
        if not isinstance(data, AllocationsEnded | AllocationsReleasing) or event.namespace is None:
            continue
        for name in data.ids if data.reason is ReasonCode.RESERVATION_CANCELLED else ():
            victim = state.cluster.allocations.get((event.namespace, name))
            if victim is None or victim.state is not AllocationState.PLACED:
                continue  # that it leaves was judged when it was told to
            if draws_on(state, victim) is None or victim.reservation not in given_back:
                return _no(RefusalCode.CLASS, f"{name} draws on no reservation that is given back")
    return None


# --- who makes room at a start ------------------------------------------------------------------------------


def refuse_displaced(state: State, transaction: Transaction, victims: Iterable[Allocation], _at: int) -> Refusal | None:
    """Why `victims` may not be evicted in the transaction that activates a reservation.

    Each must be in the way on a node of it, draw on no active reservation, and be needed: put back, it would
    not fit. The rest of a request that falls below what it needs leaves with it.
    """
    leaving = [one for one in _leaving(state, transaction) if one.is_live]
    free = _free_after(state, transaction, leaving)
    needed = [one for one in leaving if _is_in_the_way(one, free)]
    for victim in victims:
        if draws_on(state, victim) is not None:
            return _no(RefusalCode.CLASS, f"{victim.id} draws on {victim.reservation}")
        if victim not in needed and not _is_broken(state, victim.request_key, needed):
            return _no(RefusalCode.CLASS, f"{victim.id} on {victim.node} is not in the way")
    return None


def _leaving(state: State, transaction: Transaction) -> Iterator[Allocation]:
    for event in transaction:
        if isinstance(event.data, AllocationsEnded) and event.namespace is not None:
            for name in event.data.ids:
                allocation = state.cluster.allocations.get((event.namespace, name))
                if allocation is not None:
                    yield allocation


def _free_after(
    state: State, transaction: Transaction, leaving: Iterable[Allocation]
) -> dict[NodeId, tuple[Resources, Resources]]:
    """For each node where a reservation becomes active: its unit, and what is free once all is done."""
    found: dict[NodeId, tuple[Resources, Resources]] = {}
    for name in (event.data.reservation for event in transaction if isinstance(event.data, ReservationActivated)):
        unit, holds = _as_it_will_be(state, transaction, name)
        for held in holds:
            node = state.cluster.nodes.get(held.node)
            if node is not None:
                units, free = found.get(node.id, (NOTHING, free_now(state, node)))
                found[node.id] = (units + unit, free.minus(unit.times(held.count)))
    for allocation in leaving:
        if allocation.node in found:
            units, free = found[allocation.node]
            found[allocation.node] = (units, free + allocation.charge)
    return found


def _as_it_will_be(
    state: State, transaction: Transaction, name: ReservationId
) -> tuple[Resources, tuple[HeldOnNode, ...]]:
    """The unit and the holds of a reservation, where the transaction itself creates or moves it too."""
    known = state.reservations.reservations.get(name)
    unit = known.unit if known else NOTHING
    holds = tuple(HeldOnNode(node=node, count=count) for node, count in known.holds) if known else ()
    for event in transaction:
        data = event.data
        if isinstance(data, ReservationCreated) and data.reservation.id == name:
            unit = unit_of(data.reservation)
        elif isinstance(data, ReservationHeld) and data.reservation == name:
            holds = data.nodes
    return unit, holds


def _is_in_the_way(allocation: Allocation, free: dict[NodeId, tuple[Resources, Resources]]) -> bool:
    if allocation.node not in free:
        return False
    unit, left = free[allocation.node]
    return any(allocation.charge.amount(dimension) > left.amount(dimension) for dimension, _ in unit.dimensions())


def _is_broken(state: State, key: RequestKey, leaving: Sequence[Allocation]) -> bool:
    """Whether the request falls below what it needs when those leave."""
    gone = {one.key for one in leaving if one.request_key == key}
    if not gone:
        return False
    known = state.queue.requests[key]
    live = [state.cluster.allocations[key[0], name] for name in known.live]
    staying = sum(one.state is AllocationState.PLACED and one.key not in gone for one in live)
    return staying < known.request.needed


# --- after the whole transaction ----------------------------------------------------------------------------


def judge_reservation(state: State, name: ReservationId, at: int) -> Refusal | None:
    """Why a reservation may not stand as it does after a transaction that created, held or activated it.

    In the dimensions it holds: used and undrawn active holds fit on each of its nodes, windows fit beside
    what runs beyond their start, and its namespace stays within `hard` (a window to come: over its window).
    """
    reservation = state.reservations.reservations.get(name)
    if reservation is None or reservation.is_over:
        return None
    for held, _ in reservation.holds:
        node = state.cluster.nodes.get(held)
        if node is None:
            return _no(RefusalCode.NOT_FOUND, f"no node {held}")
        if reservation.state is ReservationState.ACTIVE:
            free = free_now(state, node)
            for dimension, _ in reservation.unit.dimensions():
                if free.amount(dimension) < 0:
                    short = -free.amount(dimension)
                    return _no(RefusalCode.CAPACITY, f"{held} lacks {short} of {dimension} for {name}")
        reason = overheld(state, node, raised=reservation.unit, at=at)
        if reason is not None:
            return _no(RefusalCode.WINDOW, f"{held}: {sentence(reason)}")
    return over_hard(state, reservation)


def refuse_overdrawn(state: State, reservation: Reservation, nodes: Iterable[NodeId] | None = None) -> Refusal | None:
    """Why what is drawn on `nodes` (None: on all of its own) is too much: more than is held of what it reserves.

    R95, restricted; what it does not reserve comes from the node.
    """
    if reservation.state is not ReservationState.ACTIVE:
        return _no(RefusalCode.RULE, f"{reservation.id} is {reservation.state}, only an active one is drawn on")
    if reservation.body.use is Use.ALIGNED:
        return None
    for node in [node for node, _ in reservation.holds] if nodes is None else nodes:
        held, drawn = state.reservations.held_on(reservation, node), state.reservations.drawn_on(reservation.id, node)
        for dimension, _ in reservation.body.resources.dimensions():
            if drawn.amount(dimension) > held.amount(dimension):
                more = drawn.amount(dimension) - held.amount(dimension)
                return _no(RefusalCode.CAPACITY, f"{reservation.id} holds {more} of {dimension} too little on {node}")
    return None


def beyond_holds(state: State, reservation: Reservation, nodes: Iterable[NodeId], amount: Resources) -> Resources:
    """What `amount`, just drawn on `nodes`, may take beyond what is held there: that is charged anew.

    Of the kinds that are reserved only what exceeds the holds (R95, aligned); all of the others.
    """
    beyond = amount.beyond(reservation.total)
    if reservation.body.use is Use.RESTRICTED:
        return beyond
    for node in nodes:
        held, drawn = state.reservations.held_on(reservation, node), state.reservations.drawn_on(reservation.id, node)
        beyond += drawn.beyond(held)
    return beyond


def over_hard(state: State, reservation: Reservation) -> Refusal | None:
    """Why the reservation exceeds its namespace's `hard` while it lasts, in the dimensions that it holds.

    An active one counts in what the namespace uses now. For a window to come, what counts at its start and
    at the start of every other window beside it is what the namespace still runs, and what it holds then.
    """
    namespace, body = reservation.namespace, reservation.body
    quota = state.quotas.quotas.get(namespace)
    dimensions = reservation.unit.dimensions()
    limits = {} if quota is None else {name: quota.hard[name] for name, _ in dimensions if name in quota.hard}
    used = state.quotas.used_by(namespace)
    if not limits or reservation.state is ReservationState.ACTIVE:
        return _beyond(namespace, used, limits, None)
    mine = [one for one in _opened(state) if one.namespace == namespace]
    to_come = [one.total for one in mine if one.state is not ReservationState.ACTIVE]
    if _beyond(namespace, sum(to_come, used), limits, None) is None:
        return None  # not even all of it together
    starts = {one.body.start for one in mine if body.start < one.body.start < body.end}
    for moment in sorted({body.start, *starts}):
        refusal = _beyond(namespace, _used_at(state, namespace, mine, moment), limits, moment)
        if refusal is not None:
            return refusal
    return None


def _beyond(namespace: Namespace, used: Resources, limits: dict[str, int], moment: int | None) -> Refusal | None:
    for dimension, limit in limits.items():
        amount = used.amount(dimension)
        if amount > limit:
            when = "" if moment is None else f" at {time_text(moment)}"
            text = f"{namespace} would use {amount} of {dimension}{when}, its hard limit is {limit}"
            return _no(RefusalCode.QUOTA, text)
    return None


def _opened(state: State) -> list[Reservation]:
    return [state.reservations.reservations[name] for name in state.reservations.open]


def _used_at(state: State, namespace: Namespace, mine: Iterable[Reservation], moment: int) -> Resources:
    used = NOTHING
    for one in mine:
        if one.state is ReservationState.ACTIVE and moment < one.body.end:
            used += state.reservations.charged(one)
        elif one.state is not ReservationState.ACTIVE and one.body.start <= moment < one.body.end:
            used += one.total
    for node in state.cluster.nodes:
        for allocation in state.cluster.on_node(node).values():
            if allocation.namespace != namespace:
                continue
            by, owner = ends_by(state, allocation), draws_on(state, allocation)
            if (by is None or by > moment) and (owner is None or owner.body.end <= moment):
                used += allocation.charge
    return used


def _no(code: RefusalCode, detail: str) -> Refusal:
    return Refusal(code=code, detail=detail)

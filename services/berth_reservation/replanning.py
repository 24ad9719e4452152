"""Where a promise is kept when nodes fail it (R92): what is held on nodes that are lost, drained or gone moves.

What finds no other place is held with fewer units, and the event says why: the promise is broken, not forgotten. It
is filled up again as soon as there is room. Pure; times are milliseconds UTC.
"""

from collections.abc import Mapping
from dataclasses import replace

from berth.ids import NodeId
from berth.messages.documents import OnNodeLoss
from berth.messages.events import Event, ReservationHeld, Transaction
from berth.messages.reservation_events import Because, HeldOnNode, HoldCause
from berth.model.holding import why_unfit
from berth.model.ledger import State
from berth.model.reservation import Reservation, ReservationState
from berth.model.windows import units_that_fit
from berth_reservation.choosing import fill, replacements, room_on


def replan(state: State, reservation: Reservation, at: int) -> Transaction | None:
    """Hold what was lost elsewhere, or what waits for room at last; None: nothing can be bettered now."""
    with state.journal.trial():
        after = held_anew(state, reservation, at)
    if reservation.state is ReservationState.PENDING:
        if sum(one.count for one in after) < reservation.body.count:
            return None
        return (Event(ReservationHeld(reservation=reservation.id, nodes=after), reservation.namespace),)
    if units_of(after) == dict(reservation.holds):
        return None
    because = why_otherwise(state, reservation, after)
    held = ReservationHeld(reservation=reservation.id, nodes=after, because=because)
    return (Event(held, reservation.namespace),)


def held_anew(state: State, reservation: Reservation, at: int) -> tuple[HeldOnNode, ...]:
    """As many of its units as its window has room for, where they are as far as possible.

    Inside a trial: `state` then holds them so.
    """
    body = reservation.body
    kept = _staying(state, reservation, at)
    state.reservations.put(replace(reservation, holds=tuple(kept.items())))
    if body.on_node_loss is OnNodeLoss.STATIC and reservation.state is not ReservationState.PENDING:
        return tuple(HeldOnNode(node=name, count=count) for name, count in kept.items())
    nodes = replacements(state, body)
    chosen = fill(state, body, nodes, room_on(state, body, nodes, at), kept)
    state.reservations.put(replace(reservation, holds=tuple(units_of(chosen).items())))
    return chosen


def _staying(state: State, reservation: Reservation, at: int) -> dict[NodeId, int]:
    """Units that stay: on nodes that will be there and have room, and wherever somebody draws on an active one."""
    body, kept = reservation.body, dict[NodeId, int]()
    if reservation.state is ReservationState.ACTIVE:
        for name, count in reservation.holds:
            if why_unfit(state, name) is None or state.reservations.drawn_on(reservation.id, name).instances:
                kept[name] = count
        return kept
    is_static = body.on_node_loss is OnNodeLoss.STATIC
    state.reservations.put(replace(reservation, holds=()))
    for name, count in reservation.holds:
        node = state.cluster.nodes.get(name)
        if node is None:
            continue
        if why_unfit(state, name) is not None:
            units = count if is_static else 0
        else:
            units = min(count, units_that_fit(state, node, reservation.unit, start=body.start, end=body.end, at=at))
        if units:
            kept[name] = units
    return kept


def why_otherwise(state: State, reservation: Reservation, after: tuple[HeldOnNode, ...]) -> Because:
    """What took units from where they were, and on which nodes; without such a thing it was filled up."""
    now = units_of(after)
    fewer = [name for name, count in reservation.holds if now.get(name, 0) < count]
    if not fewer:
        return Because(cause=HoldCause.REFILLED)
    causes = {name: why_unfit(state, name) or HoldCause.NODE_SMALLER for name in fewer}
    cause = causes[fewer[0]]
    return Because(cause=cause, names=tuple(name for name in fewer if causes[name] is cause))


def units_of(nodes: tuple[HeldOnNode, ...]) -> Mapping[NodeId, int]:
    return {one.node: one.count for one in nodes}

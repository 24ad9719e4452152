"""What happens at a reservation's start: what is left of its nodes is its own, and who is in the way leaves.

Windows are kept free by everybody who places work, so nobody is in the way as a rule: only what outlived its
time, or what a node that came back smaller cannot carry any more.
"""

from collections.abc import Iterable
from dataclasses import replace

from berth.ids import AllocationId, NodeId, RequestKey
from berth.messages.documents import OnNodeLoss
from berth.messages.events import Event, How, ReservationActivated, ReservationHeld, Transaction
from berth.messages.reasons import ReasonCode
from berth.messages.reservation_events import HeldOnNode
from berth.model.charging import draws_on
from berth.model.cluster import Allocation, Node
from berth.model.holding import Units, why_unfit
from berth.model.ledger import State
from berth.model.reservation import Reservation, ReservationState
from berth.model.reservation_rules import is_due
from berth.model.windows import free_now, times_that_fit
from berth.resources import Resources
from berth_reservation.choosing import fill, replacements, room_on
from berth_reservation.departures import departure
from berth_reservation.replanning import units_of, why_otherwise


def activate(state: State, reservation: Reservation, at: int) -> Transaction | None:
    """The one transaction that starts a reservation at `at` (milliseconds UTC); None: nothing is left of it.

    A hold shrinks to what its node still has, without what others hold or draw there; what is missing then is
    held on other nodes, where those have room. One that was never held waits until all of it has.
    """
    holds = _filled_up(state, reservation, _what_is_left(state, reservation), at)
    is_pending = reservation.state is ReservationState.PENDING
    if not holds or (is_pending and sum(one.count for one in holds) < reservation.body.count):
        return None
    events: list[Event] = []
    if units_of(holds) != dict(reservation.holds):
        because = None if is_pending else why_otherwise(state, reservation, holds)
        held = ReservationHeld(reservation=reservation.id, nodes=holds, because=because)
        events.append(Event(held, reservation.namespace))
    events += _make_room(state, reservation, holds, at)
    events.append(Event(ReservationActivated(reservation=reservation.id), reservation.namespace))
    return tuple(events)


def _filled_up(state: State, reservation: Reservation, kept: Units, at: int) -> tuple[HeldOnNode, ...]:
    is_pinned = reservation.body.on_node_loss is OnNodeLoss.STATIC and reservation.state is ReservationState.HELD
    if is_pinned or sum(kept.values()) == reservation.body.count:
        return tuple(HeldOnNode(node=name, count=count) for name, count in kept.items())
    with state.journal.trial():
        state.reservations.put(replace(reservation, holds=tuple(kept.items())))
        nodes = replacements(state, reservation.body)
        return fill(state, reservation.body, nodes, room_on(state, reservation.body, nodes, at), kept)


def _what_is_left(state: State, reservation: Reservation) -> Units:
    found: dict[NodeId, int] = {}
    for name, count in reservation.holds:
        if why_unfit(state, name) is not None:
            continue
        node = state.cluster.nodes[name]
        free = free_now(state, node)
        for allocation in _displaceable(state, node):
            free += allocation.charge
        units = min(count, times_that_fit(reservation.unit, free))
        if units:
            found[name] = units
    return found


def _make_room(state: State, reservation: Reservation, holds: Iterable[HeldOnNode], at: int) -> list[Event]:
    leaving: dict[RequestKey, list[Allocation]] = {}
    for held in holds:
        node = state.cluster.nodes[held.node]
        for one in in_the_way(state, node, reservation.unit.times(held.count), at):
            leaving.setdefault(one.request_key, []).append(one)
    events: list[Event] = []
    for key, victims in leaving.items():
        names: list[AllocationId] = [one.id for one in victims]
        if all(is_due(state, one, at) for one in victims):
            events += departure(state, key, names, How.EXPIRED, ReasonCode.DURATION_OVER)
        else:
            events += departure(state, key, names, How.EVICTED, ReasonCode.PREEMPTED)
    return events


def in_the_way(state: State, node: Node, held: Resources, at: int) -> list[Allocation]:
    """Who must leave `node` so that `held` fits, and nobody who need not.

    First whose time is over, then lower priority, then what was placed later; what draws on another active
    reservation never. Taken until it fits, then given back, last taken first, whoever is not needed.
    """
    missing = held.beyond(free_now(state, node))
    wanted = [dimension for dimension, _ in held.dimensions() if missing.amount(dimension)]
    if not wanted:
        return []
    victims: list[Allocation] = []
    candidates = sorted(
        _displaceable(state, node),
        key=lambda one: (not is_due(state, one, at), one.priority, -one.placed_at, one.key),
    )
    for one in candidates:
        if any(missing.amount(dimension) > 0 and one.charge.amount(dimension) for dimension in wanted):
            victims.append(one)
            missing = missing.minus(one.charge)
    for one in reversed(victims.copy()):
        without = missing + one.charge
        if all(without.amount(dimension) <= 0 for dimension in wanted):
            victims.remove(one)
            missing = without
    return victims


def _displaceable(state: State, node: Node) -> list[Allocation]:
    return [one for one in state.cluster.on_node(node.id).values() if draws_on(state, one) is None]

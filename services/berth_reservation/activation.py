"""What happens at a reservation's start: what is left of its nodes is its own, and who is in the way leaves.

Windows are kept free by everybody who places work, so nobody is in the way as a rule: only what outlived its
time, or what a node that came back smaller cannot carry any more.
"""

from collections.abc import Iterable

from berth.ids import AllocationId, RequestKey
from berth.messages.events import Event, How, ReservationActivated, ReservationHeld, Transaction
from berth.messages.reasons import ReasonCode
from berth.messages.reservation_events import HeldOnNode
from berth.model.charging import draws_on
from berth.model.cluster import Allocation, Node
from berth.model.ledger import State
from berth.model.reservation import Reservation
from berth.model.reservation_rules import is_due
from berth.model.windows import free_now, times_that_fit
from berth.resources import Resources
from berth_reservation.departures import departure


def activate(state: State, reservation: Reservation, at: int) -> Transaction | None:
    """The one transaction that starts a held reservation at `at` (milliseconds UTC); None: nothing is left of it.

    A hold shrinks to what its node still has, without what others hold or draw there.
    """
    holds = _what_is_left(state, reservation)
    if not holds:
        return None
    events: list[Event] = []
    if holds != tuple(HeldOnNode(node=node, count=count) for node, count in reservation.holds):
        events.append(Event(ReservationHeld(reservation=reservation.id, nodes=holds), reservation.namespace))
    events += _make_room(state, reservation, holds, at)
    events.append(Event(ReservationActivated(reservation=reservation.id), reservation.namespace))
    return tuple(events)


def _what_is_left(state: State, reservation: Reservation) -> tuple[HeldOnNode, ...]:
    found: list[HeldOnNode] = []
    for name, count in reservation.holds:
        node = state.cluster.nodes.get(name)
        if node is None:
            continue
        free = free_now(state, node)
        for allocation in _displaceable(state, node):
            free += allocation.charge
        units = min(count, times_that_fit(reservation.unit, free))
        if units:
            found.append(HeldOnNode(node=name, count=units))
    return tuple(found)


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

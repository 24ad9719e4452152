"""How a new reservation takes the place of held ones of lower priority, when it asks to (`displace: lower_priority`).

As few as will do, the least important first. They are held elsewhere in the same transaction, or told with how many
units less. Pure; times are milliseconds UTC.
"""

from dataclasses import replace

from berth.ids import Namespace
from berth.messages.documents import Displace
from berth.messages.events import Event, ReservationActivated, ReservationCreated, ReservationHeld, Transaction
from berth.messages.reservation_events import Because, HeldOnNode, HoldCause, ReservationBody
from berth.model.check import check
from berth.model.ledger import State
from berth.model.reservation import Reservation, ReservationState
from berth_reservation.choosing import candidates, fill, room_on
from berth_reservation.replanning import held_anew, units_of


def displace(state: State, body: ReservationBody, namespace: Namespace, digest: str, at: int) -> Transaction | None:
    """The transaction that holds `body` in the place of others; None: it may not, or that would not do."""
    if body.displace is not Displace.LOWER_PRIORITY:
        return None
    created = Event(ReservationCreated(reservation=body, digest=digest), namespace)
    with state.journal.trial():
        found = _in_their_place(state, body, at)
        if found is None:
            return None
        chosen, victims = found
        held = Event(ReservationHeld(reservation=body.id, nodes=chosen), namespace)
        for event in (created, held):
            state.fold_event(event, at=at, sequence=state.sequence)
        moved = [_held_after(state, one, body, at) for one in victims]
    started = [Event(ReservationActivated(reservation=body.id), namespace)] if body.start <= at else []
    transaction = (created, *moved, held, *started)
    return transaction if check(state, transaction, at) is None else None


def _in_their_place(
    state: State, body: ReservationBody, at: int
) -> tuple[tuple[HeldOnNode, ...], list[Reservation]] | None:
    """Where it is held and who has to go for it; those hold nothing any more in `state`, which is on trial."""
    nodes = candidates(state, body)

    def chosen() -> tuple[HeldOnNode, ...]:
        return fill(state, body, nodes, room_on(state, body, nodes, at))

    victims: list[Reservation] = []
    for one in _displaceable(state, body):
        state.reservations.put(replace(one, holds=()))
        victims.append(one)
        if sum(held.count for held in chosen()) == body.count:
            break
    for one in reversed(victims.copy()):  # who need not go stays
        state.reservations.put(one)
        if sum(held.count for held in chosen()) == body.count:
            victims.remove(one)
        else:
            state.reservations.put(replace(one, holds=()))
    found = chosen()
    return (found, victims) if victims and sum(held.count for held in found) == body.count else None


def _displaceable(state: State, body: ReservationBody) -> list[Reservation]:
    """Held ones of lower priority in the same time: the least important first, then the one that came last."""
    known = [state.reservations.reservations[name] for name in state.reservations.open]
    lower = [
        one
        for one in known
        if one.state is ReservationState.HELD
        and one.body.priority < body.priority
        and one.body.start < body.end
        and body.start < one.body.end
    ]
    return sorted(lower, key=lambda one: (one.body.priority, -one.created, one.id))


def _held_after(state: State, victim: Reservation, body: ReservationBody, at: int) -> Event:
    after = held_anew(state, victim, at)
    because = Because(cause=HoldCause.DISPLACED, names=(body.id,))
    assert units_of(after) != dict(victim.holds), "who need not go has been left in its place"
    return Event(ReservationHeld(reservation=victim.id, nodes=after, because=because), victim.namespace)

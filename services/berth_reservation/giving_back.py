"""A reservation is cancelled, or one occurrence of a series skipped. Pure; times are milliseconds UTC."""

from berth.ids import Namespace, ReservationId
from berth.messages.commands import Refusal, RefusalCode
from berth.messages.events import Event, How, Transaction
from berth.messages.reasons import ReasonCode
from berth.messages.reservation_events import EndCause, ReservationStatus
from berth.model.ledger import State
from berth.model.reservation import Reservation, ReservationState
from berth_reservation.departures import departure, notice
from berth_reservation.expiry import drawers_of, ended_event, fits_one_record, following

USERS_SHOWN = 5


def named(state: State, name: ReservationId, namespace: Namespace) -> Reservation | Refusal:
    """The open reservation of that name, or why nothing can be done with it."""
    known = state.reservations.reservations.get(name)
    if known is None or known.namespace != namespace:
        return _no(RefusalCode.NOT_FOUND, f"{namespace} has no reservation {name}")
    if known.is_over:
        return _no(RefusalCode.ALREADY_DONE, f"{name} is {known.state}, and that is final")
    return known


def cancel(
    state: State, name: ReservationId, namespace: Namespace, at: int, *, evict: bool = False
) -> Transaction | Refusal:
    """End an open reservation, and its series: one that is held is cancelled, an active one released.

    While work draws on an active one it is refused (R90), unless that is to be evicted with it.
    """
    known = named(state, name, namespace)
    if isinstance(known, Refusal):
        return known
    if known.state is not ReservationState.ACTIVE:
        return (ended_event(known, ReservationStatus.CANCELLED, EndCause.CANCELLED),)
    drawing = drawers_of(state, known)
    if drawing and not evict:
        users = _listed(sorted(f"{owner}/{request}" for owner, request in drawing))
        text = f"{name} is in use by {users}: release those first, cancel it with `--evict`, or wait for its end"
        return _no(RefusalCode.RULE, text)
    events: list[Event] = []
    grace = known.body.grace_seconds * 1000
    for key, names in drawing.items():
        reason = ReasonCode.RESERVATION_CANCELLED
        if grace:
            events += notice(state, key, names, How.EVICTED, reason, until=at + grace)
        else:
            events += departure(state, key, names, How.EVICTED, reason, waits_again=False)
    events.append(ended_event(known, ReservationStatus.RELEASED, EndCause.CANCELLED))
    if not fits_one_record(events):
        return _no(RefusalCode.TOO_LARGE, f"{len(drawing)} requests draw on {name}: release some of them first")
    return tuple(events)


def skip(state: State, name: ReservationId, namespace: Namespace, at: int) -> Transaction | Refusal:
    """Leave out an occurrence that has not begun (R91); the one after it is booked in the same transaction."""
    known = named(state, name, namespace)
    if isinstance(known, Refusal):
        return known
    if known.body.recurrence is None:
        return _no(RefusalCode.RULE, f"{name} does not recur: cancel it instead")
    if known.state is ReservationState.ACTIVE:
        return _no(RefusalCode.RULE, f"{name} has begun: its next occurrence can be skipped once this one is over")
    ended = (ended_event(known, ReservationStatus.CANCELLED, EndCause.SKIPPED),)
    return (*ended, *following(state, known, [ended], at))


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:USERS_SHOWN])
    return f"{shown} and {len(names) - USERS_SHOWN} more" if len(names) > USERS_SHOWN else shown


def _no(code: RefusalCode, detail: str) -> Refusal:
    return Refusal(code=code, detail=detail)

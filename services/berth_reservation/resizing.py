"""A reservation gets a later or an earlier end, more units or fewer. Pure; times are milliseconds UTC.

Growing needs room for the whole of it, as booking does; what is held stays where it is as far as possible. Shrinking
never takes what is drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from berth.ids import Namespace, NodeId, ReservationId
from berth.messages.commands import ExtendReservation, Refusal, RefusalCode, ResizeReservation
from berth.messages.documents import Use, time_text
from berth.messages.events import Event, ReservationHeld, Transaction
from berth.messages.reservation_events import Because, HeldOnNode, HoldCause, ReservationBody
from berth.model.check import check
from berth.model.holding import why_unfit
from berth.model.ledger import State
from berth.model.reservation import Reservation, ReservationState
from berth.model.windows import windows_of
from berth_reservation.giving_back import named
from berth_reservation.replanning import held_anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a reservation is to have: its end (milliseconds UTC) and its count."""

    end: int
    count: int


def size_of(body: ReservationBody, command: ResizeReservation) -> Size:
    """What the command wants; what it does not say stays as it is."""
    return Size(end=command.end or body.end, count=command.count or body.count)


def resize(state: State, command: ResizeReservation, namespace: Namespace, at: int) -> Transaction | Refusal:
    """The transaction that holds it anew, or why not and what would work."""
    known = named(state, ReservationId(command.reservation), namespace)
    if isinstance(known, Refusal):
        return known
    wanted = size_of(known.body, command)
    if known.state is ReservationState.PENDING:
        return _no(RefusalCode.RULE, f"{known.id} is not held yet: cancel it, and book what you need instead")
    if (wanted.end, wanted.count) == (known.body.end, known.body.count):
        return _no(RefusalCode.ALREADY_DONE, f"{known.id} ends at {time_text(wanted.end)} with {wanted.count} units")
    if wanted.end <= max(at, known.body.start):
        return _no(RefusalCode.INVALID, f"{known.id} would be over at {time_text(wanted.end)}: cancel it instead")
    if isinstance(command, ExtendReservation):
        return _extend(state, known, wanted, at)
    return _shrink(state, known, wanted, at)


# --- larger ----------------------------------------------------------------------------------------------------


def _extend(state: State, known: Reservation, wanted: Size, at: int) -> Transaction | Refusal:
    if wanted.end < known.body.end or wanted.count < known.body.count:
        return _no(RefusalCode.INVALID, f"{known.id} would become smaller: that is `berth reservation shrink`")
    grown = _grown(state, known, wanted, at)
    if not isinstance(grown, Refusal):
        return grown
    for end in _earlier_ends(state, known, wanted):
        if not isinstance(_grown(state, known, replace(wanted, end=end), at), Refusal):
            return _advised(grown, f"it may be extended until {time_text(end)}")
    return _advised(grown, "it may not be extended at all")


def _grown(state: State, known: Reservation, wanted: Size, at: int) -> Transaction | Refusal:
    body = known.body.model_copy(update={"end": wanted.end, "count": wanted.count})
    with state.journal.trial():
        after = held_anew(state, replace(known, body=body), at)
    held = sum(one.count for one in after)
    if held < min(wanted.count, known.units + wanted.count - known.body.count):
        return _no(RefusalCode.CAPACITY, f"{held} of {wanted.count} units fit until {time_text(wanted.end)}")
    return _resized(state, known, after, HoldCause.EXTENDED, wanted, at)


def _earlier_ends(state: State, known: Reservation, wanted: Size) -> list[int]:
    """Starts of others' windows on its nodes: until the first of them it might grow."""
    starts = {
        window.start
        for name, _ in known.holds
        for window in windows_of(state, name)
        if known.body.end < window.start < wanted.end
    }
    return sorted(starts, reverse=True)


# --- smaller ---------------------------------------------------------------------------------------------------


def _shrink(state: State, known: Reservation, wanted: Size, at: int) -> Transaction | Refusal:
    if wanted.end > known.body.end or wanted.count > known.body.count:
        return _no(RefusalCode.INVALID, f"{known.id} would become larger: that is `berth reservation extend`")
    drawn = {name: _drawn_units(state, known, name) for name, _ in known.holds}
    held = dict(known.holds)
    spare = known.units - wanted.count
    for name in _first_to_go(state, known, drawn):
        gone = min(max(0, spare), held[name] - drawn[name])
        held[name] -= gone
        spare -= gone
    if spare > 0:
        text = f"{sum(drawn.values())} units of {known.id} are drawn: release what draws on it, or keep as many"
        return _no(RefusalCode.RULE, text)
    after = tuple(HeldOnNode(node=name, count=count) for name, count in held.items() if count)
    return _resized(state, known, after, HoldCause.SHRUNK, wanted, at)


def _first_to_go(state: State, known: Reservation, drawn: dict[NodeId, int]) -> Sequence[NodeId]:
    """Nodes that will not be there, then those that are drawn least, then those named last."""
    order = list(enumerate(name for name, _ in known.holds))
    order.sort(key=lambda one: (why_unfit(state, one[1]) is None, drawn[one[1]], -one[0]))
    return [name for _, name in order]


def _drawn_units(state: State, known: Reservation, name: NodeId) -> int:
    """How many units on the node it takes to cover what is drawn there."""
    drawn = state.reservations.drawn_on(known.id, name)
    if not drawn.instances:
        return 0
    reserved = known.body.resources.dimensions() if known.body.use is Use.RESTRICTED else ()
    needed = [-(-drawn.amount(dimension) // amount) for dimension, amount in reserved]
    return min(dict(known.holds)[name], max(1, *needed))


# --- both ------------------------------------------------------------------------------------------------------


def _resized(
    state: State, known: Reservation, after: tuple[HeldOnNode, ...], cause: HoldCause, wanted: Size, at: int
) -> Transaction | Refusal:
    data = ReservationHeld(
        reservation=known.id,
        nodes=after,
        because=Because(cause=cause, names=()),
        end=wanted.end if wanted.end != known.body.end else None,
        count=wanted.count if wanted.count != known.body.count else None,
    )
    transaction = (Event(data, known.namespace),)
    return check(state, transaction, at) or transaction


def _advised(refusal: Refusal, advice: str) -> Refusal:
    return refusal.model_copy(update={"detail": f"{refusal.detail}; {advice}"})


def _no(code: RefusalCode, detail: str) -> Refusal:
    return Refusal(code=code, detail=detail)

"""May this window be booked, and when else would it be? Pure: state and document in, transaction or refusal out.

Times are milliseconds UTC. What the leader would refuse is refused here first, in words that say what would work.
"""

from collections.abc import Iterator, Sequence

from berth.ids import Namespace
from berth.messages.commands import Refusal, RefusalCode
from berth.messages.documents import NodeState, ReservationDocument, time_text
from berth.messages.events import Event, ReservationActivated, ReservationCreated, ReservationHeld, Transaction
from berth.messages.reservation_events import HeldOnNode, ReservationBody
from berth.model.check import check
from berth.model.cluster import Node
from berth.model.holding import missed_constraint
from berth.model.ledger import State
from berth.model.reservation import unit_of
from berth.model.windows import times_that_fit
from berth.wire.codec import body_digest
from berth_reservation.calendar import in_the_way, starts_that_may_work
from berth_reservation.choosing import candidates, fill, room_on
from berth_reservation.displacing import displace
from berth_reservation.recurrence import first_start

DETAILS_MAX = 5
"""Nodes that a refusal names one by one; the rest is counted."""

STARTS_MAX = 64
"""Starts that are tried for a window that works: that nodes have room does not mean that quota or spread allow it."""


def digest_of(document: ReservationDocument) -> str:
    """What R106 compares. A window that the document leaves open is compared as it was said, not as it was read."""
    is_open = document.start is None or document.soonest or document.recurrence is not None
    if is_open or document.start is None or document.duration_seconds is None:
        return body_digest(document)
    end = document.start + document.duration_seconds * 1000
    return body_digest(document.model_copy(update={"end": end, "duration_seconds": None}))


def normalised(document: ReservationDocument, asked_at: int) -> ReservationBody:
    """The document in whole numbers, its window said in full; without a start it begins when it was asked for.

    That of a series is its first one; of one that comes as soon as possible, the soonest that is thinkable.
    """
    start = asked_at if document.start is None else document.start
    if document.soonest:
        start = max(start, asked_at)
    elif document.recurrence is not None:
        start = first_start(document.recurrence, max(start, asked_at)) or start
    seconds = document.duration_seconds
    end = document.end if seconds is None else start + seconds * 1000
    assert end is not None, "a reservation document says either its end or its duration"
    return ReservationBody(
        id=document.id,
        resources=document.resources.vector,
        count=document.count,
        start=start,
        end=end,
        nodes=document.nodes,
        constraints=document.constraints,
        priority=document.priority,
        owners=document.owners,
        allocate_once=document.allocate_once,
        on_expiry=document.on_expiry,
        release_if_unused_after_seconds=document.release_if_unused_after_seconds,
        spread=document.spread,
        use=document.use,
        on_node_loss=document.on_node_loss,
        displace=document.displace,
        grace_seconds=document.grace_seconds,
        recurrence=document.recurrence,
        series=document.id if document.recurrence else None,
    )


def book(state: State, document: ReservationDocument, at: int, *, asked_at: int) -> Transaction | Refusal:
    """Create and hold the reservation, and activate it when its window has begun by `at`; or why that may not be.

    `asked_at` stays the same when it is planned again, so that "from now on" does not run ahead of the leader.
    """
    if document.recurrence is not None and first_start(document.recurrence, max(document.start or 0, asked_at)) is None:
        return _no(RefusalCode.INVALID, "the series has no start any more: see its cron expression and `until`")
    body, digest = normalised(document, asked_at), digest_of(document)
    unlikely = _why_never(state, body, at)
    if unlikely is not None:
        return unlikely
    if document.soonest:
        works = next(_that_work(state, body, document.namespace, digest, at), None)
        return works or _with_advice(state, body, document.namespace, at, _too_little(state, body, at))
    if body.end <= max(body.start, at):
        past = _no(RefusalCode.INVALID, f"the window ends at {time_text(body.end)}, and it is {time_text(at)}")
        return _with_advice(state, body.model_copy(update=_moved(body, at)), document.namespace, at, past)
    tried = attempt(state, body, document.namespace, digest, at)
    if not isinstance(tried, Refusal):
        return tried
    displaced = displace(state, body, document.namespace, digest, at)
    return displaced or _with_advice(state, body, document.namespace, at, tried)


def attempt(state: State, body: ReservationBody, namespace: Namespace, digest: str, at: int) -> Transaction | Refusal:
    """The transaction that creates and holds exactly this, where there is room and the leader would agree."""
    chosen = choose(state, body, at)
    if isinstance(chosen, Refusal):
        return chosen
    events = [
        ReservationCreated(reservation=body, digest=digest),
        ReservationHeld(reservation=body.id, nodes=chosen),
        *([ReservationActivated(reservation=body.id)] if body.start <= at else []),
    ]
    transaction = tuple(Event(data, namespace) for data in events)
    return check(state, transaction, at) or transaction


def choose(state: State, body: ReservationBody, at: int) -> tuple[HeldOnNode, ...] | Refusal:
    """Where all its units are held, or why there is no such place."""
    nodes = candidates(state, body)
    chosen = fill(state, body, nodes, room_on(state, body, nodes, at))
    return chosen if sum(one.count for one in chosen) == body.count else _too_little(state, body, at)


# --- why not -----------------------------------------------------------------------------------------------


def _why_never(state: State, body: ReservationBody, at: int) -> Refusal | None:
    """What no waiting mends: nodes that are not there or not fit, more than an empty cluster has."""
    unknown = [name for name in dict.fromkeys(body.nodes) if name not in state.cluster.nodes]
    if unknown:
        return _no(RefusalCode.NOT_FOUND, f"no node {_listed(unknown)}: see `berth nodes list`")
    for name in dict.fromkeys(body.nodes):
        why = _why_not_on(state.cluster.nodes[name], body, at)
        if why is not None:
            return _no(RefusalCode.RULE, f"{name} {why}")
    nodes = candidates(state, body)
    if not nodes:
        return _no(RefusalCode.CAPACITY, "no node that takes work meets the constraints: see `berth nodes list`")
    most = sum(times_that_fit(unit_of(body), node.allocatable) for node in nodes)
    if most < body.count:
        text = f"{body.count} units are asked for, and the suitable nodes have room for {most} when they are empty"
        return _no(RefusalCode.CAPACITY, f"{text}: ask for fewer, or for smaller ones")
    return None


def _why_not_on(node: Node, body: ReservationBody, at: int) -> str | None:
    if node.state is NodeState.LOST and body.start <= at:
        return "is lost: name another, or start later"
    missed = missed_constraint(node, body)
    return f"does not meet {missed}" if missed else None


def _too_little(state: State, body: ReservationBody, at: int) -> Refusal:
    window = f"from {time_text(body.start)} to {time_text(body.end)}"
    room = room_on(state, body, candidates(state, body), at)
    most = sorted(room, key=lambda name: (-room[name], name))
    found = _listed([f"{name} has room for {room[name]}" for name in most])
    units = min(body.count, sum(room.values()))
    spread = ", but not spread as asked" if units == body.count else ""
    return _no(RefusalCode.CAPACITY, f"{units} of {body.count} units fit {window}{spread}: {found}")


def _with_advice(state: State, body: ReservationBody, namespace: Namespace, at: int, refusal: Refusal) -> Refusal:
    """`refusal`, with who is in the way and the first window of the same length that would work."""
    works = next(_that_work(state, body, namespace, "", at), None)
    start = None if works is None else _start_of(works)
    nodes = candidates(state, body)
    crowded = [node for node in nodes if room_on(state, body, [node], at)[node.id] < _empty_room(node, body)]
    blocking = in_the_way(state, body, crowded, at)[: DETAILS_MAX * 4] if refusal.code is RefusalCode.CAPACITY else ()
    parts = [refusal.detail]
    if blocking:
        parts.append(f"in the way: {_listed(blocking)}")
    if start is None:
        parts.append("no later window of this length would work either")
    else:
        parts.append(f"it would work from {time_text(start)} to {time_text(start + body.end - body.start)}")
    return refusal.model_copy(update={"detail": "; ".join(parts), "earliest_start": start, "in_the_way": blocking})


def _empty_room(node: Node, body: ReservationBody) -> int:
    return min(body.count, times_that_fit(unit_of(body), node.allocatable))


def _that_work(
    state: State, body: ReservationBody, namespace: Namespace, digest: str, at: int
) -> Iterator[Transaction]:
    """Windows of the body's length that may be booked, soonest first, not before its start."""
    starts = starts_that_may_work(state, body, candidates(state, body), at)
    for _, start in zip(range(STARTS_MAX), starts, strict=False):
        tried = attempt(state, body.model_copy(update=_moved(body, start)), namespace, digest, at)
        if not isinstance(tried, Refusal):
            yield tried


def _moved(body: ReservationBody, start: int) -> dict[str, int]:
    return {"start": start, "end": start + body.end - body.start}


def _start_of(transaction: Transaction) -> int:
    created = next(event.data for event in transaction if isinstance(event.data, ReservationCreated))
    return created.reservation.start


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:DETAILS_MAX])
    return f"{shown} and {len(names) - DETAILS_MAX} more" if len(names) > DETAILS_MAX else shown


def _no(code: RefusalCode, detail: str) -> Refusal:
    return Refusal(code=code, detail=detail)

"""May this window be booked, and on which nodes? Pure: state and document in, transaction or refusal out.

Times are milliseconds UTC. What the leader would refuse is refused here first, in words that say what to do.
"""

from collections.abc import Iterable, Mapping, Sequence

from berth.ids import Namespace, NodeId, ReservationId
from berth.messages.commands import Refusal, RefusalCode
from berth.messages.documents import NodeState, ReservationDocument, time_text
from berth.messages.events import (
    Event,
    ReservationActivated,
    ReservationCreated,
    ReservationEnded,
    ReservationHeld,
    Transaction,
)
from berth.messages.requests import Mode
from berth.messages.reservation_events import HeldOnNode, ReservationBody, ReservationStatus
from berth.model.check import check
from berth.model.cluster import Node
from berth.model.feasibility import FILTERING, holds, spoken
from berth.model.ledger import State
from berth.model.reservation import Reservation, ReservationState, unit_of
from berth.model.windows import units_that_fit
from berth.wire.codec import body_digest

DETAILS_MAX = 5
"""Nodes that a refusal names one by one; the rest is counted."""

Room = Mapping[NodeId, int]
"""How many units fit on each node for the whole window."""


def digest_of(document: ReservationDocument) -> str:
    """What R106 compares. A window from now on is compared as it was said, not by the moment it was read."""
    if document.start is None or document.duration_seconds is None:
        return body_digest(document)
    end = document.start + document.duration_seconds * 1000
    return body_digest(document.model_copy(update={"end": end, "duration_seconds": None}))


def normalised(document: ReservationDocument, asked_at: int) -> ReservationBody:
    """The document in whole numbers, its window said in full; without a start it begins when it was asked for."""
    start = asked_at if document.start is None else document.start
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
    )


def book(state: State, document: ReservationDocument, at: int, *, asked_at: int) -> Transaction | Refusal:
    """Create and hold the reservation, and activate it when its window has begun by `at`; or why that may not be.

    `asked_at` stays the same when it is planned again, so that "from now on" does not run ahead of the leader.
    """
    body = normalised(document, asked_at)
    if body.end <= max(body.start, at):
        return _no(RefusalCode.INVALID, f"the window ends at {time_text(body.end)}, and it is {time_text(at)}")
    chosen = choose(state, body, at)
    if isinstance(chosen, Refusal):
        return chosen
    events = [
        ReservationCreated(reservation=body, digest=digest_of(document)),
        ReservationHeld(reservation=body.id, nodes=chosen),
        *([ReservationActivated(reservation=body.id)] if body.start <= at else []),
    ]
    transaction = tuple(Event(data, document.namespace) for data in events)
    return check(state, transaction, at) or transaction


def cancel(state: State, name: ReservationId, namespace: Namespace) -> Transaction | Refusal:
    """End an open reservation: one that is held is cancelled, an active one that nobody uses is released (R90)."""
    known = state.reservations.reservations.get(name)
    if known is None or known.namespace != namespace:
        return _no(RefusalCode.NOT_FOUND, f"{namespace} has no reservation {name}")
    if known.is_over:
        return _no(RefusalCode.ALREADY_DONE, f"{name} is {known.state}, and that is final")
    is_active = known.state is ReservationState.ACTIVE
    if is_active and (drawing := _drawing(state, known)):
        users = _listed(drawing)
        return _no(RefusalCode.RULE, f"{name} is in use by {users}: release those first, or wait for its end")
    status = ReservationStatus.RELEASED if is_active else ReservationStatus.CANCELLED
    return (Event(ReservationEnded(reservation=name, status=status), namespace),)


def _drawing(state: State, reservation: Reservation) -> list[str]:
    if not state.reservations.drawers.get(reservation.id):
        return []
    found = {
        f"{allocation.namespace}/{allocation.request}"
        for node, _ in reservation.holds
        for allocation in state.cluster.on_node(node).values()
        if allocation.reservation == reservation.id
    }
    return sorted(found)


# --- on which nodes -------------------------------------------------------------------------------------


def choose(state: State, body: ReservationBody, at: int) -> tuple[HeldOnNode, ...] | Refusal:
    """Where its units are held: evenly on the nodes that it names, else on as few suitable nodes as will do."""
    return _on_named(state, body, at) if body.nodes else _anywhere(state, body, at)


def _on_named(state: State, body: ReservationBody, at: int) -> tuple[HeldOnNode, ...] | Refusal:
    names = list(dict.fromkeys(body.nodes))
    unknown = [name for name in names if name not in state.cluster.nodes]
    if unknown:
        return _no(RefusalCode.NOT_FOUND, f"no node {_listed(unknown)}")
    for name in names:
        why = _why_not_on(state.cluster.nodes[name], body, at)
        if why is not None:
            return _no(RefusalCode.RULE, f"{name} {why}")
    room = _room(state, body, names, at)
    if sum(room.values()) < body.count:
        return _too_little(body, room)
    return _evenly(names, room, body.count)


def _why_not_on(node: Node, body: ReservationBody, at: int) -> str | None:
    if node.state is NodeState.LOST and body.start <= at:
        return "is lost: name another, or start later"
    missed = [one for one in body.constraints if one.mode is Mode.REQUIRED and not holds(one, node)]
    return f"does not meet {spoken(missed[0])}" if missed else None


def _evenly(names: Iterable[NodeId], room: Room, count: int) -> tuple[HeldOnNode, ...]:
    """One unit to each node that still has room, in their order, round after round."""
    held = dict.fromkeys(names, 0)
    left = count
    while left:
        for name in held:
            if left and held[name] < room[name]:
                held[name] += 1
                left -= 1
    return tuple(HeldOnNode(node=name, count=units) for name, units in held.items() if units)


def _anywhere(state: State, body: ReservationBody, at: int) -> tuple[HeldOnNode, ...] | Refusal:
    """Preferred nodes first, then those with most room, so that few are touched; ties go to the smallest id."""
    if body.start > at:
        return _no(
            RefusalCode.INVALID,
            "a window that starts later needs its nodes named: add `nodes`, or leave out `start` to book from now on",
        )
    suitable = [node for node in state.cluster.nodes.values() if _is_suitable(node, body, at)]
    if not suitable:
        return _no(RefusalCode.CAPACITY, "no node that takes work meets the constraints: see `berth nodes list`")
    room = _room(state, body, [node.id for node in suitable], at)
    if sum(room.values()) < body.count:
        return _too_little(body, room)
    suitable.sort(key=lambda node: (-_preferred(node, body), -room[node.id], node.id))
    held: list[HeldOnNode] = []
    left = body.count
    for node in suitable:
        units = min(left, room[node.id])
        if units:
            held.append(HeldOnNode(node=node.id, count=units))
            left -= units
    return tuple(held)


def _is_suitable(node: Node, body: ReservationBody, at: int) -> bool:
    """It takes work, and whoever draws needs no toleration there; such nodes are booked by name."""
    if node.state is not NodeState.READY or not node.schedulable or node.draining:
        return False
    if any(taint.effect in FILTERING for taint in node.taints):
        return False
    return _why_not_on(node, body, at) is None


def _preferred(node: Node, body: ReservationBody) -> int:
    return sum(one.weight for one in body.constraints if one.mode is Mode.PREFERRED and holds(one, node))


def _room(state: State, body: ReservationBody, names: Iterable[NodeId], at: int) -> dict[NodeId, int]:
    unit, nodes = unit_of(body), state.cluster.nodes
    return {
        name: min(body.count, units_that_fit(state, nodes[name], unit, start=body.start, end=body.end, at=at))
        for name in names
    }


def _too_little(body: ReservationBody, room: Room) -> Refusal:
    window = f"from {time_text(body.start)} to {time_text(body.end)}"
    most = sorted(room, key=lambda name: (-room[name], name))
    found = _listed([f"{name} has room for {room[name]}" for name in most])
    return _no(RefusalCode.CAPACITY, f"{sum(room.values())} of {body.count} units fit {window}: {found}")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:DETAILS_MAX])
    return f"{shown} and {len(names) - DETAILS_MAX} more" if len(names) > DETAILS_MAX else shown


def _no(code: RefusalCode, detail: str) -> Refusal:
    return Refusal(code=code, detail=detail)

"""What the folded state says of a request, and of a reservation: the ledger is the answer, this is its wording."""

from typing import Any

from berth.ids import AllocationId, Attempt, Namespace, NodeId, RequestKey, Term
from berth.messages.decisions import Decision, EvictedAllocation, PlacedAllocation
from berth.messages.documents import time_text
from berth.messages.events import RequestStatus
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth.model import entitlement
from berth.model.cluster import AllocationState
from berth.model.ledger import State
from berth.model.reservation import Reservation, ReservationState
from berth.resources import BUILT_IN, NOTHING, Resources


def decision_of(state: State, key: RequestKey) -> Decision | None:
    """The current outcome of a known request, for the attempt it was made for; None when it is unknown."""
    known = state.queue.requests.get(key)
    if known is None:
        return None
    namespace = known.request.namespace
    live = [state.cluster.allocations[namespace, name] for name in known.live]
    placed = [allocation for allocation in live if allocation.state is AllocationState.PLACED]
    return Decision(
        namespace=namespace,
        request=known.request.id,
        status=known.status,
        attempt=Attempt(known.attempt - 1),
        allocations=tuple(PlacedAllocation(id=allocation.id, node=allocation.node) for allocation in placed),
        evicted=tuple(
            EvictedAllocation(
                allocation=AllocationId(allocation),
                namespace=Namespace(owner),
                node=NodeId(node),
                reason=ReasonCode(reason),
            )
            for allocation, owner, node, reason in known.victims
        ),
        reasons=known.reasons or _why_ended(known.ended),
        quota=entitlement.classes(state, namespace),
        earliest_start=known.promised_start,
        sequence=known.decided,
        term=state.tip.term if state.tip else Term(0),
        digest=known.digest,
        trace_id=trace_id_of(known.traceparent),
    )


def rejection(request: Request, digest: str, *reasons: Reason) -> Decision:
    """An answer without an event: `invalid`, `conflict`. It carries the digest of the body it answers."""
    return Decision(
        namespace=request.namespace,
        request=request.id,
        status=RequestStatus.REJECTED,
        reasons=reasons,
        digest=digest,
    )


def reservation_row(state: State, reservation: Reservation) -> dict[str, Any]:
    """As `berth reservation list` shows it and a command about it is answered; times are RFC 3339.

    `resources` are those of one unit, of which it has `count`; `held` says how many on which node; `used` is
    what live allocations draw, `free` what is held beside that, `charged` what counts in its namespace's usage,
    used or not (R93). `missing`: units that are held nowhere, `because` of what. `next`: the open one of its series.
    """
    body, table = reservation.body, state.reservations
    is_active = reservation.state is ReservationState.ACTIVE
    return {
        "id": reservation.id,
        "namespace": reservation.namespace,
        "state": reservation.state.value,
        "start": time_text(body.start),
        "end": time_text(body.end),
        "nodes": [node for node, _ in reservation.holds] or list(body.nodes),
        "count": body.count,
        "held": [{"node": node, "count": count} for node, count in reservation.holds],
        "resources": amounts(body.resources),
        "used": amounts(table.drawn_in_all(reservation)),
        "free": amounts(NOTHING if reservation.is_over else table.undrawn(reservation)),
        "charged": amounts(table.charged(reservation) if is_active else NOTHING),
        "priority": body.priority,
        "use": body.use.value,
        "on_expiry": body.on_expiry.value,
        "grace_seconds": body.grace_seconds,
        "on_node_loss": body.on_node_loss.value,
        "owners": [owner.model_dump(mode="json", exclude_none=True) for owner in body.owners],
        "missing": 0 if reservation.is_over else reservation.missing,
        "because": None if reservation.because is None else reservation.because.written(),
        "ended": None if reservation.ended is None else reservation.ended.value,
        "series": body.series,
        "occurrence": body.occurrence,
        "recurrence": None if body.recurrence is None else body.recurrence.model_dump(mode="json", exclude_none=True),
        "next": _next_of_series(state, reservation),
    }


def _next_of_series(state: State, reservation: Reservation) -> str | None:
    """The open reservation of the same series that comes after it."""
    body = reservation.body
    if body.series is None or not reservation.is_over:
        return None
    for name in state.reservations.open:
        other = state.reservations.reservations[name].body
        if other.series == body.series and other.occurrence > body.occurrence:
            return name
    return None


def amounts(vector: Resources) -> dict[str, Any]:
    """A vector with every built-in dimension, zeros too, so that scripts need not ask whether it is there."""
    return {**{name: vector.amount(name) for name in BUILT_IN}, "extended": dict(vector.extended)}


def trace_id_of(traceparent: str | None) -> str | None:
    """The 32 hex digits of a W3C traceparent, or None."""
    parts = traceparent.split("-") if traceparent else []
    return parts[1] if len(parts) == 4 and len(parts[1]) == 32 else None


def _why_ended(ended: ReasonCode | None) -> tuple[Reason, ...]:
    return () if ended is None else (Reason(code=ended),)

"""What each event of a request makes of it. What else the event does, to nodes and usage, is done to the state."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from berth.ids import Attempt, Sequence
from berth.messages.documents import Queueing
from berth.messages.events import (
    AllocationPlaced,
    AllocationsEnded,
    AllocationsOverran,
    AllocationsReleasing,
    Event,
    How,
    RequestEnded,
    RequestPlaced,
    RequestQueued,
    RequestStatus,
    RequestSubmitted,
    StartPromised,
    WakeOn,
)
from berth.model.charging import UNFORESEEN, charge, is_above_soft, quota_scope, uncharge
from berth.model.cluster import Allocation, AllocationState
from berth.model.durations import declared_end, ends_at, lateness, overrun_ms
from berth.model.queue import HISTORY_MAX, Promise, PromiseMade, RequestState

if TYPE_CHECKING:
    from berth.model.ledger import State

STATE_AFTER: dict[How, AllocationState] = {
    How.RELEASED: AllocationState.RELEASED,
    How.EVICTED: AllocationState.EVICTED,
    How.EXPIRED: AllocationState.EXPIRED,
    How.LOST: AllocationState.LOST,
}


def _request_submitted(
    state: "State", before: RequestState | None, event: Event, data: RequestSubmitted, at: int, sequence: Sequence
) -> RequestState:
    request = data.request
    same = request.id == event.request and request.namespace == event.namespace
    assert same, f"I8: the event of {event.key} carries the body of {request.key}"
    assert before is None, f"I8: {event.key} is submitted twice"
    state.demand.submitted(request)
    return RequestState(
        request=request,
        digest=data.digest,
        status=RequestStatus.QUEUED,
        attempt=Attempt(1),
        order=sequence,
        submitted_at=at,
        decided=sequence,
        decided_at=at,
        traceparent=event.traceparent,
    )


def _known(before: RequestState | None, event: Event) -> RequestState:
    assert before is not None, f"I8: {event.type} of {event.key}, which nobody submitted"
    return before


def _request_queued(
    _state: "State", before: RequestState | None, event: Event, data: RequestQueued, _at: int, _sequence: Sequence
) -> RequestState:
    return _known(before, event)._replace(
        status=RequestStatus.QUEUED,
        reasons=data.reasons,
        wake=data.wake,
        evaluated_at=data.evaluated_at,
    )


def _request_placed(
    state: "State", before: RequestState | None, event: Event, data: RequestPlaced, at: int, sequence: Sequence
) -> RequestState:
    request = _known(before, event)
    _left_the_queue(state, request, sequence)
    state.touch(WakeOn.PLACEMENT, "", sequence)
    for placed in data.allocations:
        allocation = new_allocation(request, placed, at=at, sequence=sequence)
        state.cluster.add(allocation)
        charge(state, allocation)
    if request.promise is not None and at < request.promise.start:
        state.touch_capacity(sequence)  # what was kept for later is free
    if is_above_soft(state, request.request.namespace):
        state.touch(WakeOn.RECLAIM, quota_scope(state, request.request.namespace), sequence)
    return request.placed(tuple([placed.id for placed in data.allocations]))


def _left_the_queue(state: "State", before: RequestState, sequence: Sequence) -> None:
    """Whoever waits behind it in a namespace that is strict_fifo may be the first now (R73)."""
    if before.status is RequestStatus.QUEUED:
        quota = state.quotas.quotas.get(before.request.namespace)
        if quota is not None and quota.queueing is Queueing.STRICT_FIFO:
            state.touch(WakeOn.QUEUE, before.request.namespace, sequence)


def new_allocation(request: RequestState, placed: AllocationPlaced, *, at: int, sequence: Sequence) -> Allocation:
    """The allocation that `RequestPlaced` brings about (also what a scheduler assumes before it is committed)."""
    body = request.request
    return Allocation(
        id=placed.id,
        namespace=body.namespace,
        request=body.id,
        node=placed.node,
        charge=body.charge if placed.charge == body.charge else placed.charge,  # one object for all that are alike
        state=AllocationState.PLACED,
        labels=body.labels,
        priority=body.priority,
        anti_affinity=body.anti_affinity,
        placed_at=at,
        ends_at=declared_end(body, at),
        overrun_ms=overrun_ms(body),
        late_ms=lateness(request.promised_start, at),
        reservation=body.reservation,
        sequence=sequence,
    )


def _start_promised(
    state: "State", before: RequestState | None, event: Event, data: StartPromised, at: int, sequence: Sequence
) -> RequestState:
    known = _known(before, event)
    if data.cause is not None:
        state.touch_capacity(sequence)  # what it kept elsewhere is free
    promise = None
    if data.start is not None:
        nodes = tuple((one.node, one.count) for one in data.nodes)
        promise = Promise(data.start, ends_at(known.request, data.start), nodes)
    made = PromiseMade(sequence, at, data.start, data.cause)
    return known._replace(promise=promise, promised=(*known.promised, made)[-HISTORY_MAX:])


def _allocations_releasing(
    state: "State", before: RequestState | None, event: Event, data: AllocationsReleasing, _at: int, sequence: Sequence
) -> RequestState:
    request = _known(before, event)
    for name in data.ids:
        allocation = state.cluster.allocations[request.request.namespace, name]
        state.cluster.change(
            allocation.moved(
                AllocationState.RELEASING, until=data.until, how=data.how, reason=data.reason, sequence=sequence
            )
        )
    if data.how is not How.EXPIRED:  # that was foreseen
        state.touch(WakeOn.CAPACITY, UNFORESEEN, sequence)
    return request


def _allocations_ended(
    state: "State", before: RequestState | None, event: Event, data: AllocationsEnded, at: int, sequence: Sequence
) -> RequestState:
    request = _known(before, event)
    namespace = request.request.namespace
    foreseen = True
    for name in data.ids:
        ending = state.cluster.allocations[namespace, name]
        assert ending.is_live, f"I8: {name} ends twice"
        foreseen = foreseen and ending.gone_by is not None and ending.gone_by <= at
        state.cluster.change(
            ending.moved(STATE_AFTER[data.how], how=data.how, reason=data.reason, until=None, sequence=sequence)
        )
        uncharge(state, ending, at)
    if foreseen:
        state.touch(WakeOn.CAPACITY, "", sequence)
    else:
        state.touch_capacity(sequence)
    state.touch(WakeOn.QUOTA, quota_scope(state, namespace), sequence)
    gone = set(data.ids)
    return request._replace(live=tuple(name for name in request.live if name not in gone))


def _allocations_overran(
    state: "State", before: RequestState | None, event: Event, data: AllocationsOverran, _at: int, _sequence: Sequence
) -> RequestState:
    request = _known(before, event)
    for name in data.ids:
        allocation = state.cluster.allocations[request.request.namespace, name]
        state.cluster.change(allocation._replace(overran=True))
    return request


def _request_ended(
    state: "State", before: RequestState | None, event: Event, data: RequestEnded, _at: int, sequence: Sequence
) -> RequestState:
    request = _known(before, event)
    _left_the_queue(state, request, sequence)
    assert not request.live, f"I13: {event.key} ends with live allocations"
    if request.promise is not None:
        state.touch_capacity(sequence)
    return request._replace(status=data.status, ended=data.reason, reasons=data.reasons, wake=(), promise=None)


REQUEST_FOLDS: dict[type, Callable[["State", RequestState | None, Event, Any, int, Sequence], RequestState]] = {
    RequestSubmitted: _request_submitted,
    RequestQueued: _request_queued,
    RequestPlaced: _request_placed,
    StartPromised: _start_promised,
    AllocationsReleasing: _allocations_releasing,
    AllocationsEnded: _allocations_ended,
    AllocationsOverran: _allocations_overran,
    RequestEnded: _request_ended,
}
"""Events of a request. Each answers what the request is afterwards; the state itself keeps that, once for all
events of a transaction.
"""

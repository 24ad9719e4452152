"""What the leader re-checks: may this transaction be committed on this state?

The same function serves proposer, leader, plan, audit and replay. A transaction is tried event by event
under the journal and judged as a whole; what is not lawful is taken back exactly.
"""

from berth.ids import NodeId, RequestKey, Sequence
from berth.messages.commands import Refusal, RefusalCode
from berth.messages.documents import StopPolicy
from berth.messages.events import (
    AllocationsEnded,
    AllocationsReleasing,
    CohortRemoved,
    CohortSet,
    Event,
    How,
    NodeLeft,
    NodeRegistered,
    QuotaRemoved,
    QuotaSet,
    RequestEnded,
    RequestPlaced,
    RequestQueued,
    RequestStatus,
    RequestSubmitted,
    ReservationActivated,
    ReservationCreated,
    ReservationHeld,
    StartPromised,
    Transaction,
)
from berth.messages.reasons import ReasonCode, sentence
from berth.messages.requests import Borrow
from berth.model import entitlement, promises, reservation_rules, victims, windows
from berth.model.cluster import Allocation, AllocationState
from berth.model.event_rules import refuse, why_not_next
from berth.model.ledger import State, requests_named
from berth.model.no_execute import leaves_at
from berth.model.queue import RequestState
from berth.resources import NOTHING, Resources

ENDS = (AllocationsEnded, AllocationsReleasing)
CONFIGURES = (QuotaSet, QuotaRemoved, CohortSet, CohortRemoved)

VICTIM_EVENTS = (*ENDS, RequestQueued, RequestEnded)
"""The events that a request may get without an attempt: what others do to it."""

STRIKES = frozenset({ReasonCode.LOST_WITH_NODE, ReasonCode.DRAINED, ReasonCode.TAINTED})
"""Grounds of eviction that lie in a node."""

Evicted = dict[RequestKey, list[tuple[Allocation, ReasonCode]]]


def check(state: State, transaction: Transaction, at: int) -> Refusal | None:
    """Why `transaction` may not be committed at `at` (milliseconds UTC) on `state`, or None. Changes nothing."""
    with state.journal.trial():
        return _try(state, transaction, at, Sequence(state.sequence + 1))


def accept(state: State, transaction: Transaction, at: int, sequence: Sequence) -> Refusal | None:
    """As `check`; a lawful transaction is folded into `state` as part of the record at `sequence`."""
    mark = state.journal.begin()
    lawful = False
    try:
        refusal = _try(state, transaction, at, sequence)
        lawful = refusal is None
    finally:
        if lawful:
            state.journal.keep()
        else:
            state.journal.undo(mark)
    return refusal


def _try(state: State, transaction: Transaction, at: int, sequence: Sequence) -> Refusal | None:
    kinds = {type(event.data) for event in transaction}
    refusal = (
        _why_not_shaped(transaction)
        or _why_not_current(state, transaction)
        or (_why_not_struck(state, transaction) if RequestQueued in kinds else None)
        or (None if kinds.isdisjoint(ENDS) else _why_not_drained(state, transaction))
        or (None if kinds.isdisjoint(ENDS) else _why_not_lawful(state, transaction, at))
    )
    if refusal is not None:
        return refusal
    before = {node for node in _registered(transaction) if node in state.cluster.lost}
    evicted = {} if kinds.isdisjoint(ENDS) else _evicted_from_nodes(state, transaction)
    emptied = before.union(event.data.node for event in transaction if isinstance(event.data, NodeLeft))
    for event in transaction:
        refusal = why_not_next(state, event, at, emptied)
        if refusal is not None:
            return refusal
        state.fold_event(event, at=at, sequence=sequence)
    state.finish_transaction(transaction, at=at, sequence=sequence)
    return (
        (_judge_siblings(state, transaction, evicted, at) if evicted else None)
        or _judge(state, transaction, before, at)
        or (None if kinds.isdisjoint(CONFIGURES) else entitlement.configuration_refusal(state))
    )


# --- the transaction by itself ---------------------------------------------------------------------------


def _why_not_shaped(transaction: Transaction) -> Refusal | None:
    """Each type at most once per request (ends: once per `how`), one attempt per request, the body first."""
    if not transaction:
        return refuse(RefusalCode.INVALID, "an empty transaction")
    seen: set[tuple[RequestKey, type, How | None]] = set()
    attempts: dict[tuple[str, str], int | None] = {}
    for event in transaction:
        key = event.key
        if key is None:
            continue
        data = event.data
        what = (key, type(data), data.how if isinstance(data, ENDS) else None)
        if what in seen:
            return refuse(RefusalCode.INVALID, f"{event.type} of {key[1]} stands twice")
        seen.add(what)
        if isinstance(data, RequestSubmitted) and key in attempts:
            return refuse(RefusalCode.INVALID, f"RequestSubmitted does not open the transaction of {key[1]}")
        if attempts.setdefault(key, event.attempt) != event.attempt:
            return refuse(RefusalCode.INVALID, f"events of {key[1]} name different attempts")
        if event.attempt is None and not isinstance(data, VICTIM_EVENTS):
            return refuse(RefusalCode.INVALID, f"{event.type} of {key[1]} names no attempt")
    return None


def _why_not_current(state: State, transaction: Transaction) -> Refusal | None:
    """Each named request is at the attempt that the transaction was made for; an unknown one is at 1."""
    submitted = {event.key for event in transaction if isinstance(event.data, RequestSubmitted)}
    for event in transaction:
        key = event.key
        if key is None or event.attempt is None:
            continue
        known = state.queue.requests.get(key)
        if known is None and key not in submitted:
            return refuse(RefusalCode.NOT_FOUND, f"{key[0]}/{key[1]} is not known")
        if known is not None and isinstance(event.data, RequestSubmitted):
            code = RefusalCode.SUPERSEDED if known.digest == event.data.digest else RefusalCode.CONFLICT
            return refuse(code, f"{key[0]}/{key[1]} is known already")
        current = known.attempt if known else 1
        if event.attempt != current:
            return refuse(
                RefusalCode.SUPERSEDED, f"{key[0]}/{key[1]} is at attempt {current}, this was made for {event.attempt}"
            )
    return None


def _why_not_struck(state: State, transaction: Transaction) -> Refusal | None:
    """Only what was taken from a request makes it wait again, not what it had given back, or what was over, before."""
    for event in transaction:
        known = state.queue.requests.get(event.key) if event.key and isinstance(event.data, RequestQueued) else None
        if known is None or known.status is not RequestStatus.PLACED:
            continue
        live = [state.cluster.allocations[known.request.namespace, name] for name in known.live]
        if all(one.how in (How.RELEASED, How.EXPIRED) for one in live):
            return refuse(RefusalCode.STALE_VICTIM, f"{known.request.id} is on its way out and does not wait again")
    return None


def _why_not_drained(state: State, transaction: Transaction) -> Refusal | None:
    """Only a namespace that is drained loses what runs because of that (R75)."""
    for event in transaction:
        if isinstance(event.data, ENDS) and event.data.reason is ReasonCode.NAMESPACE_DRAINED and event.namespace:
            quota = state.quotas.quotas.get(event.namespace)
            began = isinstance(event.data, AllocationsReleasing) or any(
                (one := state.cluster.allocations.get((event.namespace, name))) is not None
                and one.state is AllocationState.PLACED
                for name in event.data.ids
            )
            if began and (quota is None or quota.stop_policy is not StopPolicy.HOLD_AND_DRAIN):
                return refuse(RefusalCode.STALE_VICTIM, f"{event.namespace} is not drained")
    return None


def _why_not_lawful(state: State, transaction: Transaction, at: int) -> Refusal | None:
    """Who is taken from others may be taken, all of them together, by the request that is placed for it."""
    refusal = reservation_rules.refuse_taken_along(state, transaction)
    if refusal is not None:
        return refusal
    taken = [
        (event.namespace, name)
        for event in transaction
        if isinstance(event.data, ENDS)
        and event.data.how is How.EVICTED
        and event.data.reason in (ReasonCode.PREEMPTED, ReasonCode.RECLAIMED)
        and event.namespace is not None
        for name in event.data.ids
    ]
    if not taken:
        return None
    known = [state.cluster.allocations[key] for key in taken if key in state.cluster.allocations]
    if len(known) < len(taken) or not all(allocation.is_live for allocation in known):
        return refuse(RefusalCode.STALE_VICTIM, "a victim is not live")
    if any(isinstance(event.data, ReservationActivated) for event in transaction):
        return reservation_rules.refuse_displaced(state, transaction, known, at)
    placed = [(event.key, event.data) for event in transaction if event.key and isinstance(event.data, RequestPlaced)]
    if len(placed) != 1:
        return refuse(RefusalCode.CLASS, "an eviction serves exactly one request, placed in the same transaction")
    key, data = placed[0]
    bodies = [event.data.request for event in transaction if isinstance(event.data, RequestSubmitted)]
    request = bodies[0] if bodies else state.queue.requests[key].request
    nodes = [one.node for one in data.allocations]
    if not all(node in state.cluster.nodes for node in nodes):
        return refuse(RefusalCode.RULE, f"{request.id} is placed on a node that nobody registered")
    return victims.lawful(state, request, known, at, nodes=nodes)


def _registered(transaction: Transaction) -> list[NodeId]:
    return [event.data.node for event in transaction if isinstance(event.data, NodeRegistered)]


# --- the state afterwards ----------------------------------------------------------------------------------


def _judge(state: State, transaction: Transaction, returned: set[NodeId], at: int) -> Refusal | None:
    for node in sorted(returned):
        if state.cluster.on_node(node):
            return refuse(RefusalCode.RULE, f"{node} was lost, so it returns empty")
    for key in requests_named(transaction):
        refusal = _why_not_standing(state, state.queue.requests[key])
        if refusal is not None:
            return refusal
    return _judge_room(state, transaction, at)


def _why_not_standing(state: State, request: RequestState) -> Refusal | None:
    """After each transaction a request is placed with live allocations, or queued, or ended."""
    body = request.request
    placed = [
        allocation.index
        for name in request.live
        if (allocation := state.cluster.allocations[body.namespace, name]).state is AllocationState.PLACED
    ]
    if len(set(placed)) != len(placed):
        return refuse(RefusalCode.INVALID, f"two allocations of {body.id} are the same instance")
    if placed and not body.needed <= len(placed) <= body.count:
        return refuse(RefusalCode.RULE, f"{len(placed)} of {body.needed} to {body.count} instances of {body.id}")
    if request.status is RequestStatus.PLACED and not request.live:
        return refuse(RefusalCode.INVALID, f"{body.id} would be placed nowhere")
    if request.status is RequestStatus.QUEUED and not request.reasons:
        return refuse(RefusalCode.INVALID, f"{body.id} would wait without a reason")
    return None


def _judge_siblings(state: State, transaction: Transaction, evicted: Evicted, at: int) -> Refusal | None:
    """Instances leave with one that is struck (lost, drained, tainted) only where too few would stay: then all do."""
    lost = {
        event.key for event in transaction if isinstance(event.data, AllocationsEnded) and event.data.how is How.LOST
    }
    for key, leaving in evicted.items():
        is_moved = len(leaving) <= _placed(transaction, key)
        siblings = [one for one, reason in leaving if not _is_struck(state, one, reason, at, is_moved=is_moved)]
        if len(siblings) == len(leaving) and key not in lost:
            return _why_none_must_leave(state, leaving)
        request = state.queue.requests[key]
        live = (state.cluster.allocations[key[0], name] for name in request.live)
        stays = any(one.state is AllocationState.PLACED for one in live)
        if siblings and (stays or len(siblings) >= request.request.needed):
            return refuse(RefusalCode.RULE, f"{siblings[0].id} need not leave with its sibling")
    return None


def _evicted_from_nodes(state: State, transaction: Transaction) -> Evicted:
    """What the transaction will take from its place because a node is lost, drained or tainted, by request.

    Asked before the transaction is tried: what is releasing already was judged when that began.
    """
    found: Evicted = {}
    for event in transaction:
        data, key = event.data, event.key
        if key is None or not isinstance(data, ENDS):
            continue
        if data.how is not How.EVICTED or data.reason not in STRIKES:
            continue
        for name in data.ids:
            allocation = state.cluster.allocations.get((key[0], name))
            if allocation is not None and allocation.state is AllocationState.PLACED:
                found.setdefault(key, []).append((allocation, data.reason))
    return found


def _placed(transaction: Transaction, key: RequestKey) -> int:
    """How many instances of the request the transaction places."""
    return sum(
        len(event.data.allocations)
        for event in transaction
        if isinstance(event.data, RequestPlaced) and event.key == key
    )


def _is_struck(state: State, allocation: Allocation, reason: ReasonCode, at: int, *, is_moved: bool) -> bool:
    """Its node is being drained, or was and has left in this transaction; or it has outlived a taint (R27).

    Until a drain's deadline only what is given another place at once must leave.
    """
    node = state.cluster.nodes.get(allocation.node)
    if reason is ReasonCode.TAINTED:
        due = _leaves_at(state, allocation)
        return due is not None and at >= due
    if reason is not ReasonCode.DRAINED:
        return False
    return node is None or (node.drain is not None and (is_moved or not node.drain.waits_at(at)))


def _leaves_at(state: State, allocation: Allocation) -> int | None:
    node = state.cluster.nodes.get(allocation.node)
    request = state.queue.requests[allocation.request_key].request
    return None if node is None else leaves_at(node, request, allocation)


def _why_none_must_leave(state: State, leaving: list[tuple[Allocation, ReasonCode]]) -> Refusal:
    """Nothing that leaves stands on a node that it must leave (yet)."""
    for one, reason in leaving:
        if reason is ReasonCode.TAINTED and _leaves_at(state, one) is not None:
            return refuse(RefusalCode.TOO_EARLY, f"{one.id} tolerates the taints of {one.node} longer")
        node = state.cluster.nodes.get(one.node)
        if reason is ReasonCode.DRAINED and node is not None and node.draining:
            return refuse(RefusalCode.TOO_EARLY, f"{one.id} may stay on {one.node} until the drain's deadline, or move")
    return refuse(RefusalCode.STALE_VICTIM, f"{leaving[0][0].node} is neither lost, drained nor tainted")


def _judge_room(state: State, transaction: Transaction, at: int) -> Refusal | None:
    """Capacity and limits in the dimensions that the transaction's placements raise."""
    raised: dict[NodeId, Resources] = {}
    for event in transaction:
        refusal = _judge_event(state, event, at)
        if refusal is not None:
            return refusal
        for placed in event.data.allocations if isinstance(event.data, RequestPlaced) else ():
            raised[placed.node] = raised.get(placed.node, NOTHING) + placed.charge
    for node, amount in raised.items():
        free = windows.free_now(state, state.cluster.nodes[node])
        for dimension, _ in amount.dimensions():
            if free.amount(dimension) < 0:
                short = -free.amount(dimension)
                return refuse(RefusalCode.CAPACITY, f"{node} would lack {short} of {dimension}")
        reason = windows.overheld(state, state.cluster.nodes[node], raised=amount, at=at)
        if reason is not None:
            return refuse(RefusalCode.WINDOW, f"{node}: {sentence(reason)}")
    return None


def _judge_event(state: State, event: Event, at: int) -> Refusal | None:
    """Limits and what is kept for others, after what places, promises or reserves."""
    match event.data:
        case RequestPlaced() as data:
            return _judge_quota(state, event, data, at) or _judge_promises(state, event, data)
        case StartPromised() if event.key is not None:
            return promises.judge_promise(state, state.queue.requests[event.key])
        case ReservationCreated(reservation=body):
            return reservation_rules.judge_reservation(state, body.id, at)
        case ReservationHeld(reservation=name) | ReservationActivated(reservation=name):
            return reservation_rules.judge_reservation(state, name, at)
        case _:
            return None


def _judge_promises(state: State, event: Event, data: RequestPlaced) -> Refusal | None:
    """Nobody takes what is promised to others that are not below it (R86)."""
    if not state.queue.promised:
        return None
    assert event.key is not None
    request = state.queue.requests[event.key].request
    for placed in data.allocations:
        allocation = state.cluster.allocations[request.namespace, placed.id]
        until = windows.ends_by(state, allocation)
        reason = promises.overpromised(
            state,
            state.cluster.nodes[placed.node],
            request,
            raised=placed.charge,
            ends_at=None if until is None else until - allocation.late_ms,
        )
        if reason is not None:
            return refuse(RefusalCode.WINDOW, f"{placed.node}: {sentence(reason)}")
    return None


def _judge_quota(state: State, event: Event, data: RequestPlaced, at: int) -> Refusal | None:
    assert event.key is not None
    request = state.queue.requests[event.key].request
    amount = request.charge.times(len(data.allocations))
    payer = request.namespace
    if request.reservation is not None:
        reservation = state.reservations.reservations[request.reservation]
        nodes = {placed.node: None for placed in data.allocations}
        refusal = reservation_rules.refuse_overdrawn(state, reservation, nodes)
        if refusal is not None:
            return refusal
        payer = reservation.namespace
        amount = reservation_rules.beyond_holds(state, reservation, nodes, amount)
    if entitlement.is_stopped(state, request.namespace):
        return refuse(RefusalCode.QUOTA, f"{request.namespace} is held: nothing new is placed until it is resumed")
    return entitlement.over_limit(state, payer, amount, may_borrow=request.borrow is Borrow.ALLOWED, at=at)

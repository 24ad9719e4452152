"""Transactions that bring a state about: from a cluster document, or from another state (plan on a live cluster).

They are folded as history, not checked: a document may describe an over-committed node, and outside facts
may break what transactions promise.
"""

from collections.abc import Iterator
from itertools import groupby

from berth.ids import AllocationId, Attempt, CohortName, RequestKey, Sequence
from berth.messages.commands import Refusal
from berth.messages.documents import (
    AllocationDocument,
    ClusterDocument,
    NodeDocument,
    NodeState,
)
from berth.messages.events import (
    AllocationPlaced,
    CohortSet,
    Event,
    NodeChanged,
    NodeLost,
    NodeRegistered,
    RequestPlaced,
    RequestQueued,
    RequestStatus,
    RequestSubmitted,
    ReservationActivated,
    ReservationCreated,
    ReservationHeld,
    StartPromised,
    Transaction,
    about,
)
from berth.messages.requests import Request
from berth.messages.reservation_events import HeldOnNode, ReservationBody
from berth.model.cluster import Allocation, Node
from berth.model.ledger import State
from berth.model.quota import Cohort
from berth.model.reservation import ReservationState
from berth.resources import ONE_INSTANCE
from berth.wire.codec import request_digest
from berth_quota.administration import cohort_set, quota_set, stated
from berth_reservation.booking import book, choose, digest_of, normalised
from berth_scheduler.node_events import node_registered

Dated = tuple[int, Transaction]
"""A transaction and its `at` in milliseconds UTC."""


# --- from a document ----------------------------------------------------------------------------------


def of_document(document: ClusterDocument, *, at_ms: int) -> list[Dated]:
    """Everything that the document says, oldest first; what says no time happened at `at_ms`."""
    placed = sorted(_allocations(document, at_ms), key=lambda dated: dated[0])
    began = min([at_ms, *(at for at, _ in placed)])
    setting: list[Dated] = [(began, transaction) for transaction in _nodes(document.nodes)]
    setting += [(began, (cohort_set(cohort),)) for cohort in document.cohorts]
    setting += [(began, (quota_set(quota),)) for quota in document.quotas]
    setting += [(at, transaction) for at, transaction in placed if at < at_ms]
    return (
        setting
        + _reservations(document, setting, at_ms)
        + [(at, transaction) for at, transaction in placed if at >= at_ms]
    )


def _nodes(nodes: tuple[NodeDocument, ...]) -> Iterator[Transaction]:
    for node in nodes:
        if node.state is not NodeState.LEFT:
            yield node_as_described(node)


def node_as_described(node: NodeDocument) -> Transaction:
    """It registers; cordoned or lost, if the document says so."""
    events = [Event(node_registered(node))]
    if not node.schedulable:
        events.append(Event(NodeChanged(node=node.id, schedulable=False)))
    if node.state is NodeState.LOST:
        events.append(Event(NodeLost(node=node.id)))
    return tuple(events)


def _allocations(document: ClusterDocument, at_ms: int) -> Iterator[Dated]:
    """One transaction per request; instances placed at different times count from the earliest, none from later
    than `at_ms`: nobody has placed anything in the future.
    """
    in_order = sorted(document.allocations, key=lambda one: (one.namespace, one.request))
    for _, group in groupby(in_order, key=lambda one: (one.namespace, one.request)):
        instances = list(group)
        at = min(at_ms, *(at_ms if one.placed_at is None else one.placed_at for one in instances))
        yield at, _running(instances, at)


def _running(instances: list[AllocationDocument], at: int) -> Transaction:
    first = instances[0]
    request = Request(
        id=first.request,
        namespace=first.namespace,
        resources=first.resources,
        count=len(instances),
        labels=first.labels,
        priority=first.priority,
        anti_affinity=first.anti_affinity,
        reservation=first.reservation,
        duration_seconds=None if first.ends_at is None else max(1, (first.ends_at - at + 999) // 1000),
    )
    placed = tuple(
        AllocationPlaced(id=AllocationId(one.id), node=one.node, charge=one.resources.vector + ONE_INSTANCE)
        for one in instances
    )
    return (
        about(request.key, RequestSubmitted(request=request, digest=request_digest(request)), attempt=Attempt(1)),
        about(request.key, RequestPlaced(allocations=placed), attempt=Attempt(1)),
    )


def _reservations(document: ClusterDocument, setting: list[Dated], at_ms: int) -> list[Dated]:
    """Held where the reservation service would hold them; active when the start is not after `at_ms`."""
    if not document.reservations:
        return []
    state = State()
    for at, transaction in setting:
        state.fold_transaction(transaction, at=at, sequence=Sequence(0))
    found: list[Dated] = []
    for reservation in document.reservations:
        soonest = book(state, reservation, at_ms, asked_at=at_ms) if reservation.soonest else None
        if isinstance(soonest, tuple):
            state.fold_transaction(soonest, at=at_ms, sequence=Sequence(0))
            found.append((at_ms, soonest))
            continue
        body = normalised(reservation, at_ms)
        created = Event(ReservationCreated(reservation=body, digest=digest_of(reservation)), reservation.namespace)
        held = Event(ReservationHeld(reservation=body.id, nodes=_holds(state, body)), reservation.namespace)
        active = Event(ReservationActivated(reservation=body.id), reservation.namespace)
        transaction = (created, held, active) if body.start <= at_ms else (created, held)
        state.fold_transaction(transaction, at=at_ms, sequence=Sequence(0))
        found.append((at_ms, transaction))
    return found


def _holds(state: State, body: ReservationBody) -> tuple[HeldOnNode, ...]:
    """As it would be booked; where that is refused (a document may say what nobody may book) round after round."""
    chosen = choose(state, body, body.start)
    if not isinstance(chosen, Refusal):
        return chosen
    names = list(body.nodes) or list(state.cluster.nodes)
    if not names:
        return ()
    counts = dict.fromkeys(names, 0)
    for number in range(body.count):
        counts[names[number % len(names)]] += 1
    return tuple(HeldOnNode(node=node, count=count) for node, count in counts.items() if count)


# --- from a state ---------------------------------------------------------------------------------------


def of_state(state: State, *, without: frozenset[RequestKey] = frozenset()) -> list[Dated]:
    """What is live or waits in `state`; settled requests and those in `without` are left out, times are kept."""
    began = min([state.at, *(one.placed_at for one in _live(state))])
    found: list[Dated] = [(began, _node(node)) for _, node in sorted(state.cluster.nodes.items())]
    for name, cohort in sorted(state.quotas.cohorts.items()):
        found.append((began, (Event(_cohort_set(name, cohort)),)))
    found += [(began, (stated(quota),)) for _, quota in sorted(state.quotas.quotas.items())]
    found += [(began, transaction) for transaction in _open_reservations(state)]
    return found + sorted(_requests(state, without), key=lambda dated: dated[0])


def _live(state: State) -> list[Allocation]:
    return [one for _, one in sorted(state.cluster.allocations.items()) if one.is_live]


def _node(node: Node) -> Transaction:
    data = NodeRegistered(
        node=node.id, capacity=node.capacity, reserved=node.reserved, labels=dict(node.labels), taints=node.taints
    )
    events = [Event(data)]
    if not node.schedulable or node.draining:
        until = node.drain.until if node.drain else None
        changed = NodeChanged(node=node.id, schedulable=node.schedulable, draining=node.draining, drain_until=until)
        events.append(Event(changed))
    if node.state is NodeState.LOST:
        events.append(Event(NodeLost(node=node.id)))
    return tuple(events)


def _cohort_set(name: CohortName, cohort: Cohort) -> CohortSet:
    return CohortSet(
        name=name,
        parent=cohort.parent,
        soft=dict(cohort.soft),
        borrowing_limit=None if cohort.borrowing_limit is None else dict(cohort.borrowing_limit),
        lending_limit=None if cohort.lending_limit is None else dict(cohort.lending_limit),
        weight_permille=cohort.weight_permille,
    )


def _open_reservations(state: State) -> Iterator[Transaction]:
    for name in sorted(state.reservations.open):
        reservation = state.reservations.reservations[name]
        owner = reservation.namespace
        events = [Event(ReservationCreated(reservation=reservation.body, digest=reservation.digest), owner)]
        if reservation.holds:
            nodes = tuple(HeldOnNode(node=node, count=count) for node, count in reservation.holds)
            events.append(Event(ReservationHeld(reservation=name, nodes=nodes), owner))
        if reservation.state is ReservationState.ACTIVE:
            events.append(Event(ReservationActivated(reservation=name), owner))
        yield tuple(events)


def _requests(state: State, without: frozenset[RequestKey]) -> Iterator[Dated]:
    for key, known in sorted(state.queue.requests.items()):
        if known.is_settled or key in without:
            continue
        submitted = about(key, RequestSubmitted(request=known.request, digest=known.digest), attempt=Attempt(1))
        live = [state.cluster.allocations[key[0], name] for name in known.live]
        if live:
            placed = tuple(AllocationPlaced(id=one.id, node=one.node, charge=one.charge) for one in live)
            yield (
                min(one.placed_at for one in live),
                (
                    submitted,
                    about(key, RequestPlaced(allocations=placed), attempt=Attempt(1)),
                ),
            )
        elif known.status is RequestStatus.QUEUED:
            queued = RequestQueued(reasons=known.reasons, wake=known.wake, evaluated_at=Sequence(0))
            said = [submitted, about(key, queued, attempt=Attempt(1))]
            if known.promise is not None:
                nodes = tuple(HeldOnNode(node=node, count=count) for node, count in known.promise.nodes)
                promised = StartPromised(start=known.promise.start, nodes=nodes)
                said.append(about(key, promised, attempt=Attempt(1)))
            yield state.at, tuple(said)

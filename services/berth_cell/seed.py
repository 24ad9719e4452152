"""Transactions that bring a state about: from a cluster document, or from another state (plan on a live cluster).

They are folded as history, not checked: a document may describe an over-committed node, and outside facts
may break what transactions promise.
"""

from collections.abc import Iterator
from itertools import groupby

from berth.ids import AllocationId, Attempt, CohortName, NodeId, ReservationId, Sequence
from berth.messages.documents import (
    AllocationDocument,
    ClusterDocument,
    CohortDocument,
    NodeDocument,
    NodeState,
    QuotaDocument,
    ReservationDocument,
)
from berth.messages.events import (
    AllocationPlaced,
    CohortSet,
    Event,
    HeldOnNode,
    NodeChanged,
    NodeLost,
    NodeRegistered,
    QuotaSet,
    RequestPlaced,
    RequestQueued,
    RequestStatus,
    RequestSubmitted,
    ReservationActivated,
    ReservationBody,
    ReservationCreated,
    ReservationHeld,
    Transaction,
    about,
)
from berth.messages.requests import Capacity, Request
from berth.model.cluster import Allocation, Node
from berth.model.ledger import State
from berth.model.quota import Cohort
from berth.model.reservation import ReservationState
from berth.resources import DEFAULT_INSTANCES, Resources
from berth.wire.codec import body_digest, request_digest

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
    return (
        setting
        + [(at, transaction) for at, transaction in placed if at < at_ms]
        + _reservations(document, at_ms)
        + [(at, transaction) for at, transaction in placed if at >= at_ms]
    )


def _nodes(nodes: tuple[NodeDocument, ...]) -> Iterator[Transaction]:
    for node in nodes:
        if node.state is NodeState.LEFT:
            continue
        events = [node_registered(node)]
        if not node.schedulable:
            events.append(Event(NodeChanged(node=node.id, schedulable=False)))
        if node.state is NodeState.LOST:
            events.append(Event(NodeLost(node=node.id)))
        yield tuple(events)


def node_registered(node: NodeDocument) -> Event:
    """The event of a node's document; instances not said are 110."""
    capacity = node.capacity.vector
    if node.capacity.instances is None:
        capacity = capacity + Resources(instances=DEFAULT_INSTANCES)
    return Event(
        NodeRegistered(
            node=node.id, capacity=capacity, reserved=node.reserved.vector, labels=node.labels, taints=node.taints
        )
    )


def quota_set(quota: QuotaDocument) -> Event:
    """The event of a quota's document."""
    return Event(
        QuotaSet(
            hard=quota.hard.said(),
            soft=quota.soft.said(),
            cohort=quota.cohort,
            burst_percent=quota.burst_percent,
            grace_seconds=quota.grace_seconds,
            borrowing_limit=_limit(quota.borrowing_limit),
            lending_limit=_limit(quota.lending_limit),
            weight_permille=quota.weight_permille,
            reclaim=quota.reclaim,
            preemption=quota.preemption,
        ),
        quota.namespace,
    )


def cohort_set(cohort: CohortDocument) -> Event:
    """The event of a cohort's document."""
    return Event(
        CohortSet(
            name=cohort.name,
            parent=cohort.parent,
            soft=cohort.soft.said(),
            borrowing_limit=_limit(cohort.borrowing_limit),
            lending_limit=_limit(cohort.lending_limit),
            weight_permille=cohort.weight_permille,
        )
    )


def _limit(amounts: Capacity | None) -> dict[str, int] | None:
    return None if amounts is None else amounts.said()


def _allocations(document: ClusterDocument, at_ms: int) -> Iterator[Dated]:
    """One transaction per request; instances placed at different times count from the earliest."""
    in_order = sorted(document.allocations, key=lambda one: (one.namespace, one.request))
    for _, group in groupby(in_order, key=lambda one: (one.namespace, one.request)):
        instances = list(group)
        at = min(at_ms if one.placed_at is None else one.placed_at for one in instances)
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
        AllocationPlaced(id=AllocationId(one.id), node=one.node, charge=one.resources.vector + Resources(instances=1))
        for one in instances
    )
    return (
        about(request.key, RequestSubmitted(request=request, digest=request_digest(request)), attempt=Attempt(1)),
        about(request.key, RequestPlaced(allocations=placed), attempt=Attempt(1)),
    )


def _reservations(document: ClusterDocument, at_ms: int) -> list[Dated]:
    """Held on the named nodes in their order; active when the start is not after `at_ms`."""
    found: list[Dated] = []
    for reservation in document.reservations:
        body = reservation_body(reservation, at_ms=at_ms)
        holds = _spread_over(reservation, [node.id for node in document.nodes])
        created = Event(ReservationCreated(reservation=body, digest=body_digest(body)), reservation.namespace)
        held = Event(ReservationHeld(reservation=body.id, nodes=holds), reservation.namespace)
        active = Event(ReservationActivated(reservation=body.id), reservation.namespace)
        found.append((at_ms, (created, held, active) if body.start <= at_ms else (created, held)))
    return found


def _spread_over(reservation: ReservationDocument, nodes: list[NodeId]) -> tuple[HeldOnNode, ...]:
    named = list(reservation.nodes) or nodes
    counts = dict.fromkeys(named, 0)
    for number in range(reservation.count):
        counts[named[number % len(named)]] += 1
    return tuple(HeldOnNode(node=node, count=count) for node, count in counts.items() if count)


def reservation_body(reservation: ReservationDocument, *, at_ms: int) -> ReservationBody:
    """The document normalised: whole numbers, the window said in full."""
    start = at_ms if reservation.start is None else reservation.start
    seconds = reservation.duration_seconds
    end = start + seconds * 1000 if seconds is not None else reservation.end
    assert end is not None, "the document gives either end or duration_seconds"
    return ReservationBody(
        id=ReservationId(reservation.id),
        resources=reservation.resources.vector,
        count=reservation.count,
        start=start,
        end=end,
        nodes=reservation.nodes,
        constraints=reservation.constraints,
        priority=reservation.priority,
        owners=reservation.owners,
        allocate_once=reservation.allocate_once,
        on_expiry=reservation.on_expiry,
        release_if_unused_after_seconds=reservation.release_if_unused_after_seconds,
    )


# --- from a state ---------------------------------------------------------------------------------------


def of_state(state: State) -> list[Dated]:
    """What is live or waits in `state`; settled requests are left out, times are kept."""
    began = min([state.at, *(one.placed_at for one in _live(state))])
    found: list[Dated] = [(began, _node(node)) for _, node in sorted(state.cluster.nodes.items())]
    for name, cohort in sorted(state.quotas.cohorts.items()):
        found.append((began, (Event(_cohort_set(name, cohort)),)))
    for namespace, quota in sorted(state.quotas.quotas.items()):
        data = QuotaSet(
            hard=dict(quota.hard),
            soft=dict(quota.soft),
            cohort=quota.cohort,
            burst_percent=quota.burst_percent,
            grace_seconds=quota.grace_seconds,
            borrowing_limit=None if quota.borrowing_limit is None else dict(quota.borrowing_limit),
            lending_limit=None if quota.lending_limit is None else dict(quota.lending_limit),
            weight_permille=quota.weight_permille,
            reclaim=quota.reclaim,
            preemption=quota.preemption,
        )
        found.append((began, (Event(data, namespace),)))
    found += [(began, transaction) for transaction in _open_reservations(state)]
    return found + sorted(_requests(state), key=lambda dated: dated[0])


def _live(state: State) -> list[Allocation]:
    return [one for _, one in sorted(state.cluster.allocations.items()) if one.is_live]


def _node(node: Node) -> Transaction:
    data = NodeRegistered(
        node=node.id, capacity=node.capacity, reserved=node.reserved, labels=dict(node.labels), taints=node.taints
    )
    events = [Event(data)]
    if not node.schedulable or node.draining:
        events.append(Event(NodeChanged(node=node.id, schedulable=node.schedulable, draining=node.draining)))
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


def _requests(state: State) -> Iterator[Dated]:
    for key, known in sorted(state.queue.requests.items()):
        if known.is_settled:
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
            yield state.at, (submitted, about(key, queued, attempt=Attempt(1)))

"""What each event does to the state: one function per type; those of a request are in `request_folds`."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from berth.ids import CohortName, Namespace, Sequence
from berth.messages.documents import NodeState, Queueing, StopPolicy
from berth.messages.events import (
    CohortRemoved,
    CohortSet,
    DigestsRecorded,
    Event,
    LeaderElected,
    LedgerCreated,
    NodeChanged,
    NodeLeft,
    NodeLost,
    NodeRegistered,
    QuotaRemoved,
    QuotaSet,
    RequestsForgotten,
    ReservationActivated,
    ReservationCreated,
    ReservationEnded,
    ReservationHeld,
    WakeOn,
)
from berth.messages.requests import Taint
from berth.model.charging import CONFIGURATION, quota_scope
from berth.model.cluster import Allocation, Drain, Node
from berth.model.quota import Cohort, Quota
from berth.model.reservation import Reservation, ReservationState, ended, held

if TYPE_CHECKING:
    from berth.model.ledger import State


def _ledger_created(state: "State", _event: Event, data: LedgerCreated, _at: int, _sequence: Sequence) -> None:
    assert state.tip is None, "I6: LedgerCreated is the first event"
    state.ledger_id, state.members, state.level = data.ledger_id, data.members, data.level


def _leader_elected(_state: "State", _event: Event, _data: LeaderElected, _at: int, _sequence: Sequence) -> None:
    """The record itself carries term, leader and barrier; the tip keeps them."""


def _digests_recorded(state: "State", _event: Event, data: DigestsRecorded, _at: int, sequence: Sequence) -> None:
    mine = state.digests()
    assert data.digests == mine, f"I11: at {sequence} the ledger says {data.digests}, this fold has {mine}"
    state.digests_at.put("", sequence)


def _node_registered(state: "State", _event: Event, data: NodeRegistered, at: int, sequence: Sequence) -> None:
    before = state.cluster.nodes.get(data.node)
    node = Node(
        id=data.node,
        capacity=data.capacity,
        reserved=data.reserved,
        labels=data.labels,
        taints=data.taints,
        tainted_at=_tainted_at(before, data.taints, at),
        schedulable=before.schedulable if before else True,
        drain=before.drain if before else None,
        changed=sequence,
    )
    state.cluster.nodes.put(node.id, node)
    if node.id in state.cluster.lost:
        state.cluster.lost.drop(node.id)
    _node_touched(state, sequence)


def _node_changed(state: "State", _event: Event, data: NodeChanged, at: int, sequence: Sequence) -> None:
    changes: dict[str, Any] = {
        name: value
        for name in ("capacity", "reserved", "labels", "taints", "schedulable")
        if (value := getattr(data, name)) is not None
    }
    node = state.cluster.nodes[data.node]
    if data.draining is not None:
        changes["drain"] = _drain(node.drain, data, at)
    if data.taints is not None:
        changes["tainted_at"] = _tainted_at(node, data.taints, at)
    state.cluster.nodes.put(node.id, replace(node, changed=sequence, **changes))
    _node_touched(state, sequence)


def _drain(before: Drain | None, data: NodeChanged, at: int) -> Drain | None:
    """One that goes on keeps its progress and gets the deadline that is said now."""
    if not data.draining:
        return None
    return replace(before or Drain(since=at), until=data.drain_until)


def _tainted_at(before: Node | None, taints: tuple[Taint, ...], at: int) -> tuple[int, ...]:
    """Since when the node has each of `taints`: one that it had already keeps its time (R27)."""
    known = dict(zip(before.taints, before.tainted_at, strict=True)) if before else {}
    return tuple(known.get(taint, at) for taint in taints)


def _node_lost(state: "State", _event: Event, data: NodeLost, at: int, sequence: Sequence) -> None:
    node = state.cluster.nodes[data.node]
    state.cluster.nodes.put(node.id, replace(node, state=NodeState.LOST, lost_at=at, changed=sequence))
    state.cluster.lost.put(node.id, None)
    state.touch(WakeOn.NODES, "", sequence)


def _node_left(state: "State", _event: Event, data: NodeLeft, _at: int, sequence: Sequence) -> None:
    assert not state.cluster.on_node(data.node), f"I13: {data.node} leaves with live allocations"
    state.cluster.nodes.drop(data.node)
    if data.node in state.cluster.lost:
        state.cluster.lost.drop(data.node)
    state.touch(WakeOn.NODES, "", sequence)


def _node_touched(state: "State", sequence: Sequence) -> None:
    state.touch(WakeOn.NODES, "", sequence)
    state.touch_capacity(sequence)


def _quota_set(state: "State", event: Event, data: QuotaSet, _at: int, sequence: Sequence) -> None:
    assert event.namespace is not None
    quota = Quota(
        namespace=event.namespace,
        hard=data.hard,
        soft=data.soft,
        burst_percent=data.burst_percent,
        grace_seconds=data.grace_seconds,
        cohort=CohortName(data.cohort) if data.cohort else None,
        borrowing_limit=data.borrowing_limit,
        lending_limit=data.lending_limit,
        weight_permille=data.weight_permille,
        reclaim=data.reclaim,
        preemption=data.preemption,
        queueing=data.queueing or Queueing.BEST_EFFORT_FIFO,
        usage_half_life_seconds=data.usage_half_life_seconds,
        stop_policy=data.stop_policy or StopPolicy.NONE,
        min_run_seconds=data.min_run_seconds,
        max_evictions=data.max_evictions,
        sequence=sequence,
    )
    state.quotas.set_quota(quota)
    _limits_touched(state, event.namespace, sequence)


def _limits_touched(state: "State", namespace: Namespace, sequence: Sequence) -> None:
    state.touch(WakeOn.QUOTA, CONFIGURATION, sequence)
    state.touch(WakeOn.QUEUE, namespace, sequence)


def _quota_removed(state: "State", event: Event, _data: QuotaRemoved, _at: int, sequence: Sequence) -> None:
    assert event.namespace is not None
    state.quotas.remove_quota(event.namespace)
    _limits_touched(state, event.namespace, sequence)


def _cohort_set(state: "State", _event: Event, data: CohortSet, _at: int, sequence: Sequence) -> None:
    cohort = Cohort(
        name=CohortName(data.name),
        parent=CohortName(data.parent) if data.parent else None,
        soft=data.soft,
        borrowing_limit=data.borrowing_limit,
        lending_limit=data.lending_limit,
        weight_permille=data.weight_permille,
        sequence=sequence,
    )
    state.quotas.cohorts.put(cohort.name, cohort)
    state.touch(WakeOn.QUOTA, CONFIGURATION, sequence)


def _cohort_removed(state: "State", _event: Event, data: CohortRemoved, _at: int, sequence: Sequence) -> None:
    state.quotas.cohorts.drop(CohortName(data.name))
    state.touch(WakeOn.QUOTA, CONFIGURATION, sequence)


def _requests_forgotten(state: "State", event: Event, data: RequestsForgotten, _at: int, _sequence: Sequence) -> None:
    assert event.namespace is not None
    for request in data.requests:
        key = (event.namespace, request)
        for name in state.queue.requests[key].allocations:
            state.cluster.allocations.drop((event.namespace, name))
        state.queue.forget(key)


def _reservation_created(state: "State", event: Event, data: ReservationCreated, _at: int, sequence: Sequence) -> None:
    assert event.namespace is not None
    body = data.reservation
    assert body.id not in state.reservations.reservations, f"I8: {body.id} is created twice"
    state.reservations.put(
        Reservation(
            id=body.id,
            namespace=event.namespace,
            body=body,
            digest=data.digest,
            state=ReservationState.PENDING,
            created=sequence,
            changed=sequence,
        )
    )


def _reservation_held(state: "State", _event: Event, data: ReservationHeld, _at: int, sequence: Sequence) -> None:
    before = state.reservations.reservations[data.reservation]
    assert not before.is_over, f"I13: {before.id} is not open"
    after = held(before, data, sequence)
    if before.state is not ReservationState.ACTIVE:
        state.reservations.put(after)
    else:
        state.quotas.release(before.namespace, state.reservations.charged(before))
        kept = {node for node, _ in after.holds}
        for node in [node for node, _ in before.holds if node not in kept]:
            state.reservations.leave(before, node)
        state.reservations.put(after)
        state.quotas.charge(after.namespace, state.reservations.charged(after))
    _reservation_touched(state, before, sequence)


def _reservation_activated(
    state: "State", _event: Event, data: ReservationActivated, at: int, sequence: Sequence
) -> None:
    reservation = state.reservations.reservations[data.reservation]
    assert reservation.state is ReservationState.HELD, f"I13: {reservation.id} is {reservation.state}, not held"
    reservation = replace(reservation, state=ReservationState.ACTIVE, changed=sequence)
    state.reservations.put(reservation)
    state.reservations.idle_since.put(reservation.id, at)
    for allocation in _of_reservation(state, reservation):
        state.quotas.release(allocation.namespace, allocation.charge)
        state.reservations.draw(reservation.id, allocation.node, allocation.charge)
    state.quotas.charge(reservation.namespace, state.reservations.charged(reservation))
    _reservation_touched(state, reservation, sequence)


def _reservation_ended(state: "State", _event: Event, data: ReservationEnded, _at: int, sequence: Sequence) -> None:
    reservation = state.reservations.reservations[data.reservation]
    was_active = reservation.state is ReservationState.ACTIVE
    if was_active:
        state.quotas.release(reservation.namespace, state.reservations.charged(reservation))
        state.reservations.forget_use(reservation)
    state.reservations.put(ended(reservation, data, sequence))
    for allocation in _of_reservation(state, reservation) if was_active else ():
        state.quotas.charge(allocation.namespace, allocation.charge)
    _reservation_touched(state, reservation, sequence)


def _of_reservation(state: "State", reservation: Reservation) -> list[Allocation]:
    """What runs where the reservation holds and names it: draws on it while it is active (not what is only assumed)."""
    return [
        allocation
        for node, _ in reservation.holds
        for allocation in state.cluster.on_node(node).values()
        if allocation.reservation == reservation.id and allocation.key in state.cluster.allocations
    ]


def _reservation_touched(state: "State", reservation: Reservation, sequence: Sequence) -> None:
    state.touch(WakeOn.RESERVATION, reservation.id, sequence)
    state.touch_capacity(sequence)
    state.touch(WakeOn.QUOTA, quota_scope(state, reservation.namespace), sequence)


FOLDS: dict[type, Callable[["State", Event, Any, int, Sequence], None]] = {
    LedgerCreated: _ledger_created,
    LeaderElected: _leader_elected,
    DigestsRecorded: _digests_recorded,
    NodeRegistered: _node_registered,
    NodeChanged: _node_changed,
    NodeLost: _node_lost,
    NodeLeft: _node_left,
    QuotaSet: _quota_set,
    QuotaRemoved: _quota_removed,
    CohortSet: _cohort_set,
    CohortRemoved: _cohort_removed,
    RequestsForgotten: _requests_forgotten,
    ReservationCreated: _reservation_created,
    ReservationHeld: _reservation_held,
    ReservationActivated: _reservation_activated,
    ReservationEnded: _reservation_ended,
}

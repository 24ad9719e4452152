"""Who is charged for an allocation: its namespace, or the reservation that it draws on."""

from typing import TYPE_CHECKING, Any

from berth.ids import Namespace
from berth.model.cluster import Allocation
from berth.model.reservation import Reservation, ReservationState
from berth.resources import NOTHING

if TYPE_CHECKING:
    from berth.model.ledger import State

CONFIGURATION = "*"
"""Stands for every namespace where a quota's wake condition is remembered."""
UNFORESEEN = "unforeseen"
"""Names capacity that came free otherwise than when it was expected: what a promised request waits for."""


def quota_scope(state: "State", namespace: Namespace) -> str:
    """What shares capacity with `namespace`: the root of its cohort tree, or the namespace alone."""
    quota = state.quotas.quotas.get(namespace)
    if quota is None or quota.cohort is None:
        return f"namespace {namespace}"
    name = quota.cohort
    seen = {name}
    while (cohort := state.quotas.cohorts.get(name)) is not None and cohort.parent is not None:
        if cohort.parent in seen:
            break
        name = cohort.parent
        seen.add(name)
    return f"cohort {name}"


def is_above_soft(state: "State", namespace: Namespace) -> bool:
    """Whether it shares a cohort and uses more than its soft quota of anything: others may take that back."""
    quota = state.quotas.quotas.get(namespace)
    if quota is None or quota.cohort is None:
        return False
    used = state.quotas.used_by(namespace)
    return any(used.amount(dimension) > soft for dimension, soft in quota.soft.items())


def draws_on(state: "State", allocation: Allocation) -> Reservation | None:
    """The active reservation that a live allocation draws on, where that holds something; else its namespace pays."""
    name = allocation.reservation
    if name is None or name not in state.reservations.on_node(allocation.node):
        return None
    reservation = state.reservations.reservations[name]
    return reservation if reservation.state is ReservationState.ACTIVE else None


def charge(state: "State", allocation: Allocation) -> None:
    reservation = None if allocation.reservation is None else draws_on(state, allocation)
    if reservation is None:
        state.quotas.charge(allocation.namespace, allocation.charge)
        return
    before = state.reservations.charged_on(reservation, allocation.node)
    state.reservations.draw(reservation.id, allocation.node, allocation.charge)
    after = state.reservations.charged_on(reservation, allocation.node)
    state.quotas.charge(reservation.namespace, after - before)


def uncharge(state: "State", allocation: Allocation, at: int) -> None:
    reservation = draws_on(state, allocation)
    if reservation is None:
        state.quotas.release(allocation.namespace, allocation.charge)
        return
    before = state.reservations.charged_on(reservation, allocation.node)
    state.reservations.give_back(reservation.id, allocation.node, allocation.charge, at=at)
    after = state.reservations.charged_on(reservation, allocation.node)
    state.quotas.release(reservation.namespace, before - after)


def recount_usage(state: "State") -> dict[Namespace, Any]:
    """Usage by namespace computed anew from live allocations and active reservations; must equal the sums."""
    total: dict[Namespace, Any] = {}
    for allocation in state.cluster.allocations.values():
        if allocation.is_live and draws_on(state, allocation) is None:
            total[allocation.namespace] = total.get(allocation.namespace, NOTHING) + allocation.charge
    for reservation in state.reservations.reservations.values():
        if reservation.state is ReservationState.ACTIVE:
            charged = state.reservations.charged(reservation)
            total[reservation.namespace] = total.get(reservation.namespace, NOTHING) + charged
    return {namespace: used for namespace, used in total.items() if used != NOTHING}


def usage_drift(state: "State") -> dict[Namespace, int]:
    """By how much counters and a recount differ, all dimensions together; empty, or the counting is wrong."""
    counted, found = dict(state.quotas.used), recount_usage(state)
    differences = {
        name: found.get(name, NOTHING).minus(counted.get(name, NOTHING)) for name in sorted({*counted, *found})
    }
    return {
        name: sum(abs(amount) for _, amount in difference.dimensions())
        for name, difference in differences.items()
        if difference != NOTHING
    }

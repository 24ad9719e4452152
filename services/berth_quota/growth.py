"""Which requests that run already still want instances: partial gangs grow, and what a gang has lost is repaired. Pure.

A request that runs stays `placed` meanwhile: nothing is written about instances that have no place yet.
"""

from berth.messages.events import RequestStatus, Wake, WakeOn
from berth.messages.requests import Reschedule
from berth.model.cluster import Allocation, AllocationState
from berth.model.ledger import State
from berth.model.queue import RequestState

GIVEN_BACK = frozenset({AllocationState.RELEASED, AllocationState.EXPIRED})


def wants_more(state: State, known: RequestState) -> bool:
    """Whether it runs with fewer instances than it asked for, and others may come.

    One of which something is released or has expired is on its way out; one that must not be rescheduled
    does without what was taken from it.
    """
    if known.status is not RequestStatus.PLACED or len(known.live) >= known.request.count:
        return False
    ever = _ever(state, known)
    if not any(one.state is AllocationState.PLACED for one in ever):
        return False
    if any(one.state in GIVEN_BACK for one in ever):
        return False
    return known.request.reschedule is Reschedule.ON_LOSS or all(one.is_live for one in ever)


def is_repair(state: State, known: RequestState) -> bool:
    """Whether an instance that ran has been lost or evicted: that ranks above new work."""
    ever = _ever(state, known)
    running = {one.index for one in ever if one.state is AllocationState.PLACED}
    return bool({one.index for one in ever} - running)


def wakes(known: RequestState) -> tuple[Wake, ...]:
    """Anything may make room for one more instance: nobody has written down what keeps it away."""
    found = [Wake(on=on) for on in (WakeOn.CAPACITY, WakeOn.NODES, WakeOn.PLACEMENT, WakeOn.QUOTA)]
    if known.request.reservation is not None:
        found.append(Wake(on=WakeOn.RESERVATION, name=known.request.reservation))
    return tuple(found)


def _ever(state: State, known: RequestState) -> list[Allocation]:
    return [state.cluster.allocations[known.request.namespace, name] for name in known.allocations]

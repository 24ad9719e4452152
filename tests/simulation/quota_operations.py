"""Random operations on one cell: submissions, releases, quotas and cohorts, holds and drains, nodes, time.

The services and the leader's judgement are the real ones. Whether a request may wait is judged by a reference of
its own: plain sums over live allocations, and the formulas of R66 to R68 word for word.
"""

import random
from dataclasses import dataclass, field
from typing import Any

from berth import subjects
from berth.ids import CohortName, Namespace, RequestId, RequestKey
from berth.messages.commands import ADMIN_QUOTA, AdminAnswer, NodeRegister
from berth.messages.documents import NodeDocument, NodeState, Queueing, StopPolicy
from berth.messages.events import RequestStatus
from berth.messages.node_commands import SetNode
from berth.messages.reasons import INSUFFICIENT, ReasonCode
from berth.messages.requests import Borrow, Request
from berth.model.charging import recount_usage
from berth.model.cluster import Node
from berth.model.ledger import State
from berth.model.queue import RequestState
from berth.model.quota import Amounts, Quota
from berth.resources import CPU, NOTHING, RAM, Resources
from berth_cell.cell import Cell
from berth_quota.bounds import USUAL
from tests.builders import T0, a_node, a_request

TEAMS = tuple(Namespace(name) for name in ("algebra", "biology", "cinema", "dance"))
COHORTS = ("science", "arts", "university")
SETTLING_MS = 3_000
"""Longer than anything is retried after."""
CAPACITY = frozenset(
    {
        *INSUFFICIENT.values(),
        ReasonCode.INSUFFICIENT_EXTENDED,
        ReasonCode.HELD_BY_PROMISE,
        ReasonCode.INFEASIBLE,
        ReasonCode.NODE_CORDONED,
        ReasonCode.NODE_DRAINING,
        ReasonCode.NODE_LOST,
        ReasonCode.SIBLINGS_DO_NOT_FIT,
    }
)


def a_cell() -> Cell:
    return Cell(at_ms=T0, sweep_ms=USUAL.sweep_ms, history=[(T0, a_node("n1", cpu=8_000, ram=8_000))])


@dataclass(slots=True)
class Operations:
    """One seed's history; `step` does one thing and lets everybody come to rest."""

    chance: random.Random
    cell: Cell = field(default_factory=a_cell)
    submitted: list[RequestKey] = field(default_factory=list[RequestKey])

    def step(self) -> None:
        what = (self.submit, self.release, self.limit, self.cohort, self.unlimit, self.stop, self.node, self.cordon)
        self.chance.choices(what, (10, 8, 3, 1, 1, 1, 1, 1))[0]()
        self.cell.advance(self.cell.now_ms + SETTLING_MS)

    def submit(self) -> None:
        namespace = self.chance.choice(TEAMS)
        requests = [
            a_request(
                f"r{len(self.submitted) + number}",
                namespace=namespace,
                cpu=self.chance.randint(1, 8) * 500,
                ram=self.chance.choice((0, 500, 2_000)),
                count=self.chance.choice((1, 1, 1, 2, 3)),
                priority=self.chance.choice((10, 50, 50, 90)),
                borrow=self.chance.choice(("allowed", "allowed", "never")),
                preemption=self.chance.choice(("never", "lower_priority")),
                duration_seconds=self.chance.choice((None, None, 20, 120)),
            )
            for number in range(self.chance.randint(1, 3))
        ]
        self.submitted += [request.key for request in requests]
        self.cell.submit(requests)

    def release(self) -> None:
        table = self.cell.state.queue.requests
        if open_ones := [key for key in self.submitted[-60:] if key in table and not table[key].is_settled]:
            namespace, request = self.chance.choice(open_ones)
            self.cell.release(namespace, [RequestId(request)])

    def limit(self) -> None:
        soft, chance = self.chance.randint(0, 5), self.chance
        document: dict[str, Any] = {
            "namespace": chance.choice(TEAMS),
            "soft": {"cpu_cores": soft},
            "hard": {"cpu_cores": soft + chance.randint(0, 6)},
            "queueing": chance.choice(("best_effort_fifo", "best_effort_fifo", "strict_fifo")),
            "reclaim": chance.choice(("never", "any", "lower_priority")),
            "weight": chance.choice((0, 1, 2)),
        }
        if chance.random() < 0.7:
            document["cohort"] = chance.choice(COHORTS)
            if chance.random() < 0.3:
                document["borrowing_limit"] = {"cpu_cores": chance.randint(0, 3)}
            if chance.random() < 0.3:
                document["lending_limit"] = {"cpu_cores": chance.randint(0, soft)}
        if chance.random() < 0.2:
            document["usage_half_life_seconds"] = 60
        self.tell(command="apply", quotas=[document])

    def cohort(self) -> None:
        name = self.chance.choice(COHORTS[:2])
        parent = self.chance.choice(("university", None))
        own = {"cpu_cores": self.chance.randint(0, 2)}
        self.tell(command="apply", cohorts=[{"name": name, "parent": parent, "soft": own}])

    def unlimit(self) -> None:
        what = ("namespace", self.chance.choice(TEAMS)) if self.chance.random() < 0.7 else ("cohort", COHORTS[0])
        self.tell(command="remove", **{what[0]: what[1]})

    def stop(self) -> None:
        policy = self.chance.choice(("none", "none", "hold", "hold_and_drain"))
        self.tell(command="stop", namespace=self.chance.choice(TEAMS), policy=policy)

    def node(self) -> None:
        name = f"n{self.chance.randint(1, 4)}"
        capacity = {"cpu_cores": self.chance.randint(1, 8), "ram_mb": self.chance.choice((2_000, 8_000))}
        document = NodeDocument.model_validate({"id": name, "capacity": capacity}, strict=False)
        self.cell.ask(subjects.NODE_REGISTER, NodeRegister(node=document, session="cell"), node=name)

    def cordon(self) -> None:
        nodes = list(self.cell.state.cluster.nodes)
        command = {"node": self.chance.choice(nodes), "schedulable": self.chance.random() < 0.6}
        self.cell.ask(subjects.ADMIN_NODE, SetNode.model_validate(command))

    def tell(self, **command: Any) -> AdminAnswer:
        answer = self.cell.ask(subjects.ADMIN_QUOTA, ADMIN_QUOTA.validate_python(command, strict=False))
        assert isinstance(answer, AdminAnswer)
        return answer


# --- what must hold ------------------------------------------------------------------------------------------


def check(operations: Operations) -> None:
    """Counters equal a recount; whoever waits has reason to; nobody was forgotten."""
    cell, state = operations.cell, operations.cell.state
    assert recount_usage(state) == dict(state.quotas.used), "I13"
    recounted = state.cluster.recount()
    for name in state.cluster.nodes:
        assert state.cluster.used_on(name) == recounted.get(name, NOTHING), "I13"
    assert not cell.unacknowledged, "everything that was asked for has an outcome"
    assert cell.quota.unsettled == 0
    assert cell.quota.wakeups_missed == 0
    assert set(state.queue.waiting) == {
        key for key in operations.submitted if key in state.queue.requests and is_queued(state.queue.requests[key])
    }
    reference = Reference(state)
    for key in state.queue.waiting:
        known = state.queue.requests[key]
        assert not reference.may_be_placed(known), f"{key} could be placed: {known.reasons}"
        assert any(reference.is_true(known, reason.code, reason.dimension) for reason in known.reasons), (
            f"{key} says why it waits, and it is not so: {known.reasons}"
        )


def is_queued(known: RequestState) -> bool:
    return known.status is RequestStatus.QUEUED


class Reference:
    """One state, judged by sums and formulas of its own."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._used = recount_usage(state)

    def may_be_placed(self, known: RequestState) -> bool:
        """Without taking anything from others."""
        request = known.request
        return (
            not self._is_stopped(request.namespace)
            and not self._is_behind(known)
            and not self._over_hard(request)
            and not self._over_ceiling(request)
            and self._has_room(request, beside_promises=True)
        )

    def is_true(self, known: RequestState, code: ReasonCode, dimension: str | None) -> bool:
        request = known.request
        match code:
            case ReasonCode.NAMESPACE_STOPPED:
                return self._is_stopped(request.namespace)
            case ReasonCode.BEHIND_ANOTHER:
                return self._is_behind(known)
            case ReasonCode.QUOTA_HARD:
                return dimension in self._over_hard(request)
            case ReasonCode.QUOTA_CEILING:
                return dimension in self._over_ceiling(request)
            case _:  # who waits for room that comes free as expected is not woken by it: others may be promised it
                assert code in CAPACITY, f"nothing here makes anybody wait for {code}"
                return not self._has_room(request, beside_promises=True)

    def _quota(self, namespace: Namespace) -> Quota | None:
        return self._state.quotas.quotas.get(namespace)

    def _is_stopped(self, namespace: Namespace) -> bool:
        quota = self._quota(namespace)
        return quota is not None and quota.stop_policy is not StopPolicy.NONE

    def _is_behind(self, known: RequestState) -> bool:
        quota = self._quota(known.request.namespace)
        if quota is None or quota.queueing is not Queueing.STRICT_FIFO:
            return False
        table = self._state.queue.requests
        others = [table[key] for key in self._state.queue.waiting if key[0] == known.request.namespace]
        places = {one.key: (-one.request.priority, one.order, place) for place, one in enumerate(others)}
        return min(places.values()) < places[known.key]

    def _over_hard(self, request: Request) -> list[str]:
        quota = self._quota(request.namespace)
        return [] if quota is None else [d for d, more in request.total.dimensions() if self._beyond(quota, d, more)]

    def _beyond(self, quota: Quota, dimension: str, more: int) -> bool:
        return dimension in quota.hard and self._use(quota.namespace, dimension) + more > quota.hard[dimension]

    def _over_ceiling(self, request: Request) -> list[str]:
        quota = self._quota(request.namespace)
        if quota is None:
            return []
        found: list[str] = []
        for dimension, more in request.total.dimensions():
            soft = quota.soft.get(dimension, quota.hard.get(dimension))
            if soft is None:
                continue
            own = soft - self._use(quota.namespace, dimension)
            room = own if quota.cohort is None else self._available(quota.namespace, quota.cohort, dimension)
            room = room if request.borrow is Borrow.ALLOWED else min(own, room)
            if more > room:
                found.append(dimension)
        return found

    def _has_room(self, request: Request, *, beside_promises: bool = False) -> bool:
        nodes = self._state.cluster.nodes.values()
        return sum(self._times(node, request, beside_promises=beside_promises) for node in nodes) >= request.count

    def _times(self, node: Node, request: Request, *, beside_promises: bool) -> int:
        """How many instances the node has room for, now and at each promised start that they would still run at."""
        if node.state is not NodeState.READY or not node.schedulable or node.drain is not None:
            return 0
        now, duration = self._state.at, request.duration_seconds
        ends = None if duration is None else now + duration * 1000
        kept = self._kept_on(node, request) if beside_promises else []
        moments = [now, *(start for start, _ in kept if start > now and (ends is None or start < ends))]
        return min(self._times_at(node, request.charge, moment, kept) for moment in moments)

    def _times_at(self, node: Node, need: Resources, moment: int, kept: list[tuple[int, Resources]]) -> int:
        taken = [
            one.charge
            for one in self._state.cluster.allocations.values()
            if one.is_live
            and one.node == node.id
            and (one.gone_by is None or one.gone_by > moment or moment == self._state.at)
        ] + [amount for start, amount in kept if start <= moment]
        return min(
            max(0, node.capacity.amount(dimension) - sum(one.amount(dimension) for one in taken))
            // need.amount(dimension)
            for dimension in (CPU, RAM, "instances")
            if need.amount(dimension)
        )

    def _kept_on(self, node: Node, request: Request) -> list[tuple[int, Resources]]:
        """What is promised there to others that are not below it: from when, and how much."""
        found: list[tuple[int, Resources]] = []
        for key, promise in self._state.queue.promised.items():
            other = self._state.queue.requests[key].request
            count = dict(promise.nodes).get(node.id, 0)
            if key != request.key and other.priority >= request.priority and count:
                found.append((promise.start, other.charge.times(count)))
        return found

    # R66 to R68, as they are written, for one dimension -----------------------------------------------------

    def _use(self, namespace: Namespace, dimension: str) -> int:
        used = self._used.get(namespace)
        return 0 if used is None else int(used.amount(dimension))

    def _members(self, cohort: str) -> list[Quota]:
        return [quota for quota in self._state.quotas.quotas.values() if quota.cohort == cohort]

    def _children(self, cohort: str) -> list[str]:
        return [name for name, one in self._state.quotas.cohorts.items() if one.parent == cohort]

    def _subtree(self, cohort: str, dimension: str) -> int:
        document = self._state.quotas.cohorts.get(CohortName(cohort))
        own = 0 if document is None else document.soft.get(dimension, 0)
        lent = [nominal(one, dimension) - local(one, dimension) for one in self._members(cohort)]
        return own + sum(lent) + sum(self._subtree(child, dimension) for child in self._children(cohort))

    def _usage(self, cohort: str, dimension: str) -> int:
        """R67: what is used above the local quota is charged to the parent; these cohorts keep nothing local."""
        charged = [
            max(0, self._use(one.namespace, dimension) - local(one, dimension))
            for one in self._members(cohort)
            if is_declared(one, dimension)
        ]
        return sum(charged) + sum(self._usage(child, dimension) for child in self._children(cohort))

    def _available(self, namespace: Namespace, cohort: str, dimension: str) -> int:
        quota = self._quota(namespace)
        assert quota is not None
        used, kept = self._use(namespace, dimension), local(quota, dimension)
        above = self._available_in(cohort, dimension)
        limit = quota.borrowing_limit
        if limit is not None and dimension in limit:
            above = min(above, nominal(quota, dimension) - kept - max(0, used - kept) + limit[dimension])
        return max(0, kept - used) + above

    def _available_in(self, cohort: str, dimension: str) -> int:
        document = self._state.quotas.cohorts.get(CohortName(cohort))
        parent = None if document is None else document.parent
        if parent is None:
            return self._subtree(cohort, dimension) - self._usage(cohort, dimension)
        return self._available_in(parent, dimension)


def nominal(quota: Quota, dimension: str) -> int:
    return quota.soft.get(dimension, quota.hard.get(dimension, 0))


def is_declared(quota: Quota, dimension: str) -> bool:
    return dimension in quota.soft or dimension in quota.hard


def local(quota: Quota, dimension: str) -> int:
    """R66: what is never lent."""
    limit: Amounts | None = quota.lending_limit
    return 0 if limit is None or dimension not in limit else max(0, nominal(quota, dimension) - limit[dimension])

"""What quota brings about by proposing it until the ledger shows it: queueing, rejections, releases, timers."""

from collections.abc import Hashable
from dataclasses import dataclass

from berth.ids import Namespace, RequestId, RequestKey, Sequence
from berth.messages.commands import StartOffer
from berth.messages.documents import StopPolicy
from berth.messages.events import Transaction, Wake
from berth.messages.reasons import Reason
from berth.model.cluster import AllocationState
from berth.model.ledger import State
from berth_quota import transactions
from berth_quota.lanes import Lane, Waiting
from berth_quota.promises import renewed, wake_of
from berth_quota.proposals import EVENT_BYTES

NAME_BYTES = 80
"""An allocation's id or a request's, as JSON writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruled:
    """One request is queued, or rejected where `wake` is empty. Made for one attempt: refused, it is judged anew.

    `offer`: the start that it may be promised.
    """

    waiting: Waiting
    lane: Lane
    reasons: tuple[Reason, ...]
    wake: tuple[Wake, ...] = ()
    evaluated_at: Sequence = Sequence(0)
    offer: StartOffer | None = None

    @property
    def id(self) -> Hashable:
        return ("ruled", self.waiting.key)

    @property
    def size(self) -> int:
        nodes = len(self.offer.nodes) if self.offer is not None else 0
        return self.waiting.size + EVENT_BYTES * len(self.reasons) + (NAME_BYTES + 20) * nodes

    def transaction(self, state: State, now_ms: int) -> Transaction | None:
        if not transactions.is_current(state, self.waiting):
            return None
        if not self.wake:
            return transactions.rejection(self.waiting, self.reasons)
        promise = renewed(state, self.waiting.key, self.offer, now_ms)
        is_promised = self.waiting.key in state.queue.promised if promise is None else promise.start is not None
        wake = wake_of(self.waiting.request, self.wake, is_promised=is_promised)
        return transactions.queueing(self.waiting, self.reasons, wake, self.evaluated_at, promise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A client gives a request back."""

    key: RequestKey
    instances: int
    traceparent: str | None

    @property
    def id(self) -> Hashable:
        return ("release", self.key)

    @property
    def size(self) -> int:
        return NAME_BYTES * self.instances

    def transaction(self, state: State, now_ms: int) -> Transaction | None:
        return transactions.release(state, self.key, now_ms, self.traceparent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """What runs of a request leaves, because its namespace is drained."""

    key: RequestKey
    instances: int

    @property
    def id(self) -> Hashable:
        return ("drain", self.key)

    @property
    def size(self) -> int:
        return NAME_BYTES * self.instances

    def transaction(self, state: State, now_ms: int) -> Transaction | None:
        return transactions.draining(state, self.key, now_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndGrace:
    """The grace of some of a request's allocations is over."""

    key: RequestKey
    instances: int

    @property
    def id(self) -> Hashable:
        return ("grace", self.key)

    @property
    def size(self) -> int:
        return NAME_BYTES * self.instances

    def transaction(self, state: State, now_ms: int) -> Transaction | None:
        return transactions.grace_over(state, self.key, now_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassDeadline:
    """A queued request has waited as long as it wanted to."""

    key: RequestKey

    @property
    def id(self) -> Hashable:
        return ("deadline", self.key)

    @property
    def size(self) -> int:
        return 0

    def transaction(self, state: State, now_ms: int) -> Transaction | None:
        del now_ms
        return transactions.deadline_passed(state, self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """Requests of one namespace that were settled long ago."""

    namespace: Namespace
    requests: tuple[RequestId, ...]

    @property
    def id(self) -> Hashable:
        return ("forget", self.namespace, self.requests[0])

    @property
    def size(self) -> int:
        return NAME_BYTES * len(self.requests)

    def transaction(self, state: State, now_ms: int) -> Transaction | None:
        del now_ms
        return transactions.forgetting(state, self.namespace, self.requests)


def drains(state: State, namespace: Namespace) -> list[Drain]:
    """What is to be brought about where the namespace is drained: everything that runs of it leaves."""
    quota = state.quotas.quotas.get(namespace)
    if quota is None or quota.stop_policy is not StopPolicy.HOLD_AND_DRAIN:
        return []
    running = {
        one.request_key: None
        for one in state.cluster.allocations.values()
        if one.namespace == namespace and one.state is AllocationState.PLACED
    }
    return [Drain(key=key, instances=len(state.queue.requests[key].live)) for key in running]


Timed = EndGrace | PassDeadline | Forget

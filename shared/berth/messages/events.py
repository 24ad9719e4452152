"""What happened: the closed list of event types (DESIGN section 4, "Events"), past tense, versioned.

An event's `data` is one of the models below; namespace, request and attempt stand beside it in the
envelope and are not repeated inside. Old versions are read through `berth.wire.upcasters`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from berth.ids import (
    AllocationId,
    Attempt,
    LedgerId,
    Namespace,
    NodeId,
    RequestId,
    RequestKey,
    Sequence,
    Term,
)
from berth.messages.documents import Preemption, Queueing, Reclaim, StopPolicy
from berth.messages.event_data import EventData, said
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Taint
from berth.messages.reservation_events import (
    HeldOnNode,
    ReservationActivated,
    ReservationCreated,
    ReservationEnded,
    ReservationHeld,
)
from berth.messages.stored import RequestField
from berth.messages.vectors import Limit, Vector
from berth.resources import NOTHING


class How(StrEnum):
    """How an allocation ended; each is final."""

    RELEASED = "released"
    EVICTED = "evicted"
    EXPIRED = "expired"
    LOST = "lost"


class RequestStatus(StrEnum):
    QUEUED = "queued"
    PLACED = "placed"
    RELEASED = "released"
    EXPIRED = "expired"
    EVICTED = "evicted"
    LOST = "lost"
    REJECTED = "rejected"


class WakeOn(StrEnum):
    """What may make a queued request placeable."""

    CAPACITY = "capacity"
    NODES = "nodes"
    PLACEMENT = "placement"
    """Something was placed: what wants to be near it, or evenly beside it, may come now."""
    QUOTA = "quota"
    RECLAIM = "reclaim"
    """Somebody of the cohort tree began to use more than its soft quota: who waits below its own may take it back."""
    RESERVATION = "reservation"
    QUEUE = "queue"
    """Somebody left the queue of the request's namespace, where one waits behind the other (R73)."""


class Wake(EventData):
    """A condition; any one of a request's conditions wakes it (R102). `name`: the reservation; of capacity
    `unforeseen`, what came free otherwise than when it was expected.
    """

    on: WakeOn
    name: str | None = None


class RestoredFrom(EventData):
    """The last record of the ledger that a backup was made of."""

    ledger_id: LedgerId
    sequence: Sequence
    hash: str


class LedgerCreated(EventData):
    """`restored_from`: everything up to that record is here too, under this ledger's id."""

    ledger_id: LedgerId
    members: tuple[str, ...]
    level: str
    restored_from: RestoredFrom | None = None


class LeaderElected(EventData):
    term: Term
    leader: str
    prev_term: Term


class DigestsRecorded(EventData):
    """Digests of every sub-state before this record; a reader that folds another value halts."""

    digests: dict[str, str]


class NodeRegistered(EventData):
    node: NodeId
    capacity: Vector
    reserved: Vector = NOTHING
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    taints: tuple[Taint, ...] = ()


class NodeChanged(EventData):
    """Only what changed, each value whole; a field that is None stays as it was.

    `drain_until`: of a drain that begins or goes on, its deadline in milliseconds UTC. `draining` true without
    it is a drain that has none (any more); false ends the drain.
    """

    node: NodeId
    capacity: Vector | None = None
    reserved: Vector | None = None
    labels: dict[str, str] | None = None
    taints: tuple[Taint, ...] | None = None
    schedulable: bool | None = None
    draining: bool | None = None
    drain_until: int | None = None


class NodeLost(EventData):
    node: NodeId


class NodeLeft(EventData):
    node: NodeId


class QuotaSet(EventData):
    """The whole document of the envelope's namespace; what is null is as if nothing were said."""

    hard: Limit = Field(default_factory=dict[str, int])
    soft: Limit = Field(default_factory=dict[str, int])
    cohort: str | None = None
    burst_percent: int = 0
    grace_seconds: int | None = None
    borrowing_limit: Limit | None = None
    lending_limit: Limit | None = None
    weight_permille: int = 1000
    reclaim: Reclaim = Reclaim.ANY
    preemption: Preemption = Preemption.LOWER_PRIORITY
    queueing: Queueing | None = None
    usage_half_life_seconds: int | None = None
    stop_policy: StopPolicy | None = None
    min_run_seconds: int | None = None
    max_evictions: int | None = None


class QuotaRemoved(EventData):
    pass


class CohortSet(EventData):
    name: str
    parent: str | None = None
    soft: Limit = Field(default_factory=dict[str, int])
    borrowing_limit: Limit | None = None
    lending_limit: Limit | None = None
    weight_permille: int = 1000


class CohortRemoved(EventData):
    name: str


class RequestSubmitted(EventData):
    """Opens a request's first transaction and alone carries its normalised body."""

    request: RequestField
    digest: str

    def written(self) -> dict[str, Any]:
        return {"request": self.request.body, "digest": self.digest}


class RequestQueued(EventData):
    reasons: tuple[Reason, ...]
    wake: tuple[Wake, ...]
    evaluated_at: Sequence


class AllocationPlaced(EventData):
    """One instance on one node; `charge` is what it is charged and will be given back, always whole."""

    id: AllocationId
    node: NodeId
    charge: Vector

    def written(self) -> dict[str, Any]:
        return {"id": self.id, "node": self.node, "charge": self.charge.as_mapping()}


class RequestPlaced(EventData):
    allocations: tuple[AllocationPlaced, ...]

    def written(self) -> dict[str, Any]:
        return {"allocations": [placed.written() for placed in self.allocations]}


class MovedBecause(StrEnum):
    """Why a promised start was moved later, or taken back: nothing else may do that (R86)."""

    NODE_LOST = "node_lost"
    """A node of the promise is lost, gone, smaller, or takes no work any more."""
    HIGHER_PRIORITY = "higher_priority"
    """Work of higher priority came, and took the place or was promised it."""
    LIMIT_CHANGED = "limit_changed"
    """The namespace may not use so much any more."""
    LATE = "late"
    """The start passed and nobody could act on it: services were away, or what ran before did not end."""


class StartPromised(EventData):
    """A queued request will start at `start` at the latest (milliseconds UTC), on `nodes`, which are kept for it.

    Without `start` the promise is taken back. `cause`: always, and only, where it is moved later or taken back.
    """

    start: int | None = None
    nodes: tuple[HeldOnNode, ...] = said(())
    cause: MovedBecause | None = None


class AllocationsReleasing(EventData):
    """Still consuming until `until` (milliseconds UTC) or until the agent says stopped."""

    ids: tuple[AllocationId, ...]
    how: How
    reason: ReasonCode
    until: int


class AllocationsEnded(EventData):
    ids: tuple[AllocationId, ...]
    how: How
    reason: ReasonCode


class AllocationsOverran(EventData):
    """They run longer than they declared, as their request allows: until its grace is over, or without end."""

    ids: tuple[AllocationId, ...]


class RequestEnded(EventData):
    """`status` is one of the terminal ones; `reason` says why, its reasons stand in the decision."""

    status: RequestStatus
    reason: ReasonCode
    reasons: tuple[Reason, ...] = ()


class RequestsForgotten(EventData):
    requests: tuple[RequestId, ...]


EVENT_TYPES: dict[str, tuple[type[EventData], int]] = {
    model.__name__: (model, 1)
    for model in (
        LedgerCreated,
        LeaderElected,
        DigestsRecorded,
        NodeRegistered,
        NodeChanged,
        NodeLost,
        NodeLeft,
        QuotaSet,
        QuotaRemoved,
        CohortSet,
        CohortRemoved,
        RequestSubmitted,
        RequestQueued,
        RequestPlaced,
        StartPromised,
        AllocationsReleasing,
        AllocationsEnded,
        AllocationsOverran,
        RequestEnded,
        RequestsForgotten,
        ReservationCreated,
        ReservationHeld,
        ReservationActivated,
        ReservationEnded,
    )
}
"""Every type by its stored name, with the version written today. Names are ours, never import paths."""


@dataclass(frozen=True, slots=True)
class Event:
    """One fact and whom it concerns. Events of one request in one transaction carry its attempt."""

    data: EventData
    namespace: Namespace | None = None
    request: RequestId | None = None
    attempt: Attempt | None = None
    traceparent: str | None = None

    @property
    def type(self) -> str:
        return type(self.data).__name__

    @property
    def key(self) -> RequestKey | None:
        """The request this event is of, or None."""
        if self.namespace is None or self.request is None:
            return None
        return (self.namespace, self.request)


Transaction = tuple[Event, ...]
"""All or nothing: takes effect as a whole, or is refused as a whole."""


def about(key: RequestKey, data: EventData, *, attempt: Attempt | None = None, traceparent: str | None = None) -> Event:
    """An event of the request `key`."""
    return Event(data, key[0], key[1], attempt, traceparent)


EventVersion = Annotated[int, Field(ge=1)]

"""What asks and what answers between services: proposals, evaluations, liveness, administration, queries.

Every command has one answer type; a refusal is data inside an answer.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from berth.ids import Attempt, Namespace, NodeId, RequestId, RequestKey, Sequence, Term
from berth.messages.documents import (
    CohortDocument,
    NodeDocument,
    QuotaDocument,
    ReservationDocument,
    StopPolicy,
    Time,
)
from berth.messages.events import Transaction, Wake
from berth.messages.reasons import Reason
from berth.messages.requests import Document, Name, NamespaceName, NodeName, Request, RequestName
from berth.messages.reservation_events import HeldOnNode
from berth.messages.stored import RequestField
from berth.messages.validation import expected


class Wire(BaseModel):
    """Immutable and tolerant: written by Berth's own processes, perhaps of a newer version."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class RefusalCode(StrEnum):
    """Why the leader, or a service, did not do what was asked."""

    SUPERSEDED = "superseded"
    """The request has moved on: the transaction was made for an attempt that is over."""
    CONFLICT = "conflict"
    """The id is taken by another body."""
    STALE_VICTIM = "stale_victim"
    """What was to be evicted or moved is not there any more."""
    CAPACITY = "capacity"
    """A node would hold more than it has."""
    RULE = "rule"
    """A required rule does not hold; the detail names it."""
    WINDOW = "window"
    """A reservation holds what would be used."""
    QUOTA = "quota"
    """The namespace would use more than it may."""
    CLASS = "class"
    """What would be evicted may not be taken from its owner."""
    TOO_EARLY = "too_early"
    """A timer ran ahead of the ledger's time, or a node has not been silent for long enough."""
    TOO_LARGE = "too_large"
    """It does not fit one record, one answer or one message."""
    NOT_FOUND = "not_found"
    """There is no such thing."""
    INVALID = "invalid"
    """It is not what the subject takes; the detail names the path."""
    ALREADY_DONE = "already_done"
    """It is so already, and final."""
    NOT_LEADER = "not_leader"
    """Whoever received it does not lead any more; ask again."""
    OVERLOADED = "overloaded"
    """A bounded queue is full; nothing was taken; try again later."""
    UNKNOWN = "unknown"
    """Nobody can tell yet what became of it; the same may safely be sent again."""
    INTERNAL = "internal"
    """A bug of ours: the process's log says more."""


class Refusal(Wire):
    """A typed no. `detail` is for people and names the entity and the numbers.

    Of a window: `earliest_start`, when one of the same length would work (milliseconds UTC), and who is in its way.
    """

    code: RefusalCode
    detail: str = ""
    earliest_start: int | None = None
    in_the_way: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Transactions offered to the leader against a view at `view_sequence`; each is judged by itself."""

    id: str
    transactions: tuple[Transaction, ...]
    view_sequence: Sequence


class ProposalAnswer(Wire):
    """One outcome per transaction, in order: None is accepted at `sequence`.

    Accepted by a leader of a lower term than one already heard is ignored by the reader.
    """

    id: str
    term: Term
    sequence: Sequence | None = None
    outcomes: tuple[Refusal | None, ...]


class Grant(Wire):
    """What quota allows the scheduler to take from others for one evaluation.

    `quota_short`: without victims the namespace itself may not be charged, however much room there is.
    `max_evictions` counts allocations, siblings that must leave with a victim included.
    """

    preempt: bool = False
    reclaim: bool = False
    quota_short: bool = False
    max_evictions: int = 0
    min_run_seconds: int = 0


class EvaluationItem(Wire):
    """One request to be placed at `attempt`. `missing`: how many instances are still wanted.
    `wants_promise`: without a place now, it is told when it could start at the latest, and where.

    `view`: it is driven because of something at or before that sequence; an older view would only say the same again.
    """

    request: RequestField
    digest: str
    attempt: Attempt
    missing: int
    wants_promise: bool = False
    view: Sequence = Sequence(0)
    alone: bool = False
    grant: Grant = Grant()
    traceparent: str | None = None


class Evaluation(Wire):
    """Requests admitted in this order, each assuming the earlier ones."""

    id: str
    items: tuple[EvaluationItem, ...]


class StartOffer(Wire):
    """The earliest start that durations and windows allow (milliseconds UTC), and where."""

    start: int
    nodes: tuple[HeldOnNode, ...]


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    UNPLACEABLE = "unplaceable"
    REFUSED = "refused"
    SUPERSEDED = "superseded"
    CONTENDED = "contended"
    UNAVAILABLE = "unavailable"


class EvaluationOutcome(Wire):
    """Unplaceable: `reasons`, `wake`, `evaluated_at`, `earliest_start`. Refused: `refusal`. Accepted: `sequence`."""

    namespace: Namespace
    request: RequestId
    attempt: Attempt
    verdict: Verdict
    reasons: tuple[Reason, ...] = ()
    wake: tuple[Wake, ...] = ()
    evaluated_at: Sequence | None = None
    earliest_start: StartOffer | None = None
    sequence: Sequence | None = None
    refusal: Refusal | None = None
    traceparent: str | None = None

    @property
    def key(self) -> RequestKey:
        return (self.namespace, self.request)


class EvaluationAnswer(Wire):
    """Outcomes as they become known: one evaluation may be answered in several messages."""

    id: str
    outcomes: tuple[EvaluationOutcome, ...]


class RequestBatch(BaseModel):
    """What came in on `berth.v1.request.<namespace>`: decoded, each valid by itself."""

    model_config = ConfigDict(frozen=True)

    namespace: NamespaceName
    requests: Annotated[tuple[Request, ...], Field(max_length=256)]


class ReleaseBatch(BaseModel):
    """Ids to release, of the subject's namespace. Sent as a JSON list of ids."""

    model_config = ConfigDict(frozen=True)

    namespace: NamespaceName
    requests: Annotated[tuple[RequestName, ...], Field(min_length=1, max_length=256)]


class Committed(Wire):
    """How far the ledger is committed; the leader repeats it every 500 ms."""

    ledger_id: str
    term: Term
    sequence: Sequence
    hash: str
    leader: str


class Heartbeat(Wire):
    """A node agent lives. `session` changes when the agent starts again."""

    node: NodeId
    session: str


class NodeRegister(Document):
    """An agent offers its node; it comes empty."""

    node: NodeDocument
    session: Annotated[str, Field(min_length=1, max_length=64)]


class NodeLeave(Document):
    node: NodeName


class NodeStopped(Document):
    """The agent has stopped these allocations: they consume nothing any more."""

    node: NodeName
    allocations: tuple[str, ...]


class NodeAllocationsWanted(Document):
    """The agent asks for its full list."""

    node: NodeName


class NodeAnswer(Wire):
    """`heartbeat_ms`: how often to beat; set when registered."""

    refusal: Refusal | None = None
    sequence: Sequence = Sequence(0)
    heartbeat_ms: int | None = None
    allocations: tuple[dict[str, Any], ...] = ()


class ApplyQuotas(Document):
    """Set these quotas and cohorts in one transaction. `dry_run`: only say what that would change."""

    command: Literal["apply"] = "apply"
    dry_run: bool = False
    quotas: tuple[QuotaDocument, ...] = ()
    cohorts: tuple[CohortDocument, ...] = ()


class RemoveQuota(Document):
    command: Literal["remove"] = "remove"
    namespace: NamespaceName | None = None
    cohort: Name | None = None


class StopNamespace(Document):
    """Hold a namespace, drain it, or let it place new work again (R75); what else its quota says stays."""

    command: Literal["stop"] = "stop"
    namespace: NamespaceName
    policy: StopPolicy


class RaftCommand(Document):
    """`transfer`: the leader hands over, to the member `to` or the best one. `recover`: every node that has lost its
    votes votes again, from the ledger's term on; for the case that all have lost them.
    """

    command: Literal["transfer", "recover"] = "transfer"
    to: Name | None = None


class SettingChange(Wire):
    """One setting of a quota or cohort, such as `quotas.team-a.soft.cpu_millicores`; None where it is not said."""

    path: str
    before: Any = None
    after: Any = None


class AdminAnswer(Wire):
    """Refused, or committed at `sequence` (None where nothing had to be committed).

    `changes`: what a document of quotas changes, or would change (`dry_run`).
    """

    refusal: Refusal | None = None
    sequence: Sequence | None = None
    detail: str = ""
    changes: tuple[SettingChange, ...] = ()


class CreateReservation(Document):
    verb: Literal["create"] = "create"
    reservation: ReservationDocument


class CancelReservation(Document):
    """`evict`: also while something draws on it, which then leaves."""

    verb: Literal["cancel"] = "cancel"
    reservation: Name
    evict: bool = False


class ResizeReservation(Document):
    """Its new end, its new count, or both: what it is to be, so that asking twice changes it once."""

    reservation: Name
    end: Time | None = None
    count: Annotated[int, Field(ge=1, le=1_000)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.end is None and self.count is None:
            raise expected("expected end, count or both")
        return self


class ExtendReservation(ResizeReservation):
    """A later end, more units, or both."""

    verb: Literal["extend"] = "extend"


class ShrinkReservation(ResizeReservation):
    """An earlier end, fewer units, or both."""

    verb: Literal["shrink"] = "shrink"


class SkipReservation(Document):
    """Leave out one occurrence that has not begun; its series goes on with the next."""

    verb: Literal["skip"] = "skip"
    reservation: Name


class ReservationAnswer(Wire):
    """After commit: the reservation's read model, or why not (and what would work)."""

    refusal: Refusal | None = None
    sequence: Sequence | None = None
    reservation: dict[str, Any] | None = None


class Query(Wire):
    """Asks for a read model. `min_sequence`: answer only from a state at least that new.

    `decisions`: rows of requests also carry their `decision`, as the decision message has it.
    """

    ids: tuple[str, ...] = ()
    everything: bool = False
    decisions: bool = False
    min_sequence: Sequence = Sequence(0)
    at: Sequence | None = None
    from_sequence: Sequence = Sequence(0)
    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=1_000)] = 500
    document: dict[str, Any] | None = None


class QueryAnswer(Wire):
    """A page of at most 512 KiB. `next`: pass as `after` for the next page; None at the end."""

    items: tuple[dict[str, Any], ...] = ()
    sequence: Sequence = Sequence(0)
    term: Term = Term(0)
    next: str | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoResponders:
    """Nobody was there to take the message whose answer was expected under `token`."""

    token: str


QuotaCommand = ApplyQuotas | RemoveQuota | StopNamespace
AdminQuota = Annotated[QuotaCommand, Field(discriminator="command")]
ReservationCommand = CreateReservation | CancelReservation | ExtendReservation | ShrinkReservation | SkipReservation
ADMIN_QUOTA: TypeAdapter[QuotaCommand] = TypeAdapter(AdminQuota)

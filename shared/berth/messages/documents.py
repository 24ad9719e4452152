"""The cluster document: nodes, quotas, cohorts, allocations and reservations as people write them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import Field, TypeAdapter, field_validator, model_validator
from pydantic.functional_serializers import PlainSerializer
from pydantic.functional_validators import BeforeValidator

from berth.errors import InvalidCommand, Problem
from berth.ids import NAME_LENGTH_MAX
from berth.messages.requests import (
    SPELLED,
    AffinityTerm,
    Amounts,
    Capacity,
    Constraint,
    Document,
    LabelKey,
    Labels,
    Mode,
    Name,
    NamespaceName,
    NodeName,
    Priority,
    RequestName,
    ReservationName,
    Seconds,
    Taint,
)
from berth.messages.validation import expected

LATEST_MS = 221_845_392_000_000
"""9000-01-01: with the longest duration added it is still a time that can be written."""


def _milliseconds(value: Any) -> Any:
    """Milliseconds UTC of an RFC 3339 time that says its offset."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise expected("expected a time such as 2026-01-01T09:00:00Z") from None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise expected("expected a time with its offset, such as 2026-01-01T09:00:00Z")
    delta = value - datetime(1970, 1, 1, tzinfo=UTC)
    milliseconds = (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000
    if not 0 <= milliseconds <= LATEST_MS:
        raise expected("expected a time between 1970 and 9000")
    return milliseconds


def time_text(milliseconds: int) -> str:
    """Milliseconds UTC as people read them: `2026-01-01T09:00:00Z`, with fractions only where there are some."""
    seconds, rest = divmod(milliseconds, 1000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:03d}Z" if rest else f"{text}Z"


Time = Annotated[int, BeforeValidator(_milliseconds), PlainSerializer(time_text, return_type=str)]
"""Milliseconds UTC inside, RFC 3339 outside."""

AllocationName = Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9.]{0,99}$")]


class NodeState(StrEnum):
    READY = "ready"
    LOST = "lost"
    LEFT = "left"


class NodeDocument(Document):
    """One node. A resource left out of `capacity` is 0, except `instances`, which is then 110."""

    id: NodeName
    capacity: Capacity
    reserved: Capacity = Capacity()
    labels: Labels = Field(default_factory=dict[str, str])
    taints: tuple[Taint, ...] = ()
    state: NodeState = NodeState.READY
    schedulable: bool = True


class Reclaim(StrEnum):
    NEVER = "never"
    LOWER_PRIORITY = "lower_priority"
    ANY = "any"


class Preemption(StrEnum):
    NEVER = "never"
    LOWER_PRIORITY = "lower_priority"


class Queueing(StrEnum):
    """Whether a request that does not fit keeps back those that come after it in its namespace (R73)."""

    BEST_EFFORT_FIFO = "best_effort_fifo"
    STRICT_FIFO = "strict_fifo"


class StopPolicy(StrEnum):
    """Whether the namespace may place anything new; drained, what runs leaves as well (R75)."""

    NONE = "none"
    HOLD = "hold"
    HOLD_AND_DRAIN = "hold_and_drain"


def _weight(value: Any) -> Any:
    """A decimal of at least 0 with at most three places, in thousandths."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise expected("expected a weight such as 1 or 0.5")
    thousandths = Decimal(repr(value)) * 1000
    if not thousandths.is_finite() or thousandths != int(thousandths) or thousandths < 0:
        raise expected("expected a weight of at least 0 with at most three decimals")
    return int(thousandths)


def _weight_text(permille: int) -> float:
    return permille / 1000


WeightPermille = Annotated[int, BeforeValidator(_weight), PlainSerializer(_weight_text, return_type=float)]


EVICTIONS_MAX = 128
"""Allocations that may leave for one request: their events fit one record beside a placement of its own size."""


class QuotaDocument(Document):
    """A namespace's quota. A dimension absent from `hard` is unlimited, absent from `soft` it is `hard`.

    `stop_policy` left out stays as it is: a document that is applied again does not resume a namespace.
    `min_run_seconds`: others take back nothing here that has run for less. `max_evictions`: how many
    allocations may leave for one request of the namespace; absent: as many as fit one transaction.
    """

    namespace: NamespaceName
    cohort: Name | None = None
    hard: Capacity = Capacity()
    soft: Capacity = Capacity()
    burst_percent: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    grace_seconds: Seconds | None = None
    borrowing_limit: Capacity | None = None
    lending_limit: Capacity | None = None
    weight_permille: Annotated[WeightPermille, Field(alias="weight")] = 1000
    reclaim: Reclaim = Reclaim.ANY
    preemption: Preemption = Preemption.LOWER_PRIORITY
    queueing: Queueing = Queueing.BEST_EFFORT_FIFO
    usage_half_life_seconds: Annotated[Seconds, Field(ge=1)] | None = None
    stop_policy: StopPolicy | None = None
    min_run_seconds: Seconds | None = None
    max_evictions: Annotated[int, Field(ge=0, le=EVICTIONS_MAX)] | None = None

    @field_validator("soft")
    @classmethod
    def _soft_is_within_hard(cls, soft: Capacity, info: Any) -> Capacity:
        hard = info.data.get("hard")
        if hard is not None:
            limits = hard.said()
            for dimension, amount in soft.said().items():
                if dimension in limits and amount > limits[dimension]:
                    raise expected(f"expected at most the hard limit {limits[dimension]} of {dimension}")
        return soft


class CohortDocument(Document):
    """A cohort of namespaces that lend to each other; cohorts nest through `parent`."""

    name: Name
    parent: Name | None = None
    soft: Capacity = Capacity()
    borrowing_limit: Capacity | None = None
    lending_limit: Capacity | None = None
    weight_permille: Annotated[WeightPermille, Field(alias="weight")] = 1000


class AllocationDocument(Document):
    """What already runs. `ends_at` null: endless."""

    id: AllocationName
    request: RequestName
    namespace: NamespaceName
    node: NodeName
    resources: Amounts
    labels: Labels = Field(default_factory=dict[str, str])
    priority: Priority = 50
    anti_affinity: tuple[AffinityTerm, ...] = ()
    placed_at: Time | None = None
    ends_at: Time | None = None
    reservation: ReservationName | None = None


class OnExpiry(StrEnum):
    KEEP = "keep"
    EVICT = "evict"


class Use(StrEnum):
    """R95: where what draws takes its resources. `restricted`: reserved kinds from the reservation only;
    `aligned`: from the reservation first, the rest from the node.
    """

    RESTRICTED = "restricted"
    ALIGNED = "aligned"


class OnNodeLoss(StrEnum):
    """R92: what becomes of units whose node is lost, drained or gone. `static`: they stay where they are."""

    REPLACE_DOWN = "replace_down"
    STATIC = "static"


class Displace(StrEnum):
    """Whether a new reservation may take the place of held ones of lower priority."""

    NEVER = "never"
    LOWER_PRIORITY = "lower_priority"


class Owner(Document):
    """Who may draw: requests of `namespace` (None: of any) whose labels include `labels` (R94)."""

    namespace: NamespaceName | None = None
    labels: Labels = Field(default_factory=dict[str, str])

    @model_validator(mode="after")
    def _says_somebody(self) -> Self:
        if self.namespace is None and not self.labels:
            raise expected("expected a namespace, labels or both")
        return self


class UnitSpread(Document):
    """Units spread evenly over the domains of `topology_key` (`node`: over nodes), as R34 to R36 for requests."""

    topology_key: LabelKey
    max_skew: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    min_domains: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    mode: Annotated[Mode, SPELLED] = Mode.REQUIRED


class Recurrence(Document):
    """When a reservation comes again: a cron expression, read in a named time zone (R91).

    A start that the clock skips in spring comes with the first moment after it; one that the clock repeats in
    autumn comes once. A window lasts its `duration_seconds`, whatever the clock does. `until`: no start after it.
    """

    cron: str
    time_zone: str
    until: Time | None = None

    @field_validator("cron")
    @classmethod
    def _is_a_cron_expression(cls, cron: str) -> str:
        try:
            CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise expected(f"expected a cron expression of five fields such as '0 9 * * 1-5' ({error})") from None
        return cron

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            near = get_close_matches(name, sorted(available_timezones()), n=3, cutoff=0.7)
            instead = f" (did you mean {' or '.join(near)}?)" if near else ""
            raise expected(f"expected a time zone such as Europe/Berlin or UTC{instead}") from None
        return name


OCCURRENCE_DIGITS = 7
"""Of a series' name as much is kept free for `-2`, `-3` and so on."""


class ReservationDocument(Document):
    """`count` units of `resources` for the window [start, end).

    `start` absent: now; with `soonest` the window is the first of its length that works, not before `start`.
    `nodes` given: exactly there; absent: wherever `constraints` and `spread` allow. `owners` empty: the namespace
    itself. `grace_seconds`: with `on_expiry: evict`, how long what draws may still take to leave.
    """

    id: ReservationName
    namespace: NamespaceName
    resources: Amounts
    count: Annotated[int, Field(ge=1, le=1_000)] = 1
    start: Time | None = None
    end: Time | None = None
    duration_seconds: Annotated[int, Field(ge=1, le=10 * 366 * 86_400)] | None = None
    nodes: tuple[NodeName, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    priority: Priority = 50
    owners: tuple[Owner, ...] = ()
    allocate_once: bool = False
    on_expiry: OnExpiry = OnExpiry.KEEP
    release_if_unused_after_seconds: Annotated[int, Field(ge=1)] | None = None
    soonest: bool = False
    spread: tuple[UnitSpread, ...] = ()
    use: Use = Use.RESTRICTED
    on_node_loss: OnNodeLoss = OnNodeLoss.REPLACE_DOWN
    displace: Displace = Displace.NEVER
    grace_seconds: Seconds = 0
    recurrence: Recurrence | None = None

    @model_validator(mode="after")
    def _window_is_whole(self) -> Self:
        if (self.soonest or self.recurrence) and self.duration_seconds is None:
            raise expected("expected duration_seconds: how long is each window?")
        if self.soonest and self.recurrence:
            raise expected("expected either soonest or recurrence: a series has its own times")
        if (self.end is None) == (self.duration_seconds is None):
            raise expected("expected either end or duration_seconds")
        if self.end is not None and self.start is not None and self.end <= self.start:
            instead = f"from {time_text(self.end)} to {time_text(self.start)}"
            raise expected(f"expected end to be after start (did you mean {instead}?)")
        if self.recurrence and len(self.id) > NAME_LENGTH_MAX - OCCURRENCE_DIGITS:
            raise expected(f"expected an id of at most {NAME_LENGTH_MAX - OCCURRENCE_DIGITS} characters for a series")
        return self


class ClusterDocument(Document):
    """A whole cluster, for planning offline."""

    now: Time | None = None
    nodes: tuple[NodeDocument, ...] = ()
    quotas: tuple[QuotaDocument, ...] = ()
    cohorts: tuple[CohortDocument, ...] = ()
    allocations: tuple[AllocationDocument, ...] = ()
    reservations: tuple[ReservationDocument, ...] = ()

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> Self:
        problems = [
            *_twice("nodes", [node.id for node in self.nodes]),
            *_twice("quotas", [quota.namespace for quota in self.quotas]),
            *_twice("cohorts", [cohort.name for cohort in self.cohorts]),
            *_twice("allocations", [f"{one.namespace}/{one.id}" for one in self.allocations]),
            *_twice("reservations", [one.id for one in self.reservations]),
        ]
        known = {node.id for node in self.nodes}
        for place, allocation in enumerate(self.allocations):
            if allocation.node not in known:
                problems.append(_unknown_node(f"allocations[{place}].node"))
        for place, reservation in enumerate(self.reservations):
            for index, node in enumerate(reservation.nodes):
                if node not in known:
                    problems.append(_unknown_node(f"reservations[{place}].nodes[{index}]"))
        if problems:
            raise InvalidCommand(problems)
        return self


def _unknown_node(path: str) -> Problem:
    return Problem(path=f"cluster.{path}", expected="expected a node of this document")


def _twice(field: str, names: Sequence[str]) -> list[Problem]:
    seen: set[str] = set()
    found: list[Problem] = []
    for place, name in enumerate(names):
        if name in seen:
            found.append(
                Problem(path=f"cluster.{field}[{place}]", expected=f"expected each once, found {name!r} again")
            )
        seen.add(name)
    return found


class QuotasDocument(Document):
    """What `berth quota apply` takes: quotas and cohorts, applied as one transaction."""

    quotas: tuple[QuotaDocument, ...] = ()
    cohorts: tuple[CohortDocument, ...] = ()


CLUSTER: TypeAdapter[ClusterDocument] = TypeAdapter(ClusterDocument)
NODE: TypeAdapter[NodeDocument] = TypeAdapter(NodeDocument)
QUOTAS: TypeAdapter[QuotasDocument] = TypeAdapter(QuotasDocument)
RESERVATION: TypeAdapter[ReservationDocument] = TypeAdapter(ReservationDocument)

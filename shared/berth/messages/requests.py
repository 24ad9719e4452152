"""What a client submits: the request document, strict at the edge, and its normalised body.

Unknown fields, wrong types and operators with the wrong number of values are refused with their path.
Defaults and meaning: DESIGN sections 4 and 5; operators: R1–R5; tolerations: R19–R21.
"""

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from pydantic.functional_validators import BeforeValidator

from berth.ids import (
    LABEL_KEY_PATTERN,
    LABEL_VALUE_PATTERN,
    NAME_PATTERN,
    Namespace,
    NodeId,
    RequestId,
    RequestKey,
    ReservationId,
)
from berth.messages.overrun import Overrun
from berth.messages.validation import Matching, expected
from berth.resources import BUILT_IN, LARGEST, ONE_INSTANCE, SPOKEN_NAMES, Resources

REQUESTS_PER_BATCH = 256
REQUEST_BYTES_MAX = 64 * 1024
COUNT_MAX = 1_000
INTEGER = re.compile(r"^[+-]?[0-9]+\Z")
INT64 = range(-(2**63), 2**63)
_NAME = Matching(
    NAME_PATTERN, "expected a name of 1 to 63 characters: a-z, 0-9 and '-', starting and ending alphanumeric"
)
_LABEL_KEY = Matching(
    LABEL_KEY_PATTERN, "expected a label key: an optional dns.prefix/, then at most 63 of A-Z a-z 0-9 - _ ."
)
_LABEL_VALUE = Matching(
    LABEL_VALUE_PATTERN, "expected a label value: at most 63 of A-Z a-z 0-9 - _ ., starting and ending alphanumeric"
)


def _extended_name(value: Any) -> Any:
    if isinstance(value, str) and value in SPOKEN_NAMES:
        raise expected("expected the name of an extended resource; built-in ones are not written here")
    return value


def _cores(value: Any) -> Any:
    """`cpu_cores` as written: a decimal with at most three places."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise expected("expected a number of cores such as 4 or 0.5")
    try:
        exact = Decimal(repr(value)) * 1000
        whole = int(exact)
    except (InvalidOperation, ValueError, OverflowError):
        raise expected("expected a number of cores such as 4 or 0.5") from None
    if exact != whole or whole < 0 or whole > LARGEST:
        raise expected("expected a number of cores that is at least 0 and has at most three decimals")
    return float(value)


Name = Annotated[str, _NAME]
NamespaceName = Annotated[Namespace, _NAME]
RequestName = Annotated[RequestId, _NAME]
NodeName = Annotated[NodeId, _NAME]
ReservationName = Annotated[ReservationId, _NAME]
LabelKey = Annotated[str, _LABEL_KEY]
LabelValue = Annotated[str, _LABEL_VALUE]
ExtendedName = Annotated[str, _LABEL_KEY, BeforeValidator(_extended_name)]
Amount = Annotated[int, Field(ge=0, le=LARGEST)]
Priority = Annotated[int, Field(ge=0, le=100)]
Seconds = Annotated[int, Field(ge=0, le=10 * 366 * 86_400)]
Weight = Annotated[int, Field(ge=0, le=1_000_000)]
Labels = dict[LabelKey, LabelValue]


SPELLED = Strict(strict=False)
"""An enum is read from its text and a tuple from a list, as JSON has them, also where it is parsed already."""

T = TypeVar("T")
Many = Annotated[tuple[T, ...], SPELLED]


class Document(BaseModel):
    """Immutable, strict, unknown fields refused: what people and scripts write."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Amounts(Document):
    """Resources of one instance as people write them: `cpu_cores` a decimal, the rest whole numbers."""

    cpu_cores: Annotated[float, BeforeValidator(_cores)] = 0.0
    ram_mb: Amount = 0
    disk_mb: Amount = 0
    extended: dict[ExtendedName, Amount] = Field(default_factory=dict[str, int])

    @property
    def millicores(self) -> int:
        return round(self.cpu_cores * 1000)

    @cached_property
    def vector(self) -> Resources:
        return Resources(self.millicores, self.ram_mb, self.disk_mb, 0, _pairs(self.extended))

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        """As people write it, and only what was said: in a limit, 0 and absent differ."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}


class Capacity(Amounts):
    """A node's capacity or a quota's amounts: also counts instances. None: not said."""

    instances: Amount | None = None

    @cached_property
    def vector(self) -> Resources:
        return Resources(self.millicores, self.ram_mb, self.disk_mb, self.instances or 0, _pairs(self.extended))

    def said(self) -> dict[str, int]:
        """The dimensions that were written, each with its amount: absent and 0 differ in a quota."""
        written = self.model_fields_set
        vector = self.vector
        spelling = {"cpu_millicores": "cpu_cores"}
        amounts = {name: vector.amount(name) for name in BUILT_IN if spelling.get(name, name) in written}
        return amounts | dict(self.extended)


def _pairs(extended: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((name, amount) for name, amount in extended.items() if amount))


class Operator(StrEnum):
    EQUALS = "equals"
    NOT_EQUALS = "not_equals"
    IN = "in"
    NOT_IN = "not_in"
    EXISTS = "exists"
    NOT_EXISTS = "not_exists"
    GT = "gt"
    LT = "lt"


class Mode(StrEnum):
    REQUIRED = "required"
    PREFERRED = "preferred"


class Strategy(StrEnum):
    BINPACK = "binpack"
    SPREAD = "spread"
    RANDOM = "random"
    AFFINITY = "affinity"
    FRAGMENTATION = "fragmentation"


class Effect(StrEnum):
    NO_SCHEDULE = "no_schedule"
    PREFER_NO_SCHEDULE = "prefer_no_schedule"
    NO_EXECUTE = "no_execute"


class TolerationOperator(StrEnum):
    EXISTS = "exists"
    EQUALS = "equals"


class RequestPreemption(StrEnum):
    NEVER = "never"
    LOWER_PRIORITY = "lower_priority"


class Borrow(StrEnum):
    ALLOWED = "allowed"
    NEVER = "never"


class Reschedule(StrEnum):
    ON_LOSS = "on_loss"
    NEVER = "never"


class Constraint(Document):
    """One condition on a node's labels (or `node.id`). `weight` counts only where `mode` is preferred."""

    key: LabelKey
    operator: Annotated[Operator, SPELLED]
    values: Annotated[Many[str], Field(validate_default=True)] = ()
    mode: Annotated[Mode, SPELLED] = Mode.REQUIRED
    weight: Weight = 1

    @field_validator("values")
    @classmethod
    def _right_number_of_values(cls, values: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        operator = info.data.get("operator")
        match operator:
            case Operator.EQUALS | Operator.NOT_EQUALS if len(values) != 1:
                raise expected(f"expected exactly one value for {operator}")
            case Operator.IN | Operator.NOT_IN if not values:
                raise expected(f"expected at least one value for {operator}")
            case Operator.EXISTS | Operator.NOT_EXISTS if values:
                raise expected(f"expected no values for {operator}")
            case Operator.GT | Operator.LT if len(values) != 1 or not is_int64(values[0]):
                raise expected(f"expected exactly one signed 64-bit integer, as a string, for {operator}")
            case _:
                return values


def is_int64(text: str) -> bool:
    """Whether `text` is written `[+-]?[0-9]+` and fits a signed 64-bit integer (R4)."""
    return len(text) <= 40 and INTEGER.match(text) is not None and int(text) in INT64


class AffinityTerm(Document):
    """Near (affinity) or far from (anti-affinity) allocations whose labels match (R29–R33).

    `namespaces` empty: the request's own. `match_labels` empty: every allocation (R6).
    """

    match_labels: Labels
    topology_key: LabelKey
    namespaces: Many[NamespaceName] = ()
    mode: Annotated[Mode, SPELLED] = Mode.REQUIRED
    weight: Weight = 1


class SpreadTerm(Document):
    """Even spread over the domains of `topology_key` (R34–R37). An empty selector counts nothing (R37)."""

    topology_key: LabelKey
    max_skew: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    min_domains: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    mode: Annotated[Mode, SPELLED] = Mode.REQUIRED
    weight: Weight = 1
    match_labels: Labels = Field(default_factory=dict[str, str])


class Toleration(Document):
    """R19–R21. `effect` absent: all effects. `seconds`: how long a no_execute taint is tolerated (R27)."""

    operator: Annotated[TolerationOperator, SPELLED] = TolerationOperator.EQUALS
    key: Annotated[LabelKey | None, Field(validate_default=True)] = None
    value: LabelValue = ""
    effect: Annotated[Effect, SPELLED] | None = None
    seconds: Annotated[int, Field(ge=-LARGEST, le=LARGEST)] | None = None

    @field_validator("key")
    @classmethod
    def _no_key_needs_exists(cls, key: str | None, info: ValidationInfo) -> str | None:
        if key is None and info.data.get("operator") == TolerationOperator.EQUALS:
            raise expected("expected a key, or `operator: exists` to tolerate every taint (R19)")
        return key


class Taint(Document):
    key: LabelKey
    value: LabelValue = ""
    effect: Annotated[Effect, SPELLED]

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


class Request(Document):
    """What a client submits; the unit of idempotency. Known by (namespace, id).

    `if_sequence`: it is refused as `conflict`, and nothing is stored, if what decides about it has changed since.
    """

    id: RequestName
    namespace: NamespaceName
    resources: Amounts
    count: Annotated[int, Field(ge=1, le=COUNT_MAX)] = 1
    min_count: Annotated[int, Field(ge=1, le=COUNT_MAX)] | None = None
    strategy: Annotated[Strategy, SPELLED] = Strategy.BINPACK
    constraints: Many[Constraint] = ()
    any_of: Many[Many[Constraint]] = ()
    affinity: Many[AffinityTerm] = ()
    anti_affinity: Many[AffinityTerm] = ()
    spread: Many[SpreadTerm] = ()
    tolerations: Many[Toleration] = ()
    priority: Priority = 50
    preemption: Annotated[RequestPreemption, SPELLED] = RequestPreemption.LOWER_PRIORITY
    borrow: Annotated[Borrow, SPELLED] = Borrow.ALLOWED
    duration_seconds: Annotated[int, Field(ge=1, le=10 * 366 * 86_400)] | None = None
    overrun: Annotated[Overrun, SPELLED] = Overrun.EVICT
    overrun_grace_seconds: Seconds = 0
    reservation: ReservationName | None = None
    node: NodeName | None = None
    queue_deadline_seconds: Annotated[int, Field(ge=1, le=10 * 366 * 86_400)] | None = None
    labels: Labels = Field(default_factory=dict[str, str])
    reschedule: Annotated[Reschedule, SPELLED] = Reschedule.ON_LOSS
    grace_seconds: Seconds = 0
    if_sequence: Annotated[int, Field(ge=0, le=LARGEST)] | None = None

    @field_validator("any_of")
    @classmethod
    def _alternatives_are_required(
        cls, alternatives: tuple[tuple[Constraint, ...], ...]
    ) -> tuple[tuple[Constraint, ...], ...]:
        if any(constraint.mode is Mode.PREFERRED for terms in alternatives for constraint in terms):
            raise expected("expected only required constraints in alternatives; preferences go to `constraints`")
        return alternatives

    @field_validator("min_count")
    @classmethod
    def _min_count_is_a_part(cls, min_count: int | None, info: ValidationInfo) -> int | None:
        count = info.data.get("count")
        if min_count is not None and count is not None and min_count > count:
            raise expected(f"expected min_count to be at most count ({count})")
        return min_count

    @property
    def key(self) -> RequestKey:
        return (self.namespace, self.id)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's; what was derived from the fields, and kept, is derived anew."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("vector", "charge", "total", "shape", "body"):
            vars(copied).pop(name, None)
        return copied

    @cached_property
    def vector(self) -> Resources:
        """What one instance asks of a node, without its share of `instances`."""
        return self.resources.vector

    @cached_property
    def charge(self) -> Resources:
        """What one instance is charged: its resources and one of `instances`, always whole."""
        return self.resources.vector + ONE_INSTANCE

    @cached_property
    def total(self) -> Resources:
        """What the request as a whole is charged: a quota is checked for this."""
        return self.charge.times(self.count)

    @property
    def needed(self) -> int:
        """Instances without which the request does not run at all."""
        return self.count if self.min_count is None else self.min_count

    @cached_property
    def body(self) -> dict[str, Any]:
        """The normalised body: whole numbers, defaults left out; what events store and digests cover. Read only."""
        return {"id": self.id, **self.shape}

    @cached_property
    def shape(self) -> dict[str, Any]:
        """The normalised body without its id: requests of one shape can be placed in the same places. Read only."""
        body = self.model_dump(mode="json", by_alias=False, exclude_defaults=True, exclude={"id", "resources"})
        return {"namespace": self.namespace, "resources": self.vector.as_mapping(), **body}

    def prepared(self) -> "Request":
        """A copy that has found out what all of its shape share."""
        copy = self.renamed(self.id)
        vars(copy).pop("body", None)
        for shared in ("vector", "charge", "total", "shape"):
            getattr(copy, shared)
        return copy

    def renamed(self, name: RequestId) -> "Request":
        """The same under another id, which is a name; nothing is validated again. For `prepared` requests."""
        copy = self.__class__.__new__(self.__class__)
        _set(copy, "__dict__", {**self.__dict__, "id": name})
        _set(copy, "__pydantic_fields_set__", self.__pydantic_fields_set__)
        _set(copy, "__pydantic_extra__", None)
        _set(copy, "__pydantic_private__", None)
        return copy

    def document(self) -> dict[str, Any]:
        """The request as people write it (`cpu_cores`), defaults left out."""
        amounts = dict(self.body["resources"])
        millicores = amounts.pop("cpu_millicores", None)
        if millicores is not None:
            amounts["cpu_cores"] = millicores / 1000
        return {**self.body, "resources": amounts}


_set = object.__setattr__

REQUEST_LIST: TypeAdapter[list[Request]] = TypeAdapter(list[Request])

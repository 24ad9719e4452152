"""What Berth tells about itself: the names of all spans and metrics, and what a finished span is.

**One request, one trace.** Client `publish` → quota `process` → scheduler `process` → raft `commit` →
ledger `append` → decision `publish` → client `process`; each span is a child of the one before it. A span
is named `{operation} {subject template}` (never the concrete subject, which holds ids).

**Services know no spans.** A message that holds one thing carries its context in the NATS header
`traceparent`; a batch carries one context an item (`EvaluationItem.traceparent`, `Event.traceparent`,
`EvaluationOutcome.traceparent`). A service copies the context of the request it works on into what it
sends. The runner (`berth.runtime.tracing`) remembers which message brought a context; when an effect with
that context leaves, it makes the span of the work done in between, from arrival to now, and replaces the
context by that span's, so that the next process continues there:

    brought by                  span, child of what was brought           leaves in
    header of a request         process berth.v1.request.{namespace}      EvaluationItem, Event, Decision
    EvaluationItem              process berth.v1.evaluate                 Event, EvaluationOutcome
    EvaluationOutcome           process berth.v1.evaluate (answer)        Event, Decision
    Event in a proposal         commit berth.v1.commit.{role}             (the bytes of an event are copied)
    that commit                 append berth.v1.ledger                    the record
    Event in a record           publish berth.v1.decision…                header of the decision

The leader cannot write its span into an event, whose bytes it copies. The id of an append's span is
therefore computed from the event's context and the record's sequence (`traceparent.appended`), and who
folds the record can name the span it continues.

**Batches.** Each sampled request of a batch has its own spans, made afterwards with explicit times. The
batch itself is one span of its own trace with links to them (at most 128, the SDK's limit), where the
sampler wants it.

**Waiting.** A context that no message brought within the last minute comes from the ledger: a wake-up.
That starts a new trace with a link back, and `berth.submit.trace_id`. Replay is one span.

**Cost.** A context that is not sampled is recognised by its last character and passed on untouched.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import SpanKind

from berth.runtime import traceparent
from berth.subjects import Subject

AttributeValue = str | int | bool | float

# --- spans ----------------------------------------------------------------------------------------

PUBLISH, PROCESS, RECEIVE, REQUEST, COMMIT, APPEND, REPLAY = (
    "publish",
    "process",
    "receive",
    "request",
    "commit",
    "append",
    "replay",
)
_KINDS = {
    PUBLISH: (SpanKind.PRODUCER, "send"),
    PROCESS: (SpanKind.CONSUMER, "process"),
    RECEIVE: (SpanKind.CLIENT, "receive"),
    REQUEST: (SpanKind.CLIENT, "send"),
    COMMIT: (SpanKind.CONSUMER, "process"),
    APPEND: (SpanKind.PRODUCER, "send"),
    REPLAY: (SpanKind.CONSUMER, "process"),
}

NAMESPACE = "berth.namespace"
REQUEST_ID = "berth.request"
"""`<namespace>/<id>`."""
OUTCOME = "berth.outcome"
SUBMIT_TRACE = "berth.submit.trace_id"
SEQUENCE = "messaging.nats.stream_sequence"
STREAM = "messaging.nats.stream"
BATCH_COUNT = "messaging.batch.message_count"
SUBJECT = "berth.subject"
LINKS_MAX = 128


@dataclass(frozen=True, slots=True)
class Operation:
    """What a kind of span says whatever its instance."""

    name: str
    kind: SpanKind
    attributes: dict[str, AttributeValue]


def operation(verb: str, subject: Subject, *, answer: bool = False) -> Operation:
    """`verb` on `subject`; `answer`: on the answers that come to the inbox of who asked there."""
    kind, operation_type = _KINDS[verb]
    attributes: dict[str, AttributeValue] = {
        "messaging.system": "nats",
        "messaging.operation.name": verb,
        "messaging.operation.type": operation_type,
        "messaging.destination.template": subject.template,
    }
    if answer:
        attributes["messaging.destination.temporary"] = True
    if subject.stream is not None:
        attributes[STREAM] = subject.stream
    return Operation(f"{verb} {subject.template}{' (answer)' if answer else ''}", kind, attributes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A finished piece of work. Times are nanoseconds UTC; `context`, `parent` and `links` are traceparents."""

    operation: Operation
    context: str
    parent: str | None
    start_ns: int
    end_ns: int
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])
    links: tuple[str, ...] = ()
    failed: str | None = None


class Spans(Protocol):
    """Where finished spans go."""

    @property
    def recording(self) -> bool:
        """Whether anybody wants them."""
        ...

    def wants_root(self, trace_id: str, name: str) -> bool:
        """What the sampler says to a trace that begins here."""
        ...

    def finished(self, span: Span) -> None:
        """Take it; returns at once."""
        ...


class NoSpans:
    """Nothing is exported."""

    recording = False

    def wants_root(self, trace_id: str, name: str) -> bool:
        del trace_id, name
        return False

    def finished(self, span: Span) -> None:
        del span


def child_of(parent: str) -> str:
    """The context of a new span under `parent`."""
    return traceparent.written(traceparent.trace_id(parent), _hex(64))


def new_trace() -> str:
    """The context of a new sampled root."""
    return traceparent.written(_hex(128), _hex(64))


def new_root(spans: Spans, name: str) -> str | None:
    """The context of a root span `name` if one is wanted."""
    if not spans.recording:
        return None
    context = new_trace()
    return context if spans.wants_root(traceparent.trace_id(context), name) else None


def _hex(bits: int) -> str:
    return f"{random.getrandbits(bits) or 1:0{bits // 4}x}"


# --- metrics --------------------------------------------------------------------------------------

_meter = metrics.get_meter("berth")

MESSAGES = _meter.create_counter(
    "berth.messages", unit="{message}", description="Messages by subject and what became of them."
)
DEADLETTERS = _meter.create_counter(
    "berth.deadletters", unit="{message}", description="Messages stored because they could not be handled."
)
NOTES = _meter.create_counter(
    "berth.notes", unit="{note}", description="Decisions of services worth a log line, by name."
)
DECISIONS = _meter.create_counter("berth.decisions", unit="{decision}", description="Decisions published, by status.")
TURN_DURATION = _meter.create_histogram(
    "berth.turn.duration", unit="s", description="One turn of the runner: fold, handle, settle, perform."
)
TURN_MESSAGES = _meter.create_histogram(
    "berth.turn.messages", unit="{message}", description="How many messages one turn handled together."
)
COMMIT_DURATION = _meter.create_histogram(
    "berth.commit.duration",
    unit="s",
    description="One flush of the leader: from its first check to the acknowledgement of its append.",
)
COMMIT_TRANSACTIONS = _meter.create_histogram(
    "berth.commit.transactions", unit="{transaction}", description="Transactions in one append."
)
COMMIT_REFUSALS = _meter.create_counter(
    "berth.commit.refusals",
    unit="{transaction}",
    description="Transactions the leader answered with a refusal, by code.",
)

GAUGES: dict[str, tuple[str, str]] = {
    "berth.ledger.sequence": ("{record}", "How far this process has folded the ledger."),
    "berth.ledger.foreign": ("{message}", "Messages in the ledger's stream that are no records of it."),
    "berth.inbox.messages": ("{message}", "What waits to be handled."),
    "berth.ready": ("1", "1 where this process does its work, else 0."),
    "berth.halted": ("1", "1 where this process stopped its effects because it cannot fold."),
    "berth.quota.active": ("1", "1 on the quota service that does the work, 0 on one that stands by."),
    "berth.queue.wakeups.missed": (
        "{request}",
        "Requests that a sweep found placeable and nothing had woken, since the process began: 0, or there is a bug.",
    ),
    "berth.raft.term": ("{term}", "The raft term of this node."),
    "berth.raft.leader": ("1", "1 on the node that leads, else 0."),
    "berth.node.used": ("1", "Used part of a node's capacity, by dimension."),
    "berth.node.capacity": ("1", "Capacity of a node, by dimension, in the dimension's unit."),
    "berth.node.free": ("1", "What a node that takes work has free beside what reservations hold, by dimension."),
    "berth.node.stranded": ("1", "Part of what is free on a node that no recent request shape can use, by dimension."),
    "berth.node.drain.moved": ("{allocation}", "Allocations that the node's drain has moved elsewhere."),
    "berth.node.drain.evicted": ("{allocation}", "Allocations that it has evicted without another place at once."),
    "berth.node.drain.left": ("{allocation}", "Allocations that are still on the node."),
    "berth.node.drain.deadline": ("s", "When what is left is evicted, in seconds since 1970; absent without deadline."),
    "berth.group.utilization": ("1", "Used part of the capacity of the nodes with one value of a label, by dimension."),
    "berth.group.fragmentation": ("1", "Stranded part of what is free on the nodes with one value of a label."),
    "berth.cluster.utilization": ("1", "Used part of the capacity of all nodes that are not lost, by dimension."),
    "berth.cluster.fragmentation": ("1", "Stranded part of what is free on all nodes, by dimension."),
    "berth.requests": ("{request}", "Requests by namespace and status."),
    "berth.reservation.missing": (
        "{unit}",
        "Units that an open reservation asks for and that are held nowhere: a promise broken, by cause.",
    ),
    "berth.reservation.used": ("1", "What is drawn from an active reservation, by dimension."),
    "berth.reservation.free": ("1", "What an active reservation has left to draw, by dimension."),
    "berth.quota.used": ("1", "Usage of a namespace, by dimension, in the dimension's unit."),
    "berth.quota.drift": ("1", "By how much a recount over live allocations differs from what is counted; must be 0."),
    "berth.quota.guaranteed": ("1", "Usage within soft, by namespace and dimension, in the dimension's unit."),
    "berth.quota.borrowed": ("1", "Usage above soft that others of the tree lend, by namespace and dimension."),
    "berth.quota.burst": ("1", "Usage above soft that nobody lends, by namespace and dimension."),
    "berth.quota.lent": ("1", "Quota of a namespace that others of its tree use now, by namespace and dimension."),
    "berth.quota.share": ("1", "Dominant share of a namespace of what its tree could lend, weighted (R71)."),
    "berth.queue.length": ("{request}", "Queued requests by namespace and first reason."),
    "berth.queue.time": ("s", "How long queued requests have waited, by namespace: the longest, and the mean."),
}
"""Computed from state when they are read, never counted up: unit and meaning by name."""

Reading = tuple[float, Mapping[str, AttributeValue]]


def observe(name: str, read: Callable[[], Iterable[Reading]]) -> None:
    """Report the gauge `name` (one of GAUGES) from what `read` finds, in whatever thread collects."""
    unit, description = GAUGES[name]

    def callback(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, dict(attributes)) for value, attributes in read()]

    _meter.create_observable_gauge(name, [callback], unit=unit, description=description)

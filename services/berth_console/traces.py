"""The bounded trace store: what the OTLP receiver takes in, `berth trace` and the trace page read.

Spans are kept as the bytes they came in and decoded when somebody looks, so the bound on bytes is honest.
When a bound is reached, whole traces leave, the one that was written to longest ago first. The counters are
honest: taken = held now + replaced + evicted, and what was rejected is counted beside it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from berth_console.otlp import Origin, is_error, origin_of, span_of, text_attributes, times_us, why_not_stored
from berth_console.spans import Span

REQUEST_ATTRIBUTE = "berth.request"
"""`namespace/id` of the request a span is about; a list where a span is about a batch."""

NAMESPACE_ATTRIBUTE = "berth.namespace"

SPAN_OVERHEAD_BYTES = 300
"""What Python needs for one span besides its bytes, about; counted, so that many tiny spans are bounded too."""

NAMES_PER_TRACE_MAX = 256
"""A trace is found by so many requests and namespaces at most."""

NAME_CHARACTERS_MAX = 200
"""Longer than any `namespace/id`; a longer value is not indexed."""

TRACES_MAX = 10_000
BYTES_MAX = 64 * 1024 * 1024
BYTES_PER_TRACE_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceLimits:
    """How much is kept. The limits of one trace keep an endless one from pushing out all others."""

    traces: int = TRACES_MAX
    bytes: int = BYTES_MAX
    spans_per_trace: int = 2_000
    bytes_per_trace: int = BYTES_PER_TRACE_MAX

    def __post_init__(self) -> None:
        assert self.traces >= 1
        assert self.spans_per_trace >= 1
        assert 1 <= self.bytes_per_trace <= self.bytes, "one trace must fit the store"


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What became of the spans of one export request. `why` says what was wrong with the last rejected one."""

    taken: int
    rejected: int
    why: str = ""


@dataclass(slots=True, kw_only=True)
class TraceCounters:
    """Since the process started, in spans but for `evicted_traces`."""

    taken: int = 0
    replaced: int = 0
    rejected: int = 0
    evicted_spans: int = 0
    evicted_traces: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSummary:
    """One line of the list of traces. `name`: of the root, or of the earliest span when the root is not here."""

    trace_id: str
    name: str
    services: tuple[str, ...]
    requests: tuple[str, ...]
    namespaces: tuple[str, ...]
    start_us: int
    duration_us: int
    spans: int
    errors: int
    complete: bool

    def is_about(self, namespace: str) -> bool:
        """Whether it may be shown in `namespace`; `_` sees all."""
        return namespace in ("_", *self.namespaces) or any(
            request.partition("/")[0] == namespace for request in self.requests
        )

    def as_mapping(self) -> dict[str, object]:
        return {
            "trace_id": self.trace_id,
            "name": self.name,
            "services": list(self.services),
            "requests": list(self.requests),
            "namespaces": list(self.namespaces),
            "start_us": self.start_us,
            "duration_us": self.duration_us,
            "spans": self.spans,
            "errors": self.errors,
            "complete": self.complete,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSearch:
    """What to look for; all that is said must hold. `before_us`: only traces that started earlier (next page)."""

    request: str | None = None
    namespace: str | None = None
    service: str | None = None
    min_duration_us: int = 0
    error: bool = False
    before_us: int | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        assert self.limit >= 1


@dataclass(frozen=True, slots=True)
class _StoredSpan:
    encoded: bytes
    origin: Origin
    failed: bool

    @property
    def size(self) -> int:
        return len(self.encoded) + SPAN_OVERHEAD_BYTES


@dataclass(slots=True)
class _Trace:
    """The spans of one trace and what a search needs to know about them without decoding."""

    trace_id: str
    spans: dict[bytes, _StoredSpan] = field(default_factory=dict[bytes, _StoredSpan])
    size: int = 0
    start_us: int = 2**63
    end_us: int = 0
    earliest: str = ""
    root: str | None = None
    services: dict[str, None] = field(default_factory=dict[str, None])
    requests: dict[str, None] = field(default_factory=dict[str, None])
    namespaces: dict[str, None] = field(default_factory=dict[str, None])

    def add(self, span: SpanMessage, stored: _StoredSpan, growth: int) -> None:
        """Keep the span in place of the one that had its id before, if any (an exporter may send twice)."""
        self.spans[span.span_id] = stored
        self.size += growth
        start, end = times_us(span)
        if start < self.start_us:
            self.start_us, self.earliest = start, span.name[:NAME_CHARACTERS_MAX]
        self.end_us = max(self.end_us, end)
        if not any(span.parent_span_id):
            self.root = span.name[:NAME_CHARACTERS_MAX]
        self.services.setdefault(stored.origin.service)

    def summary(self) -> TraceSummary:
        return TraceSummary(
            trace_id=self.trace_id,
            name=self.root if self.root is not None else self.earliest,
            services=tuple(self.services),
            requests=tuple(self.requests),
            namespaces=tuple(self.namespaces),
            start_us=self.start_us,
            duration_us=self.end_us - self.start_us,
            spans=len(self.spans),
            errors=sum(span.failed for span in self.spans.values()),
            complete=self.root is not None,
        )


class TraceStore:
    """Belongs to one event loop; nothing here waits."""

    def __init__(self, limits: TraceLimits | None = None) -> None:
        self.limits = limits or TraceLimits()
        self.counters = TraceCounters()
        self.bytes = 0
        self.spans = 0
        self._traces: dict[str, _Trace] = {}  # in the order of their last span
        self._by_request: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        """How many traces are held."""
        return len(self._traces)

    def receive(self, request: ExportTraceServiceRequest) -> Received:
        """Take in what one exporter sent. What cannot be stored is counted and named, the rest is stored."""
        taken = rejected = 0
        why = ""
        for origin, span in _spans_of(request):
            problem = why_not_stored(span) or self._store(span, origin)
            if problem is None:
                taken += 1
            else:
                rejected += 1
                why = problem
        self.counters.taken += taken
        self.counters.rejected += rejected
        self._evict()
        return Received(taken=taken, rejected=rejected, why=why)

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace in the order of their start; empty when it is not held."""
        held = self._traces.get(trace_id)
        if held is None:
            return []
        spans = [span_of(SpanMessage.FromString(span.encoded), span.origin) for span in held.spans.values()]
        return sorted(spans, key=lambda span: (span.start_us, -span.duration_us, span.span_id))

    def summary(self, trace_id: str) -> TraceSummary | None:
        """None when the trace is not held."""
        held = self._traces.get(trace_id)
        return None if held is None else held.summary()

    def of_request(self, request: str) -> list[str]:
        """Ids of the traces about `namespace/id`, oldest start first: its submission, then later wake-ups.

        A bare id finds the requests of that id in every namespace.
        """
        if "/" in request:
            found = set(self._by_request.get(request, {}))
        else:
            end = f"/{request}"
            found = {id for key, traces in self._by_request.items() if key.endswith(end) for id in traces}
        return sorted(found, key=lambda trace_id: (self._traces[trace_id].start_us, trace_id))

    def search(self, wanted: TraceSearch) -> list[TraceSummary]:
        """Summaries of what matches, newest start first."""
        if wanted.request is not None:
            candidates = [self._traces[trace_id] for trace_id in self.of_request(wanted.request)]
        else:
            candidates = list(self._traces.values())
        matching = [trace for trace in candidates if _matches(trace, wanted)]
        matching.sort(key=lambda trace: (trace.start_us, trace.trace_id), reverse=True)
        return [trace.summary() for trace in matching[: wanted.limit]]

    def services(self) -> list[str]:
        """Names of the services whose spans are held, sorted."""
        return sorted({service for trace in self._traces.values() for service in trace.services})

    def _store(self, span: SpanMessage, origin: Origin) -> str | None:
        trace_id = span.trace_id.hex()
        trace = self._traces.get(trace_id) or _Trace(trace_id)
        stored = _StoredSpan(span.SerializeToString(), origin, is_error(span))
        replaced = trace.spans.get(span.span_id)
        growth = stored.size - (replaced.size if replaced else 0)
        if replaced is None and len(trace.spans) >= self.limits.spans_per_trace:
            return f"a trace has at most {self.limits.spans_per_trace} spans here"
        if trace.size + growth > self.limits.bytes_per_trace:
            return f"a trace has at most {self.limits.bytes_per_trace} bytes here"
        trace.add(span, stored, growth)
        self._traces.pop(trace_id, None)
        self._traces[trace_id] = trace  # to the end: written to just now
        self.bytes += growth
        self.spans += replaced is None
        self.counters.replaced += replaced is not None
        self._index(trace, span)
        return None

    def _index(self, trace: _Trace, span: SpanMessage) -> None:
        for name, value in text_attributes(span, (REQUEST_ATTRIBUTE, NAMESPACE_ATTRIBUTE)):
            names = trace.requests if name == REQUEST_ATTRIBUTE else trace.namespaces
            if value in names or len(names) >= NAMES_PER_TRACE_MAX or len(value) > NAME_CHARACTERS_MAX:
                continue
            names[value] = None
            if name == REQUEST_ATTRIBUTE:
                self._by_request.setdefault(value, {})[trace.trace_id] = None

    def _evict(self) -> None:
        while len(self._traces) > self.limits.traces or self.bytes > self.limits.bytes:
            oldest = self._traces.pop(next(iter(self._traces)))
            self.bytes -= oldest.size
            self.spans -= len(oldest.spans)
            self.counters.evicted_spans += len(oldest.spans)
            self.counters.evicted_traces += 1
            for request in oldest.requests:
                traces = self._by_request[request]
                del traces[oldest.trace_id]
                if not traces:
                    del self._by_request[request]
        assert self.bytes >= 0
        assert self.spans >= 0


def _spans_of(request: ExportTraceServiceRequest) -> Iterator[tuple[Origin, SpanMessage]]:
    for resource in request.resource_spans:
        origin = origin_of(resource.resource)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield origin, span


def _matches(trace: _Trace, wanted: TraceSearch) -> bool:
    return (
        (wanted.before_us is None or trace.start_us < wanted.before_us)
        and trace.end_us - trace.start_us >= wanted.min_duration_us
        and (wanted.service is None or wanted.service in trace.services)
        and (wanted.namespace is None or wanted.namespace in _namespaces(trace))
        and (not wanted.error or any(span.failed for span in trace.spans.values()))
    )


def _namespaces(trace: _Trace) -> Iterable[str]:
    yield from trace.namespaces
    for request in trace.requests:
        yield request.partition("/")[0]

"""The OpenTelemetry SDK: finished spans and metrics leave over OTLP/HTTP where a receiver is set.

Spans are handed to the SDK's batch processor as finished data instead of being opened and ended through
its Tracer: they are made afterwards, their ids are chosen by us (`traceparent.appended`), and they cost a
quarter. Sampler, queue bounds and headers come from the standard `OTEL_*` variables.
"""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags

from berth.runtime import traceparent
from berth.runtime.telemetry import NoSpans, Span, Spans

EXPORT_SECONDS = 2
"""How long one export may take; the exporter's own 10 s would hold up the end of a process."""
SPAN_DELAY_MS = 500
METRIC_INTERVAL_MS = 5_000

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status(StatusCode.UNSET)


class SdkSpans:
    """Turns finished spans into those of the SDK and gives them to its processor."""

    recording = True

    def __init__(self, processor: SpanProcessor, resource: Resource, sampler: Sampler) -> None:
        self._processor = processor
        self._resource = resource
        self._sampler = sampler
        self._scope = InstrumentationScope("berth")

    def wants_root(self, trace_id: str, name: str) -> bool:
        return self._sampler.should_sample(None, int(trace_id, 16), name).decision.is_sampled()

    def finished(self, span: Span) -> None:
        operation = span.operation
        self._processor.on_end(
            ReadableSpan(
                operation.name,
                context=_context(span.context, is_remote=False),
                parent=None if span.parent is None else _context(span.parent, is_remote=True),
                resource=self._resource,
                attributes={**operation.attributes, **span.attributes},
                links=[Link(_context(link, is_remote=True)) for link in span.links],
                kind=operation.kind,
                status=_UNSET if span.failed is None else Status(StatusCode.ERROR, span.failed),
                start_time=span.start_ns,
                end_time=span.end_ns,
                instrumentation_scope=self._scope,
            )
        )


def _context(text: str, *, is_remote: bool) -> SpanContext:
    return SpanContext(
        int(traceparent.trace_id(text), 16),
        int(traceparent.span_id(text), 16),
        is_remote=is_remote,
        trace_flags=_SAMPLED,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What a process exports. `close` sends what waits, for at most `close_seconds`."""

    spans: Spans
    tracer_provider: TracerProvider | None = None
    meter_provider: MeterProvider | None = None
    close_seconds: float = EXPORT_SECONDS

    def close(self) -> None:
        """Send what waits and stop; returns in time even when the receiver is dead."""
        ending = threading.Thread(target=self._shut_down, daemon=True, name="telemetry-close")
        ending.start()
        ending.join(self.close_seconds)

    def _shut_down(self) -> None:
        if self.tracer_provider is not None:
            self.tracer_provider.shutdown()
        if self.meter_provider is not None:
            self.meter_provider.shutdown()


def start(
    service: str,
    instance: str,
    *,
    endpoint: str | None,
    close_seconds: float = EXPORT_SECONDS,
    with_metrics: bool = True,
) -> Telemetry:
    """Export as `service` (such as berth-quota) to the OTLP/HTTP base address `endpoint`; nothing without one.

    `instance` tells processes of one service apart. A process calls this once: metrics are global.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Telemetry(spans=NoSpans())
    resource = _resource(service, instance)
    spans: Spans = NoSpans()
    tracer_provider = meter_provider = None
    if traces := _address("traces", endpoint, os.environ):
        processor = BatchSpanProcessor(
            OTLPSpanExporter(endpoint=traces, timeout=close_seconds),
            schedule_delay_millis=_unless_set("OTEL_BSP_SCHEDULE_DELAY", SPAN_DELAY_MS),
        )
        tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        tracer_provider.add_span_processor(processor)
        spans = SdkSpans(processor, resource, tracer_provider.sampler)
    if with_metrics and (readings := _address("metrics", endpoint, os.environ)):
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(endpoint=readings, timeout=close_seconds),
            export_interval_millis=_unless_set("OTEL_METRIC_EXPORT_INTERVAL", METRIC_INTERVAL_MS),
        )
        meter_provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        metrics.set_meter_provider(meter_provider)
    return Telemetry(
        spans=spans, tracer_provider=tracer_provider, meter_provider=meter_provider, close_seconds=close_seconds
    )


def _resource(service: str, instance: str) -> Resource:
    """Who speaks; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win."""
    ours = {"service.name": service, "service.instance.id": instance, "service.version": version("berth")}
    return Resource.create(ours).merge(OTELResourceDetector().detect())


def _address(signal: str, endpoint: str | None, environment: Mapping[str, str]) -> str | None:
    """Where `signal` (traces or metrics) goes; the path is appended to a base address only."""
    name = signal.upper()
    if environment.get(f"OTEL_{name}_EXPORTER", "otlp") != "otlp":
        return None
    if own := environment.get(f"OTEL_EXPORTER_OTLP_{name}_ENDPOINT"):
        return own
    return f"{endpoint.rstrip('/')}/v1/{signal}" if endpoint else None


def _unless_set(variable: str, value: float) -> float | None:
    """None lets the SDK read the standard variable."""
    return None if os.environ.get(variable) else value

"""Builders of what exporters send: OTLP export requests with exactly the spans that a test needs."""

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

START_US = 1_700_000_000_000_000


def trace_id(number: int) -> str:
    return f"{number:032x}"


def span_id(number: int) -> str:
    return f"{number:016x}"


def a_span(
    number: int,
    *,
    trace: int = 1,
    parent: int | None = None,
    name: str = "process",
    after_us: int = 0,
    lasts_us: int = 1_000,
    error: str | None = None,
    links: Sequence[tuple[int, int]] = (),
    **attributes: Any,
) -> Span:
    """A span; attributes are written with `__` for the dot: `berth__request="team-a/web-1"`."""
    start = (START_US + after_us) * 1_000
    span = Span(
        trace_id=bytes.fromhex(trace_id(trace)),
        span_id=bytes.fromhex(span_id(number)),
        parent_span_id=bytes.fromhex(span_id(parent)) if parent is not None else b"",
        name=name,
        start_time_unix_nano=start,
        end_time_unix_nano=start + lasts_us * 1_000,
        attributes=key_values({key.replace("__", "."): value for key, value in attributes.items()}),
        links=[Span.Link(trace_id=bytes.fromhex(trace_id(of)), span_id=bytes.fromhex(span_id(to))) for of, to in links],
    )
    if error is not None:
        span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=error))
    return span


def exported(
    spans: Sequence[Span], *, service: str | None = "quota", instance: str | None = None
) -> ExportTraceServiceRequest:
    """One export request of one service."""
    names: dict[str, str | None] = {"service.name": service, "service.instance.id": instance}
    resource = Resource(attributes=key_values({key: name for key, name in names.items() if name is not None}))
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=spans)])]
    )


def key_values(attributes: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_any_value(value)) for key, value in attributes.items()]


def _any_value(value: Any) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=[_any_value(item) for item in value]))  # pyright: ignore[reportUnknownVariableType]
        case _:
            return AnyValue(string_value=str(value))

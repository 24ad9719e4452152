"""OTLP over HTTP: from the bytes of a request to spans, and back to the bytes of an answer.

Understands `application/x-protobuf` and `application/json`, plain, gzip or deflate. Whatever arrives, the
outcome is a value or one of the two errors below; what a sender writes can never raise anything else.
"""

import base64
import binascii
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status as RpcStatus
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status as StatusMessage

from berth.errors import BerthError
from berth_console.spans import UNKNOWN_SERVICE, Link, Span, SpanEvent

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

SPAN_BYTES_MAX = 64 * 1024
"""A longer span is rejected, so that every span fits a page of a query's answer."""

ORIGIN_CHARACTERS_MAX = 128
"""Names of services and instances are cut there: they are kept outside the bounds on spans."""

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_ID_FIELDS = {"traceId": 16, "spanId": 8, "parentSpanId": 8, "trace_id": 16, "span_id": 8, "parent_span_id": 8}


class MalformedBody(BerthError):
    """The body is not what its content type says (HTTP 400)."""

    code = "malformed_body"


class OversizeBody(BerthError):
    """The body, or what it unpacks to, is larger than the console takes (HTTP 413)."""

    code = "too_large"


# --- the body ---------------------------------------------------------------------------------------


def unpacked(body: bytes, encoding: str, *, bytes_max: int) -> bytes:
    """The body without its content encoding, never more than `bytes_max` (a small body may unpack to a huge one).

    Raises:
        MalformedBody, OversizeBody
    """
    if encoding in ("", "identity"):
        plain = body
    elif encoding in ("gzip", "deflate"):
        plain = _inflated(body, encoding, bytes_max=bytes_max)
    else:
        raise MalformedBody(f"content-encoding {encoding!r} is not understood", hint="send gzip, deflate or none")
    if len(plain) > bytes_max:
        raise OversizeBody(f"the body has more than {bytes_max} bytes", hint="export smaller batches")
    return plain


def _inflated(body: bytes, encoding: str, *, bytes_max: int) -> bytes:
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        plain = unpacker.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise MalformedBody(f"the body is not {encoding}: {error}") from None
    if len(plain) <= bytes_max and not unpacker.eof:
        raise MalformedBody(f"the {encoding} body ends too early")
    return plain


def parse_into(message: Message, body: bytes, *, content_type: str) -> None:
    """Fill `message` from `body`; unknown members are ignored, as OTLP asks.

    Raises:
        MalformedBody: the body is not such a message.
    """
    assert content_type in (PROTOBUF, JSON)
    try:
        if content_type == PROTOBUF:
            message.ParseFromString(body)
        else:
            parsed: Any = orjson.loads(body)
            if not isinstance(parsed, dict):
                raise MalformedBody("the body is not a JSON object")
            ParseDict(_with_base64_ids(parsed), message, ignore_unknown_fields=True)
    except (DecodeError, ParseError) as error:
        raise MalformedBody(f"the body is not an OTLP export request: {error}") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        # ParseDict expects the right JSON types here and there instead of checking them.
        raise MalformedBody(f"the body is not an OTLP export request in JSON: {error}") from None


def _with_base64_ids(value: Any) -> Any:
    """OTLP's JSON writes ids in hex where protobuf's JSON wants base64."""
    if isinstance(value, list):
        return [_with_base64_ids(item) for item in value]  # pyright: ignore[reportUnknownVariableType] parsed JSON
    if isinstance(value, dict):
        return {
            name: _base64_id(item) if name in _ID_FIELDS and isinstance(item, str) else _with_base64_ids(item)
            for name, item in value.items()  # pyright: ignore[reportUnknownVariableType] parsed JSON
        }
    return value


def _base64_id(written: str) -> str:
    try:
        return base64.b64encode(bytes.fromhex(written)).decode()
    except ValueError:
        raise MalformedBody(f"{written[:40]!r} is not an id in hex") from None


# --- the answer -------------------------------------------------------------------------------------


def encoded_answer(message: Message, content_type: str) -> bytes:
    """An answer in the content type of its request, as OTLP asks."""
    if content_type == JSON:
        return orjson.dumps(MessageToDict(message))
    return message.SerializeToString()


def encoded_error(text: str, content_type: str) -> bytes:
    """A `google.rpc.Status`, as OTLP asks for every answer of 400 and above."""
    return encoded_answer(RpcStatus(message=text), content_type)


# --- spans ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose spans: `service.name` and `service.instance.id` of the resource."""

    service: str
    instance: str | None


def origin_of(resource: ResourceMessage) -> Origin:
    names: dict[str, str] = {}
    for attribute in resource.attributes:
        if attribute.key in ("service.name", "service.instance.id"):
            names[attribute.key] = str(value_of(attribute.value))
    service, instance = names.get("service.name") or UNKNOWN_SERVICE, names.get("service.instance.id")
    return Origin(service[:ORIGIN_CHARACTERS_MAX], instance[:ORIGIN_CHARACTERS_MAX] if instance else None)


def why_not_stored(span: SpanMessage) -> str | None:
    """None when `span` can be stored; else what is wrong with it."""
    if len(span.trace_id) != 16 or not any(span.trace_id):
        return "a trace id has 16 bytes, not all of them zero"
    if len(span.span_id) != 8 or not any(span.span_id):
        return "a span id has 8 bytes, not all of them zero"
    if span.ByteSize() > SPAN_BYTES_MAX:
        return f"a span has at most {SPAN_BYTES_MAX} bytes"
    return None


def is_error(span: SpanMessage) -> bool:
    return span.status.code == StatusMessage.STATUS_CODE_ERROR


def times_us(span: SpanMessage) -> tuple[int, int]:
    """Start and end in microseconds since 1970; an end before its start counts as the start."""
    start = span.start_time_unix_nano // 1000
    return start, max(start, span.end_time_unix_nano // 1000)


def text_attributes(span: SpanMessage, wanted: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The values of the `wanted` attributes; a list gives each of its texts."""
    names = frozenset(wanted)
    for attribute in span.attributes:
        if attribute.key in names:
            for value in (attribute.value, *attribute.value.array_value.values):
                if value.string_value:
                    yield attribute.key, value.string_value


_KINDS: Mapping[int, str] = {
    SpanMessage.SPAN_KIND_SERVER: "server",
    SpanMessage.SPAN_KIND_CLIENT: "client",
    SpanMessage.SPAN_KIND_PRODUCER: "producer",
    SpanMessage.SPAN_KIND_CONSUMER: "consumer",
}
_STATUSES: Mapping[int, str] = {StatusMessage.STATUS_CODE_OK: "ok", StatusMessage.STATUS_CODE_ERROR: "error"}


def span_of(span: SpanMessage, origin: Origin) -> Span:
    """The span in the shape that people and scripts read."""
    start, end = times_us(span)
    attributes = attributes_of(span.attributes)
    if origin.instance is not None:
        attributes.setdefault("service.instance.id", origin.instance)
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent=span.parent_span_id.hex() if any(span.parent_span_id) else None,
        service=origin.service,
        name=span.name,
        start_us=start,
        duration_us=end - start,
        links=tuple(Link(trace_id=link.trace_id.hex(), span_id=link.span_id.hex()) for link in span.links),
        attributes=attributes,
        kind=_KINDS.get(span.kind, "internal"),
        status=_STATUSES.get(span.status.code, "unset"),
        status_message=span.status.message,
        events=tuple(
            SpanEvent(name=event.name, at_us=event.time_unix_nano // 1000, attributes=attributes_of(event.attributes))
            for event in span.events
        ),
    )


def attributes_of(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes as JSON values; of two with one key the last counts."""
    return {attribute.key: value_of(attribute.value) for attribute in attributes}


def value_of(value: AnyValue) -> Any:
    """The JSON value of an attribute; bytes in base64, what JSON cannot say (NaN, infinity) as text."""
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value if math.isfinite(value.double_value) else str(value.double_value)
        case "array_value":
            return [value_of(item) for item in value.array_value.values]
        case "kvlist_value":
            return attributes_of(value.kvlist_value.values)
        case "bytes_value":
            return binascii.b2a_base64(value.bytes_value, newline=False).decode()
        case _:
            return None

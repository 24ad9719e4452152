"""Bodies: every content type and encoding reads the same, and nothing that a sender writes can surprise."""

import gzip
import json
import math
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from berth_console.otlp import JSON, PROTOBUF, MalformedBody, OversizeBody, parse_into, unpacked
from berth_console.spans import Span, span_from
from berth_console.traces import TraceSearch, TraceStore
from tests.unit.berth_console.spans_sent import START_US, a_span, exported, span_id, trace_id

# From the examples of the OTLP specification: ids in hex, 64-bit numbers as strings, enums as numbers.
JSON_EXAMPLE: dict[str, Any] = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "my.service"}}]},
            "scopeSpans": [
                {
                    "scope": {"name": "my.library", "version": "1.0.0"},
                    "spans": [
                        {
                            "traceId": "5B8EFFF798038103D269B633813FC60C",
                            "spanId": "EEE19B7EC3C1B174",
                            "parentSpanId": "EEE19B7EC3C1B173",
                            "name": "I'm a server span",
                            "startTimeUnixNano": "1544712660000000000",
                            "endTimeUnixNano": "1544712661000000000",
                            "kind": 2,
                            "attributes": [{"key": "my.span.attr", "value": {"intValue": "17"}}],
                            "aMemberOfTheFuture": {"x": 1},
                        }
                    ],
                }
            ],
        }
    ]
}


def read(body: bytes, content_type: str) -> ExportTraceServiceRequest:
    message = ExportTraceServiceRequest()
    parse_into(message, body, content_type=content_type)
    return message


def the_span(message: ExportTraceServiceRequest) -> Span:
    store = TraceStore()
    store.receive(message)
    [summary] = store.search(TraceSearch())
    [span] = store.trace(summary.trace_id)
    return span


def test_json_is_read_as_the_specification_writes_it() -> None:
    span = the_span(read(json.dumps(JSON_EXAMPLE).encode(), JSON))

    assert span.as_mapping() == {
        "trace_id": "5b8efff798038103d269b633813fc60c",
        "span_id": "eee19b7ec3c1b174",
        "parent": "eee19b7ec3c1b173",
        "links": [],
        "service": "my.service",
        "name": "I'm a server span",
        "start_us": 1_544_712_660_000_000,
        "duration_us": 1_000_000,
        "attributes": {"my.span.attr": 17},
    }
    assert span.kind == "server"


@pytest.mark.parametrize(
    "packed, encoding",
    [
        (b"body", ""),
        (b"body", "identity"),
        (gzip.compress(b"body", mtime=0), "gzip"),
        (zlib.compress(b"body"), "deflate"),
    ],
)
def test_each_content_encoding_gives_the_same_body(packed: bytes, encoding: str) -> None:
    assert unpacked(packed, encoding, bytes_max=100) == b"body"


@pytest.mark.parametrize(
    "packed, encoding, says",
    [
        (b"no gzip", "gzip", "not gzip"),
        (gzip.compress(b"body" * 99, mtime=0)[:-20], "gzip", "too early"),
        (b"", "gzip", "too early"),
        (b"body", "br", "not understood"),
    ],
)
def test_a_body_that_cannot_be_unpacked_is_malformed(packed: bytes, encoding: str, says: str) -> None:
    with pytest.raises(MalformedBody, match=says):
        unpacked(packed, encoding, bytes_max=1_000)


def test_a_small_body_that_unpacks_to_a_huge_one_is_stopped_at_the_bound() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 60_000

    with pytest.raises(OversizeBody):
        unpacked(bomb, "gzip", bytes_max=1_000_000)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"resourceSpans": 3}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "soon"}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": 3}]}]}]}',
        b'{"resourceSpans": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"resourceSpans": [{"resource": {"attributes": [{"key": "a", "value": '
        + b'{"arrayValue": {"values": [' * 200,
    ],
)
def test_json_that_is_no_export_request_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        read(body, JSON)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_malformed(body: bytes) -> None:
    for content_type in (PROTOBUF, JSON):
        with suppress(MalformedBody):
            TraceStore().receive(read(body, content_type))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places_in(holder: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) at which something stands."""
    written = json.dumps(holder)
    keys: list[Any] = list(holder) if written[0] == "{" else list(range(len(holder))) if written[0] == "[" else []
    return [place for key in keys for place in ((holder, key), *places_in(holder[key]))]


@given(data=st.data())
def test_a_request_with_any_one_value_replaced_is_read_or_malformed(data: st.DataObject) -> None:
    document = json.loads(json.dumps(JSON_EXAMPLE))
    holder, key = data.draw(st.sampled_from(places_in(document)))
    holder[key] = data.draw(JSON_VALUES)

    with suppress(MalformedBody, OverflowError):  # OverflowError: json.dumps of a huge float is not the point
        body = json.dumps(document).encode(errors="replace")
        store = TraceStore()
        store.receive(read(body, JSON))
        for summary in store.search(TraceSearch()):
            assert store.trace(summary.trace_id)


def test_attribute_values_become_json_values() -> None:
    span = the_span(
        exported([a_span(1, a="x", b=True, c=2**60, d=0.5, e=[1, "y"], f=b"\x00\xff", g=math.nan, h=math.inf)])
    )

    assert span.attributes == {
        "a": "x",
        "b": True,
        "c": 2**60,
        "d": 0.5,
        "e": [1, "y"],
        "f": "AP8=",
        "g": "nan",
        "h": "inf",
    }


def test_a_span_that_ends_before_it_starts_takes_no_time() -> None:
    message = a_span(1)
    message.end_time_unix_nano = 5

    assert the_span(exported([message])).duration_us == 0


def test_status_and_events_are_kept_for_the_page() -> None:
    message = a_span(1, error="no node fits")
    message.events.add(name="queued", time_unix_nano=START_US * 1_000)

    span = the_span(exported([message], service=None))

    assert span.failed
    assert span.status_message == "no node fits"
    assert [(event.name, event.at_us) for event in span.events] == [("queued", START_US)]
    assert span.service == "unknown_service"


def test_a_span_survives_being_written_and_read_again() -> None:
    message = a_span(2, parent=1, links=[(3, 4)], error="why", berth__request="team-a/web-1")
    message.events.add(name="queued", time_unix_nano=START_US * 1_000)
    span = the_span(exported([message]))

    assert span_from(json.loads(json.dumps(span.as_full_mapping()))) == span
    assert span_from(span.as_mapping()).links == span.links
    assert (span.trace_id, span.span_id, span.parent) == (trace_id(1), span_id(2), span_id(1))

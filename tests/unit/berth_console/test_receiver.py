"""The OTLP endpoints over real HTTP, with OpenTelemetry's own exporter as the sender."""

import gzip
import json
from collections.abc import Iterator

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, format_span_id, format_trace_id

from berth_console.forward import Destination
from tests.unit.berth_console.spans_sent import a_span, exported, trace_id
from tests.unit.berth_console.web_server import RunningConsole, running_console

A_BODY = exported([a_span(1, berth__request="team-a/web-1")]).SerializeToString()


@pytest.fixture(scope="module")
def running() -> Iterator[RunningConsole]:
    with running_console() as console:
        yield console


@pytest.fixture
def console(running: RunningConsole) -> RunningConsole:
    running.forget()
    return running


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate])
def test_what_opentelemetry_exports_arrives_with_its_ids_parents_and_links(
    console: RunningConsole, compression: Compression
) -> None:
    provider = TracerProvider(resource=Resource({"service.name": "quota", "service.instance.id": "quota-1"}))
    exporter = OTLPSpanExporter(endpoint=f"{console.url}/v1/traces", compression=compression)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("berth")
    with tracer.start_as_current_span("publish", attributes={"berth.request": "team-a/web-1"}) as root:
        tracer.start_span("process", links=[Link(root.get_span_context())]).end()
    provider.shutdown()

    stored_id = format_trace_id(root.get_span_context().trace_id)
    parent, child = console.receiver.traces.trace(stored_id)

    assert (parent.service, parent.parent, parent.attributes["berth.request"]) == ("quota", None, "team-a/web-1")
    assert parent.attributes["service.instance.id"] == "quota-1"
    assert child.parent == parent.span_id == format_span_id(root.get_span_context().span_id)
    assert [link.span_id for link in child.links] == [parent.span_id]
    assert console.receiver.traces.of_request("team-a/web-1") == [stored_id]


def test_metrics_that_opentelemetry_exports_are_printed_for_prometheus(console: RunningConsole) -> None:
    exporter = OTLPMetricExporter(endpoint=f"{console.url}/v1/metrics")
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
    provider = MeterProvider([reader], resource=Resource({"service.name": "raft", "service.instance.id": "raft-1"}))
    provider.get_meter("berth").create_counter("berth.plan.conflicts", unit="{plan}").add(3, {"berth.outcome": "stale"})
    provider.force_flush()
    provider.shutdown()

    assert (
        'berth_plan_conflicts_total{berth_outcome="stale",instance="raft-1",job="raft"} 3'
        in console.get("/metrics").text
    )


def test_logs_are_taken_and_counted(console: RunningConsole) -> None:
    logs = ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[LogRecord(), LogRecord()])])]
    )

    assert console.post("/v1/logs", logs.SerializeToString()).status == 200
    assert console.receiver.counters.log_records == 2


def test_an_answer_has_the_content_type_of_its_request(console: RunningConsole) -> None:
    protobuf = console.post("/v1/traces", A_BODY)
    as_json = console.post("/v1/traces", b'{"resourceSpans": []}', "application/json; charset=utf-8")

    assert (protobuf.status, protobuf.headers["content-type"], protobuf.body) == (200, "application/x-protobuf", b"")
    assert (as_json.status, as_json.headers["content-type"], as_json.json()) == (200, "application/json", {})


def test_spans_that_are_rejected_are_named_in_a_partial_success(console: RunningConsole) -> None:
    bad = a_span(1)
    bad.trace_id = b"short"

    answer = console.post("/v1/traces", exported([bad, a_span(2)]).SerializeToString())

    success = ExportTraceServiceResponse.FromString(answer.body).partial_success
    assert answer.status == 200
    assert success.rejected_spans == 1
    assert "trace id" in success.error_message


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
def test_a_malformed_body_is_400_with_a_text_that_says_what_is_wrong(console: RunningConsole, signal: str) -> None:
    protobuf = console.post(f"/v1/{signal}", b"\xff\xff\xff")
    as_json = console.post(f"/v1/{signal}", b"{", "application/json")

    assert protobuf.status == as_json.status == 400
    assert "not an OTLP export request" in Status.FromString(protobuf.body).message
    assert "not an OTLP export request" in as_json.json()["message"]
    assert console.receiver.counters.refused == 2


@pytest.mark.parametrize(
    "body, encoding",
    [(bytes(200_000), "identity"), (gzip.compress(bytes(5_000_000), mtime=0), "gzip")],
)
def test_an_oversize_body_is_413(console: RunningConsole, body: bytes, encoding: str) -> None:
    answer = console.post("/v1/traces", body, content_encoding=encoding)

    assert answer.status == 413
    assert "100000 bytes" in Status.FromString(answer.body).message


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_content_type_that_any_web_page_may_send_is_not_taken(console: RunningConsole, content_type: str) -> None:
    answer = console.post("/v1/traces", A_BODY, content_type)

    assert answer.status == 415
    assert "expected content-type application/x-protobuf" in answer.text
    assert len(console.receiver.traces) == 0


def test_another_path_or_method_says_what_is_right(console: RunningConsole) -> None:
    assert "/v1/traces" in console.post("/v1/trace", A_BODY).text
    assert console.get("/v1/traces").status == 405


def test_the_bytes_are_passed_on_as_they_came() -> None:
    packed = gzip.compress(A_BODY)
    with running_console() as upstream:
        urls = {"traces": f"{upstream.url}/v1/traces"}
        with running_console(forward_to=Destination(urls=urls)) as console:
            console.post("/v1/traces", packed, content_encoding="gzip")
            console.post("/v1/traces", b'{"resourceSpans": [', "application/json")
            forwarded = console.forwarded()

        assert forwarded == (1, 0)
        assert upstream.receiver.traces.of_request("team-a/web-1") == [trace_id(1)]


def test_two_consoles_that_forward_to_each_other_form_no_circle() -> None:
    with running_console() as first:
        second_urls = {"traces": f"{first.url}/v1/traces"}
        with running_console(forward_to=Destination(urls=second_urls)) as second:
            second.post("/v1/traces", A_BODY)
            second.post("/v1/traces", A_BODY, x_berth_forwarded="1")

            assert second.forwarded() == (1, 0)
        assert first.receiver.counters.taken == 1


def test_a_signal_that_the_destination_has_no_place_for_is_not_sent_again_and_again() -> None:
    with running_console() as upstream:
        urls = {"traces": f"{upstream.url}/v1/traces", "logs": f"{upstream.url}/nowhere"}
        with running_console(forward_to=Destination(urls=urls)) as console:
            for _ in range(3):
                console.post("/v1/logs", b"")
                console.forwarded()
            console.post("/v1/traces", A_BODY)

            assert console.forwarded() == (1, 1)


def test_a_destination_that_refuses_costs_the_copy_and_nothing_else() -> None:
    with running_console() as upstream:
        urls = {"traces": f"{upstream.url}/nowhere"}
        with running_console(forward_to=Destination(urls=urls)) as console:
            answer = console.post("/v1/traces", A_BODY)

            assert answer.status == 200
            assert console.forwarded() == (0, 1)
            assert 'berth_console_exports_total{outcome="not_forwarded"} 1' in console.get("/metrics").text
            assert json.loads(console.get("/api/traces").body)["traces"][0]["requests"] == ["team-a/web-1"]

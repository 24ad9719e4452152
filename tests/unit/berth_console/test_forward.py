"""Where received telemetry is passed on to, and that passing it on holds up nobody."""

import pytest

from berth.errors import InvalidSetting
from berth_console.forward import (
    QUEUE_BYTES_MAX,
    QUEUE_LENGTH_MAX,
    Destination,
    Export,
    Forwarder,
    destination,
    without_own_address,
)

JAEGER = Destination(urls={"traces": "http://jaeger:4318/v1/traces"})


def an_export(size: int = 1, signal: str = "traces") -> Export:
    return Export(signal=signal, body=bytes(size), content_type="application/x-protobuf")


def test_nothing_set_is_nowhere() -> None:
    assert destination({}) is None
    assert destination({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}) is None


def test_the_path_is_appended_to_the_common_endpoint_and_not_to_a_signals_own() -> None:
    found = destination(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:4318/",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "https://metrics.example/otlp",
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20b, tenant=berth",
        }
    )

    assert found == Destination(
        urls={
            "traces": "http://jaeger:4318/v1/traces",
            "metrics": "https://metrics.example/otlp",
            "logs": "http://jaeger:4318/v1/logs",
        },
        headers={"api-key": "a b", "tenant": "berth"},
    )


@pytest.mark.parametrize("endpoint", ["jaeger:4318", "file:///etc/passwd", "http://", "http://x:port", "http://[::1"])
def test_an_endpoint_that_is_no_web_address_is_refused_by_name(endpoint: str) -> None:
    with pytest.raises(InvalidSetting, match="OTEL_EXPORTER_OTLP_ENDPOINT is"):
        destination({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})


@pytest.mark.parametrize("headers", ["a b=c", "key=v%0d%0aevil: 1", "key=%C3%A4"])
def test_headers_that_http_cannot_carry_are_refused(headers: str) -> None:
    with pytest.raises(InvalidSetting, match="OTEL_EXPORTER_OTLP_HEADERS"):
        destination({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:4318", "OTEL_EXPORTER_OTLP_HEADERS": headers})


def test_what_would_come_straight_back_is_left_out() -> None:
    own = frozenset({("127.0.0.1", 4318), ("localhost", 4318)})
    mixed = Destination(urls={"traces": "http://localhost:4318/v1/traces", "logs": "http://other:4318/v1/logs"})

    assert without_own_address(mixed, own) == Destination(urls={"logs": "http://other:4318/v1/logs"})
    assert without_own_address(Destination(urls={"traces": "http://127.0.0.1:4318/v1/traces"}), own) is None
    assert without_own_address(JAEGER, own) == JAEGER


async def test_a_signal_without_a_destination_is_not_queued_and_not_counted_as_dropped() -> None:
    forwarder = Forwarder(JAEGER)

    assert not forwarder.offer(an_export(signal="logs"))
    assert forwarder.dropped == 0


async def test_a_full_queue_drops_and_counts_at_once() -> None:
    forwarder = Forwarder(JAEGER)

    taken = [forwarder.offer(an_export()) for _ in range(QUEUE_LENGTH_MAX + 3)]

    assert taken.count(True) == QUEUE_LENGTH_MAX
    assert forwarder.dropped == 3


async def test_the_queue_is_bounded_in_bytes_too() -> None:
    forwarder = Forwarder(JAEGER)

    assert forwarder.offer(an_export(QUEUE_BYTES_MAX))
    assert not forwarder.offer(an_export())


async def test_flushing_gives_up_when_time_is_over() -> None:
    forwarder = Forwarder(JAEGER)
    forwarder.offer(an_export())

    await forwarder.flush(timeout_seconds=0)

    assert (forwarder.sent, forwarder.dropped) == (0, 0)

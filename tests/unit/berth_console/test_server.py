"""The web server beside a service: where it listens, whom it answers, and how it ends."""

import asyncio
import socket
from http.client import HTTPConnection, HTTPException
from typing import Any

import pytest

from berth.errors import InvalidSetting
from berth_console.metrics import MetricStore
from berth_console.receiver import Receiver
from berth_console.settings import ConsoleSettings
from berth_console.traces import TraceStore
from berth_console.web.server import serving
from tests.unit.berth_console.spans_sent import a_span, exported, trace_id
from tests.unit.berth_console.web_server import DescribedCluster, running_console

ANYWHERE = "0.0.0.0"  # noqa: S104 what is tested


def settings(**given: Any) -> ConsoleSettings:
    return ConsoleSettings.model_validate({"user": "console", "port": 0, **given})


def a_receiver() -> Receiver:
    return Receiver(traces=TraceStore(), metrics=MetricStore(), monotonic_ms=lambda: 0)


def status_of(port: int, host: str, *, path: str = "/healthz", body: bytes | None = None) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        headers = {"host": host, "content-type": "application/x-protobuf"}
        connection.request("GET" if body is None else "POST", path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


async def test_it_listens_on_loopback_and_answers_only_names_of_this_machine() -> None:
    async with serving(settings(), a_receiver(), DescribedCluster()) as port:
        own = await asyncio.to_thread(status_of, port, "127.0.0.1")
        foreign = await asyncio.to_thread(status_of, port, "evil.example")

    assert (own, foreign) == (200, 400)


async def test_on_another_address_it_answers_every_name_unless_some_are_given() -> None:
    async with serving(settings(host=ANYWHERE), a_receiver(), DescribedCluster()) as port:
        assert await asyncio.to_thread(status_of, port, "console:4318") == 200

    some = settings(host=ANYWHERE, allowed_hosts=["console"])
    async with serving(some, a_receiver(), DescribedCluster()) as port:
        assert await asyncio.to_thread(status_of, port, "console:4318") == 200
        assert await asyncio.to_thread(status_of, port, "other") == 400


async def test_after_the_end_nothing_listens_any_more() -> None:
    async with serving(settings(), a_receiver(), DescribedCluster()) as port:
        pass

    with pytest.raises((OSError, HTTPException)):
        status_of(port, "127.0.0.1")


async def test_an_address_that_is_taken_is_a_wrong_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSetting, match=f"cannot listen on 127.0.0.1 port {port}"):
            async with serving(settings(port=port), a_receiver(), DescribedCluster()):
                pass


async def test_what_is_received_is_passed_on_where_the_standard_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    body = exported([a_span(1)]).SerializeToString()
    with running_console() as jaeger:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", jaeger.url)
        async with serving(settings(), a_receiver(), DescribedCluster()) as port:
            assert await asyncio.to_thread(status_of, port, "localhost", path="/v1/traces", body=body) == 200

        assert len(jaeger.receiver.traces.trace(trace_id(1))) == 1


async def test_a_console_does_not_pass_on_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://localhost:{port}")
    receiver = a_receiver()

    async with serving(settings(port=port), receiver, DescribedCluster()):
        assert receiver.forwarder is None


@pytest.mark.parametrize(
    "host, on_loopback",
    [("127.0.0.1", True), ("::1", True), ("localhost", True), (ANYWHERE, False), ("console", False)],
)
def test_settings_know_loopback(host: str, on_loopback: bool) -> None:
    assert settings(host=host).is_on_loopback is on_loopback

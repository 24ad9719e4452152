"""A service as a process: settings in, health and spans out, an exit code at its end."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from berth.adapters.system_clock import SystemClock
from berth.adapters.users import seed_file
from berth.messages.commands import AdminAnswer
from berth.runtime import health
from berth.wire import codec
from tests.contract.worlds import RealWorld
from tests.nats_fixture import ROOT, RealServer, real_server
from tests.unit.runtime.stage import ADMIN, APPLY, Stage

__all__ = ["real_server"]

pytestmark = pytest.mark.nats

REPOSITORY = Path(__file__).parents[2]
CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def stage(real_server: RealServer) -> AsyncIterator[Stage]:
    await real_server.bootstrap()
    stage = Stage(RealWorld(real_server), SystemClock())
    await stage.open(ROOT)
    yield stage
    await stage.close()


@dataclass
class Receiver:
    """Takes OTLP over HTTP and keeps what it was sent."""

    port: int = 0
    spans: list[Any] = field(default_factory=list[Any])
    resources: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length"))
        body = await reader.readexactly(length)
        if "/v1/traces" in head.splitlines()[0]:
            self._keep(ExportTraceServiceRequest.FromString(body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    def _keep(self, request: Any) -> None:
        for resource_spans in request.resource_spans:
            found = {one.key: one.value.string_value for one in resource_spans.resource.attributes}
            for scope in resource_spans.scope_spans:
                self.spans += list(scope.spans)
                self.resources += [found] * len(scope.spans)


@asynccontextmanager
async def receiving() -> AsyncGenerator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.take, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()


async def start(server: RealServer, *options: str, **variables: str) -> Process:
    """The example service as quota-1."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BERTH_", "OTEL_"))}
    environment |= {
        "BERTH_QUOTA_USER": "quota-1",
        "BERTH_QUOTA_NATS_URL": server.server.url,
        "BERTH_QUOTA_NKEY_FILE": str(seed_file(server.keys, "quota-1")),
        **variables,
    }
    command = [*options, "-m", "tests.integration.example_service"]
    return await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=REPOSITORY, env=environment, stdout=PIPE, stderr=PIPE
    )


async def until_logged(running: Process, event: str) -> dict[str, Any]:
    """The log line that says `event`."""
    assert running.stderr is not None
    async with asyncio.timeout(30):
        async for line in running.stderr:
            found = json.loads(line)
            if found["event"] == event:
                return found
    raise AssertionError(f"ended without {event}")


async def end(running: Process) -> int:
    running.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        await running.communicate()
    assert running.returncode is not None
    return running.returncode


async def soon(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 the other side is another process
            await asyncio.sleep(0.02)


async def test_a_process_starts_answers_and_ends_with_0_when_asked(stage: Stage, real_server: RealServer) -> None:
    running = await start(real_server)
    started = await until_logged(running, "service_started")

    answer = codec.decode(AdminAnswer, (await stage.ask(ADMIN, APPLY)).payload)
    ping = json.loads((await stage.ask("$SRV.PING.berth-quota")).payload)

    assert await end(running) == 0
    assert (started["process"], started["sequence"]) == ("quota-1", 2)
    assert answer.detail == f"{ping['id']}-1"
    assert (ping["metadata"]["ready"], ping["metadata"]["leader"]) == ("true", "raft-1")


async def test_ids_of_two_starts_never_meet(stage: Stage, real_server: RealServer) -> None:
    tokens: list[str] = []
    for _ in range(2):
        running = await start(real_server)
        await until_logged(running, "service_started")
        tokens.append(codec.decode(AdminAnswer, (await stage.ask(ADMIN, APPLY)).payload).detail)
        await end(running)

    assert tokens[0] != tokens[1]


async def test_the_health_port_says_when_it_is_ready(
    stage: Stage, real_server: RealServer, unused_tcp_port: int
) -> None:
    running = await start(real_server, BERTH_QUOTA_HEALTH_PORT=str(unused_tcp_port))
    await until_logged(running, "service_started")
    url = f"http://127.0.0.1:{unused_tcp_port}"

    found = [await asyncio.to_thread(health.check, f"{url}{path}") for path in ("/livez", "/readyz", "/else")]
    checked = await asyncio.create_subprocess_exec(sys.executable, "-m", "berth.runtime.health", f"{url}/readyz")

    assert found[:2] == [None, None]
    assert found[2] is not None
    assert "404" in found[2]
    assert await checked.wait() == 0
    assert await end(running) == 0
    assert stage.tip is not None


async def test_spans_arrive_at_the_receiver_as_the_service_of_their_process(
    stage: Stage, real_server: RealServer
) -> None:
    async with receiving() as receiver:
        running = await start(real_server, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{receiver.port}")
        await until_logged(running, "service_started")
        await stage.ask(ADMIN, APPLY, headers={"traceparent": CLIENT})
        await soon(lambda: "process berth.v1.admin.quota" in {span.name for span in receiver.spans})
        assert await end(running) == 0

    names = [span.name for span in receiver.spans]
    assert sorted(names) == ["process berth.v1.admin.quota", "replay berth.v1.ledger"]
    span = receiver.spans[names.index("process berth.v1.admin.quota")]
    assert span.trace_id.hex() == CLIENT[3:35]
    assert span.parent_span_id.hex() == CLIENT[36:52]
    assert span.start_time_unix_nano <= span.end_time_unix_nano
    assert receiver.resources[0]["service.name"] == "berth-quota"
    assert receiver.resources[0]["service.instance.id"].startswith("quota-1-")


async def test_a_dead_receiver_does_not_hold_up_the_end(stage: Stage, real_server: RealServer) -> None:
    running = await start(real_server, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    await until_logged(running, "service_started")
    await stage.ask(ADMIN, APPLY, headers={"traceparent": CLIENT})

    assert await end(running) == 0


async def test_a_service_without_a_server_ends_when_asked(real_server: RealServer) -> None:
    real_server.server.kill()
    running = await start(real_server, BERTH_QUOTA_LOG_LEVEL="debug")
    await until_logged(running, "connection_failed")

    assert await end(running) == 0


async def test_a_wrong_setting_is_a_usage_error(real_server: RealServer) -> None:
    running = await start(real_server, BERTH_QUOTA_INBOX_MESSAGE="5")
    _, said = await running.communicate()

    assert running.returncode == 2
    assert b"berth-quota: unknown setting BERTH_QUOTA_INBOX_MESSAGE; did you mean BERTH_QUOTA_INBOX_MESSAGES?" in said


async def test_asserts_cannot_be_switched_off(real_server: RealServer) -> None:
    running = await start(real_server, "-O")
    _, said = await running.communicate()

    assert running.returncode == 1
    assert b"invariants are asserts" in said

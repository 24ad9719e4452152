"""A console's web server on a free port of loopback, with a cluster that a test describes."""

import asyncio
import json
import threading
from collections.abc import Coroutine, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

import uvicorn

from berth.ids import Sequence, Term
from berth_console.forward import Destination, Forwarder
from berth_console.metrics import MetricStore
from berth_console.receiver import ExportCounters, Receiver
from berth_console.traces import TraceLimits, TraceStore
from berth_console.web.application import console_application
from berth_console.web.read_models import Gauge, Overview


@dataclass(slots=True, kw_only=True)
class DescribedCluster:
    """Read models with what a test says."""

    not_ready: str | None = None
    nodes: dict[str, int] = field(default_factory=lambda: {"ready": 3})

    def overview(self) -> Overview:
        return Overview(
            ledger_id="the-ledger",
            leader="raft-2",
            term=Term(7),
            sequence=Sequence(1234),
            at=1_700_000_000_000,
            nodes=self.nodes,
            requests={"placed": 5, "queued": 2},
        )

    def gauges(self) -> Iterator[Gauge]:
        yield Gauge("berth.requests", (("namespace", "team-a"), ("status", "queued")), 2)
        yield Gauge("berth.requests", (("namespace", "team-b"), ("status", "placed")), 5)
        yield Gauge("berth.node.used", (("dimension", "ram_mb"), ("node", "n1")), 512)

    def why_not_ready(self) -> str | None:
        return self.not_ready


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningConsole:
    port: int
    receiver: Receiver
    cluster: DescribedCluster
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def forget(self) -> None:
        """As if nothing had ever arrived."""
        self.receiver.traces = TraceStore(self.receiver.traces.limits)
        self.receiver.metrics = MetricStore()
        self.receiver.counters = ExportCounters()
        self.cluster.not_ready = None

    def forwarded(self) -> tuple[int, int]:
        """How many exports were sent on and how many dropped, once none is under way."""
        forwarder = self.receiver.forwarder
        assert forwarder is not None
        asyncio.run_coroutine_threadsafe(forwarder.flush(20), self.loop).result()
        return forwarder.sent, forwarder.dropped

    def get(self, path: str, **headers: str) -> HttpAnswer:
        return self.call("GET", path, headers=headers)

    def post(self, path: str, body: bytes, content_type: str = "application/x-protobuf", **headers: str) -> HttpAnswer:
        return self.call("POST", path, body, {"content-type": content_type, **headers})

    def call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            named = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            received = {name.lower(): value for name, value in answer.getheaders()}
            return HttpAnswer(status=answer.status, headers=received, body=answer.read())
        finally:
            connection.close()


@contextmanager
def running_console(
    *, limits: TraceLimits | None = None, forward_to: Destination | None = None, body_bytes_max: int = 100_000
) -> Generator[RunningConsole]:
    """The console's application behind a real uvicorn, with its forwarder running in the same loop."""
    receiver = Receiver(
        traces=TraceStore(limits), metrics=MetricStore(), monotonic_ms=lambda: 0, body_bytes_max=body_bytes_max
    )
    cluster = DescribedCluster()
    server = uvicorn.Server(
        uvicorn.Config(console_application(receiver, cluster), port=0, log_config=None, lifespan="off", loop="asyncio")
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: _run(loop, _serve(server, receiver, forward_to)))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            thread.join(0.002)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield RunningConsole(port=port, receiver=receiver, cluster=cluster, loop=loop)
    finally:
        server.should_exit = True
        thread.join()


def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> None:
    try:
        loop.run_until_complete(work)
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


async def _serve(server: uvicorn.Server, receiver: Receiver, forward_to: Destination | None) -> None:
    async with asyncio.TaskGroup() as tasks:
        if forward_to is not None:
            receiver.forwarder = Forwarder(forward_to)
            forwarding = tasks.create_task(receiver.forwarder.run())
            await server.serve()
            forwarding.cancel()
        else:
            await server.serve()

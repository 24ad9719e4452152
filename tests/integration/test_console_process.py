"""The console as a process on a real nats-server: it folds the ledger, answers, serves pages, takes spans, ends."""

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from berth.adapters.replies import Replies
from berth.adapters.users import seed_file
from berth.errors import TimedOut, Unreachable
from berth.ids import LedgerId, Sequence, Term
from berth.messages.commands import Query, QueryAnswer
from berth.messages.envelope import Tip, tip_of
from berth.messages.events import Transaction
from berth.subjects import QUERY
from berth.wire import codec
from berth.wire.codec import RecordHead
from berth_raft.commit import barrier, first_record
from tests.builders import T0, a_node, a_request, placed
from tests.nats_fixture import RealServer, real_server
from tests.unit.berth_console.spans_sent import a_span, exported, trace_id

pytestmark = pytest.mark.nats

__all__ = ["real_server"]


@dataclass(kw_only=True)
class RunningProcess:
    server: RealServer
    process: Process
    port: int
    tip: Tip

    async def write(self, *transactions: Transaction) -> None:
        """One more record of the ledger, as the leader writes it."""
        sequence = Sequence(self.tip.sequence + 1)
        head = RecordHead(
            ledger_id=self.tip.ledger_id,
            sequence=sequence,
            term=self.tip.term,
            leader=self.tip.leader,
            barrier=self.tip.barrier,
            at=T0,
            prev_hash=self.tip.hash,
        )
        lines = [[codec.encode_event(event) for event in transaction] for transaction in transactions]
        payload, _ = codec.encode_record(head, lines)
        await (await self.server.ledger("raft-1")).append(payload, expected=self.tip.sequence)
        self.tip = tip_of(codec.decode_record(payload))

    async def ask(self, what: str, **query: Any) -> QueryAnswer:
        """As a client asks; again while nobody answers yet."""
        bus = await self.server.connect("client")
        replies = await Replies.open(bus, bus.new_inbox())
        subject = QUERY.of(namespace="_", what=what)
        while True:
            try:
                answer = await replies.ask(subject, codec.encode(Query(**query)), within_seconds=5)
                return codec.decode(QueryAnswer, answer.payload)
            except (Unreachable, TimedOut):
                assert self.process.returncode is None, "the console ended"
                await asyncio.sleep(0.02)

    async def http(self, path: str, body: bytes | None = None) -> tuple[int, str]:
        return await asyncio.to_thread(_http, self.port, path, body)

    async def until_shown(self, path: str, text: str) -> None:
        """Return once the page holds `text`."""
        while True:
            _, page = await self.http(path)
            if text in page:
                return
            await asyncio.sleep(0.1)


def _http(port: int, path: str, body: bytes | None) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {"content-type": "application/x-protobuf"} if body is not None else {}
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


async def a_ledger(server: RealServer) -> Tip:
    """The first two records: created, and a leader elected."""
    await server.bootstrap()
    ledger = await server.ledger("init")
    created = first_record(ledger_id=LedgerId("tests"), members=("raft-1",), level="ledger", now_ms=T0)
    await ledger.append(created, expected=Sequence(0))
    tip = tip_of(codec.decode_record(created))
    payload, _ = barrier(tip, term=Term(1), leader="raft-1", now_ms=T0, stream_sequence=Sequence(1))
    await (await server.ledger("raft-1")).append(payload, expected=Sequence(1))
    return tip_of(codec.decode_record(payload))


@pytest.fixture
async def console(real_server: RealServer, tmp_path: Path) -> AsyncIterator[RunningProcess]:
    tip = await a_ledger(real_server)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "BERTH_"))},
        "BERTH_CONSOLE_USER": "console",
        "BERTH_CONSOLE_NATS_URL": real_server.server.url,
        "BERTH_CONSOLE_NKEY_FILE": str(seed_file(real_server.keys, "console")),
        "BERTH_CONSOLE_PORT": str(port),
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }
    with (tmp_path / "console.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "berth_console", env=environment, stdout=log, stderr=log
        )
    yield RunningProcess(server=real_server, process=process, port=port, tip=tip)
    if process.returncode is None:
        process.kill()
        await process.wait()


async def test_the_console_answers_with_what_it_folded_as_soon_as_it_is_asked_for_it(console: RunningProcess) -> None:
    await console.write(a_node("n1"))
    assert [row["id"] for row in (await console.ask("nodes", min_sequence=3)).items] == ["n1"]

    await console.write(placed(a_request("web"), "n1"))
    answer = await console.ask("requests", min_sequence=4)

    assert [(row["id"], row["status"]) for row in answer.items] == [("web", "placed")]
    assert (answer.sequence, answer.term) == (4, 1)


async def test_pages_and_answers_show_the_same(console: RunningProcess) -> None:
    await console.write(a_node("n1"), a_node("n2"))
    body = exported([a_span(1, berth__request="team-a/web"), a_span(2, parent=1)]).SerializeToString()
    await console.ask("nodes", min_sequence=3)

    status, _ = await console.http("/v1/traces", body)
    spans = (await console.ask("trace", ids=("team-a/web",))).items
    page = json.loads((await console.http(f"/api/traces/{trace_id(1)}"))[1])["spans"]

    assert status == 200
    assert [(span["span_id"], span["parent"]) for span in spans] == [(span["span_id"], span["parent"]) for span in page]
    assert (await console.http("/readyz"))[0] == 200
    assert "raft-1" in (await console.http("/"))[1]
    assert 'berth_nodes{state="ready"} 2' in (await console.http("/metrics"))[1]


async def test_a_plan_on_the_running_state_changes_nothing(console: RunningProcess) -> None:
    await console.write(a_node("n1", cpu=4_000))
    document = {"requests": [a_request("web", cpu=3_000).document(), a_request("db", cpu=3_000).document()]}

    [plan] = (await console.ask("plan", min_sequence=3, document=document)).items

    assert [decision["status"] for decision in plan["decisions"]] == ["placed", "queued"]
    assert plan["decisions"][0]["allocations"] == [{"id": "web.0", "node": "n1"}]
    assert (await console.ask("requests")).items == ()


async def test_a_plan_that_is_none_is_refused_with_the_path(console: RunningProcess) -> None:
    answer = await console.ask("plan", document={"requests": [{"id": "web", "namespace": "team-a", "cuont": 2}]})

    assert answer.refusal is not None
    assert answer.refusal.code.value == "invalid"
    assert "requests[0].cuont" in answer.refusal.detail


async def test_the_console_shows_its_own_metrics_and_ends_quickly_when_asked(console: RunningProcess) -> None:
    await console.ask("nodes")
    await console.until_shown("/metrics", 'berth_ready{instance="console-')

    console.process.send_signal(signal.SIGTERM)

    assert await console.process.wait() == 0


async def test_a_port_that_is_taken_is_said_in_one_line(real_server: RealServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment = {
            **os.environ,
            "BERTH_CONSOLE_USER": "console",
            "BERTH_CONSOLE_NATS_URL": real_server.server.url,
            "BERTH_CONSOLE_PORT": str(taken.getsockname()[1]),
            "BERTH_CONSOLE_LOG_FORMAT": "text",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "berth_console", env=environment, cwd=tmp_path, stderr=asyncio.subprocess.PIPE
        )
        _, written = await process.communicate()

    assert process.returncode == 2
    assert b"cannot listen on 127.0.0.1 port" in written
    assert b"Traceback" not in written

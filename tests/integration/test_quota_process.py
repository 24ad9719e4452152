"""Quota services as processes with their own rights on a real server: decisions, limits, a standby that takes over."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from berth import subjects
from berth.adapters.system_clock import SystemClock
from berth.adapters.users import seed_file
from berth.messages.commands import AdminAnswer, ApplyQuotas, Query, QueryAnswer
from berth.messages.decisions import Decision
from berth.messages.documents import QuotaDocument
from berth.ports import Envelope
from berth.wire import codec
from tests.builders import TEAM_A, a_request
from tests.contract.worlds import RealWorld
from tests.nats_fixture import ROOT, RealServer, real_server
from tests.unit.runtime.stage import Stage, until

__all__ = ["real_server"]

pytestmark = pytest.mark.nats

REPOSITORY = Path(__file__).parents[2]
USERS = ("quota-1", "quota-2")


@pytest.fixture
async def stage(real_server: RealServer) -> AsyncIterator[Stage]:
    await real_server.bootstrap(ack_wait_seconds=1.0)
    stage = Stage(RealWorld(real_server), SystemClock())
    await stage.open(ROOT)
    await stage.lead()
    yield stage
    await stage.close()


@pytest.fixture(autouse=True)
async def quotas(stage: Stage, real_server: RealServer) -> AsyncIterator[list[Process]]:
    """Both processes, ready; ended when the test is over."""
    del stage
    running = [await started(real_server, user) for user in USERS]
    yield running
    for process in running:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                await process.communicate()
            assert process.returncode == 0


async def started(server: RealServer, user: str) -> Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BERTH_", "OTEL_"))}
    environment |= {
        "BERTH_QUOTA_USER": user,
        "BERTH_QUOTA_NATS_URL": server.server.url,
        "BERTH_QUOTA_NKEY_FILE": str(seed_file(server.keys, user)),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "berth_quota", cwd=REPOSITORY, env=environment, stdout=PIPE, stderr=PIPE
    )
    assert process.stderr is not None
    async with asyncio.timeout(30):
        while json.loads(await process.stderr.readline())["event"] != "service_started":
            pass
    return process


class Client:
    """Submits what no reservation can serve, so that quota alone decides, and hears the decisions."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._heard: asyncio.Queue[Decision] = asyncio.Queue()

    async def listen(self) -> None:
        end = await self._stage.bus.subscribe(subjects.DECISION.pattern(), self._hear)
        self._stage.ends.append(end)

    def _hear(self, envelope: Envelope) -> None:
        self._heard.put_nowait(codec.decode(Decision, envelope.payload))

    def submit(self, request: str, *, cpu: int = 1_000) -> None:
        body = codec.encode_requests([a_request(request, reservation="unknown", cpu=cpu)])
        self._stage.bus.publish(subjects.REQUEST.of(namespace=TEAM_A), body)

    async def decision(self, request: str) -> Decision:
        """The next one about `request`."""
        async with asyncio.timeout(30):
            while (decision := await self._heard.get()).request != request:
                pass
        return decision


async def active(stage: Stage) -> list[str]:
    """The users whose process holds the pin, as `$SRV` says."""
    heard = await stage.listen("_INBOX_test.pings")
    stage.bus.publish("$SRV.PING.berth-quota", b"", reply="_INBOX_test.pings")
    await until(lambda: len(heard) == len(USERS))
    metadata = [json.loads(envelope.payload)["metadata"] for envelope in heard]
    return [one["user"] for one in metadata if one["active"] == "true"]


async def test_one_is_active_and_the_standby_takes_over_when_it_is_killed(stage: Stage, quotas: list[Process]) -> None:
    client = Client(stage)
    await client.listen()
    client.submit("first")
    first = await client.decision("first")
    (holder,) = await active(stage)

    quotas[USERS.index(holder)].kill()
    await quotas[USERS.index(holder)].wait()
    client.submit("second")
    second = await client.decision("second")

    assert (first.status, first.attempt, first.reasons[0].code) == ("rejected", 1, "reservation_unknown")
    assert (second.status, second.attempt) == ("rejected", 1)
    assert second.sequence > first.sequence


async def test_a_body_that_is_another_one_is_a_conflict_and_the_same_one_is_told_again(stage: Stage) -> None:
    client = Client(stage)
    await client.listen()
    client.submit("web")
    first = await client.decision("web")

    client.submit("web")
    again = await client.decision("web")
    client.submit("web", cpu=2_000)
    other = await client.decision("web")

    assert (again.digest, again.sequence) == (first.digest, first.sequence)
    assert (other.reasons[0].code, other.sequence) == ("conflict", 0)
    assert other.digest != first.digest


async def test_a_quota_is_set_and_requests_are_answered_from_the_fold(stage: Stage) -> None:
    client = Client(stage)
    await client.listen()
    quota = QuotaDocument.model_validate({"namespace": TEAM_A, "hard": {"cpu_cores": 4}}, strict=False)
    applied = await stage.ask(subjects.ADMIN_QUOTA.of(), codec.encode(ApplyQuotas(quotas=(quota,))))
    client.submit("web")
    decision = await client.decision("web")

    asked = await stage.ask(
        subjects.QUERY.of(namespace=TEAM_A, what="requests"),
        codec.encode(Query(ids=("web",), min_sequence=decision.sequence)),
    )

    answer = codec.decode(AdminAnswer, applied.payload)
    assert (answer.refusal, answer.sequence) == (None, 3)
    (row,) = codec.decode(QueryAnswer, asked.payload).items
    assert (row["status"], row["sequence"]) == ("rejected", decision.sequence)

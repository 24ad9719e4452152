"""The scheduler as its own process with its own rights on a real server: a node registers, a request is placed."""

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
from berth.ids import Attempt, NodeId
from berth.messages.commands import (
    AdminAnswer,
    Evaluation,
    EvaluationAnswer,
    EvaluationItem,
    NodeAllocationsWanted,
    NodeAnswer,
    NodeRegister,
    Verdict,
)
from berth.messages.documents import NodeDocument
from berth.messages.node_commands import SetNode
from berth.wire import codec
from tests.builders import a_request
from tests.contract.worlds import RealWorld
from tests.nats_fixture import ROOT, RealServer, real_server
from tests.unit.runtime.stage import Stage

__all__ = ["real_server"]

pytestmark = pytest.mark.nats

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
async def stage(real_server: RealServer) -> AsyncIterator[Stage]:
    await real_server.bootstrap()
    stage = Stage(RealWorld(real_server), SystemClock())
    await stage.open(ROOT)
    await stage.lead()
    yield stage
    await stage.close()


@pytest.fixture(autouse=True)
async def scheduler(stage: Stage, real_server: RealServer) -> AsyncIterator[Process]:
    """The process, ready; ended when the test is over."""
    del stage
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BERTH_", "OTEL_"))}
    environment |= {
        "BERTH_SCHEDULER_USER": "scheduler-1",
        "BERTH_SCHEDULER_NATS_URL": real_server.server.url,
        "BERTH_SCHEDULER_NKEY_FILE": str(seed_file(real_server.keys, "scheduler-1")),
    }
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "berth_scheduler", cwd=REPOSITORY, env=environment, stdout=PIPE, stderr=PIPE
    )
    assert running.stderr is not None
    async with asyncio.timeout(30):
        while json.loads(await running.stderr.readline())["event"] != "service_started":
            pass
    yield running
    running.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        await running.communicate()
    assert running.returncode == 0


async def test_a_node_registers_a_request_is_placed_and_the_agent_reads_its_list(stage: Stage) -> None:
    node = NodeDocument.model_validate({"id": "n1", "capacity": {"cpu_cores": 4}}, strict=False)
    register = codec.encode(NodeRegister(node=node, session="s1"))
    request = a_request(cpu=1_000)
    item = EvaluationItem(request=request, digest=codec.request_digest(request), attempt=Attempt(1), missing=1)

    registered = await stage.ask(subjects.NODE_REGISTER.of(node="n1"), register)
    evaluated = await stage.ask(subjects.EVALUATE.of(), codec.encode(Evaluation(id="e1", items=(item,))))
    wanted = codec.encode(NodeAllocationsWanted(node=NodeId("n1")))
    listed = await stage.ask(subjects.NODE_ALLOCATIONS.of(node="n1"), wanted)

    assert codec.decode(NodeAnswer, registered.payload).heartbeat_ms == 1_000
    (outcome,) = codec.decode(EvaluationAnswer, evaluated.payload).outcomes
    assert (outcome.verdict, outcome.sequence) == (Verdict.ACCEPTED, 4)
    answer = codec.decode(NodeAnswer, listed.payload)
    assert [one["id"] for one in answer.allocations] == ["team-a/web.0"]
    assert answer.sequence == 4


async def test_a_command_that_names_nothing_known_is_refused_and_harms_nobody(stage: Stage, scheduler: Process) -> None:
    stage.bus.publish(subjects.EVALUATE.of(), b"{}", reply="nobody")
    unknown = await stage.ask(subjects.ADMIN_NODE.of(), codec.encode(SetNode(node=NodeId("n9"), schedulable=False)))
    ping = json.loads((await stage.ask("$SRV.PING.berth-scheduler")).payload)

    refusal = codec.decode(AdminAnswer, unknown.payload).refusal
    assert refusal is not None and refusal.code == "not_found"
    assert ping["metadata"]["ready"] == "true"
    assert scheduler.returncode is None

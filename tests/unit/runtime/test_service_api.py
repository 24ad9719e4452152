"""`$SRV` answers as ADR-32 writes them: the shapes that the stock tools read."""

import asyncio
from typing import Any

import orjson
import pytest

from berth import subjects
from berth.effects import Identity
from berth.runtime.intake import endpoint_of
from berth.runtime.service_api import Endpoint, ServiceApi
from tests.unit.runtime.stage import Stage


async def an_api(stage: Stage, user: str = "quota-1", name: str = "berth-quota") -> ServiceApi:
    api = ServiceApi(
        bus=await stage.world.connect(user),
        name=name,
        identity=Identity(user=user, boot="b1"),
        version="0.1.0",
        description="Berth quota service",
        endpoints=[Endpoint(subject=subjects.ADMIN_QUOTA, pattern="berth.v1.admin.quota", queue="quota")],
        metadata=lambda: {"sequence": "7"},
        started_ms=1_767_225_600_000,
    )
    await api.start()
    return api


async def ask(stage: Stage, subject: str) -> dict[str, Any]:
    return orjson.loads((await stage.ask(subject)).payload)


@pytest.mark.parametrize("level", ["", ".berth-quota", ".berth-quota.quota-1-b1"])
async def test_a_ping_is_answered_on_all_three_levels(stage: Stage, level: str) -> None:
    await an_api(stage)

    assert await ask(stage, f"$SRV.PING{level}") == {
        "type": "io.nats.micro.v1.ping_response",
        "name": "berth-quota",
        "id": "quota-1-b1",
        "version": "0.1.0",
        "metadata": {"sequence": "7"},
    }


async def test_info_names_the_endpoints(stage: Stage) -> None:
    await an_api(stage)

    info = await ask(stage, "$SRV.INFO.berth-quota")

    assert info["type"] == "io.nats.micro.v1.info_response"
    assert info["description"] == "Berth quota service"
    assert info["endpoints"] == [
        {
            "name": "admin_quota",
            "subject": "berth.v1.admin.quota",
            "queue_group": "quota",
            "metadata": {"summary": "set or remove quotas and cohorts"},
        }
    ]


async def test_statistics_count_what_was_handled_and_what_failed(stage: Stage) -> None:
    (endpoint,) = (await an_api(stage)).endpoints
    endpoint.handled(3_000)
    endpoint.handled(5_000)
    endpoint.failed("a bug")

    stats = await ask(stage, "$SRV.STATS.berth-quota")

    assert stats["type"] == "io.nats.micro.v1.stats_response"
    assert stats["started"] == "2026-01-01T00:00:00Z"
    assert stats["endpoints"] == [
        {
            "name": "admin_quota",
            "subject": "berth.v1.admin.quota",
            "queue_group": "quota",
            "num_requests": 2,
            "num_errors": 1,
            "last_error": "a bug",
            "processing_time": 8_000,
            "average_processing_time": 4_000,
        }
    ]


async def test_everybody_answers_the_ping_to_all(stage: Stage) -> None:
    await an_api(stage)
    await an_api(stage, "quota-2")
    await an_api(stage, "scheduler-1", "berth-scheduler")
    inbox = stage.bus.new_inbox()
    heard = await stage.listen(inbox)

    stage.bus.publish("$SRV.PING", b"", reply=inbox)
    await asyncio.sleep(1)

    assert sorted(orjson.loads(envelope.payload)["id"] for envelope in heard) == [
        "quota-1-b1",
        "quota-2-b1",
        "scheduler-1-b1",
    ]


async def test_after_its_end_it_is_silent(stage: Stage) -> None:
    (await an_api(stage)).close()
    heard = await stage.listen("inbox")

    stage.bus.publish("$SRV.PING", b"", reply="inbox")
    await asyncio.sleep(1)

    assert [envelope.status for envelope in heard] == [503]


@pytest.mark.parametrize(
    ("role", "pattern", "queue"),
    [
        (subjects.QUOTA, "berth.v1.query.*.requests", "query"),
        (subjects.CONSOLE, "berth.v1.query.*.*", "query"),
        (subjects.RAFT, "berth.v1.query._.raft", None),
    ],
)
def test_each_role_takes_its_own_part_of_the_questions(role: str, pattern: str, queue: str | None) -> None:
    endpoint = endpoint_of(subjects.QUERY, role)

    assert (endpoint.pattern, endpoint.queue) == (pattern, queue)

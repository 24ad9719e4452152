"""The runner on a real nats-server, each service with the permissions of its user."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
import tenacity
from nats.micro.service import ServiceInfo, ServicePing, ServiceStats

from berth import subjects
from berth.adapters.permissions import permissions
from berth.adapters.system_clock import SystemClock
from berth.adapters.users import User
from berth.effects import Ask, Effect, Message, Publish, Reply
from berth.errors import TimedOut, Unreachable
from berth.ids import Namespace, RequestId
from berth.messages.commands import ApplyQuotas, Evaluation, EvaluationAnswer, NoResponders
from berth.messages.decisions import Decision
from berth.messages.events import RequestStatus
from berth.runtime import process, traceparent
from berth.runtime.intake import endpoint_of
from berth.wire import codec
from tests.contract.worlds import RealWorld
from tests.nats_fixture import ROOT, RealServer, real_server
from tests.unit.runtime.stage import (
    ADMIN,
    APPLY,
    QUOTA_SET,
    RememberedSpans,
    Scripted,
    Stage,
    acknowledge,
    reply,
    submit,
    until,
)
from tests.unit.runtime.test_walk_trace import CLIENT, Quota, Scheduler, walk

__all__ = ["real_server"]

pytestmark = pytest.mark.nats

AGAIN = tenacity.AsyncRetrying(
    retry=tenacity.retry_if_exception_type((Unreachable, TimedOut)),
    wait=tenacity.wait_fixed(0.1),
    stop=tenacity.stop_after_attempt(50),
    reraise=True,
)
"""A client's patience while connections come back one after another."""


async def emptied(real_server: RealServer) -> None:
    """Return when the work queue holds nothing any more."""
    api = await real_server.api()
    async with asyncio.timeout(20):
        while (await api.call("STREAM.INFO.REQUESTS"))["state"]["messages"]:  # noqa: ASYNC110 the server tells nobody
            await asyncio.sleep(0.05)


@pytest.fixture
async def stage(real_server: RealServer) -> AsyncIterator[Stage]:
    """A server with streams, a created ledger, and nobody there."""
    await real_server.bootstrap()
    stage = Stage(RealWorld(real_server), SystemClock())
    await stage.open(ROOT)
    yield stage
    await stage.close()


async def test_a_request_walks_through_all_services_and_leaves_one_trace(stage: Stage) -> None:
    spans, (decision,), (last,) = await walk(stage, CLIENT, "web")

    chain = [last]
    by_context = {span.context: span for span in spans.all}
    while chain[-1] in by_context:
        chain.append(by_context[chain[-1]].parent)
    assert decision.status is RequestStatus.PLACED
    assert chain[-1] == CLIENT
    assert len(chain) == 6


async def test_a_burst_of_requests_is_decided_whole_and_nothing_stays_in_the_queue(
    stage: Stage, real_server: RealServer
) -> None:
    heard = await stage.listen("berth.v1.decision.>")
    await stage.lead()
    await stage.start(Quota(), "quota-1")
    await stage.start(Scheduler(), "scheduler-1")

    for burst in range(20):
        submit(stage, *(f"r{burst}-{number}" for number in range(10)))
    await until(lambda: len(heard) >= 200, within_seconds=40)

    assert {envelope.subject.rpartition(".")[2] for envelope in heard} == {
        f"r{burst}-{number}" for burst in range(20) for number in range(10)
    }
    await emptied(real_server)


async def test_poison_is_stored_with_its_reason_and_headers(stage: Stage, real_server: RealServer) -> None:
    decisions = await stage.listen("berth.v1.decision.>")
    await stage.start(Scripted(subjects.REQUEST, handle=acknowledge), "quota-1")

    body = b'[{"id":"web","namespace":"team-a","resources":{"cpu_cores":"many"}}]'
    stage.bus.publish(subjects.REQUEST.of(namespace="team-a"), body, headers={"Nats-Msg-Id": "m1", "x-from": "hand"})
    await until(lambda: decisions)

    await emptied(real_server)
    dead = await (await real_server.api()).call("STREAM.INFO.DEADLETTER")
    assert dead["state"]["messages"] == 1
    told = codec.decode(Decision, decisions[0].payload)
    assert (told.namespace, told.request, told.status) == (
        Namespace("team-a"),
        RequestId("web"),
        RequestStatus.REJECTED,
    )


async def test_the_nudge_makes_a_service_active(stage: Stage) -> None:
    nudge = Publish(subject=subjects.REQUEST, body=None, tokens={"namespace": "_"}, message_id="nudge-2")

    def handle(message: Message) -> list[Effect]:
        return [nudge] if isinstance(message.body, ApplyQuotas) else acknowledge(message)

    running = await stage.start(Scripted(subjects.REQUEST, subjects.ADMIN_QUOTA, handle=handle), "quota-1")
    stage.bus.publish(ADMIN, APPLY)
    await until(lambda: running.runner.metadata()["active"] == "true")


async def test_nobody_to_evaluate_is_heard_at_once(stage: Stage) -> None:
    asked = Ask(subject=subjects.EVALUATE, body=Evaluation(id="e1", items=()), token="t1", tokens={})

    def handle(message: Message) -> list[Effect]:
        return [asked] if isinstance(message.body, ApplyQuotas) else []

    service = Scripted(subjects.ADMIN_QUOTA, handle=handle)
    await stage.start(service, "quota-1")
    stage.bus.publish(ADMIN, APPLY)
    await until(lambda: len(service.handled) == 2)

    assert service.bodies[1] == NoResponders(token="t1")


async def test_a_service_goes_on_after_the_server_was_killed(stage: Stage, real_server: RealServer) -> None:
    def answer(message: Message) -> list[Effect]:
        assert message.reply_to is not None
        return [Reply(to=message.reply_to, body=EvaluationAnswer(id=message.body.id, outcomes=()))]

    service = Scripted(subjects.EVALUATE, role=subjects.SCHEDULER, handle=answer)
    await stage.start(service, "scheduler-1")

    real_server.restart()
    await stage.bus.until_connected()
    async for attempt in AGAIN:
        with attempt:
            record = await stage.append(QUOTA_SET)
            assert record.sequence == 3
    await until(lambda: service.folded)
    async for attempt in AGAIN:
        with attempt:
            await stage.ask(subjects.EVALUATE.of(), codec.encode(Evaluation(id="e1", items=())))

    assert [folded.sequence for folded in service.folded] == [3]
    assert len(service.handled) >= 1


async def test_the_stock_client_reads_what_the_service_protocol_answers(stage: Stage) -> None:
    running = await stage.start(Scripted(subjects.ADMIN_QUOTA, handle=reply), "quota-1")
    async with process.described(running.bus, "quota", running.runner.identity, running.runner):
        await stage.ask(ADMIN, APPLY)

        ping = ServicePing.from_dict(orjson.loads((await stage.ask("$SRV.PING")).payload))
        info = ServiceInfo.from_dict(orjson.loads((await stage.ask("$SRV.INFO.berth-quota")).payload))
        found = orjson.loads((await stage.ask(f"$SRV.STATS.berth-quota.{ping.id}")).payload)
        stats = ServiceStats.from_dict(found | {"endpoints": [one | {"data": None} for one in found["endpoints"]]})

    assert (ping.name, ping.metadata["sequence"], ping.metadata["ready"]) == ("berth-quota", "2", "true")
    assert [endpoint.subject for endpoint in info.endpoints] == [ADMIN]
    assert [endpoint.num_requests for endpoint in stats.endpoints] == [1]


async def test_spans_of_replay_are_one(stage: Stage) -> None:
    spans = RememberedSpans()
    for _ in range(20):
        await stage.append(QUOTA_SET)

    await stage.start(Scripted(), "scheduler-1", spans=spans)

    (span,) = spans.all
    assert span.attributes["messaging.batch.message_count"] == 22
    assert traceparent.is_sampled(span.context)


@pytest.mark.parametrize("role", [subjects.QUOTA, subjects.SCHEDULER, subjects.RESERVATION, subjects.CONSOLE])
def test_what_the_runner_subscribes_to_is_what_the_server_permits(role: str) -> None:
    user = User(name=f"{role}-1", role=role, public_key="U")
    permitted = set(permissions(user).subscribe)
    wanted = [subject for subject in subjects.SUBJECTS if role in subject.subscribers]

    for subject in wanted:
        endpoint = endpoint_of(subject, role)
        if subject.stream is None:
            assert f"{endpoint.pattern} {endpoint.queue or ''}".rstrip() in permitted
    assert f"_INBOX_{user.name}.>" in permitted

"""Requests and releases: delivered until acknowledged, to the active service; poison goes to DEADLETTER."""

import asyncio

import orjson

from berth import subjects
from berth.effects import Effect, InProgress, Message, PinLost, Publish
from berth.ids import RequestId
from berth.messages.commands import (
    ApplyQuotas,
    RequestBatch,
)
from berth.messages.decisions import Decision
from berth.messages.envelope import Record
from berth.messages.events import RequestStatus
from berth.wire import codec
from tests.builders import a_request
from tests.unit.runtime.stage import (
    ADMIN,
    APPLY,
    FIRST_SEQUENCE,
    QUOTA_SET,
    Scripted,
    Stage,
    acknowledge,
    submit,
    until,
)


async def test_requests_come_with_a_delivery_and_are_gone_once_acknowledged(stage: Stage) -> None:
    service = Scripted(subjects.REQUEST, subjects.RELEASE, handle=acknowledge)
    await stage.start(service, "quota-1")

    submit(stage, "web", "db")
    stage.bus.publish(subjects.RELEASE.of(namespace="team-a"), b'["web"]')
    await until(lambda: len(service.handled) == 2)
    await asyncio.sleep(30)

    batch = service.bodies[0]
    assert isinstance(batch, RequestBatch)
    assert [request.id for request in batch.requests] == ["web", "db"]
    assert service.bodies[1].requests == ("web",)
    assert [message.delivery and message.delivery.count for message in service.handled] == [1, 1]


async def test_a_request_that_is_not_acknowledged_comes_again_unless_work_is_in_progress(stage: Stage) -> None:
    held: list[Message] = []

    def hold(message: Message) -> list[Effect]:
        held.append(message)
        return []

    def progress(_: list[Message]) -> list[Effect]:
        first = next((message.delivery for message in held if message.body.requests[0].id == "held"), None)
        return [] if first is None else [InProgress(delivery=first)]

    clock = stage.clock
    service = Scripted(subjects.REQUEST, handle=hold, settle=progress, deadline=lambda: clock.now_ms() + 4_000)
    await stage.start(service, "quota-1")

    submit(stage, "held")
    submit(stage, "left")
    await asyncio.sleep(25)

    names = [batch.requests[0].id for batch in service.bodies]
    assert names.count("held") == 1
    assert names.count("left") == 3


async def test_the_nudge_is_a_message_without_a_body(stage: Stage) -> None:
    nudge = Publish(
        subject=subjects.REQUEST,
        body=None,
        tokens={"namespace": subjects.CLUSTER},
        message_id=f"nudge-{FIRST_SEQUENCE}",
    )
    service = Scripted(
        subjects.REQUEST,
        subjects.ADMIN_QUOTA,
        handle=lambda message: [nudge] if isinstance(message.body, ApplyQuotas) else acknowledge(message),
    )
    running = await stage.start(service, "quota-1")
    assert running.runner.metadata()["active"] == "false"

    stage.bus.publish(ADMIN, APPLY)
    stage.bus.publish(ADMIN, APPLY)
    await until(lambda: len(service.handled) >= 3)
    await asyncio.sleep(5)

    assert [message.subject for message in service.handled if message.body is None] == [subjects.REQUEST]
    assert running.runner.metadata()["active"] == "true"


async def test_who_loses_the_pin_is_told(stage: Stage) -> None:
    service = Scripted(subjects.REQUEST, handle=acknowledge)
    await stage.start(service, "quota-1")
    submit(stage, "web")
    await until(lambda: service.handled)

    await stage.world.unpin()
    standby = Scripted(subjects.REQUEST, handle=acknowledge)
    await stage.start(standby, "quota-2")
    submit(stage, "db")
    await until(lambda: PinLost() in service.bodies)


async def test_a_halted_service_leaves_the_pin_to_its_standby(stage: Stage) -> None:
    def fold(record: Record) -> list[Effect]:
        assert record.sequence < 3, "I5"
        return []

    active, standby = (
        Scripted(subjects.REQUEST, handle=acknowledge, fold=fold),
        Scripted(subjects.REQUEST, handle=acknowledge),
    )
    first = await stage.start(active, "quota-1", inbox_messages=2)
    submit(stage, "web")
    await until(lambda: active.handled)
    await stage.start(standby, "quota-2")

    await stage.append(QUOTA_SET)
    await until(lambda: first.runner.halted is not None)
    submit(stage, "db")
    await until(lambda: standby.handled)

    assert len(active.handled) == 1


async def test_what_cannot_be_decoded_is_dead_lettered_at_once_and_its_readable_ids_are_told(stage: Stage) -> None:
    service = Scripted(subjects.REQUEST, handle=acknowledge)
    decisions = await stage.listen("berth.v1.decision.>")
    dead = await stage.listen(subjects.DEADLETTER.pattern())
    await stage.start(service, "quota-1")

    body = [
        {"id": "bad", "namespace": "team-a", "resources": {"cpu_cores": -1}},
        {"id": "good", "namespace": "team-a", "resources": {"cpu_cores": 1}},
        {"id": "NO NAME", "namespace": "team-a"},
    ]
    stage.bus.publish(subjects.REQUEST.of(namespace="team-a"), orjson.dumps(body), headers={"x-from": "hand"})
    await until(lambda: dead and len(decisions) == 2)

    told = [codec.decode(Decision, envelope.payload) for envelope in decisions]
    assert [envelope.subject for envelope in decisions] == [
        "berth.v1.decision.team-a.bad",
        "berth.v1.decision.team-a.good",
    ]
    assert {decision.status for decision in told} == {RequestStatus.REJECTED}
    assert {(decision.digest, decision.sequence) for decision in told} == {("", 0)}
    assert "requests[0].resources.cpu_cores" in (told[0].reasons[0].detail or "")
    assert "another request" in (told[1].reasons[0].detail or "")
    assert dead[0].payload == orjson.dumps(body)
    assert dead[0].headers["x-from"] == "hand"
    assert "requests[0].resources.cpu_cores" in dead[0].headers["Berth-Reason"]
    assert service.handled == []


async def test_a_document_of_another_namespace_is_refused_in_the_sender_s_own(stage: Stage) -> None:
    decisions = await stage.listen("berth.v1.decision.>")
    await stage.start(Scripted(subjects.REQUEST, handle=acknowledge), "quota-1")

    request = a_request("web", namespace="team-b")
    stage.bus.publish(subjects.REQUEST.of(namespace="team-a"), codec.encode_requests([request]))
    await until(lambda: decisions)

    assert decisions[0].subject == "berth.v1.decision.team-a.web"
    detail = codec.decode(Decision, decisions[0].payload).reasons[0].detail
    assert detail == "requests[0].namespace: expected team-a, as the subject says"


async def test_a_request_whose_handler_raises_is_dead_lettered_after_five_deliveries(stage: Stage) -> None:
    def handle(message: Message) -> list[Effect]:
        if message.body.requests[0].id == RequestId("poison"):
            raise ValueError("a bug")
        return acknowledge(message)

    service = Scripted(subjects.REQUEST, handle=handle)
    dead = await stage.listen(subjects.DEADLETTER.pattern())
    await stage.start(service, "quota-1")

    submit(stage, "poison")
    submit(stage, "fine")
    await until(lambda: dead, within_seconds=100)
    await asyncio.sleep(30)

    counts = [message.delivery.count for message in service.handled if message.delivery]
    assert sorted(counts) == [1, 1, 2, 3, 4, 5]
    assert dead[0].headers["Berth-Reason"] == "its handler raised 5 times"
    assert len(dead) == 1


async def test_a_poison_that_only_settle_notices_does_not_take_its_neighbours_along(stage: Stage) -> None:
    acknowledged: list[str] = []

    def settle(unsettled: list[Message]) -> list[Effect]:
        names = [message.body.requests[0].id for message in unsettled]
        assert "poison" not in names, "a bug"
        acknowledged.extend(names)
        return [effect for message in unsettled for effect in acknowledge(message)]

    service = Scripted(subjects.REQUEST, settle=settle)
    dead = await stage.listen(subjects.DEADLETTER.pattern())
    submit(stage, "first")
    submit(stage, "poison")
    submit(stage, "last")
    await stage.start(service, "quota-1")
    await until(lambda: dead, within_seconds=100)

    assert sorted(acknowledged) == ["first", "last"]
    assert len(dead) == 1

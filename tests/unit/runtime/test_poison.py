"""What cannot be handled: refused, delivered again, dead-lettered; and the process goes on."""

import asyncio

import pytest

from berth import subjects
from berth.ids import Attempt
from berth.messages.commands import (
    AdminAnswer,
    Evaluation,
    EvaluationAnswer,
    EvaluationItem,
    RefusalCode,
    Verdict,
)
from berth.runtime.handling import Stuck
from berth.wire import codec
from tests.builders import a_request
from tests.unit.runtime.stage import (
    ADMIN,
    APPLY,
    Scripted,
    Stage,
    fail,
    reply,
    until,
)


async def test_a_command_that_is_none_is_refused_with_the_path(stage: Stage) -> None:
    service = Scripted(subjects.ADMIN_QUOTA, handle=reply)
    await stage.start(service, "quota-1")

    found = await stage.ask(ADMIN, b'{"command":"apply","quotas":[{"namespace":"NO"}]}')

    refusal = codec.decode(AdminAnswer, found.payload).refusal
    assert refusal is not None
    assert refusal.code is RefusalCode.INVALID
    assert "quotas[0].namespace" in refusal.detail
    assert service.handled == []


async def test_a_command_whose_handler_raises_is_refused_and_the_next_one_is_handled(stage: Stage) -> None:
    service = Scripted(
        subjects.ADMIN_QUOTA, handle=lambda message: fail() if len(service.handled) == 1 else reply(message)
    )
    await stage.start(service, "quota-1")

    first = codec.decode(AdminAnswer, (await stage.ask(ADMIN, APPLY)).payload)
    second = codec.decode(AdminAnswer, (await stage.ask(ADMIN, APPLY)).payload)

    assert first.refusal is not None
    assert first.refusal.code is RefusalCode.INTERNAL
    assert second.detail == "yes"


async def test_an_evaluation_whose_handler_raises_is_answered_unavailable_for_each_item(stage: Stage) -> None:
    request = a_request("web")
    item = EvaluationItem(request=request, digest=codec.request_digest(request), attempt=Attempt(1), missing=1)
    await stage.start(Scripted(subjects.EVALUATE, role=subjects.SCHEDULER, handle=fail), "scheduler-1")

    found = await stage.ask(subjects.EVALUATE.of(), codec.encode(Evaluation(id="e1", items=(item,))))

    (outcome,) = codec.decode(EvaluationAnswer, found.payload).outcomes
    assert (outcome.key, outcome.verdict) == (request.key, Verdict.UNAVAILABLE)


async def test_a_full_inbox_refuses_commands(stage: Stage) -> None:
    service = Scripted(subjects.ADMIN_QUOTA, handle=reply)
    await stage.start(service, "quota-1", inbox_messages=10)

    answers = await asyncio.gather(*(stage.ask(ADMIN, APPLY) for _ in range(25)))

    refusals = [codec.decode(AdminAnswer, answer.payload).refusal for answer in answers]
    codes = [refusal.code for refusal in refusals if refusal is not None]
    assert codes == [RefusalCode.OVERLOADED] * 15
    assert len(service.handled) == 10


async def test_a_full_inbox_drops_what_nobody_waits_for(stage: Stage) -> None:
    service = Scripted(subjects.NODE_HEARTBEAT, role=subjects.SCHEDULER)
    running = await stage.start(service, "scheduler-1", inbox_messages=10)

    for _ in range(25):
        stage.bus.publish(subjects.NODE_HEARTBEAT.of(node="n1"), b'{"node":"n1","session":"s"}')
    await until(lambda: service.handled)

    (endpoint,) = running.runner.endpoints
    assert (endpoint.requests, endpoint.errors) == (10, 15)


async def test_settle_that_fails_again_and_again_ends_the_process(stage: Stage) -> None:
    service = Scripted(subjects.ADMIN_QUOTA, settle=lambda unsettled: fail() if unsettled else [])
    running = await stage.start(service, "quota-1")

    for _ in range(9):
        answer = codec.decode(AdminAnswer, (await stage.ask(ADMIN, APPLY)).payload)
        assert answer.refusal is not None
        assert answer.refusal.code is RefusalCode.INTERNAL
    stage.bus.publish(ADMIN, APPLY)

    with pytest.raises(Stuck):
        await running.task

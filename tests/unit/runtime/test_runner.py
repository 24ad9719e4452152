"""The runner: folds, hands over what arrives, settles once, performs in order; what it does when things go wrong."""

import asyncio
from typing import Any

import orjson
import pytest

from berth import subjects
from berth.effects import Acknowledge, Ask, Effect, InProgress, Message, PinLost, Propose, Publish, Reply
from berth.ids import Attempt, Namespace, RequestId, Sequence, Term
from berth.messages.commands import (
    AdminAnswer,
    ApplyQuotas,
    Evaluation,
    EvaluationAnswer,
    EvaluationItem,
    NoResponders,
    Proposal,
    ProposalAnswer,
    QueryAnswer,
    RefusalCode,
    RequestBatch,
    Verdict,
)
from berth.messages.decisions import Decision
from berth.messages.envelope import Record
from berth.messages.events import Event, QuotaSet, RequestStatus
from berth.runtime.follower import OtherHistory
from berth.runtime.handling import Stuck
from berth.runtime.inbox import TURN_MAX
from berth.wire import codec
from tests.builders import a_request
from tests.unit.runtime.stage import FIRST_SEQUENCE, Scripted, Stage, until

QUOTA_SET = (Event(QuotaSet(), Namespace("team-a")),)
ADMIN = subjects.ADMIN_QUOTA.of()
APPLY = orjson.dumps({"command": "apply", "quotas": []})


def reply(message: Message) -> list[Effect]:
    """The script of a service that says yes."""
    return [] if message.reply_to is None else [Reply(to=message.reply_to, body=AdminAnswer(detail="yes"))]


def acknowledge(message: Message) -> list[Effect]:
    return [] if message.delivery is None else [Acknowledge(delivery=message.delivery)]


def fail(*_: Any) -> list[Effect]:
    raise AssertionError("a bug")


async def submit(stage: Stage, *names: str, namespace: str = "team-a") -> None:
    requests = [a_request(name, namespace=namespace) for name in names]
    stage.bus.publish(subjects.REQUEST.of(namespace=namespace), codec.encode_requests(requests))


# --- folding ------------------------------------------------------------------------------------------


async def test_the_past_is_replayed_and_what_follows_is_folded(stage: Stage) -> None:
    service = Scripted()

    await stage.start(service, "scheduler-1")
    record = await stage.append(QUOTA_SET)
    await until(lambda: service.folded)

    assert [replayed.sequence for replayed in service.replayed] == [1, 2]
    assert [folded.hash for folded in service.folded] == [record.hash]


async def test_a_command_that_came_during_the_replay_finds_a_service_that_has_caught_up(stage: Stage) -> None:
    service = Scripted(subjects.ADMIN_QUOTA, handle=reply)
    for _ in range(600):
        await stage.append(QUOTA_SET)

    await stage.start(service, "quota-1")
    await stage.ask(ADMIN, APPLY)

    assert len(service.replayed) == 602
    assert len(service.handled) == 1


async def test_a_foreign_message_is_ignored_counted_and_leaves_a_hole(stage: Stage) -> None:
    service = Scripted()
    running = await stage.start(service, "scheduler-1")

    await stage.ledger.append(b"forged", expected=FIRST_SEQUENCE)
    payload = stage.encoded([[codec.encode_event(QUOTA_SET[0])]], seq=4)
    await stage.ledger.append(payload, expected=Sequence(3))
    await until(lambda: service.folded)

    assert running.runner.foreign == 1
    assert service.sequence == 4
    assert running.runner.halted is None


async def test_a_record_that_does_not_fold_halts_the_service_and_leaves_it_readable(stage: Stage) -> None:
    def fold(record: Record) -> list[Effect]:
        assert record.sequence < 3, "I5"
        return []

    def answer(message: Message) -> list[Effect]:
        assert message.reply_to is not None
        return [Reply(to=message.reply_to, body=QueryAnswer(items=({"id": "web"},)))]

    service = Scripted(subjects.QUERY, subjects.ADMIN_QUOTA, fold=fold, handle=answer)
    running = await stage.start(service, "quota-1")
    await stage.append(QUOTA_SET)
    await until(lambda: running.runner.halted is not None)
    await stage.append(QUOTA_SET)

    question = await stage.ask(subjects.QUERY.of(namespace="team-a", what="requests"))

    assert codec.decode(QueryAnswer, question.payload).items == ({"id": "web"},)
    assert running.runner.metadata()["halted"] == "3"
    assert "stopped at sequence 3" in str(running.runner.why_not_ready())
    assert service.sequence == 2
    assert not running.task.done()


async def test_a_service_that_halts_while_it_replays_answers_questions_and_nothing_else(stage: Stage) -> None:
    def answer(message: Message) -> list[Effect]:
        assert message.reply_to is not None
        return [Reply(to=message.reply_to, body=QueryAnswer())]

    service = Scripted(subjects.QUERY, subjects.REQUEST, fold=fail, handle=answer)
    running = await stage.start(service, "quota-1")

    await submit(stage, "web")
    await stage.ask(subjects.QUERY.of(namespace="team-a", what="requests"))

    assert running.runner.halted is not None
    assert [message.subject for message in service.handled] == [subjects.QUERY]


async def test_a_record_of_a_newer_release_halts_and_what_came_before_it_is_folded(stage: Stage) -> None:
    service = Scripted()
    running = await stage.start(service, "scheduler-1")
    unknown = b'{"type":"QuotaSet","version":9,"data":{}}'

    payload = stage.encoded([[unknown]])
    await stage.ledger.append(payload, expected=FIRST_SEQUENCE)
    await until(lambda: running.runner.halted is not None)

    assert running.runner.halted is not None
    assert running.runner.halted.sequence == 3
    assert "version 9" in running.runner.halted.message


async def test_a_leader_of_another_history_ends_the_process(stage: Stage) -> None:
    running = await stage.start(Scripted(), "scheduler-1")

    stage.announce(hash="f" * 64)

    with pytest.raises(OtherHistory):
        await running.task


async def test_an_announcement_of_an_older_term_says_nothing(stage: Stage) -> None:
    await stage.elect(Term(5))
    running = await stage.start(Scripted(), "scheduler-1")

    stage.announce(hash="f" * 64, term=Term(4))
    stage.announce()
    await until(lambda: running.runner.announced is not None)

    assert not running.task.done()


# --- natural batching -----------------------------------------------------------------------------------


async def test_what_arrives_together_is_settled_together(stage: Stage) -> None:
    service = Scripted(subjects.ADMIN_QUOTA, handle=reply)
    await stage.start(service, "quota-1")

    answers = await asyncio.gather(*(stage.ask(ADMIN, APPLY) for _ in range(50)))

    assert len(answers) == 50
    assert [len(burst) for burst in service.settled] == [50]


async def test_settle_is_called_at_the_deadline_although_nothing_arrives(stage: Stage) -> None:
    due = [stage.clock.now_ms() + 700]
    service = Scripted(deadline=lambda: due[0] if due else None, settle=lambda _: [])
    await stage.start(service, "scheduler-1")

    await until(lambda: service.settled_at_ms and service.settled_at_ms[-1] >= due[0])
    due.clear()

    assert service.settled_at_ms[-1] - stage.clock.now_ms() < 100


# --- questions and answers ------------------------------------------------------------------------------


async def test_an_answer_comes_back_under_the_token_of_its_question(stage: Stage) -> None:
    asked = Ask(subject=subjects.EVALUATE, body=Evaluation(id="e1", items=()), token="quota-1-b-1", tokens={})

    def ask(message: Message) -> list[Effect]:
        return [asked] if isinstance(message.body, ApplyQuotas) else []

    def answer(message: Message) -> list[Effect]:
        assert message.reply_to is not None
        return [Reply(to=message.reply_to, body=EvaluationAnswer(id=message.body.id, outcomes=()))] * 2

    service = Scripted(subjects.ADMIN_QUOTA, handle=ask)
    await stage.start(Scripted(subjects.EVALUATE, role=subjects.SCHEDULER, handle=answer), "scheduler-1")
    await stage.start(service, "quota-1")
    stage.bus.publish(ADMIN, APPLY)
    await until(lambda: len(service.handled) == 3)

    assert [message.token for message in service.handled[1:]] == ["quota-1-b-1"] * 2
    assert [message.subject for message in service.handled[1:]] == [subjects.EVALUATE] * 2
    assert isinstance(service.bodies[1], EvaluationAnswer)


async def test_a_question_that_nobody_hears_comes_back_as_no_responders(stage: Stage) -> None:
    asked = Ask(subject=subjects.EVALUATE, body=Evaluation(id="e1", items=()), token="t1", tokens={})
    service = Scripted(
        subjects.ADMIN_QUOTA, handle=lambda message: [asked] if isinstance(message.body, ApplyQuotas) else []
    )
    await stage.start(service, "quota-1")

    stage.bus.publish(ADMIN, APPLY)
    await until(lambda: len(service.handled) == 2)

    assert service.bodies[1] == NoResponders(token="t1")


async def test_a_proposal_is_answered_by_the_leader_and_folded_by_all(stage: Stage) -> None:
    proposal = Proposal(id="quota-1-b-7", transactions=(QUOTA_SET,), view_sequence=FIRST_SEQUENCE)
    service = Scripted(
        subjects.ADMIN_QUOTA,
        handle=lambda message: [Propose(proposal=proposal)] if isinstance(message.body, ApplyQuotas) else [],
    )
    await stage.lead()
    await stage.start(service, "quota-1")

    stage.bus.publish(ADMIN, APPLY)
    await until(lambda: len(service.handled) == 2 and service.folded)

    answer = service.bodies[1]
    assert isinstance(answer, ProposalAnswer)
    assert (answer.id, answer.sequence, answer.outcomes) == (proposal.id, 3, (None,))
    assert service.handled[1].token == proposal.id


async def test_an_answer_of_a_deposed_leader_is_ignored(stage: Stage) -> None:
    proposal = Proposal(id="p1", transactions=(QUOTA_SET,), view_sequence=FIRST_SEQUENCE)
    service = Scripted(
        subjects.ADMIN_QUOTA,
        handle=lambda message: [Propose(proposal=proposal)] if isinstance(message.body, ApplyQuotas) else [],
    )
    heard = await stage.listen(subjects.COMMIT.pattern())
    await stage.elect(Term(4))
    await stage.start(service, "quota-1")
    stage.bus.publish(ADMIN, APPLY)
    await until(lambda: heard)

    for term in (3, 4):
        answer = ProposalAnswer(id="p1", term=Term(term), sequence=Sequence(9), outcomes=(None,))
        stage.bus.publish(heard[0].reply or "", codec.encode(answer))
    await until(lambda: len(service.handled) == 2)

    assert service.bodies[1].term == 4


async def test_a_proposal_too_large_for_the_bus_is_refused_at_home(stage: Stage) -> None:
    huge = (Event(QuotaSet(hard={f"dimension-{number}": 1 for number in range(80_000)}), Namespace("team-a")),)
    proposal = Proposal(id="p1", transactions=(huge, QUOTA_SET), view_sequence=FIRST_SEQUENCE)
    service = Scripted(
        subjects.ADMIN_QUOTA,
        handle=lambda message: [Propose(proposal=proposal)] if isinstance(message.body, ApplyQuotas) else [],
    )
    await stage.start(service, "quota-1")

    stage.bus.publish(ADMIN, APPLY)
    await until(lambda: len(service.handled) == 2)

    answer = service.bodies[1]
    assert isinstance(answer, ProposalAnswer)
    assert [outcome and outcome.code for outcome in answer.outcomes] == [RefusalCode.TOO_LARGE] * 2


async def test_an_answer_too_large_for_the_bus_goes_out_as_a_refusal(stage: Stage) -> None:
    def answer(message: Message) -> list[Effect]:
        assert message.reply_to is not None
        return [Reply(to=message.reply_to, body=QueryAnswer(items=({"text": "x" * 2_000_000},)))]

    await stage.start(Scripted(subjects.QUERY, handle=answer), "quota-1")

    found = await stage.ask(subjects.QUERY.of(namespace="team-a", what="requests"))

    refusal = codec.decode(QueryAnswer, found.payload).refusal
    assert refusal is not None
    assert refusal.code is RefusalCode.TOO_LARGE


# --- what cannot be handled --------------------------------------------------------------------------------


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


# --- the work queue -----------------------------------------------------------------------------------------


async def test_requests_come_with_a_delivery_and_are_gone_once_acknowledged(stage: Stage) -> None:
    service = Scripted(subjects.REQUEST, subjects.RELEASE, handle=acknowledge)
    await stage.start(service, "quota-1")

    await submit(stage, "web", "db")
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

    await submit(stage, "held")
    await submit(stage, "left")
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
    await submit(stage, "web")
    await until(lambda: service.handled)

    await stage.world.unpin()
    standby = Scripted(subjects.REQUEST, handle=acknowledge)
    await stage.start(standby, "quota-2")
    await submit(stage, "db")
    await until(lambda: PinLost() in service.bodies)


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

    await submit(stage, "poison")
    await submit(stage, "fine")
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
    await submit(stage, "first")
    await submit(stage, "poison")
    await submit(stage, "last")
    await stage.start(service, "quota-1")
    await until(lambda: dead, within_seconds=100)

    assert sorted(acknowledged) == ["first", "last"]
    assert len(dead) == 1


# --- the end ---------------------------------------------------------------------------------------------------


async def test_a_service_that_is_asked_to_end_finishes_what_waits(stage: Stage) -> None:
    def handle(message: Message) -> list[Effect]:
        running.stopping.set()
        return reply(message)

    running = await stage.start(Scripted(subjects.ADMIN_QUOTA, handle=handle), "quota-1")

    questions = [asyncio.create_task(stage.ask(ADMIN, APPLY)) for _ in range(TURN_MAX + 10)]
    await running.task

    answers = [codec.decode(AdminAnswer, (await question).payload) for question in questions]
    assert {answer.detail for answer in answers} == {"yes"}


async def test_a_service_that_still_waits_for_its_ledger_ends_when_asked(stage: Stage) -> None:
    stage.world.stop()
    running = await stage.launch(Scripted(), "scheduler-1")
    await asyncio.sleep(3)
    assert "folding the ledger" in str(running.runner.why_not_ready())

    await running.stop()

"""The runner: folds, hands over what arrives, settles once, performs in order, ends when asked."""

import asyncio

import pytest

from berth import subjects
from berth.effects import Ask, Effect, Message, Propose, Reply
from berth.ids import Namespace, Sequence, Term
from berth.messages.commands import (
    AdminAnswer,
    ApplyQuotas,
    Evaluation,
    EvaluationAnswer,
    NoResponders,
    Proposal,
    ProposalAnswer,
    QueryAnswer,
    RefusalCode,
)
from berth.messages.envelope import Record
from berth.messages.events import Event, QuotaSet
from berth.runtime.follower import OtherHistory
from berth.runtime.inbox import TURN_MAX
from berth.wire import codec
from tests.unit.runtime.stage import (
    ADMIN,
    APPLY,
    FIRST_SEQUENCE,
    QUOTA_SET,
    Scripted,
    Stage,
    fail,
    reply,
    submit,
    until,
)

# --- folding ---------------------------------------------------------------------------------------------


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

    submit(stage, "web")
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


# --- natural batching ------------------------------------------------------------------------------------


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


# --- questions and answers -------------------------------------------------------------------------------


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


# --- the end ---------------------------------------------------------------------------------------------


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

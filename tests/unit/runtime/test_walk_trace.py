"""One request, one trace: the whole walk through the simulated world, by services that know no spans."""

from typing import Any

from berth import subjects
from berth.effects import Acknowledge, Ask, Effect, Message, Propose, Publish, Reply
from berth.ids import AllocationId, Attempt, NodeId, Sequence
from berth.messages.commands import (
    Evaluation,
    EvaluationAnswer,
    EvaluationItem,
    EvaluationOutcome,
    Proposal,
    ProposalAnswer,
    RequestBatch,
    Verdict,
)
from berth.messages.decisions import Decision
from berth.messages.envelope import Record
from berth.messages.events import AllocationPlaced, RequestPlaced, RequestStatus, RequestSubmitted, about
from berth.resources import Resources
from berth.runtime import traceparent
from berth.wire import codec
from tests.builders import a_request
from tests.unit.runtime.stage import RememberedSpans, Scripted, Stage, until

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = CLIENT[:-1] + "0"

PROCESS_REQUEST = "process berth.v1.request.{namespace}"
PROCESS_EVALUATE = "process berth.v1.evaluate"
PUBLISH_DECISION = "publish berth.v1.decision.{namespace}.{request}"


def an_item(request: str, context: str | None) -> EvaluationItem:
    body = a_request(request)
    return EvaluationItem(
        request=body, digest=codec.request_digest(body), attempt=Attempt(1), missing=1, traceparent=context
    )


def an_evaluation(*items: EvaluationItem) -> Ask:
    return Ask(subject=subjects.EVALUATE, body=Evaluation(id="e1", items=items), token="t1", tokens={})


def placed(item: EvaluationItem) -> tuple[Any, ...]:
    allocation = AllocationPlaced(id=AllocationId("web.0"), node=NodeId("n1"), charge=Resources(1, 0, 0, 1))
    return (
        about(
            item.request.key,
            RequestSubmitted(request=item.request, digest=item.digest),
            attempt=item.attempt,
            traceparent=item.traceparent,
        ),
        about(
            item.request.key,
            RequestPlaced(allocations=(allocation,)),
            attempt=item.attempt,
            traceparent=item.traceparent,
        ),
    )


class Quota(Scripted):
    """Sends each request to be evaluated; tells and acknowledges when its event comes."""

    def __init__(self) -> None:
        super().__init__(subjects.REQUEST, handle=self._evaluate, fold=self._decide)
        self._deliveries: list[Acknowledge] = []

    def _evaluate(self, message: Message) -> list[Effect]:
        if not isinstance(message.body, RequestBatch):
            return []
        assert message.delivery is not None
        self._deliveries.append(Acknowledge(delivery=message.delivery))
        return [an_evaluation(*(an_item(request.id, message.traceparent) for request in message.body.requests))]

    def _decide(self, record: Record) -> list[Effect]:
        effects: list[Effect] = []
        for event in (event for transaction in record.transactions for event in transaction):
            if isinstance(event.data, RequestPlaced):
                assert event.key is not None
                decision = Decision(
                    namespace=event.key[0], request=event.key[1], status=RequestStatus.PLACED, sequence=record.sequence
                )
                tokens: dict[str, str] = {"namespace": event.key[0], "request": event.key[1]}
                effects.append(
                    Publish(subject=subjects.DECISION, body=decision, tokens=tokens, traceparent=event.traceparent)
                )
        return effects + list(self._deliveries)


class Scheduler(Scripted):
    """Places everything on n1 in one proposal, and answers when it is committed."""

    def __init__(self) -> None:
        super().__init__(subjects.EVALUATE, role=subjects.SCHEDULER, handle=self._place)
        self._asked: list[tuple[str, Evaluation]] = []

    def _place(self, message: Message) -> list[Effect]:
        if isinstance(message.body, Evaluation):
            assert message.reply_to is not None
            self._asked.append((message.reply_to, message.body))
            transactions = tuple(placed(item) for item in message.body.items)
            return [
                Propose(proposal=Proposal(id="scheduler-1-p1", transactions=transactions, view_sequence=Sequence(2)))
            ]
        assert isinstance(message.body, ProposalAnswer)
        to, evaluation = self._asked.pop()
        outcomes = tuple(
            EvaluationOutcome(
                namespace=item.request.namespace,
                request=item.request.id,
                attempt=item.attempt,
                verdict=Verdict.ACCEPTED,
                traceparent=item.traceparent,
            )
            for item in evaluation.items
        )
        return [Reply(to=to, body=EvaluationAnswer(id=evaluation.id, outcomes=outcomes))]


async def walk(
    stage: Stage, context: str | None, *names: str
) -> tuple[RememberedSpans, list[Decision], list[str | None]]:
    """Submit requests with `context` in the header; the spans of all processes, and what the client heard."""
    spans = RememberedSpans()
    heard = await stage.listen("berth.v1.decision.>")
    await stage.lead(spans)
    await stage.start(Quota(), "quota-1", spans=spans)
    await stage.start(Scheduler(), "scheduler-1", spans=spans)
    requests = codec.encode_requests([a_request(name) for name in names])
    headers = {} if context is None else {"Traceparent": context}
    stage.bus.publish(subjects.REQUEST.of(namespace="team-a"), requests, headers=headers)
    await until(lambda: len(heard) == len(names))
    decisions = [codec.decode(Decision, envelope.payload) for envelope in heard]
    return spans, decisions, [traceparent.of_headers(envelope.headers) for envelope in heard]


async def test_the_walk_of_a_request_is_one_chain_of_spans(stage: Stage) -> None:
    spans, (decision,), (last,) = await walk(stage, CLIENT, "web")

    chain: list[str] = []
    by_context = {span.context: span for span in spans.all}
    while last in by_context:
        chain.append(by_context[last].operation.name)
        last = by_context[last].parent
    assert list(reversed(chain)) == [
        PROCESS_REQUEST,
        PROCESS_EVALUATE,
        "commit berth.v1.commit.{role}",
        "append berth.v1.ledger",
        PUBLISH_DECISION,
    ]
    assert last == CLIENT
    assert decision.trace_id == traceparent.trace_id(CLIENT)


async def test_every_request_of_a_batch_has_its_own_chain(stage: Stage) -> None:
    spans, decisions, _ = await walk(stage, CLIENT, "web", "db", "cache")

    assert len(decisions) == 3
    processed = spans.named(PROCESS_EVALUATE)
    assert [span.attributes["berth.request"] for span in processed] == ["team-a/web", "team-a/db", "team-a/cache"]
    assert {span.parent for span in processed} == {span.context for span in spans.named(PROCESS_REQUEST)}
    assert len({span.context for span in spans.all}) == len(spans.all)


async def test_a_request_without_a_context_begins_its_trace_at_the_first_service(stage: Stage) -> None:
    spans, (decision,), _ = await walk(stage, None, "web")

    (received,) = spans.named("receive berth.v1.request.{namespace}")
    assert received.parent is None
    assert decision.trace_id == traceparent.trace_id(received.context)
    assert spans.named(PROCESS_REQUEST)[0].parent == received.context


async def test_a_request_that_is_not_sampled_makes_no_span_and_keeps_its_trace(stage: Stage) -> None:
    spans, (decision,), headers = await walk(stage, UNSAMPLED, "web")

    assert [span.operation.name for span in spans.all if span.operation.name != "replay berth.v1.ledger"] == []
    assert decision.trace_id == traceparent.trace_id(UNSAMPLED)
    assert headers == [None]

"""One request, one trace: each hop continues the one before, through services that know no spans."""

from dataclasses import replace
from typing import Any

import pytest

from berth import subjects
from berth.effects import Acknowledge, Ask, Effect, Message, Note, Propose, Publish, Reply
from berth.ids import AllocationId, Attempt, Namespace, NodeId, RequestId, RequestKey, Sequence
from berth.messages.commands import (
    AdminAnswer,
    ApplyQuotas,
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
from berth.messages.events import AllocationPlaced, RequestPlaced, RequestQueued, RequestStatus, RequestSubmitted, about
from berth.resources import Resources
from berth.runtime import telemetry, traceparent
from berth.runtime.telemetry import NoSpans, Span
from berth.runtime.tracing import REMEMBERED_NS, Traces
from berth.wire import codec
from tests.builders import a_request
from tests.unit.runtime.stage import RememberedSpans, Scripted, Stage, until

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-1bf7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"
UNSAMPLED = CLIENT[:-1] + "0"
ARRIVED_NS, NOW_NS = 5, 9
WEB: RequestKey = (Namespace("team-a"), RequestId("web"))

PROCESS_REQUEST = "process berth.v1.request.{namespace}"
PROCESS_EVALUATE = "process berth.v1.evaluate"
PROCESS_ANSWER = "process berth.v1.evaluate (answer)"
PROCESS_LEDGER = "process berth.v1.ledger"
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


def queued(context: str | None, request: str = "web") -> Propose:
    key = (Namespace("team-a"), RequestId(request))
    event = about(
        key, RequestQueued(reasons=(), wake=(), evaluated_at=Sequence(1)), attempt=Attempt(1), traceparent=context
    )
    return Propose(proposal=Proposal(id="p1", transactions=((event,),), view_sequence=Sequence(1)))


def brought_by_request(traces: Traces, context: str = CLIENT) -> None:
    batch = RequestBatch(namespace=Namespace("team-a"), requests=(a_request("web"),))
    traces.arrived(
        Message(subject=subjects.REQUEST, body=batch, tokens={"namespace": "team-a"}, traceparent=context), ARRIVED_NS
    )


def context_of(effect: Effect) -> str | None:
    match effect:
        case Ask(body=Evaluation() as evaluation):
            return evaluation.items[0].traceparent
        case Propose():
            return effect.proposal.transactions[0][0].traceparent
        case Reply(body=EvaluationAnswer() as answer):
            return answer.outcomes[0].traceparent
        case _:
            raise AssertionError(effect)


# --- the whole walk -----------------------------------------------------------------------------------


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


# --- rules ----------------------------------------------------------------------------------------------


def test_without_anybody_who_records_effects_leave_untouched() -> None:
    effects: list[Effect] = [an_evaluation(an_item("web", CLIENT))]

    assert Traces(NoSpans()).continued(effects) is effects


def test_a_span_covers_the_time_from_arrival_to_leaving() -> None:
    spans = RememberedSpans()
    traces = Traces(spans, lambda: NOW_NS)
    brought_by_request(traces)

    traces.continued([an_evaluation(an_item("web", CLIENT))])

    assert [(span.start_ns, span.end_ns) for span in spans.all] == [(ARRIVED_NS, NOW_NS)]


def test_a_batch_is_a_trace_of_its_own_linked_to_its_requests() -> None:
    spans = RememberedSpans()
    traces = Traces(spans, lambda: NOW_NS)
    brought_by_request(traces)
    brought_by_request(traces, OTHER)

    traces.continued([an_evaluation(an_item("web", CLIENT), an_item("db", OTHER))])

    (batch,) = spans.named("publish berth.v1.evaluate")
    assert batch.parent is None
    assert batch.attributes["messaging.batch.message_count"] == 2
    assert set(batch.links) == {span.context for span in spans.named(PROCESS_REQUEST)}


def test_an_outcome_without_a_proposal_is_the_end_of_the_scheduler_s_span() -> None:
    spans = RememberedSpans()
    traces = Traces(spans, lambda: NOW_NS)
    item = an_item("web", CLIENT)
    traces.arrived(Message(subject=subjects.EVALUATE, body=Evaluation(id="e1", items=(item,)), tokens={}), ARRIVED_NS)
    outcome = EvaluationOutcome(
        namespace=WEB[0], request=WEB[1], attempt=Attempt(1), verdict=Verdict.UNPLACEABLE, traceparent=CLIENT
    )

    (answer,) = traces.continued([Reply(to="x", body=EvaluationAnswer(id="e1", outcomes=(outcome,)))])

    (span,) = spans.named(PROCESS_EVALUATE)
    assert (span.parent, context_of(answer)) == (CLIENT, span.context)


def test_an_outcome_after_a_proposal_continues_that_proposal_s_span() -> None:
    spans = RememberedSpans()
    traces = Traces(spans, lambda: NOW_NS)
    item = an_item("web", CLIENT)
    traces.arrived(Message(subject=subjects.EVALUATE, body=Evaluation(id="e1", items=(item,)), tokens={}), ARRIVED_NS)
    proposal = Proposal(id="p1", transactions=(placed(item),), view_sequence=Sequence(1))
    outcome = EvaluationOutcome(
        namespace=WEB[0], request=WEB[1], attempt=Attempt(1), verdict=Verdict.ACCEPTED, traceparent=CLIENT
    )

    (proposed,) = traces.continued([Propose(proposal=proposal)])
    (answer,) = traces.continued([Reply(to="x", body=EvaluationAnswer(id="e1", outcomes=(outcome,)))])

    assert len(spans.all) == 1
    assert context_of(answer) == context_of(proposed) == spans.all[0].context


def test_queueing_continues_the_scheduler_s_answer() -> None:
    spans = RememberedSpans()
    traces = Traces(spans, lambda: NOW_NS)
    outcome = EvaluationOutcome(
        namespace=WEB[0], request=WEB[1], attempt=Attempt(1), verdict=Verdict.UNPLACEABLE, traceparent=CLIENT
    )
    answer = EvaluationAnswer(id="e1", outcomes=(outcome,))
    traces.arrived(Message(subject=subjects.EVALUATE, body=answer, tokens={}, token="t1"), ARRIVED_NS)

    (proposed,) = traces.continued([queued(CLIENT)])

    (span,) = spans.named(PROCESS_ANSWER)
    assert (span.parent, context_of(proposed)) == (CLIENT, span.context)


def test_a_wake_up_out_of_the_ledger_is_a_new_trace_that_links_back() -> None:
    spans = RememberedSpans()
    traces = Traces(spans, lambda: NOW_NS)

    (asked,) = traces.continued([an_evaluation(an_item("web", CLIENT))])
    (proposed,) = traces.continued([queued(CLIENT)])

    woken, later = spans.named(PROCESS_LEDGER)
    assert (woken.parent, woken.links) == (None, (CLIENT,))
    assert woken.attributes["berth.submit.trace_id"] == traceparent.trace_id(CLIENT)
    assert traceparent.trace_id(woken.context) != traceparent.trace_id(CLIENT)
    assert (later.parent, later.context) == (woken.context, context_of(proposed))
    assert context_of(asked) == woken.context


def test_a_context_brought_more_than_a_minute_ago_counts_as_stored() -> None:
    spans = RememberedSpans()
    traces = Traces(spans, lambda: ARRIVED_NS + REMEMBERED_NS + 1)
    brought_by_request(traces)

    traces.continued([an_evaluation(an_item("web", CLIENT))])

    assert spans.named(PROCESS_LEDGER)
    assert not spans.named(PROCESS_REQUEST)


def test_a_command_is_one_span_and_its_proposal_carries_the_context() -> None:
    spans = RememberedSpans()
    traces = Traces(spans, lambda: NOW_NS)
    message = Message(subject=subjects.ADMIN_QUOTA, body=ApplyQuotas(), tokens={}, reply_to="x", traceparent=CLIENT)
    traces.arrived(message, ARRIVED_NS)

    proposed, answered = traces.continued(
        [replace(queued(None), traceparent=CLIENT), Reply(to="x", body=AdminAnswer(), traceparent=CLIENT)]
    )

    (span,) = spans.named("process berth.v1.admin.quota")
    assert isinstance(answered, Reply)
    assert span.parent == CLIENT
    assert context_of(proposed) == answered.traceparent == span.context


def test_a_decision_without_an_event_continues_the_request() -> None:
    spans = RememberedSpans()
    traces = Traces(spans, lambda: NOW_NS)
    batch = RequestBatch(namespace=Namespace("team-a"), requests=(a_request("web"),))
    message = Message(subject=subjects.REQUEST, body=batch, tokens={"namespace": "team-a"}, traceparent=CLIENT)
    traces.arrived(message, ARRIVED_NS)
    decision = Decision(namespace=WEB[0], request=WEB[1], status=RequestStatus.REJECTED)

    traces.continued([Publish(subject=subjects.DECISION, body=decision, tokens={}, traceparent=CLIENT)])

    (processed,), (published,) = spans.named(PROCESS_REQUEST), spans.named(PUBLISH_DECISION)
    assert (processed.parent, published.parent) == (CLIENT, processed.context)
    assert published.attributes["berth.outcome"] == "rejected"


def test_what_a_service_notes_of_a_request_stands_on_its_span() -> None:
    spans = RememberedSpans()
    note = Note(name="request_admitted", fields={"namespace": "team-a", "request": "web", "borrowed": 3})

    Traces(spans).continued([note, an_evaluation(an_item("web", CLIENT), an_item("db", None))])

    (span,) = spans.named(PROCESS_LEDGER)
    assert span.attributes["berth.borrowed"] == 3
    assert span.attributes["berth.request"] == "team-a/web"


def test_replay_is_one_span() -> None:
    spans = RememberedSpans()

    Traces(spans).replayed(start_ns=1, records=1_000, events=5_000)

    assert [dict(span.attributes) for span in spans.all] == [
        {"messaging.batch.message_count": 1_000, "berth.events": 5_000}
    ]


def test_the_names_and_kinds_of_spans_are_those_of_the_conventions() -> None:
    operation = telemetry.operation(telemetry.PROCESS, subjects.REQUEST)

    assert operation.name == PROCESS_REQUEST
    assert operation.kind.name == "CONSUMER"
    assert operation.attributes == {
        "messaging.system": "nats",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.template": "berth.v1.request.{namespace}",
        "messaging.nats.stream": "REQUESTS",
    }


# --- the string -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        CLIENT + "\n",
        "ff" + CLIENT[2:],
    ],
)
def test_a_wrong_header_counts_as_none(text: str | None) -> None:
    assert traceparent.accepted(text) is None


def test_headers_are_found_whatever_their_case() -> None:
    assert traceparent.of_headers({"TraceParent": CLIENT}) == CLIENT
    assert traceparent.of_headers({}) is None


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True)])
def test_the_lowest_bit_says_whether_spans_are_wanted(flags: str, sampled: bool) -> None:
    assert traceparent.is_sampled(CLIENT[:-2] + flags) is sampled


def test_the_span_of_an_append_is_computed_from_event_and_sequence() -> None:
    first, second = traceparent.appended(CLIENT, 7), traceparent.appended(CLIENT, 8)

    assert first == traceparent.appended(CLIENT, 7)
    assert first != second
    assert traceparent.accepted(first) == first
    assert traceparent.trace_id(first) == traceparent.trace_id(CLIENT)


def test_a_span_of_a_child_is_in_its_parent_s_trace() -> None:
    child = telemetry.child_of(CLIENT)
    span = Span(
        operation=telemetry.operation("process", subjects.EVALUATE), context=child, parent=CLIENT, start_ns=1, end_ns=2
    )

    assert traceparent.trace_id(span.context) == traceparent.trace_id(CLIENT)
    assert traceparent.span_id(span.context) != traceparent.span_id(CLIENT)

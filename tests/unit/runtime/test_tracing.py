"""How contexts that messages bring are continued in the effects that leave."""

from dataclasses import replace
from typing import Any

from berth import subjects
from berth.effects import Ask, Effect, Message, Note, Propose, Publish, Reply
from berth.ids import AllocationId, Attempt, Namespace, NodeId, RequestId, RequestKey, Sequence
from berth.messages.commands import (
    AdminAnswer,
    ApplyQuotas,
    Evaluation,
    EvaluationAnswer,
    EvaluationItem,
    EvaluationOutcome,
    Proposal,
    RequestBatch,
    Verdict,
)
from berth.messages.decisions import Decision
from berth.messages.events import AllocationPlaced, RequestPlaced, RequestQueued, RequestStatus, RequestSubmitted, about
from berth.resources import Resources
from berth.runtime import telemetry, traceparent
from berth.runtime.telemetry import NoSpans, Span
from berth.runtime.tracing import REMEMBERED_NS, Traces
from berth.wire import codec
from tests.builders import a_request
from tests.unit.runtime.stage import RememberedSpans

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-1bf7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"
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


def test_a_span_of_a_child_is_in_its_parent_s_trace() -> None:
    child = telemetry.child_of(CLIENT)
    span = Span(
        operation=telemetry.operation("process", subjects.EVALUATE), context=child, parent=CLIENT, start_ns=1, end_ns=2
    )

    assert traceparent.trace_id(span.context) == traceparent.trace_id(CLIENT)
    assert traceparent.span_id(span.context) != traceparent.span_id(CLIENT)

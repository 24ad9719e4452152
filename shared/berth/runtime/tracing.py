"""Continues the traces that messages bring in the effects that leave; how and why: `berth.runtime.telemetry`.

Nothing here decides anything: the same effects leave, with other contexts in them.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from berth.effects import Ask, Effect, Message, Note, Propose, Publish, Reply
from berth.ids import RequestKey
from berth.messages.commands import Evaluation, EvaluationAnswer, EvaluationItem, EvaluationOutcome, Proposal
from berth.messages.decisions import Decision
from berth.messages.events import Event
from berth.runtime import telemetry, traceparent
from berth.runtime.telemetry import AttributeValue, Operation, Span, Spans
from berth.subjects import COMMIT, DECISION, EVALUATE, LEDGER, REQUEST, SUBJECTS

REMEMBERED_NS = 60 * 10**9
"""A context brought longer ago counts as stored: what it leads to is a wake-up."""
REMEMBERED_MAX = 65_536

_PROCESS = {subject.name: telemetry.operation(telemetry.PROCESS, subject) for subject in SUBJECTS}
_ANSWERED = {subject.name: telemetry.operation(telemetry.PROCESS, subject, answer=True) for subject in SUBJECTS}
_WAKE = telemetry.operation(telemetry.PROCESS, LEDGER)
_RECEIVE = telemetry.operation(telemetry.RECEIVE, REQUEST)
_PUBLISH_DECISION = telemetry.operation(telemetry.PUBLISH, DECISION)
_PUBLISH_EVALUATION = telemetry.operation(telemetry.PUBLISH, EVALUATE)
_PUBLISH_PROPOSAL = telemetry.operation(telemetry.PUBLISH, COMMIT)
_COMMIT = telemetry.operation(telemetry.COMMIT, COMMIT)
_APPEND = telemetry.operation(telemetry.APPEND, LEDGER)
_REPLAY = telemetry.operation(telemetry.REPLAY, LEDGER)

About = RequestKey | None
"""The request that a span is of."""


@dataclass(slots=True)
class Brought:
    """A context that a message brought. `worked`: the last span made from it, by request."""

    operation: Operation
    at_ns: int
    worked: dict[About, str] = field(default_factory=dict[About, str])


class Traces:
    """The contexts that this process was brought lately, and the spans it made of them."""

    def __init__(self, spans: Spans, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.spans = spans
        self._now_ns = now_ns
        self._brought: OrderedDict[str, Brought] = OrderedDict()

    # --- in ---------------------------------------------------------------------------------------

    def arrived(self, message: Message, at_ns: int) -> Message:
        """Remember what `message` brought. A request that brought no context begins a trace here."""
        if not self.spans.recording:
            return message
        body = message.body
        if isinstance(body, Evaluation):
            for item in body.items:
                self._remember(item.traceparent, _PROCESS[EVALUATE.name], at_ns)
        elif isinstance(body, EvaluationAnswer):
            for outcome in body.outcomes:
                self._remember(outcome.traceparent, _ANSWERED[EVALUATE.name], at_ns)
        elif message.traceparents:
            for context in message.traceparents:
                self._remember(context, _PROCESS[REQUEST.name], at_ns)
        elif message.traceparent is not None and message.token is None:
            self._remember(message.traceparent, _PROCESS[message.subject.name], at_ns)
        elif message.subject is REQUEST and body is not None:
            return self._begun(message, at_ns)
        return message

    def _remember(self, context: str | None, operation: Operation, at_ns: int) -> None:
        if context is None or not traceparent.is_sampled(context):
            return
        self._brought[context] = Brought(operation, at_ns)
        self._brought.move_to_end(context)
        if len(self._brought) > REMEMBERED_MAX:
            self._brought.popitem(last=False)

    def _begun(self, message: Message, at_ns: int) -> Message:
        root = telemetry.new_root(self.spans, _RECEIVE.name)
        if root is None:
            return message
        about: dict[str, AttributeValue] = {telemetry.NAMESPACE: message.tokens["namespace"]}
        self.spans.finished(
            Span(operation=_RECEIVE, context=root, parent=None, start_ns=at_ns, end_ns=self._now_ns(), attributes=about)
        )
        self._remember(root, _PROCESS[REQUEST.name], at_ns)
        return replace(message, traceparent=root)

    # --- out --------------------------------------------------------------------------------------

    def continued(self, effects: list[Effect]) -> list[Effect]:
        """The same effects, each sampled context in them replaced by that of the span of our work."""
        if not self.spans.recording:
            return effects
        leaving = Leaving(self, _said(effects), self._now_ns())
        return [leaving.rewritten(effect) for effect in effects]

    def brought(self, context: str, now_ns: int) -> Brought:
        """Where `context` came from; a wake-up out of the ledger if no message brought it lately."""
        found = self._brought.get(context)
        if found is None or now_ns - found.at_ns > REMEMBERED_NS:
            found = Brought(_WAKE, now_ns)
            self._remember(context, _WAKE, now_ns)
            found = self._brought[context]
        return found

    def replayed(self, *, start_ns: int, records: int, events: int) -> None:
        """One span for everything that was folded at the start."""
        context = telemetry.new_root(self.spans, _REPLAY.name)
        if context is not None:
            counts: dict[str, AttributeValue] = {telemetry.BATCH_COUNT: records, "berth.events": events}
            self.spans.finished(
                Span(
                    operation=_REPLAY,
                    context=context,
                    parent=None,
                    start_ns=start_ns,
                    end_ns=self._now_ns(),
                    attributes=counts,
                )
            )


@dataclass(slots=True)
class Leaving:
    """The effects of one turn on their way out. `said`: what services noted of a request."""

    traces: Traces
    said: Mapping[RequestKey, Mapping[str, AttributeValue]]
    now_ns: int

    def rewritten(self, effect: Effect) -> Effect:
        match effect:
            case Propose():
                return self._propose(effect)
            case Ask(body=Evaluation() as evaluation):
                return replace(effect, body=self._evaluation(evaluation))
            case Reply(body=EvaluationAnswer() as answer):
                return replace(effect, body=self._answer(answer))
            case Publish(body=Decision() as decision):
                return self._decision(effect, decision)
            case Ask() | Publish() | Reply() if traceparent.is_sampled(effect.traceparent):
                assert effect.traceparent is not None
                return replace(effect, traceparent=self._worked(effect.traceparent, None))
            case _:
                return effect

    def _propose(self, effect: Propose) -> Propose:
        proposal, given = effect.proposal, effect.traceparent
        made: dict[tuple[str, About], str] = {}
        transactions = tuple(
            tuple(self._event(event, given, made) for event in transaction) for transaction in proposal.transactions
        )
        if not made:
            return effect
        self._batch(_PUBLISH_PROPOSAL, made.values())
        rewritten = Proposal(id=proposal.id, transactions=transactions, view_sequence=proposal.view_sequence)
        header = next(iter(made.values())) if len(made) == 1 else None
        return Propose(proposal=rewritten, traceparent=header)

    def _event(self, event: Event, given: str | None, made: dict[tuple[str, About], str]) -> Event:
        context = event.traceparent or given
        if context is None or not traceparent.is_sampled(context):
            return event if context == event.traceparent else replace(event, traceparent=context)
        about = None if event.traceparent is None else event.key  # a command about many requests is one piece of work
        if (context, about) not in made:
            made[context, about] = self._work(context, about)
        return replace(event, traceparent=made[context, about])

    def _evaluation(self, evaluation: Evaluation) -> Evaluation:
        made: list[str] = []
        items: list[EvaluationItem] = []
        for item in evaluation.items:
            context = item.traceparent
            if context is not None and traceparent.is_sampled(context):
                made.append(self._work(context, item.request.key))
                items.append(item.model_copy(update={"traceparent": made[-1]}))
            else:
                items.append(item)
        self._batch(_PUBLISH_EVALUATION, made)
        return evaluation.model_copy(update={"items": tuple(items)}) if made else evaluation

    def _answer(self, answer: EvaluationAnswer) -> EvaluationAnswer:
        outcomes: list[EvaluationOutcome] = []
        for outcome in answer.outcomes:
            context = outcome.traceparent
            if context is not None and traceparent.is_sampled(context):
                outcomes.append(outcome.model_copy(update={"traceparent": self._worked(context, outcome.key)}))
            else:
                outcomes.append(outcome)
        return answer.model_copy(update={"outcomes": tuple(outcomes)})

    def _decision(self, effect: Publish, decision: Decision) -> Publish:
        """A decision with an event continues that event's append; another one the message it answers."""
        given = effect.traceparent
        if given is None:
            return effect
        if decision.trace_id is None:
            decision = decision.model_copy(update={"trace_id": traceparent.trace_id(given)})
        if not traceparent.is_sampled(given):
            return replace(effect, body=decision)
        key: RequestKey = (decision.namespace, decision.request)
        parent = traceparent.appended(given, decision.sequence) if decision.sequence else self._worked(given, key)
        attributes = {**self._about(key), telemetry.OUTCOME: decision.status.value}
        context = self._span(_PUBLISH_DECISION, parent=parent, start_ns=self.now_ns, attributes=attributes)
        return replace(effect, body=decision, traceparent=context)

    # --- spans ------------------------------------------------------------------------------------

    def _worked(self, context: str, about: About) -> str:
        """The span of our work on what brought `context`: the one that was made already, or a new one."""
        worked = self.traces.brought(context, self.now_ns).worked
        if about is None and worked:
            return next(reversed(worked.values()))
        return worked[about] if about in worked else self._work(context, about)

    def _work(self, context: str, about: About) -> str:
        """A new span of our work on what brought `context`."""
        brought = self.traces.brought(context, self.now_ns)
        done = brought.worked.get(about)
        if brought.operation is _WAKE:
            made = self._woken(context, done, about)
        else:
            start_ns = brought.at_ns if done is None else self.now_ns
            made = self._span(brought.operation, parent=context, start_ns=start_ns, attributes=self._about(about))
        brought.worked[about] = made
        return made

    def _woken(self, stored: str, done: str | None, about: About) -> str:
        attributes = self._about(about)
        if done is not None:
            return self._span(_WAKE, parent=done, start_ns=self.now_ns, attributes=attributes)
        attributes[telemetry.SUBMIT_TRACE] = traceparent.trace_id(stored)
        return self._span(_WAKE, parent=None, start_ns=self.now_ns, attributes=attributes, links=(stored,))

    def _batch(self, operation: Operation, contexts: Iterable[str]) -> None:
        """One span of its own trace for several that leave together, linked to them."""
        links = tuple(contexts)
        if len(links) < 2:
            return
        root = telemetry.new_root(self.traces.spans, operation.name)
        if root is not None:
            self._emit(
                operation, root, None, self.now_ns, {telemetry.BATCH_COUNT: len(links)}, links[: telemetry.LINKS_MAX]
            )

    def _about(self, key: About) -> dict[str, AttributeValue]:
        if key is None:
            return {}
        return {telemetry.NAMESPACE: key[0], telemetry.REQUEST_ID: f"{key[0]}/{key[1]}", **self.said.get(key, {})}

    def _span(
        self,
        operation: Operation,
        *,
        parent: str | None,
        start_ns: int,
        attributes: Mapping[str, AttributeValue],
        links: tuple[str, ...] = (),
    ) -> str:
        context = telemetry.new_trace() if parent is None else telemetry.child_of(parent)
        self._emit(operation, context, parent, start_ns, attributes, links)
        return context

    def _emit(
        self,
        operation: Operation,
        context: str,
        parent: str | None,
        start_ns: int,
        attributes: Mapping[str, AttributeValue],
        links: tuple[str, ...],
    ) -> None:
        self.traces.spans.finished(
            Span(
                operation=operation,
                context=context,
                parent=parent,
                start_ns=start_ns,
                end_ns=max(self.now_ns, start_ns),
                attributes=attributes,
                links=links,
            )
        )


def _said(effects: Iterable[Effect]) -> dict[RequestKey, dict[str, AttributeValue]]:
    """What the notes say of each request, as attributes of its spans."""
    said: dict[RequestKey, dict[str, AttributeValue]] = {}
    for effect in effects:
        if isinstance(effect, Note) and "namespace" in effect.fields and "request" in effect.fields:
            key: RequestKey = (effect.fields["namespace"], effect.fields["request"])
            attributes = said.setdefault(key, {})
            for name, value in effect.fields.items():
                if name not in ("namespace", "request"):
                    attributes[f"berth.{name}"] = _attribute(value)
    return said


def _attribute(value: Any) -> AttributeValue:
    return value if isinstance(value, str | int | bool | float) else str(value)

"""What one turn does with the messages that came, and with those that cannot be handled.

Decode, hand over, settle once. A message on which the service fails is blamed: a command is answered
`internal`, a message of the work queue comes again, the fifth time it is dead-lettered. When `settle`
fails nobody knows which message it was, so all of the turn are suspects and come one at a time.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from berth.effects import DeadLetter, Effect, Identity, Message, Reply, Service
from berth.errors import BerthError, Halted, InvalidCommand
from berth.ids import Term
from berth.messages.commands import NoResponders, ProposalAnswer, Refusal, RefusalCode
from berth.runtime import decoding, telemetry, traceparent
from berth.runtime.inbox import Incoming
from berth.runtime.service_api import Endpoint
from berth.runtime.tracing import Traces
from berth.subjects import QUERY, REQUEST

log = logging.getLogger(__name__)

DELIVERIES_MAX = 5
SETTLE_FAILURES_MAX = 10
NO_RESPONDERS = 503

BUGS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BerthError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What our own code raises when it is wrong. Anything else (no memory, an interrupt) ends the process."""


class Stuck(BerthError):
    """A service whose `settle` fails again and again: only a fresh fold can help."""

    code = "stuck"


class Handling:
    """Between the inbox and the service. `highest_term` is asked anew for each answer of a leader."""

    def __init__(
        self,
        service: Service,
        identity: Identity,
        traces: Traces,
        *,
        endpoints: Iterable[Endpoint],
        highest_term: Callable[[], Term],
    ) -> None:
        self._service = service
        self._identity = identity
        self._traces = traces
        self._endpoints = {endpoint.subject.name: endpoint for endpoint in endpoints}
        self._highest_term = highest_term
        self._suspects: set[int] = set()
        self._settle_failures = 0
        self._counted: Counter[tuple[str, str]] = Counter()

    def handled(self, taken: list[Incoming], now_ms: int, *, halted: Halted | None) -> list[Effect]:
        """What the service wants done about these messages. A halted one is only asked questions.

        Raises:
            Stuck: it has failed to settle ten times in a row.
        """
        alone = any(_sequence(incoming) in self._suspects for incoming in taken)
        groups = [[incoming] for incoming in taken] if alone else [taken]
        effects = [effect for group in groups for effect in self._group(group, now_ms, halted)]
        for (template, outcome), count in self._counted.items():
            telemetry.MESSAGES.add(count, {telemetry.SUBJECT: template, telemetry.OUTCOME: outcome})
        self._counted.clear()
        return effects

    def told(self, message: Message, now_ms: int) -> list[Effect]:
        """The same for a message that the runner itself made."""
        return self._tried(lambda: self._service.handle(message, now_ms)) or []

    def _group(self, group: list[Incoming], now_ms: int, halted: Halted | None) -> list[Effect]:
        effects = [effect for incoming in group for effect in self._handle(incoming, now_ms, halted)]
        settled = self._tried(lambda: self._service.settle(now_ms))
        if settled is not None:
            self._settle_failures = 0
            return effects + settled
        self._settle_failures += 1
        if self._settle_failures >= SETTLE_FAILURES_MAX and halted is None:
            raise Stuck(f"settle failed {self._settle_failures} times in a row", hint="the log says why")
        answered = {effect.to for effect in effects if isinstance(effect, Reply)}
        for incoming in group:
            if incoming.envelope.reply not in answered:
                effects += self._blamed(incoming)
        return effects

    def _handle(self, incoming: Incoming, now_ms: int, halted: Halted | None) -> list[Effect]:
        began_ns = time.perf_counter_ns()
        if halted is not None and incoming.subject is not QUERY:
            return self._refused(incoming, RefusalCode.INTERNAL, str(halted))
        try:
            message = self._message(incoming)
        except InvalidCommand as error:
            return self._undecodable(incoming, error)
        if message is None:
            return []
        message = self._traces.arrived(message, incoming.at_ns)
        effects = self._tried(lambda: self._service.handle(message, now_ms), message.traceparent)
        if effects is None:
            return self._blamed(incoming)
        self._suspects.discard(_sequence(incoming))
        self._counted[incoming.subject.template, "handled"] += 1
        if incoming.token is None:
            self._endpoints[incoming.subject.name].handled(time.perf_counter_ns() - began_ns)
        return effects

    def _message(self, incoming: Incoming) -> Message | None:
        """Decoded; None for an answer of a leader that was deposed.

        Raises:
            InvalidCommand: the bytes are no message of the subject.
        """
        subject, envelope, token = incoming.subject, incoming.envelope, incoming.token
        if token is None:
            tokens = subject.tokens(envelope.subject)
            assert tokens is not None, f"{envelope.subject} came on {subject.template}"
            body = decoding.decode(subject, envelope.payload, tokens)
        elif envelope.status == NO_RESPONDERS:
            tokens, body = {}, NoResponders(token=token)
        else:
            tokens, body = {}, decoding.decode_answer(subject, envelope.payload)
            if isinstance(body, ProposalAnswer) and 0 < body.term < self._highest_term():
                self._counted[subject.template, "outdated"] += 1
                return None
        return Message(
            subject=subject,
            body=body,
            tokens=tokens,
            reply_to=envelope.reply,
            token=token,
            delivery=incoming.delivery,
            traceparent=traceparent.of_headers(envelope.headers),
            traceparents=traceparent.each_of_headers(envelope.headers) if subject is REQUEST else (),
        )

    # --- what goes wrong ------------------------------------------------------------------------------

    def _tried(self, call: Callable[[], list[Effect]], context: str | None = None) -> list[Effect] | None:
        """What the service wants, or None when it failed, which is logged."""
        try:
            return call()
        except BUGS:
            log.exception("handler_raised", extra={"traceparent": context, "role": self._service.role})
            return None

    def _blamed(self, incoming: Incoming) -> list[Effect]:
        """The service failed on this message: it comes again until the fifth time, or is answered `internal`."""
        self._counted[incoming.subject.template, "raised"] += 1
        delivery = incoming.delivery
        if delivery is None:
            return self._refused(incoming, RefusalCode.INTERNAL, f"{self._identity.user} failed on this; see its log")
        if delivery.count >= DELIVERIES_MAX:
            self._suspects.discard(delivery.stream_sequence)
            return [DeadLetter(delivery=delivery, reason=f"its handler raised {delivery.count} times")]
        self._suspects.add(delivery.stream_sequence)
        return []

    def _undecodable(self, incoming: Incoming, error: InvalidCommand) -> list[Effect]:
        self._counted[incoming.subject.template, "undecodable"] += 1
        context, delivery = traceparent.of_headers(incoming.envelope.headers), incoming.delivery
        fields = {"subject": incoming.envelope.subject, "why": error.message, "traceparent": context}
        log.warning("message_undecodable", extra=fields)
        if delivery is None:
            return self._refused(incoming, RefusalCode.INVALID, error.message)
        namespace = incoming.envelope.subject.rpartition(".")[2]
        decisions = [
            replace(decision, traceparent=context)
            for decision in decoding.invalid_decisions(incoming.envelope.payload, namespace, error)
            if incoming.subject is REQUEST
        ]
        return [*decisions, DeadLetter(delivery=delivery, reason=error.message)]

    def _refused(self, incoming: Incoming, code: RefusalCode, detail: str) -> list[Effect]:
        """The typed no to a command; nothing to what expects no answer."""
        reply = incoming.envelope.reply
        if incoming.token is not None:
            return []
        self._endpoints[incoming.subject.name].failed(detail)
        refusal = Refusal(code=code, detail=detail)
        answer = None if reply is None else decoding.refused(incoming.subject, incoming.envelope.payload, refusal)
        return [] if answer is None or reply is None else [Reply(to=reply, body=answer)]


def _sequence(incoming: Incoming) -> int:
    return 0 if incoming.delivery is None else incoming.delivery.stream_sequence

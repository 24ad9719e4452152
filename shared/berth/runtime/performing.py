"""Does what services want done, in the order *propose, publish, reply, acknowledge* (DESIGN section 1, law 3).

What a stream must store is published until it has it, under one `Nats-Msg-Id`; what comes after it in the
order waits for that, in the background, so a slow stream holds up nobody else. A full outbound queue holds
up everybody: then nothing more is taken from the inbox either.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial

import orjson
import tenacity

from berth.adapters.replies import Replies
from berth.effects import (
    Acknowledge,
    Ask,
    DeadLetter,
    Effect,
    Identity,
    InProgress,
    Message,
    Note,
    Propose,
    Publish,
    Reply,
    in_order,
)
from berth.errors import BerthError, InvalidCommand, Overloaded, TimedOut, Unreachable
from berth.ids import Term
from berth.messages.commands import NoResponders, ProposalAnswer, Refusal, RefusalCode
from berth.messages.decisions import Decision
from berth.ports import Bus, QueuedMessage, RequestQueue
from berth.runtime import decoding, telemetry, traceparent
from berth.subjects import ACK_PENDING_MAX, COMMIT, Subject
from berth.wire import codec

log = logging.getLogger(__name__)

MESSAGE_ID = "Nats-Msg-Id"
ASKED_MAX = 16_384
STORE_WITHIN_SECONDS = 2.0
STORE_GIVE_UP_SECONDS = 60.0


class Performer:
    """One process's way out. `returned`: answers that this side gives itself, for the next turn."""

    def __init__(
        self, bus: Bus, replies: Replies, queue: RequestQueue | None, *, identity: Identity, role: str
    ) -> None:
        self._bus = bus
        self._replies = replies
        self._queue = queue
        self._inbox = f"_INBOX_{identity.user}."
        self._commit = COMMIT.of(role=role)
        self._asked: OrderedDict[str, Subject] = OrderedDict()
        self._held: OrderedDict[int, QueuedMessage] = OrderedDict()
        self._storing: set[asyncio.Task[None]] = set()
        self.returned: list[Message] = []
        self._perform: dict[type, Callable[..., Awaitable[None]]] = {
            Note: self._note,
            Propose: self._propose,
            Ask: self._ask,
            Publish: self._publish,
            Reply: self._reply,
            InProgress: self._in_progress,
            Acknowledge: self._acknowledge,
        }

    # --- what the runner needs to know ------------------------------------------------------------

    def asked(self, token: str) -> Subject | None:
        """Where the question with `token` went; None if this process asked none such lately."""
        return self._asked.get(token)

    def hold(self, message: QueuedMessage) -> None:
        """Keep a message of the work queue as long as it may have to be dead-lettered."""
        self._held[message.sequence] = message
        if len(self._held) > 2 * ACK_PENDING_MAX:
            self._held.popitem(last=False)

    def take_returned(self) -> list[Message]:
        """The answers this side gave itself since the last call."""
        returned, self.returned = self.returned, []
        return returned

    async def perform(self, effects: list[Effect]) -> None:
        """All of them; returns when they are queued for sending, or handed to the background."""
        stored: list[Publish] = []
        afterwards: list[Effect] = []
        for effect in in_order(effects):
            if isinstance(effect, Publish) and effect.subject.stream is not None:
                stored.append(effect)
            elif isinstance(effect, DeadLetter):
                self._in_background(self._dead_letter(effect))
            elif stored and isinstance(effect, Reply | Acknowledge):
                afterwards.append(effect)
            else:
                await self._perform[type(effect)](effect)
        if stored:
            self._in_background(self._store_then(stored, afterwards))

    async def finish(self, within_seconds: float) -> None:
        """Wait for what is being stored; what is not by then is not acknowledged and comes again."""
        if self._storing:
            await asyncio.wait(self._storing, timeout=within_seconds)
        for task in self._storing:
            task.cancel()

    # --- one effect ---------------------------------------------------------------------------------

    async def _note(self, note: Note) -> None:
        telemetry.NOTES.add(1, {"berth.note": note.name})
        log.info(note.name, extra={"fields": note.fields})

    async def _propose(self, effect: Propose) -> None:
        proposal = effect.proposal
        try:
            await self._question(COMMIT, self._commit, codec.encode_proposal(proposal), proposal.id, effect.traceparent)
        except InvalidCommand as error:
            log.exception("proposal_not_sent", extra={"proposal": proposal.id})
            refusal = Refusal(code=RefusalCode.TOO_LARGE, detail=error.message)
            outcomes = (refusal,) * len(proposal.transactions)
            answer = ProposalAnswer(id=proposal.id, term=Term(0), outcomes=outcomes)
            self.returned.append(Message(subject=COMMIT, body=answer, tokens={}, token=proposal.id))

    async def _ask(self, effect: Ask) -> None:
        subject = effect.subject
        try:
            payload = codec.encode(effect.body)
            await self._question(subject, subject.of(**effect.tokens), payload, effect.token, effect.traceparent)
        except InvalidCommand:
            log.exception("question_not_sent", extra={"subject": subject.template, "token": effect.token})
            nobody = NoResponders(token=effect.token)
            self.returned.append(Message(subject=subject, body=nobody, tokens={}, token=effect.token))

    async def _question(self, subject: Subject, to: str, payload: bytes, token: str, context: str | None) -> None:
        self._asked[token] = subject
        if len(self._asked) > ASKED_MAX:
            self._asked.popitem(last=False)
        await self._send(to, payload, _headers(context), self._inbox + token)

    async def _publish(self, effect: Publish) -> None:
        body = effect.body
        if isinstance(body, Decision):
            telemetry.DECISIONS.add(1, {telemetry.OUTCOME: body.status.value})
        try:
            await self._send(effect.subject.of(**effect.tokens), codec.encode(body), _headers(effect.traceparent), None)
        except InvalidCommand:
            log.exception("message_not_sent", extra={"subject": effect.subject.template})

    async def _reply(self, effect: Reply) -> None:
        try:
            await self._send(effect.to, codec.encode(effect.body), _headers(effect.traceparent), None)
        except InvalidCommand as error:
            log.exception("answer_not_sent", extra={"to": effect.to})
            refusal = Refusal(code=RefusalCode.TOO_LARGE, detail=error.message)
            if (instead := decoding.too_large(effect.body, refusal)) is not None:
                await self._send(effect.to, codec.encode(instead), None, None)

    async def _in_progress(self, effect: InProgress) -> None:
        assert self._queue is not None, "only the work queue makes deliveries"
        await _when_there_is_room(partial(self._queue.in_progress, effect.delivery.handle))

    async def _acknowledge(self, effect: Acknowledge) -> None:
        assert self._queue is not None, "only the work queue makes deliveries"
        self._held.pop(effect.delivery.stream_sequence, None)
        await _when_there_is_room(partial(self._queue.acknowledge, effect.delivery.handle))

    async def _send(self, subject: str, payload: bytes, headers: dict[str, str] | None, reply: str | None) -> None:
        """Raises:
        InvalidCommand: too large; nothing was sent.
        """
        await _when_there_is_room(partial(self._bus.publish, subject, payload, headers=headers, reply=reply))

    # --- what a stream must have ----------------------------------------------------------------------

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)

    async def _store_then(self, publishes: list[Publish], afterwards: list[Effect]) -> None:
        try:
            for effect in publishes:
                payload = b"" if effect.body is None else codec.encode(effect.body)
                await self._store(
                    effect.subject.of(**effect.tokens), payload, _headers(effect.traceparent), effect.message_id
                )
        except BerthError:
            log.exception("message_not_stored", extra={"unacknowledged": len(afterwards)})
            return
        for effect in afterwards:
            await self._perform[type(effect)](effect)

    async def _dead_letter(self, effect: DeadLetter) -> None:
        """Store the message with the reason, then acknowledge it; one that cannot be stored comes again."""
        sequence = effect.delivery.stream_sequence
        message = self._held.pop(sequence, None)
        if self._queue is None or message is None:
            log.error("deadletter_unknown", extra={"sequence": sequence, "reason": effect.reason})
            return
        try:
            async for attempt in _persistently():
                with attempt:
                    await self._queue.dead_letter(message, effect.reason)
        except BerthError:
            log.exception("deadletter_not_stored", extra={"sequence": sequence, "reason": effect.reason})
            return
        telemetry.DEADLETTERS.add(1)
        log.error("message_deadlettered", extra={"sequence": sequence, "reason": effect.reason})

    async def _store(
        self, subject: str, payload: bytes, headers: dict[str, str] | None, message_id: str | None
    ) -> None:
        """Publish until the stream says that it has it; the id makes the repetitions one.

        Raises:
            BerthError: it has not after STORE_GIVE_UP_SECONDS, or never can.
        """
        named = dict(headers or {})
        if message_id is not None:
            named[MESSAGE_ID] = message_id
        async for attempt in _persistently():
            with attempt:
                answer = await self._replies.ask(
                    subject, payload, within_seconds=STORE_WITHIN_SECONDS, headers=dict(named)
                )
                _expect_stored(subject, answer.payload)


async def _when_there_is_room(send: Callable[[], None]) -> None:
    """Send now, or as soon as the outbound queue takes it: until then nothing else is done."""
    try:
        send()
    except Overloaded as error:
        log.warning("outbound_queue_filled", extra={"why": error.message})
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Overloaded),
            wait=tenacity.wait_exponential(multiplier=0.005, max=0.25),
        ):
            with attempt:
                send()


def _persistently() -> tenacity.AsyncRetrying:
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type((Unreachable, TimedOut, Overloaded)),
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=2),
        stop=tenacity.stop_after_delay(STORE_GIVE_UP_SECONDS),
        reraise=True,
    )


def _expect_stored(subject: str, answer: bytes) -> None:
    acknowledged = orjson.loads(answer)
    if "error" in acknowledged:
        raise Unreachable(f"{subject} was not stored: {acknowledged['error']}")


def _headers(context: str | None, /) -> dict[str, str] | None:
    return {traceparent.HEADER: context} if context is not None and traceparent.is_sampled(context) else None

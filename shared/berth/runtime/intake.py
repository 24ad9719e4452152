"""How messages reach a service: its subscriptions, the answers to its questions, the work queue.

Everything goes through one bounded inbox. When that is full, a command is answered `overloaded`, a
message nobody waits for is dropped and counted, and the work queue is not pulled from.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

from berth.effects import Delivery, Identity, Message, PinLost
from berth.errors import InvalidCommand, Overloaded
from berth.messages.commands import Refusal, RefusalCode
from berth.ports import Bus, Envelope, QueuedMessage, RequestQueue
from berth.runtime import decoding, telemetry
from berth.runtime.inbox import Inbox, Incoming
from berth.runtime.performing import Performer
from berth.runtime.service_api import Endpoint
from berth.subjects import (
    CLUSTER,
    COMMITTED,
    QUERY,
    QUOTA,
    RAFT,
    RELEASE,
    REQUEST,
    REQUESTS_STREAM,
    Subject,
)
from berth.wire import codec

log = logging.getLogger(__name__)

ANSWERS = "answers"

_ONLY: dict[tuple[str, str], dict[str, str]] = {
    (QUERY.name, QUOTA): {"what": "requests"},
    (QUERY.name, RAFT): {"namespace": CLUSTER, "what": "raft"},
}
"""What a role takes of a subject that it shares with others."""
_EACH = {(QUERY.name, RAFT)}
"""Every raft node answers for itself: no queue group."""


def endpoint_of(subject: Subject, role: str) -> Endpoint:
    """How a service of `role` takes messages of `subject`."""
    key = (subject.name, role)
    queue = None if key in _EACH else subject.queue
    return Endpoint(subject=subject, pattern=subject.pattern(**_ONLY.get(key, {})), queue=queue)


class Intake:
    """One service's way in. `wake` is called when there is something to do; nothing is handled here."""

    def __init__(
        self,
        bus: Bus,
        queue: RequestQueue | None,
        inbox: Inbox,
        performer: Performer,
        *,
        identity: Identity,
        endpoints: Iterable[Endpoint],
        wake: Callable[[], None],
    ) -> None:
        self._bus = bus
        self._queue = queue
        self._inbox = inbox
        self._performer = performer
        self._answers = f"_INBOX_{identity.user}."
        self._wake = wake
        self._room = asyncio.Event()
        self._end: dict[str, Callable[[], None]] = {}
        self._pulling: asyncio.Task[None] | None = None
        self.endpoints = {endpoint.subject.name: endpoint for endpoint in endpoints}

    async def open(self) -> None:
        """Take everything the service declares, and the answers to its questions."""
        self._end[ANSWERS] = await self._bus.subscribe(f"{self._answers}*", self._on_answer)
        await self._subscribe(self.endpoints.values())
        if self._queue is not None and REQUEST.name in self.endpoints:
            self._pulling = asyncio.create_task(self._pull(self._queue), name="pull of the work queue")
            self._pulling.add_done_callback(lambda _: self._wake())

    async def open_queries(self) -> None:
        """Take questions only: what a halted service still does."""
        await self._subscribe(endpoint for name, endpoint in self.endpoints.items() if name == QUERY.name)

    async def _subscribe(self, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            subject = endpoint.subject
            if subject.stream is None and subject is not COMMITTED and subject.name not in self._end:
                receive = self._receiver(subject)
                self._end[subject.name] = await self._bus.subscribe(endpoint.pattern, receive, queue=endpoint.queue)

    def close(self, *, keep: frozenset[str] = frozenset()) -> None:
        """Take nothing more, but of the subjects whose names are in `keep`."""
        if self._pulling is not None:
            self._pulling.cancel()
        for name in [name for name in self._end if name not in keep]:
            self._end.pop(name)()

    def failure(self) -> BaseException | None:
        """What ended the pull of the work queue, which never ends by itself."""
        if self._pulling is None or not self._pulling.done() or self._pulling.cancelled():
            return None
        return self._pulling.exception() or RuntimeError("the pull of the work queue ended")

    def take(self) -> list[Incoming]:
        """Everything that waits, at most one turn's worth."""
        taken = self._inbox.take()
        if not self._inbox.is_half_full:
            self._room.set()
        return taken

    def __len__(self) -> int:
        return len(self._inbox)

    # --- core messages ----------------------------------------------------------------------------

    def _receiver(self, subject: Subject) -> Callable[[Envelope], None]:
        def receive(envelope: Envelope) -> None:
            incoming = Incoming(subject=subject, envelope=envelope, at_ns=time.time_ns())
            if self._inbox.put(incoming):
                self._wake()
            else:
                self._overloaded(incoming)

        return receive

    def _on_answer(self, envelope: Envelope) -> None:
        token = envelope.subject[len(self._answers) :]
        asked = self._performer.asked(token)
        if asked is None:
            telemetry.MESSAGES.add(1, {telemetry.SUBJECT: "answer", telemetry.OUTCOME: "unasked"})
        elif self._inbox.put(Incoming(subject=asked, envelope=envelope, at_ns=time.time_ns(), token=token)):
            self._wake()
        else:
            telemetry.MESSAGES.add(1, {telemetry.SUBJECT: "answer", telemetry.OUTCOME: "dropped"})

    def _overloaded(self, incoming: Incoming) -> None:
        subject, reply = incoming.subject, incoming.envelope.reply
        refusal = Refusal(code=RefusalCode.OVERLOADED, detail=f"{len(self._inbox)} messages wait; try again later")
        answer = decoding.refused(subject, incoming.envelope.payload, refusal) if reply is not None else None
        outcome = "dropped" if answer is None else "overloaded"
        telemetry.MESSAGES.add(1, {telemetry.SUBJECT: subject.template, telemetry.OUTCOME: outcome})
        self.endpoints[subject.name].failed(refusal.detail)
        if answer is None or reply is None:
            return
        try:
            self._bus.publish(reply, codec.encode(answer))
        except (Overloaded, InvalidCommand):
            log.warning("refusal_not_sent", extra={"subject": subject.template})

    # --- the work queue -----------------------------------------------------------------------------

    async def _pull(self, queue: RequestQueue) -> None:
        """Ends with its task: a pull left open would keep the pin."""
        batches = queue.pull()
        try:
            async for batch in batches:
                if not batch and not queue.pinned:
                    lost = Message(subject=REQUEST, body=PinLost(), tokens={"namespace": CLUSTER})
                    self._performer.returned.append(lost)
                    self._wake()
                for incoming in self._queued(batch):
                    if self._inbox.put(incoming):
                        self._wake()
                while self._inbox.is_half_full:
                    self._room.clear()
                    await self._room.wait()
        finally:
            if isinstance(batches, AsyncGenerator):
                await batches.aclose()

    def _queued(self, batch: list[QueuedMessage]) -> Iterator[Incoming]:
        for message in batch:
            subject = REQUEST if REQUEST.tokens(message.subject) is not None else RELEASE
            self._performer.hold(message)
            yield Incoming(
                subject=subject,
                envelope=Envelope(subject=message.subject, payload=message.payload, headers=message.headers),
                at_ns=time.time_ns(),
                delivery=Delivery(
                    stream=REQUESTS_STREAM.name,
                    stream_sequence=message.sequence,
                    count=message.count,
                    handle=message.handle,
                ),
            )

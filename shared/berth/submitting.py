"""From a request to its decision, as a client sees it: batched on the way out, told or asked for on the way back.

The ledger is the answer, a decision message only its notice: a client listens before it submits, asks
every two seconds and after a reconnect, and submits again what nobody knows.
"""

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import orjson

from berth import subjects
from berth.adapters.connection import Connection
from berth.asking import Asking
from berth.errors import BerthError, InvalidCommand, Problem, TimedOut
from berth.ids import RequestKey
from berth.messages.commands import Query, QueryAnswer
from berth.messages.decisions import Decision
from berth.messages.events import RequestStatus
from berth.messages.requests import REQUEST_BYTES_MAX, REQUESTS_PER_BATCH, Request
from berth.ports import Envelope
from berth.runtime import telemetry, traceparent
from berth.wire import codec

ASK_EVERY_SECONDS = 2.0
LOOK_EVERY_SECONDS = 0.25
"""How late a request may be asked for at most: what was in the hands of a process that died waits for no more."""
BATCH_BYTES_MAX = 512 * 1024
TRACED_PER_BATCH = 64
"""Their contexts travel in a header, and headers stay within 4 KiB (RAFT section 6)."""

_PUBLISH = telemetry.operation(telemetry.PUBLISH, subjects.REQUEST)
_PROCESS = telemetry.operation(telemetry.PROCESS, subjects.DECISION)

AskForDecisions = Callable[[str, Query], Awaitable[QueryAnswer]]
"""The rows of a namespace's requests, with their decisions."""


@dataclass(slots=True, kw_only=True, eq=False)
class Pending:
    """A request on its way to a decision. `told` hears every decision, `failed` why it could not be stored.

    `ask_at`, `submit_at`: when it is asked for next, and submitted again if nobody knows it then; loop times.
    """

    request: Request
    digest: str
    told: Callable[[Decision], None]
    failed: Callable[[BerthError], None]
    context: str | None
    ask_at: float
    submit_at: float
    patience: float = ASK_EVERY_SECONDS
    latest: Decision | None = None
    told_by: str | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    """A request that waits to be published. `stored` is called with None, or with why it may not be stored."""

    body: bytes
    context: str | None
    stored: Callable[[BerthError | None], None]


@dataclass(slots=True, kw_only=True)
class _Outgoing:
    """What waits to be published to one namespace. `listens`: somebody wants its decisions."""

    entries: deque[_Entry] = field(default_factory=deque[_Entry])
    sender: asyncio.Task[None] | None = None
    listens: bool = False


class Submissions:
    """Everything that one client has under way."""

    def __init__(self, bus: Connection, asking: Asking, spans: telemetry.Spans, ask: AskForDecisions) -> None:
        self._bus = bus
        self._asking = asking
        self._spans = spans
        self._ask = ask
        self._pending: dict[RequestKey, list[Pending]] = {}
        self._outgoing: dict[str, _Outgoing] = {}
        self._listening: set[str] = set()
        self._asking_regularly: asyncio.Task[None] | None = None
        self._ask_now = asyncio.Event()
        self._end_watch: Callable[[], None] | None = None
        self._term = 0

    def open(self) -> None:
        self._asking_regularly = asyncio.create_task(self._ask_regularly(), name="berth client asks")
        self._end_watch = self._bus.on_connection(regained=self._ask_now.set)

    async def close(self) -> None:
        if self._end_watch is not None:
            self._end_watch()
        tasks = [task for task in (self._asking_regularly, *(one.sender for one in self._outgoing.values())) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def submit(
        self, request: Request, *, until: Iterable[RequestStatus | str] | None = None, timeout: float = 30.0
    ) -> Decision:
        """Submit and wait for the decision (`until`: for one of these statuses; default: any).

        Submitting the same request again is harmless: it gets the outcome that stands. Raises:
            TimedOut: nothing is known of it yet; it may still be decided. `submit` again continues.
            InvalidCommand: it is too large.
        """
        wanted = None if until is None else {str(status) for status in until}
        outcome: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()

        def told(decision: Decision) -> None:
            if not outcome.done() and (wanted is None or decision.status.value in wanted):
                outcome.set_result(decision)

        def failed(error: BerthError) -> None:
            if not outcome.done():
                outcome.set_exception(error)

        pending = self.begin(request, told, failed)
        try:
            async with asyncio.timeout(timeout):
                decision = await outcome
        except TimeoutError:
            if pending.latest is not None:
                return pending.latest
            raise TimedOut(
                f"{request.namespace}/{request.id} has no decision after {timeout:g} s",
                hint="submit it again to go on waiting: the same request is never decided twice",
            ) from None
        finally:
            self.end(pending)
        self._trace_decision(pending, decision)
        return decision

    def begin(
        self, request: Request, told: Callable[[Decision], None], failed: Callable[[BerthError], None]
    ) -> Pending:
        """Submit without a task for it. Both functions are called by this connection's own tasks, until `end`.

        Raises:
            InvalidCommand: it is too large.
        """
        now = asyncio.get_running_loop().time()
        pending = Pending(
            request=request,
            digest=codec.request_digest(request),
            told=told,
            failed=failed,
            context=telemetry.new_root(self._spans, _PUBLISH.name),
            ask_at=now + ASK_EVERY_SECONDS,
            submit_at=now + ASK_EVERY_SECONDS,
        )
        self._pending.setdefault(request.key, []).append(pending)
        self._outgoing_to(request.namespace).listens = True
        try:
            self._submit(pending)
        except InvalidCommand:
            self.end(pending)
            raise
        return pending

    def end(self, pending: Pending) -> None:
        """Nobody waits for it any more; it may still be decided."""
        waiting = self._pending[pending.request.key]
        waiting.remove(pending)
        if not waiting:
            del self._pending[pending.request.key]

    def _submit(self, pending: Pending) -> None:
        def stored(failure: BerthError | None) -> None:
            if failure is not None:
                pending.failed(failure)

        self._put(pending.request, pending.context, stored)

    async def publish(self, request: Request) -> None:
        """Submit without waiting: returns once the bus has stored it.

        Raises:
            TimedOut: the bus does not say that it stored it; publishing again is harmless.
            InvalidCommand: it is too large.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def stored(failure: BerthError | None) -> None:
            if done.done():
                return
            if failure is None:
                done.set_result(None)
            else:
                done.set_exception(failure)

        self._put(request, telemetry.new_root(self._spans, _PUBLISH.name), stored)
        await done

    # --- out ----------------------------------------------------------------------------------------

    def _outgoing_to(self, namespace: str) -> _Outgoing:
        outgoing = self._outgoing.get(namespace)
        if outgoing is None:
            outgoing = self._outgoing[namespace] = _Outgoing()
        return outgoing

    def _put(self, request: Request, context: str | None, stored: Callable[[BerthError | None], None]) -> None:
        body = orjson.dumps(request.document())
        if len(body) > REQUEST_BYTES_MAX:
            raise InvalidCommand(
                [Problem(path=f"{request.namespace}/{request.id}", expected=f"at most {REQUEST_BYTES_MAX} bytes")]
            )
        outgoing = self._outgoing_to(request.namespace)
        outgoing.entries.append(_Entry(body, context, stored))
        if outgoing.sender is None or outgoing.sender.done():
            outgoing.sender = asyncio.create_task(self._send(request.namespace, outgoing))

    async def _send(self, namespace: str, outgoing: _Outgoing) -> None:
        """One publish in flight a namespace; what arrives meanwhile is the next batch."""
        while outgoing.entries:
            batch: list[_Entry] = []
            try:
                if outgoing.listens:
                    await self._listen(namespace)
                batch = _taken(outgoing.entries)
                await self._publish(namespace, batch)
            except BerthError as error:
                for entry in batch or _taken(outgoing.entries):
                    entry.stored(error)
            else:
                for entry in batch:
                    entry.stored(None)

    async def _publish(self, namespace: str, batch: list[_Entry]) -> None:
        payload = b"[" + b",".join([entry.body for entry in batch]) + b"]"
        began_ns = time.time_ns()
        contexts = [entry.context for entry in batch if entry.context is not None]
        headers: dict[str, str] = {}
        if contexts and len(batch) == 1:
            headers = {traceparent.HEADER: contexts[0]}
        elif contexts:
            headers = {traceparent.EACH_HEADER: ",".join(entry.context or "" for entry in batch)}
        try:
            await self._asking.stored(subjects.REQUEST.of(namespace=namespace), payload, headers, secrets.token_hex(12))
        finally:
            for context in contexts:
                self._trace(_PUBLISH, context, None, began_ns, namespace=namespace)

    # --- back ---------------------------------------------------------------------------------------

    async def _listen(self, namespace: str) -> None:
        """Decisions of a namespace, subscribed once, before the first submission."""
        if namespace not in self._listening:
            await self._bus.subscribe(subjects.DECISION.pattern(namespace=namespace), self._decided)
            self._listening.add(namespace)

    def _decided(self, envelope: Envelope) -> None:
        """Others submit in the same namespace too: what is theirs is passed over unread."""
        _, namespace, request = envelope.subject.rsplit(".", 2)
        if (namespace, request) in self._pending:
            self._told(codec.decode(Decision, envelope.payload), traceparent.of_headers(envelope.headers))

    def _told(self, decision: Decision, context: str | None = None) -> None:
        """Answers carry the term; one of a lower term is older than what is known and says nothing new."""
        waiting = self._pending.get((decision.namespace, decision.request))
        if waiting is None or (decision.sequence and decision.term < self._term):
            return
        self._term = max(self._term, decision.term)
        for pending in tuple(waiting):
            if decision.digest != pending.digest:
                continue  # somebody else's body
            if pending.latest is None or decision.sequence >= pending.latest.sequence:
                pending.latest, pending.told_by = decision, context
            pending.told(decision)

    async def _ask_regularly(self) -> None:
        """What has no decision for a while is asked for, and submitted again where nobody knows it."""
        while True:
            with contextlib.suppress(TimeoutError):  # nothing happened meanwhile: the next round
                async with asyncio.timeout(LOOK_EVERY_SECONDS):
                    await self._ask_now.wait()
            now = asyncio.get_running_loop().time()
            everybody = self._ask_now.is_set()
            self._ask_now.clear()
            late = [one for waiting in self._pending.values() for one in waiting if everybody or one.ask_at <= now]
            for pending in late:
                pending.ask_at = now + ASK_EVERY_SECONDS
                pending.submit_at = now if everybody else pending.submit_at
            for start in range(0, len(late), REQUESTS_PER_BATCH):
                await self._ask_for(late[start : start + REQUESTS_PER_BATCH], now)

    async def _ask_for(self, late: list[Pending], now: float) -> None:
        by_namespace: dict[str, list[Pending]] = {}
        for pending in late:
            by_namespace.setdefault(pending.request.namespace, []).append(pending)
        for namespace, waiting in by_namespace.items():
            ids = tuple(dict.fromkeys(pending.request.id for pending in waiting))
            try:
                answer = await self._ask(namespace, Query(ids=ids, decisions=True))
            except (BerthError, TimeoutError):
                continue  # nobody answers now; the next round asks again
            known: set[str] = set()
            for item in answer.items:
                decision = Decision.model_validate(item["decision"])
                known.add(decision.request)
                self._told(decision)
            for pending in waiting:
                if pending.request.id not in known and pending.submit_at <= now:
                    self._submit_again(pending, now)

    def _submit_again(self, pending: Pending, now: float) -> None:
        """Nobody knows it: its message was lost, or waits behind others. So less and less often."""
        if pending in self._pending.get(pending.request.key, ()):
            pending.patience *= 2
            pending.submit_at = now + pending.patience
            self._submit(pending)

    def _trace_decision(self, pending: Pending, decision: Decision) -> None:
        if pending.context is not None:
            parent = pending.told_by or pending.context
            self._trace(
                _PROCESS,
                telemetry.child_of(parent),
                parent,
                time.time_ns(),
                namespace=decision.namespace,
                request=decision.request,
                status=decision.status.value,
            )

    def _trace(
        self,
        operation: telemetry.Operation,
        context: str,
        parent: str | None,
        start_ns: int,
        *,
        namespace: str,
        request: str | None = None,
        status: str | None = None,
    ) -> None:
        attributes: dict[str, telemetry.AttributeValue] = {telemetry.NAMESPACE: namespace}
        if request is not None:
            attributes[telemetry.REQUEST_ID] = f"{namespace}/{request}"
        if status is not None:
            attributes[telemetry.OUTCOME] = status
        assert traceparent.is_sampled(context)
        self._spans.finished(
            telemetry.Span(
                operation=operation,
                context=context,
                parent=parent,
                start_ns=start_ns,
                end_ns=time.time_ns(),
                attributes=attributes,
            )
        )


def _taken(entries: deque[_Entry]) -> list[_Entry]:
    """The next batch, off the front: as many as fit one message."""
    batch: list[_Entry] = []
    size = traced = 0
    while entries and len(batch) < REQUESTS_PER_BATCH and traced < TRACED_PER_BATCH:
        if batch and size + len(entries[0].body) > BATCH_BYTES_MAX:
            break
        batch.append(entries.popleft())
        size += len(batch[-1].body)
        traced += batch[-1].context is not None
    return batch

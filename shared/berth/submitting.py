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
BATCH_BYTES_MAX = 512 * 1024
TRACED_PER_BATCH = 64
"""Their contexts travel in a header, and headers stay within 4 KiB (RAFT section 6)."""

_PUBLISH = telemetry.operation(telemetry.PUBLISH, subjects.REQUEST)
_PROCESS = telemetry.operation(telemetry.PROCESS, subjects.DECISION)

AskForDecisions = Callable[[str, Query], Awaitable[QueryAnswer]]
"""The rows of a namespace's requests, with their decisions."""


@dataclass(slots=True, kw_only=True)
class _Pending:
    """A request on its way to a decision."""

    request: Request
    digest: str
    outcome: asyncio.Future[Decision]
    is_enough: Callable[[Decision], bool]
    submitted: float
    context: str | None
    began_ns: int
    latest: Decision | None = None
    told_by: str | None = None


@dataclass(slots=True, kw_only=True)
class _Outgoing:
    """What waits to be published to one namespace."""

    entries: deque[tuple[bytes, str | None, asyncio.Future[None]]] = field(
        default_factory=deque[tuple[bytes, str | None, "asyncio.Future[None]"]]
    )
    sender: asyncio.Task[None] | None = None


class Submissions:
    """Everything that one client has under way."""

    def __init__(self, bus: Connection, asking: Asking, spans: telemetry.Spans, ask: AskForDecisions) -> None:
        self._bus = bus
        self._asking = asking
        self._spans = spans
        self._ask = ask
        self._pending: dict[RequestKey, list[_Pending]] = {}
        self._outgoing: dict[str, _Outgoing] = {}
        self._listening: dict[str, asyncio.Task[None]] = {}
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
        await self._listen(request.namespace)
        digest = codec.request_digest(request)
        context = telemetry.new_root(self._spans, _PUBLISH.name)
        pending = _Pending(
            request=request,
            digest=digest,
            outcome=asyncio.get_running_loop().create_future(),
            is_enough=lambda decision: wanted is None or decision.status.value in wanted,
            submitted=asyncio.get_running_loop().time(),
            context=context,
            began_ns=time.time_ns(),
        )
        self._pending.setdefault(request.key, []).append(pending)
        try:
            async with asyncio.timeout(timeout):
                await self._store(request, context)
                decision = await pending.outcome
        except TimeoutError:
            if pending.latest is not None:
                return pending.latest
            raise TimedOut(
                f"{request.namespace}/{request.id} has no decision after {timeout:g} s",
                hint="submit it again to go on waiting: the same request is never decided twice",
            ) from None
        finally:
            self._pending[request.key].remove(pending)
            if not self._pending[request.key]:
                del self._pending[request.key]
        self._trace_decision(pending, decision)
        return decision

    async def publish(self, request: Request) -> None:
        """Submit without waiting: returns once the bus has stored it.

        Raises:
            TimedOut: the bus does not say that it stored it; publishing again is harmless.
            InvalidCommand: it is too large.
        """
        await self._store(request, telemetry.new_root(self._spans, _PUBLISH.name))

    async def _store(self, request: Request, context: str | None) -> None:
        body = orjson.dumps(request.document())
        if len(body) > REQUEST_BYTES_MAX:
            raise InvalidCommand(
                [Problem(path=f"{request.namespace}/{request.id}", expected=f"at most {REQUEST_BYTES_MAX} bytes")]
            )
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        outgoing = self._outgoing.setdefault(request.namespace, _Outgoing())
        outgoing.entries.append((body, context, stored))
        if outgoing.sender is None or outgoing.sender.done():
            outgoing.sender = asyncio.create_task(self._send(request.namespace, outgoing))
        await stored

    async def _send(self, namespace: str, outgoing: _Outgoing) -> None:
        """One publish in flight a namespace; what arrives meanwhile is the next batch."""
        while outgoing.entries:
            batch: list[tuple[bytes, str | None, asyncio.Future[None]]] = []
            size = traced = 0
            while outgoing.entries and len(batch) < REQUESTS_PER_BATCH and traced < TRACED_PER_BATCH:
                if batch and size + len(outgoing.entries[0][0]) > BATCH_BYTES_MAX:
                    break
                batch.append(outgoing.entries.popleft())
                size += len(batch[-1][0])
                traced += batch[-1][1] is not None
            payload = b"[" + b",".join(body for body, _, _ in batch) + b"]"
            began_ns = time.time_ns()
            contexts = [context for _, context, _ in batch if context is not None]
            headers: dict[str, str] = {}
            if contexts and len(batch) == 1:
                headers = {traceparent.HEADER: contexts[0]}
            elif contexts:
                headers = {traceparent.EACH_HEADER: ",".join(context or "" for _, context, _ in batch)}
            failure: BaseException | None = None
            try:
                subject = subjects.REQUEST.of(namespace=namespace)
                await self._asking.stored(subject, payload, headers, secrets.token_hex(12))
            except BerthError as error:
                failure = error
            for context in contexts:
                self._trace(_PUBLISH, context, None, began_ns, namespace=namespace)
            for _, _, stored in batch:
                if stored.done():
                    continue
                if failure is None:
                    stored.set_result(None)
                else:
                    stored.set_exception(failure)

    async def _listen(self, namespace: str) -> None:
        """Decisions of a namespace, subscribed once, before the first submission."""
        listening = self._listening.get(namespace)
        if listening is None:
            pattern = subjects.DECISION.pattern(namespace=namespace)
            listening = asyncio.ensure_future(self._subscribe(pattern))
            self._listening[namespace] = listening
        await asyncio.shield(listening)

    async def _subscribe(self, pattern: str) -> None:
        await self._bus.subscribe(pattern, self._decided)

    def _decided(self, envelope: Envelope) -> None:
        self._told(codec.decode(Decision, envelope.payload), traceparent.of_headers(envelope.headers))

    def _told(self, decision: Decision, context: str | None = None) -> None:
        """Answers carry the term; one of a lower term is older than what is known and says nothing new."""
        waiting = self._pending.get((decision.namespace, decision.request))
        if waiting is None or (decision.sequence and decision.term < self._term):
            return
        self._term = max(self._term, decision.term)
        for pending in waiting:
            if decision.digest != pending.digest:
                continue  # somebody else's body
            if pending.latest is None or decision.sequence >= pending.latest.sequence:
                pending.latest, pending.told_by = decision, context
            if pending.is_enough(decision) and not pending.outcome.done():
                pending.outcome.set_result(decision)

    async def _ask_regularly(self) -> None:
        """What has no decision for a while is asked for, and submitted again where nobody knows it."""
        while True:
            with contextlib.suppress(TimeoutError):  # nothing happened meanwhile: the next round
                async with asyncio.timeout(ASK_EVERY_SECONDS):
                    await self._ask_now.wait()
            old = asyncio.get_running_loop().time() - (0 if self._ask_now.is_set() else ASK_EVERY_SECONDS)
            self._ask_now.clear()
            late = [one for waiting in self._pending.values() for one in waiting if one.submitted < old]
            for start in range(0, len(late), REQUESTS_PER_BATCH):
                await self._ask_for(late[start : start + REQUESTS_PER_BATCH])

    async def _ask_for(self, late: list[_Pending]) -> None:
        by_namespace: dict[str, list[_Pending]] = {}
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
                if pending.request.id not in known and not pending.outcome.done():
                    await self._store(pending.request, pending.context)

    def _trace_decision(self, pending: _Pending, decision: Decision) -> None:
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

"""What users import: submit and be told, release, ask, reserve, administer — over one connection.

    async with berth.connect("nats://127.0.0.1:4222", nkey="keys/client.nk") as cluster:
        decision = await cluster.submit(berth.Request(id="web-1", namespace="team-a", resources=…))

The ledger is the answer, a decision message only its notice: a client listens before it submits, asks
every two seconds and after a reconnect, and submits again, under the same submission id, what nobody knows.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from collections.abc import Sequence as Listing
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from berth import subjects
from berth.adapters.nats_bus import BusSettings, NatsBus
from berth.errors import BerthError, InvalidCommand, NotFound, Problem, TimedOut, Unreachable
from berth.ids import Namespace, RequestKey
from berth.messages.commands import (
    AdminAnswer,
    ApplyQuotas,
    CancelReservation,
    CreateReservation,
    Query,
    QueryAnswer,
    Refusal,
    RefusalCode,
    RemoveQuota,
    ReservationAnswer,
    SetNode,
    TransferLeadership,
)
from berth.messages.decisions import Decision
from berth.messages.documents import CohortDocument, QuotaDocument, ReservationDocument
from berth.messages.events import RequestStatus
from berth.messages.requests import REQUEST_BYTES_MAX, REQUESTS_PER_BATCH, Request
from berth.ports import Envelope
from berth.runtime import telemetry, traceparent
from berth.subjects import Subject
from berth.wire import codec

M = TypeVar("M", bound=BaseModel)

ASK_EVERY_SECONDS = 2.0
ACK_SECONDS = 2.0
BATCH_BYTES_MAX = 512 * 1024
TRACED_PER_BATCH = 64
"""Their contexts travel in a header, and headers stay within 4 KiB (RAFT section 6)."""
RAFT_ANSWERS_SECONDS = 0.4
_PUBLISH = telemetry.operation(telemetry.PUBLISH, subjects.REQUEST)
_PROCESS = telemetry.operation(telemetry.PROCESS, subjects.DECISION)


class Refused(BerthError):
    """A command that was answered with a refusal; nothing was changed."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail or refusal.code.value)
        self.code = refusal.code.value
        self.refusal = refusal
        self.exit_code = {RefusalCode.INVALID: 2, RefusalCode.NOT_FOUND: 3, RefusalCode.CONFLICT: 4}.get(
            refusal.code, 1
        )


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


@dataclass(slots=True, kw_only=True)
class _Outgoing:
    """What waits to be published to one namespace."""

    entries: deque[tuple[bytes, str | None, asyncio.Future[None]]] = field(
        default_factory=deque[tuple[bytes, str | None, "asyncio.Future[None]"]]
    )
    sender: asyncio.Task[None] | None = None


@asynccontextmanager
async def connect(
    url: str = "nats://127.0.0.1:4222",
    *,
    nkey: str | Path | None = None,
    user: str = "client",
    timeout: float = 5.0,
    spans: telemetry.Spans | None = None,
) -> AsyncGenerator["Cluster"]:
    """A cluster, for as long as the block runs. `nkey`: a seed file; `user` is the name it belongs to.

    Raises:
        Unreachable: no server within `timeout` seconds, or it does not know the key.
    """
    settings = BusSettings(
        url=url,
        user=user,
        seed_file=None if nkey is None else Path(nkey),
        connect_within_seconds=timeout,
    )
    if settings.seed_file is not None and not settings.seed_file.is_file():
        raise Unreachable(f"no key at {settings.seed_file}", hint="`berth up` writes keys/client.nk and keys/admin.nk")
    bus = await NatsBus.connect(settings, lost=lambda _why: None)
    cluster = Cluster(bus, spans or telemetry.NoSpans())
    try:
        await cluster.open()
        yield cluster
    finally:
        await cluster.close()


class Cluster:
    """One connection to a cluster. Made by `connect`."""

    def __init__(self, bus: NatsBus, spans: telemetry.Spans) -> None:
        self.raft = Raft(self)
        self._bus = bus
        self._spans = spans
        self._answers: dict[str, Callable[[Envelope], None]] = {}
        self._pending: dict[RequestKey, list[_Pending]] = {}
        self._outgoing: dict[str, _Outgoing] = {}
        self._listening: dict[str, asyncio.Task[None]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._term = 0

    async def open(self) -> None:
        await self._bus.subscribe(f"{self._bus.inbox}.*", self._answered)
        self._asking = asyncio.create_task(self._ask_regularly(), name="berth client asks")

    async def close(self) -> None:
        tasks = [task for task in (self._asking, *(one.sender for one in self._outgoing.values())) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._bus.close()

    # ------------------------------------------------------------------ submit

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
            submitted=time.monotonic(),
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

    async def release(self, namespace: str, request: str) -> None:
        """Give back what the request holds, or take it out of the queue. Returns once the bus has stored it."""
        subject = subjects.RELEASE.of(namespace=namespace)
        await self._stored(subject, orjson.dumps([request]), None, secrets.token_hex(12))

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
                await self._stored(subject, payload, headers, secrets.token_hex(12))
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

    async def _stored(self, subject: str, payload: bytes, headers: dict[str, str] | None, submission: str) -> None:
        """Publish to a stream and wait for its acknowledgement; retried under one id, so it is stored once."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unreachable),
            wait=wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.05),
            stop=stop_after_delay(20),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                sent = {**(headers or {}), "Nats-Msg-Id": submission}
                reply = await self._request(subject, payload, headers=sent, seconds=ACK_SECONDS)
                acknowledgement: Any = orjson.loads(reply.payload or b"{}")
                if "error" in acknowledgement:
                    raise Unreachable(f"the stream refused: {acknowledgement['error'].get('description')}")

    # ------------------------------------------------------------------ be told

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
        self._told(codec.decode(Decision, envelope.payload))

    def _told(self, decision: Decision) -> None:
        """Answers carry the term; one of a lower term is older than what is known and says nothing new."""
        waiting = self._pending.get((decision.namespace, decision.request))
        if waiting is None or (decision.sequence and decision.term < self._term):
            return
        self._term = max(self._term, decision.term)
        for pending in waiting:
            if decision.digest not in ("", pending.digest):
                continue
            if pending.latest is None or decision.sequence >= pending.latest.sequence:
                pending.latest = decision
            if pending.is_enough(decision) and not pending.outcome.done():
                pending.outcome.set_result(decision)

    async def _ask_regularly(self) -> None:
        """What has no decision for a while is asked for, and submitted again where nobody knows it."""
        while True:
            await asyncio.sleep(ASK_EVERY_SECONDS)
            old = time.monotonic() - ASK_EVERY_SECONDS
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
                answer = await self._query_page("requests", namespace, Query(ids=ids, decisions=True))
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

    # ------------------------------------------------------------------ ask

    async def query(
        self,
        what: str,
        *,
        namespace: str = subjects.CLUSTER,
        seconds: float = 5.0,
        **query: Any,
    ) -> list[dict[str, Any]]:
        """All rows of a read model (requests, allocations, nodes, quotas, reservations, events, trace …).

        Raises:
            Unreachable: nobody answers. NotFound, Refused: the answer says so.
        """
        rows: list[dict[str, Any]] = []
        asked = Query(**query)
        while True:
            answer = await self._query_page(what, namespace, asked, seconds=seconds)
            rows += answer.items
            if answer.next is None:
                return rows
            asked = asked.model_copy(update={"after": answer.next})

    async def _query_page(self, what: str, namespace: str, query: Query, *, seconds: float = 5.0) -> QueryAnswer:
        answer = await self._command(
            subjects.QUERY, query, QueryAnswer, seconds=seconds, namespace=namespace, what=what
        )
        if answer.refusal is not None:
            raise _error_of(answer.refusal)
        return answer

    async def decision(self, namespace: str, request: str) -> Decision:
        """The outcome that stands.

        Raises:
            NotFound: no such request.
        """
        answer = await self._query_page("requests", namespace, Query(ids=(request,), decisions=True))
        for item in answer.items:
            return Decision.model_validate(item["decision"])
        raise NotFound(f"no request {namespace}/{request}", hint="`berth requests` lists them")

    # ------------------------------------------------------------------ reservations and administration

    async def reserve(self, reservation: ReservationDocument) -> ReservationAnswer:
        """Book capacity; answered after commit. Raises Refused (with what would work) or Unreachable."""
        return await self._reservation(reservation.namespace, CreateReservation(reservation=reservation))

    async def cancel_reservation(self, namespace: str, reservation: str) -> ReservationAnswer:
        return await self._reservation(namespace, CancelReservation(reservation=reservation))

    async def _reservation(self, namespace: str, command: CreateReservation | CancelReservation) -> ReservationAnswer:
        answer = await self._command(
            subjects.RESERVE, command, ReservationAnswer, namespace=namespace, verb=command.verb
        )
        if answer.refusal is not None:
            raise _error_of(answer.refusal)
        return answer

    async def apply_quotas(
        self, quotas: Listing[QuotaDocument] = (), cohorts: Listing[CohortDocument] = ()
    ) -> AdminAnswer:
        """Set quotas and cohorts in one transaction. Needs an admin key, as everything below."""
        return await self._admin(subjects.ADMIN_QUOTA, ApplyQuotas(quotas=tuple(quotas), cohorts=tuple(cohorts)))

    async def remove_quota(self, *, namespace: str | None = None, cohort: str | None = None) -> AdminAnswer:
        named = None if namespace is None else Namespace(namespace)
        return await self._admin(subjects.ADMIN_QUOTA, RemoveQuota(namespace=named, cohort=cohort))

    async def set_node(self, command: SetNode) -> AdminAnswer:
        """Cordon, uncordon, start or stop a drain."""
        return await self._admin(subjects.ADMIN_NODE, command)

    async def transfer_leadership(self, to: str | None = None) -> AdminAnswer:
        return await self._admin(subjects.ADMIN_RAFT, TransferLeadership(to=to))

    async def _admin(self, subject: Subject, command: BaseModel) -> AdminAnswer:
        answer = await self._command(subject, command, AdminAnswer)
        if answer.refusal is not None:
            raise _error_of(answer.refusal)
        return answer

    # ------------------------------------------------------------------ question and answer

    async def _command(
        self, subject: Subject, body: BaseModel, kind: type[M], *, seconds: float = 5.0, **tokens: str
    ) -> M:
        """Ask and decode the answer; asked again while nobody is there (every command is idempotent)."""
        payload = codec.encode(body)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unreachable),
            wait=wait_exponential_jitter(multiplier=0.05, max=0.5, jitter=0.05),
            stop=stop_after_delay(seconds),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                reply = await self._request(subject.of(**tokens), payload, seconds=seconds)
                return codec.decode(kind, reply.payload)
        raise AssertionError("tenacity ends with an answer or an error")

    async def _request(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None, seconds: float
    ) -> Envelope:
        """Raises Unreachable: nobody is there, or nobody answered in time."""
        token = secrets.token_hex(8)
        answered: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()

        def receive(envelope: Envelope) -> None:
            if not answered.done():
                answered.set_result(envelope)

        self._answers[token] = receive
        try:
            self._bus.publish(subject, payload, headers=headers, reply=f"{self._bus.inbox}.{token}")
            async with asyncio.timeout(seconds):
                reply = await answered
        except TimeoutError:
            raise Unreachable(f"nobody answered {subject} within {seconds:g} s", hint="try `berth status`") from None
        finally:
            del self._answers[token]
        if reply.status == 503:
            raise Unreachable(f"nobody serves {subject}", hint="try `berth status`")
        return reply

    async def gather(self, subject: str, payload: bytes, *, seconds: float, enough: int) -> list[bytes]:
        """The answers of everybody who answers within `seconds`, at most `enough`."""
        token = secrets.token_hex(8)
        found: list[bytes] = []
        complete = asyncio.Event()

        def receive(envelope: Envelope) -> None:
            if envelope.status is None:
                found.append(envelope.payload)
            if envelope.status is not None or len(found) >= enough:
                complete.set()

        self._answers[token] = receive
        try:
            self._bus.publish(subject, payload, reply=f"{self._bus.inbox}.{token}")
            async with asyncio.timeout(seconds):
                await complete.wait()
        except TimeoutError:
            pass  # who has not answered by now is not counted
        finally:
            del self._answers[token]
        return found

    def _answered(self, envelope: Envelope) -> None:
        receive = self._answers.get(envelope.subject.rpartition(".")[2])
        if receive is not None:
            receive(envelope)

    # ------------------------------------------------------------------ traces

    def _trace_decision(self, pending: _Pending, decision: Decision) -> None:
        if pending.context is not None:
            self._trace(
                _PROCESS,
                telemetry.child_of(pending.context),
                pending.context,
                pending.began_ns,
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


class Raft:
    """Who leads, as the raft nodes themselves say."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def members(self, *, enough: int = 9, seconds: float = RAFT_ANSWERS_SECONDS) -> list[dict[str, Any]]:
        """What each raft node that answers says of itself."""
        subject = subjects.QUERY.of(namespace=subjects.CLUSTER, what="raft")
        answers = await self._cluster.gather(subject, codec.encode(Query()), seconds=seconds, enough=enough)
        found = [item for answer in answers for item in codec.decode(QueryAnswer, answer).items]
        return sorted(found, key=lambda member: str(member["id"]))

    async def leader(self) -> str | None:
        """The node that may commit, such as raft-2; None while there is none."""
        leading = [one for one in await self.members() if one["role"] == "leader" and one["active"]]
        return max(leading, key=lambda one: int(one["term"]))["id"] if leading else None

    async def is_leader(self, node: str) -> bool:
        """Whether `node` may commit."""
        return await self.leader() == node

    async def status(self) -> dict[str, Any]:
        """The shape of `berth raft status` (DESIGN section 5).

        Raises:
            Unreachable: no raft node answers.
        """
        members = await self.members()
        if not members:
            raise Unreachable("no raft node answers", hint="is the cluster running? (`berth status`)")
        newest = max(members, key=lambda one: (int(one["ledger_term"]), int(one["mirror_sequence"])))
        leading = [one for one in members if one["role"] == "leader" and one["active"]]
        leader = max(leading, key=lambda one: int(one["term"])) if leading else None
        best = leader or newest
        return {
            "leader": None if leader is None else leader["id"],
            "term": max(int(one["term"]) for one in members),
            "sequence": best["mirror_sequence"],
            "ledger_id": best["ledger_id"],
            "hash": best["hash"],
            "committed": best["mirror_sequence"],
            "members": [
                {name: one[name] for name in ("id", "role", "term", "mirror_sequence", "last_step_down")}
                for one in members
            ],
        }


def _error_of(refusal: Refusal) -> BerthError:
    if refusal.code is RefusalCode.NOT_FOUND:
        return NotFound(refusal.detail or "not found")
    return Refused(refusal)

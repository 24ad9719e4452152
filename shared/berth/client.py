"""What users import: submit and be told, release, ask, reserve, administer — over one connection.

    async with berth.connect("nats://127.0.0.1:4222", nkey="keys/client.nk") as cluster:
        decision = await cluster.submit(berth.Request(id="web-1", namespace="team-a", resources=…))

The ledger is the answer, a decision message only its notice: a client listens before it submits, asks
every two seconds and after a reconnect, and submits again, under the same submission id, what nobody knows.
"""

import secrets
from collections.abc import AsyncGenerator, Iterable
from collections.abc import Sequence as Listing
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import orjson
from pydantic import BaseModel

from berth import subjects
from berth.adapters.connection import Connection
from berth.adapters.nats_bus import BusSettings, NatsBus
from berth.asking import Asking
from berth.errors import BerthError, NotFound, Unreachable
from berth.ids import Namespace
from berth.many import Flow, Outcome
from berth.messages.commands import (
    AdminAnswer,
    ApplyQuotas,
    CancelReservation,
    CreateReservation,
    ExtendReservation,
    Query,
    QueryAnswer,
    RaftCommand,
    Refusal,
    RefusalCode,
    RemoveQuota,
    ReservationAnswer,
    ReservationCommand,
    ShrinkReservation,
    SkipReservation,
    StopNamespace,
)
from berth.messages.decisions import Decision
from berth.messages.documents import CohortDocument, QuotaDocument, ReservationDocument, StopPolicy
from berth.messages.events import RequestStatus
from berth.messages.node_commands import NodeCommand, SetNode
from berth.messages.requests import Request
from berth.messages.what_if import WhatIfDocument
from berth.node_care import Nodes
from berth.runtime import telemetry
from berth.subjects import Subject
from berth.submitting import Submissions
from berth.wire import codec

RAFT_ANSWERS_SECONDS = 0.4


class ClientConnection(Connection, Protocol):
    """A connection that can be closed."""

    async def close(self) -> None: ...


class Refused(BerthError):
    """A command that was answered with a refusal; nothing was changed."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail or refusal.code.value)
        self.code = refusal.code.value
        self.refusal = refusal
        self.exit_code = {RefusalCode.INVALID: 2, RefusalCode.NOT_FOUND: 3, RefusalCode.CONFLICT: 4}.get(
            refusal.code, 1
        )


@asynccontextmanager
async def connect(
    url: str = "nats://127.0.0.1:4222",
    *,
    nkey: str | Path | None = None,
    user: str | None = None,
    timeout: float = 5.0,
    spans: telemetry.Spans | None = None,
) -> AsyncGenerator["Cluster"]:
    """A cluster, for as long as the block runs. `nkey`: a seed file; `user`: whose it is, unless the file is named so.

    Raises:
        Unreachable: no server within `timeout` seconds, or it does not know the key.
    """
    settings = BusSettings(
        url=url,
        user=user or (subjects.CLIENT if nkey is None else Path(nkey).stem),
        seed_file=None if nkey is None else Path(nkey),
        connect_within_seconds=timeout,
    )
    if settings.seed_file is not None and not settings.seed_file.is_file():
        raise Unreachable(f"no key at {settings.seed_file}", hint="`berth up` writes keys/client.nk and keys/admin.nk")
    bus = await NatsBus.connect(settings, lost=lambda _why: None)
    cluster = Cluster(bus, spans or telemetry.NoSpans(), home=home_of(settings.user))
    try:
        await cluster.open()
        yield cluster
    finally:
        await cluster.close()


def home_of(user: str) -> str:
    """Where questions without a namespace are asked: in its own for the key of one namespace, else in the cluster."""
    role, _, namespace = user.partition("-")
    return namespace if role == subjects.CLIENT and namespace else subjects.CLUSTER


class Cluster:
    """One connection to a cluster. Made by `connect`."""

    def __init__(self, bus: ClientConnection, spans: telemetry.Spans, *, home: str = subjects.CLUSTER) -> None:
        self.raft = Raft(self)
        self.nodes = Nodes(self)
        self._bus = bus
        self._home = home
        self._asking = Asking(bus)
        self._submissions = Submissions(bus, self._asking, spans, self._requests_of)

    async def open(self) -> None:
        await self._asking.open()
        self._submissions.open()

    async def close(self) -> None:
        await self._submissions.close()
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
        return await self._submissions.submit(request, until=until, timeout=timeout)

    def submit_all(
        self, requests: Iterable[Request], *, in_flight: int = 1_000, timeout: float = 30.0
    ) -> AsyncGenerator[Outcome]:
        """Submit them all, at most `in_flight` at a time, and yield each with its first decision, as they come.

        One that has none after `timeout` seconds comes with the error instead. For thousands of requests this
        costs a fraction of a task for each. Raises InvalidCommand: one of them is too large.
        """
        return Flow(self._submissions, requests, in_flight=in_flight, timeout=timeout).outcomes()

    async def publish(self, request: Request) -> None:
        """Submit without waiting: returns once the bus has stored it.

        Raises:
            Unreachable: the bus does not say that it stored it; publishing again is harmless.
            InvalidCommand: it is too large.
        """
        await self._submissions.publish(request)

    async def release(self, namespace: str, request: str) -> None:
        """Give back what the request holds, or take it out of the queue. Returns once the bus has stored it."""
        subject = subjects.RELEASE.of(namespace=namespace)
        await self._asking.stored(subject, orjson.dumps([request]), None, secrets.token_hex(12))

    # ------------------------------------------------------------------ ask

    async def query(
        self,
        what: str,
        *,
        namespace: str | None = None,
        seconds: float = 5.0,
        **query: Any,
    ) -> list[dict[str, Any]]:
        """All rows of a read model (requests, allocations, nodes, quotas, reservations, events, trace …).

        `namespace` None: of everything that this key may see.

        Raises:
            Unreachable: nobody answers. NotFound, Refused: the answer says so.
        """
        rows: list[dict[str, Any]] = []
        asked = Query(**query)
        while True:
            answer = await self._query_page(what, namespace or self._home, asked, seconds=seconds)
            rows += answer.items
            if answer.next is None:
                return rows
            asked = asked.model_copy(update={"after": answer.next})

    async def _requests_of(self, namespace: str, query: Query) -> QueryAnswer:
        return await self._query_page("requests", namespace, query)

    async def _query_page(self, what: str, namespace: str, query: Query, *, seconds: float = 5.0) -> QueryAnswer:
        answer = await self._asking.command(
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

    async def plan(
        self,
        requests: Listing[Request] = (),
        *,
        what_if: WhatIfDocument | None = None,
        explain: bool = False,
        by: str | None = None,
        seed: str = "",
        seconds: float = 30.0,
    ) -> dict[str, Any]:
        """What would be decided now, one after the other; nothing is submitted. The shape is that of `berth plan`.

        `what_if`: on a cluster that is different so. `by`: with the usage for each value of a node label (`node`: of
        each node). `sequence` of the answer is what `if_sequence` of a request takes, to hold to the plan.

        Raises:
            Refused: the document does not fit the cluster; Unreachable.
        """
        document: dict[str, Any] = {
            "requests": [request.document() for request in requests],
            "explain": explain,
            "seed": seed,
            "by": by,
            "what_if": None if what_if is None else what_if.model_dump(mode="json", by_alias=True, exclude_unset=True),
        }
        return (await self.query("plan", document=document, seconds=seconds))[0]

    async def explain(self, namespace: str, request: str, *, seconds: float = 30.0) -> dict[str, Any]:
        """Why the request is where it is, every node's reasons, and the smallest change that would help.

        Raises:
            NotFound: no such request.
        """
        return (await self.query("explain", namespace=namespace, ids=(request,), seconds=seconds))[0]

    # ------------------------------------------------------------------ reservations and administration

    async def reserve(self, reservation: ReservationDocument) -> ReservationAnswer:
        """Book capacity; answered after commit. Raises Refused (with what would work) or Unreachable."""
        return await self._reservation(reservation.namespace, CreateReservation(reservation=reservation))

    async def cancel_reservation(self, namespace: str, reservation: str, *, evict: bool = False) -> ReservationAnswer:
        """End it, and its series. While work draws on it that is refused, unless it is to be evicted."""
        return await self._reservation(namespace, CancelReservation(reservation=reservation, evict=evict))

    async def extend_reservation(
        self, namespace: str, reservation: str, *, end: datetime | None = None, count: int | None = None
    ) -> ReservationAnswer:
        """A later `end`, a larger `count`, or both. Raises Refused, which says how far it may go."""
        wanted = {"reservation": reservation, "end": end, "count": count}
        return await self._reservation(namespace, ExtendReservation.model_validate(wanted))

    async def shrink_reservation(
        self, namespace: str, reservation: str, *, end: datetime | None = None, count: int | None = None
    ) -> ReservationAnswer:
        """An earlier `end`, a smaller `count`, or both; never less than what is drawn."""
        wanted = {"reservation": reservation, "end": end, "count": count}
        return await self._reservation(namespace, ShrinkReservation.model_validate(wanted))

    async def skip_reservation(self, namespace: str, reservation: str) -> ReservationAnswer:
        """Leave out one occurrence of a series that has not begun; the answer's `next` is the one after it."""
        return await self._reservation(namespace, SkipReservation(reservation=reservation))

    async def _reservation(self, namespace: str, command: ReservationCommand) -> ReservationAnswer:
        answer = await self._asking.command(
            subjects.RESERVE, command, ReservationAnswer, namespace=namespace, verb=command.verb
        )
        if answer.refusal is not None:
            raise _error_of(answer.refusal)
        return answer

    async def apply_quotas(
        self, quotas: Listing[QuotaDocument] = (), cohorts: Listing[CohortDocument] = (), *, dry_run: bool = False
    ) -> AdminAnswer:
        """Set them in one transaction, or only say what would change. Needs an admin key, as everything below."""
        command = ApplyQuotas(quotas=tuple(quotas), cohorts=tuple(cohorts), dry_run=dry_run)
        return await self._admin(subjects.ADMIN_QUOTA, command)

    async def remove_quota(self, *, namespace: str | None = None, cohort: str | None = None) -> AdminAnswer:
        wanted = {"namespace": namespace, "cohort": cohort}
        return await self._admin(subjects.ADMIN_QUOTA, RemoveQuota.model_validate(wanted))

    async def stop_namespace(self, namespace: str, policy: StopPolicy) -> AdminAnswer:
        """Hold the namespace (nothing new is placed), drain it (what runs leaves, too), or resume it."""
        return await self._admin(subjects.ADMIN_QUOTA, StopNamespace(namespace=Namespace(namespace), policy=policy))

    async def set_node(self, command: SetNode) -> AdminAnswer:
        """Cordon, uncordon, start or stop a drain; `nodes` has a word for each of them."""
        return await self.command_node(command)

    async def command_node(self, command: NodeCommand) -> AdminAnswer:
        return await self._admin(subjects.ADMIN_NODE, command)

    async def transfer_leadership(self, to: str | None = None) -> AdminAnswer:
        return await self._admin(subjects.ADMIN_RAFT, RaftCommand(to=to))

    async def _admin(self, subject: Subject, command: BaseModel) -> AdminAnswer:
        answer = await self._asking.command(subject, command, AdminAnswer)
        if answer.refusal is not None:
            raise _error_of(answer.refusal)
        return answer

    # ------------------------------------------------------------------ question and answer

    async def gather(self, subject: str, payload: bytes, *, seconds: float, enough: int) -> list[bytes]:
        """The answers of everybody who answers within `seconds`, at most `enough`."""
        return await self._asking.gather(subject, payload, seconds=seconds, enough=enough)


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

    async def recover(self) -> list[str]:
        """Let every raft node vote again after all of them have lost their votes; the nodes that do.

        Raises:
            Unreachable: no raft node answers.
            Refused: some node still has its votes: it elects, and the others rejoin by themselves.
        """
        members = await self.members()
        if not members:
            raise Unreachable("no raft node answers", hint="is the cluster running? (`berth status`)")
        if keepers := [str(one["id"]) for one in members if one["has_votes"]]:
            detail = f"{', '.join(keepers)} still has its votes; the others rejoin by themselves once somebody leads"
            raise Refused(Refusal(code=RefusalCode.RULE, detail=detail))
        subject, payload = subjects.ADMIN_RAFT.template, codec.encode(RaftCommand(command="recover"))
        answers = await self._cluster.gather(subject, payload, seconds=RAFT_ANSWERS_SECONDS, enough=len(members))
        return sorted(codec.decode(AdminAnswer, answer).detail for answer in answers)

    async def status(self) -> dict[str, Any]:
        """The shape of `berth raft status` (DESIGN section 5).

        Raises:
            Unreachable: no raft node answers.
        """
        members = await self.members()
        if not members:
            raise Unreachable("no raft node answers", hint="is the cluster running? (`berth status`)")
        newest = max(members, key=lambda one: (int(one["ledger_term"]), int(one["sequence"])))
        leading = [one for one in members if one["role"] == "leader" and one["active"]]
        leader = max(leading, key=lambda one: int(one["term"])) if leading else None
        best = leader or newest
        return {
            "leader": None if leader is None else leader["id"],
            "term": max(int(one["term"]) for one in members),
            "sequence": best["sequence"],
            "ledger_id": best["ledger_id"],
            "hash": best["hash"],
            "committed": best["sequence"] if best["committed"] is None else best["committed"],
            "members": [
                {
                    name: one[name]
                    for name in ("id", "role", "term", "mirror_sequence", "last_step_down", "has_votes", "restored")
                }
                for one in members
            ],
        }


def _error_of(refusal: Refusal) -> BerthError:
    is_missing = refusal.code is RefusalCode.NOT_FOUND
    return NotFound(refusal.detail or "not found") if is_missing else Refused(refusal)

"""A cell in memory: real quota, scheduler and reservation services around the leader's real judgement.

Messages go from hand to hand until nobody has anything to say. Time stands still except for `advance`.
Records are real bytes: encoded, hashed, decoded and folded by every service, as on the ledger.
"""

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Listing
from dataclasses import dataclass, replace
from typing import Any

from berth import subjects
from berth.effects import (
    Acknowledge,
    Ask,
    DeadLetter,
    Delivery,
    Effect,
    Identity,
    InProgress,
    Message,
    Note,
    Propose,
    Publish,
    Reply,
    Service,
    in_order,
)
from berth.ids import LedgerId, Namespace, NodeId, RequestId, RequestKey, Sequence, Term
from berth.messages.commands import Heartbeat, ProposalAnswer, ReleaseBatch, RequestBatch
from berth.messages.decisions import Decision
from berth.messages.documents import NodeState
from berth.messages.envelope import Record, why_not_valid
from berth.messages.requests import Request
from berth.model.ledger import State
from berth.wire.codec import RecordHead, decode_proposal, decode_record, encode_event, encode_proposal, encode_record
from berth_cell.seed import Dated
from berth_quota.bounds import DAY_MS, USUAL, Bounds
from berth_quota.service import QuotaService
from berth_raft.commit import Answer, Committer, barrier, first_record
from berth_reservation.service import ReservationService
from berth_scheduler.limits import USUAL as USUAL_LIMITS
from berth_scheduler.limits import Limits
from berth_scheduler.service import SchedulerService

LEADER = "cell"
CLIENT = "client"
STEPS_MAX = 1_000_000
"""More than this without rest is a loop between services: a bug that must not hang its caller."""
ANSWERED_WITHIN_MS = 10_000
NEVER_MS = 1_000 * 365 * DAY_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What passed from hand to hand at `at_ms` (milliseconds UTC). `by`: the role it came from.

    A Message is a client's, an agent's or an operator's; an Effect is a service's; the rest is the leader's.
    """

    at_ms: int
    by: str
    what: Message | Effect | Record | ProposalAnswer


class Cell:
    """One cluster at one instant. `state` is the leader's; the services fold the same records into their own.

    `watch` is told every step. Agents of ready nodes beat while time passes, but for those in `silent`.
    """

    def __init__(
        self,
        *,
        at_ms: int,
        seed: str = "",
        history: Listing[Dated] = (),
        drives_queued: bool = True,
        sweep_ms: int = NEVER_MS,
        bounds: Bounds = USUAL,
        limits: Limits = USUAL_LIMITS,
    ) -> None:
        """`history` is folded as it stands (see `seed`), without effects; then the services start.

        Without `drives_queued` what is queued stays so, whatever happens. `sweep_ms`: how often quota looks whether
        somebody waits who should have been woken. `bounds` are the quota service's, `limits` the scheduler's.
        """
        self.watch: Callable[[Step], None] = _unwatched
        self.silent: set[NodeId] = set()
        self.now_ms = at_ms
        self.state = State()
        self.ledger: list[bytes] = []
        self.decisions: dict[RequestKey, Decision] = {}
        self.unacknowledged: dict[int, Delivery] = {}
        self.dead_letters: list[DeadLetter] = []
        bounds = replace(bounds, drives_queued=drives_queued, sweep_ms=sweep_ms)
        self.quota = QuotaService(Identity(user="quota-1", boot="cell"), bounds)
        self.scheduler = SchedulerService(Identity(user="scheduler-1", boot="cell"), limits=limits, seed=seed)
        self.reservation = ReservationService(Identity(user="reservation-1", boot="cell"))
        self.services: tuple[Service, ...] = (self.quota, self.scheduler, self.reservation)
        self._answers: dict[str, Any] = {}
        self._asked = 0
        self._inboxes: dict[str, Service] = {}
        self._messages: deque[tuple[Service, Message]] = deque()
        self._delivered = 0
        began = min([at_ms, *(at for at, _ in history)])
        self._begin(began)
        for at, transaction in history:
            self._write_history(at, [encode_event(event) for event in transaction])
        self._committer = Committer(
            self.state, leader=LEADER, monotonic_us=lambda: 0, may_be_lost=self.silent.__contains__
        )
        for service in self.services:
            self._perform(service, service.started(at_ms))
        self.run()

    # ------------------------------------------------------------------ the ledger

    def _begin(self, at_ms: int) -> None:
        self._append(first_record(ledger_id=LedgerId("cell"), members=(LEADER,), level="ledger", now_ms=at_ms))
        assert self.state.tip is not None
        payload, _ = barrier(
            self.state.tip, term=Term(1), leader=LEADER, now_ms=at_ms, stream_sequence=self.state.sequence
        )
        self._append(payload)

    def _write_history(self, at: int, lines: list[bytes]) -> None:
        tip = self.state.tip
        assert tip is not None
        head = RecordHead(
            ledger_id=tip.ledger_id,
            sequence=Sequence(tip.sequence + 1),
            term=tip.term,
            leader=tip.leader,
            barrier=tip.barrier,
            at=max(tip.at, at),
            prev_hash=tip.hash,
        )
        self._append(encode_record(head, [lines])[0])

    def _append(self, payload: bytes) -> None:
        """A record of the past: folded by everybody, without effects."""
        sequence = Sequence(self.state.sequence + 1)
        record = decode_record(payload)
        why = why_not_valid(self.state.tip, record, sequence)
        assert why is None, f"I6: {why}"
        self.ledger.append(payload)
        self.state.fold(record)
        for service in self.services:
            service.replay(record)

    def _flush(self) -> None:
        flush = self._committer.flush(now_ms=self.now_ms, stream_sequence=self.state.sequence)
        answers: tuple[Answer, ...] = flush.answers
        if flush.payload:
            record = decode_record(flush.payload)
            answers = self._committer.appended()
            self.ledger.append(flush.payload)
            self._passed("leader", record)
            for service in self.services:
                self._perform(service, service.fold(record, self.now_ms))
        for answer in answers:
            self._passed("leader", answer.body)
            service = self._inboxes.pop(answer.body.id)
            message = Message(subject=subjects.COMMIT, body=answer.body, tokens={}, token=answer.body.id)
            self._messages.append((service, message))

    # ------------------------------------------------------------------ what a client would do

    def submit(self, requests: Listing[Request]) -> None:
        """One REQUESTS message: requests of one namespace, as a client publishes them."""
        assert requests, "an empty batch is nobody's request"
        namespace = requests[0].namespace
        body = RequestBatch(namespace=namespace, requests=tuple(requests))
        self.store(subjects.REQUEST, body, namespace)
        self.run()

    def release(self, namespace: Namespace, requests: Listing[RequestId]) -> None:
        """Give back what these requests hold, or take them out of the queue."""
        body = ReleaseBatch(namespace=namespace, requests=tuple(requests))
        self.store(subjects.RELEASE, body, namespace)
        self.run()

    def store(self, subject: subjects.Subject, body: Any, namespace: str) -> None:
        """The work queue has a message for the quota service, which it is handed by the next `run`."""
        self._delivered += 1
        delivery = Delivery(
            stream=subjects.REQUESTS_STREAM.name,
            stream_sequence=self._delivered,
            count=1,
            handle=f"delivery.{self._delivered}",
        )
        self.unacknowledged[self._delivered] = delivery
        message = Message(subject=subject, body=body, tokens={"namespace": namespace}, delivery=delivery)
        self._passed(CLIENT, message)
        self._messages.append((self.quota, message))

    def ask(self, subject: subjects.Subject, body: Any, **tokens: str) -> Any:
        """A command with an answer, such as a reservation or a quota; time passes until it is answered.

        Raises:
            LookupError: no service takes it, or none answered within ANSWERED_WITHIN_MS.
        """
        self._asked += 1
        token = f"ask-{self._asked}"
        message = Message(subject=subject, body=body, tokens=tokens, reply_to=token)
        self._passed(CLIENT, message)
        self._messages.append((self._who_answers(subject), message))
        self.run()
        give_up = self.now_ms + ANSWERED_WITHIN_MS
        while token not in self._answers:
            due = self._next_deadline()
            if due is None or due > give_up:
                raise LookupError(f"nobody has answered {subject.template}")
            self.advance(due)
        return self._answers.pop(token)

    def advance(self, to_ms: int) -> None:
        """Let time pass; timers that come due on the way act in their order."""
        while (due := self._next_deadline()) is not None and due <= to_ms:
            self.now_ms = max(self.now_ms, due)
            self._beat()
            for service in self.services:
                self._perform(service, service.settle(self.now_ms))
            self.run()
        self.now_ms = max(self.now_ms, to_ms)

    def _beat(self) -> None:
        for name, node in self.state.cluster.nodes.items():
            if node.state is NodeState.READY and name not in self.silent:
                beat = Heartbeat(node=name, session="cell")
                message = Message(subject=subjects.NODE_HEARTBEAT, body=beat, tokens={"node": name})
                self._perform(self.scheduler, self.scheduler.handle(message, self.now_ms))

    def _next_deadline(self) -> int | None:
        times = [due for service in self.services if (due := service.deadline()) is not None]
        return min((due for due in times), default=None)

    # ------------------------------------------------------------------ from hand to hand

    def run(self) -> None:
        """Until nobody has anything to say at this instant."""
        for _ in range(STEPS_MAX):
            if self._messages:
                service, message = self._messages.popleft()
                self._perform(service, service.handle(message, self.now_ms))
            elif self._committer.has_work:
                self._flush()
            else:
                for service in self.services:
                    self._perform(service, service.settle(self.now_ms))
                if not self._messages and not self._committer.has_work:
                    return
        raise AssertionError("the services of a cell never came to rest")

    def _perform(self, service: Service, effects: list[Effect]) -> None:
        for effect in in_order(effects):
            self._passed(service.role, effect)
            match effect:
                case Propose(proposal=proposal):
                    self._inboxes[proposal.id] = service
                    offered = decode_proposal(encode_proposal(proposal))
                    assert self._committer.offer(offered, reply_to="", traceparent=effect.traceparent) is None
                case Ask():
                    self._inboxes[effect.token] = service
                    question = Message(
                        subject=effect.subject, body=effect.body, tokens=effect.tokens, reply_to=effect.token
                    )
                    self._messages.append((self._who_answers(effect.subject), question))
                case Reply(to=to):
                    self._answer(to, effect.body)
                case Publish(body=Decision() as decision):
                    self.decisions[decision.namespace, decision.request] = decision
                case Publish(subject=subjects.REQUEST, body=None):
                    self.store(subjects.REQUEST, None, subjects.CLUSTER)
                case Acknowledge(delivery=delivery):
                    self.unacknowledged.pop(delivery.stream_sequence, None)
                case DeadLetter():
                    self.dead_letters.append(effect)
                case Publish() | InProgress() | Note():
                    pass

    def _who_answers(self, subject: subjects.Subject) -> Service:
        for service in self.services:
            if subject in service.subscriptions:
                return service
        raise LookupError(f"no service of a cell takes {subject.template}")

    def _answer(self, to: str, body: Any) -> None:
        asker = self._inboxes.get(to)
        if asker is None:
            self._answers[to] = body
        else:
            self._messages.append((asker, Message(subject=subjects.EVALUATE, body=body, tokens={}, token=to)))

    def _passed(self, by: str, what: Message | Effect | Record | ProposalAnswer) -> None:
        self.watch(Step(at_ms=self.now_ms, by=by, what=what))


def _unwatched(step: Step) -> None:
    del step

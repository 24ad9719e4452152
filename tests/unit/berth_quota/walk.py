"""The walk in small: quota services between a stream, a scheduler that takes the first node, and the real judgement.

Everything is handed over at once, in order, until nobody has anything to say; `now` moves by `wait` only.
What a test wants to go wrong, it says before: a deaf leader, a scheduler that holds its answers.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from berth import subjects
from berth.effects import (
    Acknowledge,
    Ask,
    Delivery,
    Effect,
    Identity,
    InProgress,
    Message,
    Note,
    PinLost,
    Propose,
    Publish,
    Reply,
    in_order,
)
from berth.ids import Namespace, RequestId, Sequence, Term, allocation_id
from berth.messages.commands import (
    Evaluation,
    EvaluationAnswer,
    EvaluationItem,
    EvaluationOutcome,
    NoResponders,
    Proposal,
    ProposalAnswer,
    Query,
    QueryAnswer,
    Refusal,
    RefusalCode,
    ReleaseBatch,
    RequestBatch,
    Verdict,
)
from berth.messages.decisions import Decision
from berth.messages.documents import NodeState
from berth.messages.envelope import Record, tip_of
from berth.messages.events import (
    AllocationPlaced,
    Event,
    EventData,
    LeaderElected,
    RequestPlaced,
    RequestSubmitted,
    Transaction,
    Wake,
    WakeOn,
    about,
)
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth.model.check import accept
from berth.model.cluster import AllocationState
from berth.model.entitlement import shortfall
from berth.model.ledger import State
from berth.model.windows import free_now
from berth.wire import codec
from berth_quota.bounds import Bounds
from berth_quota.service import QuotaService
from tests.builders import T0, TEAM_A, a_record

CAPACITY = (Wake(on=WakeOn.CAPACITY),)
NO_ROOM = (Reason(code=ReasonCode.INSUFFICIENT_CPU, nodes=1),)


class FirstFit:
    """A scheduler that takes the first node with room for everything; `verdicts` overrule it, by request."""

    def __init__(self, walk: "Walk") -> None:
        self._walk = walk
        self.verdicts: dict[str, EvaluationOutcome] = {}
        self.fails_on: str | None = None

    def outcome(self, item: EvaluationItem) -> EvaluationOutcome:
        request, state = item.request, self._walk.leader
        if request.id == self.fails_on:
            return outcome_of(item, Verdict.UNAVAILABLE, refusal={"code": "internal"})
        overruled = self.verdicts.pop(request.id, None)
        if overruled is not None:
            return overruled.model_copy(update={"attempt": item.attempt})
        wanted = request.charge.times(item.missing)
        ready = [node for node in state.cluster.nodes.values() if node.state is NodeState.READY and not node.draining]
        node = next((node for node in ready if wanted.fits_in(free_now(state, node))), None)
        if node is None:
            return outcome_of(item, Verdict.UNPLACEABLE, reasons=NO_ROOM, wake=CAPACITY, evaluated_at=state.sequence)
        short = shortfall(state, request, request.charge.times(item.missing)) if item.grant.quota_short else ()
        if short:  # it evicts nobody
            wake = (Wake(on=WakeOn.QUOTA),)
            return outcome_of(item, Verdict.UNPLACEABLE, reasons=short, wake=wake, evaluated_at=state.sequence)
        known = state.queue.requests.get(request.key)
        events: list[EventData] = [] if known else [RequestSubmitted(request=request, digest=item.digest)]
        first = len(known.allocations) if known else 0
        live = [state.cluster.allocations[request.namespace, name] for name in known.live] if known else []
        taken = {one.index for one in live if one.state is AllocationState.PLACED}
        free = [index for index in range(request.count) if index not in taken][: item.missing]
        placed = [
            AllocationPlaced(id=allocation_id(request.id, index, first), node=node.id, charge=request.charge)
            for index in free
        ]
        events.append(RequestPlaced(allocations=tuple(placed)))
        transaction = tuple(about(request.key, data, attempt=item.attempt) for data in events)
        (refusal,) = self._walk.commit(transaction)
        if refusal is None:
            return outcome_of(item, Verdict.ACCEPTED, sequence=state.sequence)
        verdict = Verdict.SUPERSEDED if refusal.code is RefusalCode.SUPERSEDED else Verdict.REFUSED
        return outcome_of(item, verdict, refusal=refusal)


def outcome_of(item: EvaluationItem, verdict: Verdict, **more: object) -> EvaluationOutcome:
    values = {"namespace": item.request.namespace, "request": item.request.id, "attempt": item.attempt}
    return EvaluationOutcome.model_validate({**values, "verdict": verdict, **more})


def verdict(request: str, verdict: Verdict, **more: object) -> EvaluationOutcome:
    """What the scheduler is to say about a request of team-a, whatever its attempt."""
    values = {"namespace": TEAM_A, "request": request, "attempt": 0, "verdict": verdict}
    return EvaluationOutcome.model_validate({**values, **more})


@dataclass(eq=False)
class Walk:
    """`services`: the first is handed the deliveries. `hold_scheduler`, `hold_leader`: their mail waits."""

    setting: tuple[Transaction, ...] = ()
    bounds: Bounds = field(default_factory=Bounds)
    count: int = 1
    now: int = T0
    hold_scheduler: bool = False
    hold_leader: bool = False
    nobody_evaluates: bool = False
    nobody_leads: bool = False
    leader_behind_ms: int = 0
    leader: State = field(default_factory=State)
    services: list[QuotaService] = field(default_factory=list[QuotaService])
    evaluations: list[Evaluation] = field(default_factory=list[Evaluation])
    proposals: list[Proposal] = field(default_factory=list[Proposal])
    decisions: list[Decision] = field(default_factory=list[Decision])
    acknowledged: list[int] = field(default_factory=list[int])
    handles: list[str] = field(default_factory=list[str])
    in_progress: list[int] = field(default_factory=list[int])
    nudges: list[str | None] = field(default_factory=list["str | None"])
    missed: list[tuple[str, str]] = field(default_factory=list["tuple[str, str]"])
    replies: list[object] = field(default_factory=list[object])
    log: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.scheduler = FirstFit(self)
        self._mail: deque[Callable[[], None]] = deque()
        self._asked: deque[tuple[QuotaService, Ask]] = deque()
        self._proposed: deque[tuple[QuotaService, Propose]] = deque()
        self.deliveries: list[tuple[subjects.Subject, object, str, Delivery]] = []
        self._stored = 0
        self._records = [a_record(1, *self.setting, at=self.now)]
        self.leader.fold(self._records[0])
        for _ in range(self.count):
            self.start()
        self.run()

    # ------------------------------------------------------------------ processes

    @property
    def quota(self) -> QuotaService:
        """The one that is handed the deliveries."""
        return self.services[0]

    def start(self) -> QuotaService:
        """One more quota service folds the past and starts."""
        boot = str(len(self.log))
        self.log.append("started")
        service = QuotaService(Identity(user="quota-1", boot=boot), self.bounds)
        for record in self._records:
            service.replay(record)
        self.services.append(service)
        self._perform(service, service.started(self.now))
        return service

    def kill(self) -> None:
        """The first quota service is gone at once, with everything it had in memory."""
        gone = self.services.pop(0)
        self._asked = deque(pair for pair in self._asked if pair[0] is not gone)

    def lose_pin(self) -> None:
        message = Message(subject=subjects.REQUEST, body=PinLost(), tokens={"namespace": "_"})
        self._hand(self.quota, message)

    # ------------------------------------------------------------------ the stream

    def submit(self, *requests: Request, run: bool = True) -> Delivery:
        """One message of the work queue, handed to the first service."""
        namespace = requests[0].namespace
        body = RequestBatch(namespace=namespace, requests=requests)
        return self.deliver(subjects.REQUEST, body, namespace, run=run)

    def release(self, *requests: str, namespace: Namespace = TEAM_A, run: bool = True) -> Delivery:
        body = ReleaseBatch(namespace=namespace, requests=tuple(RequestId(name) for name in requests))
        return self.deliver(subjects.RELEASE, body, namespace, run=run)

    def deliver(self, subject: subjects.Subject, body: object, namespace: str, *, run: bool = True) -> Delivery:
        self._stored += 1
        delivery = Delivery(stream="REQUESTS", stream_sequence=self._stored, count=1, handle=f"d{self._stored}")
        self.deliveries.append((subject, body, namespace, delivery))
        self.redeliver(subject, body, namespace, replace(delivery, count=0), run=run)
        return delivery

    def redeliver(
        self, subject: subjects.Subject, body: object, namespace: str, delivery: Delivery, *, run: bool = True
    ) -> None:
        count = delivery.count + 1
        again = replace(delivery, count=count, handle=f"{delivery.handle}.{count}")
        message = Message(subject=subject, body=body, tokens={"namespace": namespace}, delivery=again)
        self._hand(self.quota, message, run=run)

    def nudged(self) -> None:
        """The stream delivers the empty message to the first service."""
        self.deliver(subjects.REQUEST, None, subjects.CLUSTER)

    def ask(self, subject: subjects.Subject, body: object, **tokens: str) -> None:
        """A command or a question to the first service; what it says is in `replies`."""
        self._hand(self.quota, Message(subject=subject, body=body, tokens=tokens, reply_to="me"))

    def question(self, namespace: str = subjects.CLUSTER, **query: object) -> None:
        """A client asks for `requests`."""
        body = Query.model_validate(query, strict=False)
        self.ask(subjects.QUERY, body, namespace=namespace, what="requests")

    def requests(self, namespace: str = subjects.CLUSTER, **query: object) -> QueryAnswer:
        """What it is answered at once."""
        self.question(namespace, **query)
        answer = self.replies[-1]
        assert isinstance(answer, QueryAnswer)
        return answer

    def _hand(self, service: QuotaService, message: Message, *, run: bool = True) -> None:
        self._perform(service, service.handle(message, self.now))
        if run:
            self.run()

    # ------------------------------------------------------------------ the leader

    def commit(self, *transactions: Transaction) -> list[Refusal | None]:
        """Judged one after the other; what is lawful becomes a record, which everybody folds."""
        sequence = Sequence(self.leader.sequence + 1)
        at = max(self.leader.at, self.now - self.leader_behind_ms)
        outcomes = [accept(self.leader, transaction, at, sequence) for transaction in transactions]
        lawful = [one for one, refusal in zip(transactions, outcomes, strict=True) if refusal is None]
        if lawful:
            record = a_record(sequence, *lawful, at=at)
            self.leader.tip = tip_of(record)
            self._records.append(record)
            for service in list(self.services):
                self._perform(service, service.fold(record, self.now))
        return outcomes

    def happened(self, *transactions: Transaction) -> None:
        """Somebody else brings this about, and then everybody acts on it."""
        assert self.commit(*transactions) == [None] * len(transactions)
        self.run()

    def elected(self, leader: str, term: int) -> None:
        """Another one leads; what was proposed to the last one is lost."""
        self._proposed.clear()
        barrier = Event(LeaderElected(term=Term(term), leader=leader, prev_term=Term(term - 1)))
        record = a_record(self.leader.sequence + 1, (barrier,), at=self.leader.at)
        self.leader.fold(record)
        self._records.append(record)
        for service in list(self.services):
            self._perform(service, service.fold(record, self.now))
        self.run()

    def record(self, sequence: int) -> Record:
        return self._records[sequence - 1]

    def drop_asked(self, request: str) -> None:
        """What schedulers were asked about `request` is lost; the rest is answered."""
        for service, ask in list(self._asked):
            self._asked.remove((service, ask))
            for item in ask.body.items:
                if item.request.id != request:
                    self.answer(service, self.scheduler.outcome(item), ask.token)

    def _judge(self, service: QuotaService, proposal: Proposal) -> None:
        offered = codec.decode_proposal(codec.encode_proposal(proposal))
        outcomes = self.commit(*[transaction.events for transaction in offered.transactions])
        answer = ProposalAnswer(id=proposal.id, term=Term(1), sequence=self.leader.sequence, outcomes=tuple(outcomes))
        message = Message(subject=subjects.COMMIT, body=answer, tokens={}, token=proposal.id)
        self._perform(service, service.handle(message, self.now))

    # ------------------------------------------------------------------ from hand to hand

    def run(self) -> None:
        """Until nobody has anything to say."""
        for _ in range(10_000):
            if self._proposed and not self.hold_leader:
                service, propose = self._proposed.popleft()
                self._judge(service, propose.proposal)
            elif self._asked and not self.hold_scheduler:
                self._evaluate(*self._asked.popleft())
            else:
                for service in self.services:
                    self._perform(service, service.settle(self.now))
                if not (self._proposed and not self.hold_leader) and not (self._asked and not self.hold_scheduler):
                    return
        raise AssertionError("they never came to rest")

    def wait(self, milliseconds: int) -> None:
        """Time passes; what becomes due on the way is done in its order."""
        end = self.now + milliseconds
        self.run()
        for _ in range(1_000):
            due = [time for service in self.services if (time := service.deadline()) is not None and time <= end]
            if not due:
                break
            assert min(due) > self.now, "a deadline that has passed was not met"
            self.now = max(self.now, min(due))
            self.run()
        else:
            raise AssertionError("deadlines without end")
        self.now = end

    def _evaluate(self, service: QuotaService, ask: Ask) -> None:
        evaluation = codec.decode(Evaluation, codec.encode(ask.body))
        for item in evaluation.items:
            self.answer(service, self.scheduler.outcome(item), ask.token)

    def answer(self, service: QuotaService, outcome: EvaluationOutcome, evaluation: str = "late") -> None:
        body = EvaluationAnswer(id=evaluation, outcomes=(outcome,))
        message = Message(subject=subjects.EVALUATE, body=body, tokens={}, token=evaluation)
        self._perform(service, service.handle(message, self.now))

    def _perform(self, service: QuotaService, effects: list[Effect]) -> None:
        for effect in in_order(effects):
            match effect:
                case Propose(proposal=proposal):
                    self.proposals.append(proposal)
                    self.log.append("propose")
                    if self.nobody_leads:
                        self._nobody(service, subjects.COMMIT, proposal.id)
                    else:
                        self._proposed.append((service, effect))
                case Ask(body=Evaluation() as evaluation):
                    self.evaluations.append(evaluation)
                    if self.nobody_evaluates:
                        self._nobody(service, subjects.EVALUATE, effect.token)
                    else:
                        self._asked.append((service, effect))
                case Publish(body=Decision() as decision):
                    assert effect.tokens == {"namespace": decision.namespace, "request": decision.request}
                    self.decisions.append(decision)
                    self.log.append(f"decision {decision.request}")
                case Publish(subject=subjects.REQUEST):
                    self.nudges.append(effect.message_id)
                case Acknowledge(delivery=delivery):
                    self.acknowledged.append(delivery.stream_sequence)
                    self.handles.append(delivery.handle)
                    self.log.append(f"acknowledge {delivery.stream_sequence}")
                case InProgress(delivery=delivery):
                    self.in_progress.append(delivery.stream_sequence)
                case Note(name="wakeup_missed", fields=fields):
                    self.missed.append((fields["namespace"], fields["request"]))
                case Reply(body=body):
                    self.replies.append(body)
                case other:
                    raise AssertionError(f"quota does not {type(other).__name__}")

    def _nobody(self, service: QuotaService, subject: subjects.Subject, token: str) -> None:
        message = Message(subject=subject, body=NoResponders(token=token), tokens={}, token=token)
        self._perform(service, service.handle(message, self.now))

    # ------------------------------------------------------------------ what happened

    def decision(self, request: str) -> Decision:
        """The last one about a request."""
        return [decision for decision in self.decisions if decision.request == request][-1]

    def said(self, request: str) -> list[tuple[str, int]]:
        """Status and attempt of every decision about a request, in order."""
        return [(one.status.value, one.attempt) for one in self.decisions if one.request == request]

    def evaluated(self) -> list[str]:
        """The requests that were sent to schedulers, in order."""
        return [item.request.id for evaluation in self.evaluations for item in evaluation.items]

    def types_of(self, request: str) -> list[str]:
        """The ledger's events about a request, in order."""
        return [
            event.type
            for record in self._records
            for transaction in record.transactions
            for event in transaction
            if event.request == request
        ]

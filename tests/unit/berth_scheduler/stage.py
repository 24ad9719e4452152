"""A scheduler between a test that plays quota, agents and operators, and a leader that judges for real.

Nothing moves by itself: `settle` lets the scheduler act, `commit` lets the leader judge what is on offer,
`deliver` lets the record and the answers arrive. So a test can put anything in between.
"""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from berth import subjects
from berth.effects import Ask, Effect, Identity, Message, Propose, Reply
from berth.ids import Attempt, NodeId, RequestKey, Sequence, Term
from berth.messages.commands import (
    AdminAnswer,
    Evaluation,
    EvaluationAnswer,
    EvaluationItem,
    EvaluationOutcome,
    Heartbeat,
    NodeAnswer,
    NoResponders,
    Proposal,
    ProposalAnswer,
    Refusal,
    RefusalCode,
)
from berth.messages.envelope import Record
from berth.messages.events import NodeLost, RequestPlaced, Transaction
from berth.messages.node_commands import SetNode
from berth.messages.requests import Request
from berth.model.check import accept
from berth.model.cluster import AllocationState
from berth.model.ledger import State
from berth.subjects import Subject
from berth.wire.codec import decode_proposal, encode_proposal, request_digest
from berth_scheduler.limits import Limits
from berth_scheduler.service import SchedulerService
from tests.builders import T0, a_record

Answer = TypeVar("Answer", NodeAnswer, AdminAnswer)


@dataclass
class Leader:
    """Committed state, and records that nobody has folded yet. `hears` nodes that it will not call lost."""

    state: State = field(default_factory=State)
    hears: set[str] = field(default_factory=set[str])
    term: Term = Term(1)
    records: list[Record] = field(default_factory=list[Record])

    def happened(self, *transactions: Transaction, at: int) -> Record:
        """Something is committed, whoever proposed it."""
        record = a_record(self.state.sequence + 1, *transactions, at=max(at, self.state.at))
        self.state.fold(record)
        self.records.append(record)
        return record

    def judge(self, proposal: Proposal, at: int) -> ProposalAnswer:
        """The proposal as bytes, each transaction by itself; what is lawful becomes one record."""
        offered = decode_proposal(encode_proposal(proposal))
        sequence, at = Sequence(self.state.sequence + 1), max(at, self.state.at)
        mark = self.state.journal.begin()
        outcomes = tuple(self._outcome(transaction.events, at, sequence) for transaction in offered.transactions)
        self.state.journal.undo(mark)
        accepted = tuple(
            transaction.events
            for transaction, refusal in zip(offered.transactions, outcomes, strict=True)
            if refusal is None
        )
        if accepted:
            self.happened(*accepted, at=at)
        return ProposalAnswer(id=proposal.id, term=self.term, sequence=sequence, outcomes=outcomes)

    def _outcome(self, transaction: Transaction, at: int, sequence: Sequence) -> Refusal | None:
        lost = [event.data.node for event in transaction if isinstance(event.data, NodeLost)]
        if any(node in self.hears for node in lost):
            return Refusal(code=RefusalCode.TOO_EARLY, detail=f"{lost} was heard")
        return accept(self.state, transaction, at, sequence)


class Stage:
    """One scheduler and its leader. `offers`: proposals that left; `answers`: what the leader has to say."""

    def __init__(self, *transactions: Transaction, limits: Limits | None = None, leader: Leader | None = None) -> None:
        self.now = T0
        self.leader = leader or Leader()
        if transactions:
            self.leader.happened(*transactions, at=T0)
        identity = Identity(user="scheduler-1", boot="test")
        self.scheduler = SchedulerService(identity, limits=limits or Limits())
        for record in self.leader.records:
            self.scheduler.replay(record)
        self.folded = len(self.leader.records)
        self.offers: list[Proposal] = []
        self.sent: list[str] = []
        self.answers: list[ProposalAnswer] = []
        self.outcomes: list[EvaluationOutcome] = []
        self.replies: dict[str, Any] = {}
        self._asked = 0
        self._perform(self.scheduler.started(self.now))

    @property
    def state(self) -> State:
        """The scheduler's view."""
        return self.scheduler.state

    # ------------------------------------------------------------------ one thing at a time

    def evaluate(self, *items: EvaluationItem, evaluation: str = "e1") -> None:
        """Quota sends a batch."""
        body = Evaluation(id=evaluation, items=items)
        self.handle(subjects.EVALUATE, body, reply_to=f"quota.{evaluation}")

    def handle(self, subject: Subject, body: Any, *, reply_to: str | None = None) -> None:
        message = Message(subject=subject, body=body, tokens={}, reply_to=reply_to)
        self._perform(self.scheduler.handle(message, self.now))

    def ask(self, subject: Subject, body: Any, kind: type[Answer]) -> Answer:
        """A command, everything that it sets off, and its answer."""
        self._asked += 1
        to = f"asker.{self._asked}"
        self.handle(subject, body, reply_to=to)
        self.run()
        answer = self.replies[to]
        assert isinstance(answer, kind)
        return answer

    def settle(self) -> None:
        self._perform(self.scheduler.settle(self.now))

    def commit(self) -> None:
        """The leader judges everything on offer."""
        for proposal in self.offers:
            self.answers.append(self.leader.judge(proposal, self.now))
        self.offers.clear()

    def fold(self) -> None:
        """The scheduler folds what it has not folded yet."""
        for record in self.leader.records[self.folded :]:
            self._perform(self.scheduler.fold(record, self.now))
        self.folded = len(self.leader.records)

    def hear_answers(self) -> None:
        for answer in self.answers:
            self.tell(answer)
        self.answers.clear()

    def tell(self, answer: ProposalAnswer) -> None:
        message = Message(subject=subjects.COMMIT, body=answer, tokens={}, token=answer.id)
        self._perform(self.scheduler.handle(message, self.now))

    def nobody_leads(self) -> None:
        """What is on offer finds no leader."""
        for proposal in self.offers:
            message = Message(subject=subjects.COMMIT, body=NoResponders(token=proposal.id), tokens={})
            self._perform(self.scheduler.handle(message, self.now))
        self.offers.clear()

    def run(self) -> None:
        """Everything, until nothing moves at this instant."""
        for _ in range(100):
            self.settle()
            if not self.offers and not self.answers and self.folded == len(self.leader.records):
                return
            self.commit()
            self.fold()
            self.hear_answers()
        raise AssertionError("the scheduler never came to rest")

    def advance(self, milliseconds: int, *, beating: tuple[str, ...] = ()) -> None:
        """Time passes, half a second at a time; `beating` nodes are heard, everything else takes its course."""
        end = self.now + milliseconds
        while self.now < end:
            self.now = min(end, self.now + 500)
            for node in beating:
                self.handle(subjects.NODE_HEARTBEAT, Heartbeat(node=NodeId(node), session="s"))
            self.run()

    # ------------------------------------------------------------------ what came of it

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Propose(proposal=proposal):
                    self.offers.append(proposal)
                    self.sent.append(proposal.id)
                case Reply(to=to, body=EvaluationAnswer() as answer):
                    assert to == f"quota.{answer.id}"
                    self.outcomes += answer.outcomes
                case Reply(to=to, body=body):
                    self.replies[to] = body
                case Ask():
                    raise AssertionError("a scheduler asks nobody but the leader")
                case _:
                    pass

    def verdicts(self) -> dict[str, str]:
        """The last outcome of each request, in words."""
        return {outcome.request: outcome.verdict.value for outcome in self.outcomes}

    def where(self, request: Request) -> list[str]:
        """The nodes of the request's placed allocations, as committed, by index."""
        known = self.leader.state.queue.requests.get(request.key)
        if known is None:
            return []
        live = [self.leader.state.cluster.allocations[request.namespace, name] for name in known.live]
        placed = sorted((one.index, one.node) for one in live if one.state is AllocationState.PLACED)
        return [node for _, node in placed]

    def status(self, request: Request) -> str:
        return self.leader.state.queue.requests[request.key].status.value

    def offered_nodes(self) -> list[list[str]]:
        """Where the transactions on offer would place things."""
        return [
            [
                one.node
                for event in transaction
                if isinstance(event.data, RequestPlaced)
                for one in event.data.allocations
            ]
            for proposal in self.offers
            for transaction in proposal.transactions
        ]

    def set_node(self, node: str, **changes: Any) -> AdminAnswer:
        return self.ask(subjects.ADMIN_NODE, SetNode(node=NodeId(node), **changes), AdminAnswer)


def item(request: Request, attempt: int = 1, missing: int | None = None) -> EvaluationItem:
    """What quota asks for one request."""
    return EvaluationItem(
        request=request,
        digest=request_digest(request),
        attempt=Attempt(attempt),
        missing=missing or request.count,
        traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
    )


def attempt_of(state: State, key: RequestKey) -> int:
    return state.queue.requests[key].attempt


def refused(stage: Stage, code: RefusalCode, *, sequence: int | None = None) -> ProposalAnswer:
    """The leader refuses everything on offer, judged as part of the record at `sequence`."""
    (proposal,) = stage.offers
    stage.offers.clear()
    refusal = Refusal(code=code, detail="the test says so")
    at = Sequence(stage.state.sequence + 1 if sequence is None else sequence)
    outcomes = (refusal,) * len(proposal.transactions)
    answer = ProposalAnswer(id=proposal.id, term=Term(1), sequence=at, outcomes=outcomes)
    stage.tell(answer)
    return answer

"""The scheduler: message in, effects out. Evaluations, commands about nodes, and what silence says.

Replicas share the work by queue group and need not agree on anything: what two of them propose for one
attempt, the leader accepts once.
"""

from itertools import count

from berth import subjects
from berth.effects import Effect, Identity, Message, Note, Propose, Reply
from berth.ids import Sequence
from berth.messages.commands import (
    Evaluation,
    Heartbeat,
    NodeAllocationsWanted,
    NodeLeave,
    NodeRegister,
    NodeStopped,
    NoResponders,
    ProposalAnswer,
)
from berth.messages.envelope import Record
from berth.messages.node_commands import RemoveNode, SetNode
from berth.model.ledger import State
from berth.subjects import Subject
from berth_scheduler.assumed import Assumptions
from berth_scheduler.board import Board
from berth_scheduler.errands import Errand, Errands
from berth_scheduler.evaluation import Evaluations, Work
from berth_scheduler.limits import USUAL, Limits
from berth_scheduler.nodes import Nodes
from berth_scheduler.offers import Offers


class SchedulerService:
    """Decides placement, node liveness and drains (see the package). `seed` salts the strategy `random`."""

    role = subjects.SCHEDULER
    subscriptions: tuple[Subject, ...] = (
        subjects.EVALUATE,
        subjects.ADMIN_NODE,
        subjects.NODE_REGISTER,
        subjects.NODE_LEAVE,
        subjects.NODE_STOPPED,
        subjects.NODE_ALLOCATIONS,
        subjects.NODE_HEARTBEAT,
    )

    def __init__(self, identity: Identity, *, limits: Limits = USUAL, seed: str = "") -> None:
        self.state = State()
        self.seed = seed
        board, assumptions = Board.following(self.state), Assumptions(self.state)
        numbers = count(1)
        self._placements: Offers[Work] = Offers(lambda: identity.token(next(numbers)), limits)
        self._steps: Offers[Errand] = Offers(lambda: identity.token(next(numbers)), limits)
        self._assumptions = assumptions
        self._evaluations = Evaluations(
            state=self.state, board=board, assumptions=assumptions, limits=limits, seed=seed
        )
        self._errands = Errands(state=self.state, assumptions=assumptions, limits=limits)
        self.nodes = Nodes(
            state=self.state, board=board, assumptions=assumptions, errands=self._errands, limits=limits, seed=seed
        )

    @property
    def sequence(self) -> Sequence:
        return self.state.sequence

    # ------------------------------------------------------------------ the ledger

    def replay(self, record: Record) -> None:
        self.state.fold(record)

    def started(self, now_ms: int) -> list[Effect]:
        self.nodes.began(now_ms)
        return []

    def fold(self, record: Record, now_ms: int) -> list[Effect]:
        self._assumptions.lift()
        self.state.fold(record)
        self._evaluations.folded(record)
        self.nodes.folded(record, now_ms)
        if record.elected is not None:
            self._placements.leader_elected(now_ms)
            self._steps.leader_elected(now_ms)
        return self._evaluations.answers()

    # ------------------------------------------------------------------ messages

    def handle(self, message: Message, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        match message.body:
            case Heartbeat() as heartbeat:
                self.nodes.beat(heartbeat, now_ms)
            case Evaluation() as evaluation if message.reply_to is not None:
                self._evaluations.receive(evaluation, message.reply_to, now_ms)
            case ProposalAnswer() as answer:
                self._answered(answer, now_ms)
            case NoResponders(token=token):
                self._placements.nobody_there(token, now_ms)
                self._steps.nobody_there(token, now_ms)
            case NodeAllocationsWanted(node=node) if message.reply_to is not None:
                effects.append(Reply(to=message.reply_to, body=self.nodes.allocations(node)))
            case NodeRegister() | NodeLeave() | NodeStopped() | SetNode() | RemoveNode() as command:
                effects += self.nodes.command(command, message.reply_to, now_ms)
            case _:
                pass  # a question that names no address for its answer
        return [*effects, *self._evaluations.answers(), *self._errands.answers()]

    def _answered(self, answer: ProposalAnswer, now_ms: int) -> None:
        for placement in self._placements.answered(answer, now_ms):
            self._evaluations.decided(placement, now_ms)
        for step in self._steps.answered(answer, now_ms):
            self._errands.decided(step, now_ms)

    # ------------------------------------------------------------------ what leaves together

    def settle(self, now_ms: int) -> list[Effect]:
        effects = self.nodes.sweep(now_ms)
        again, works = self._placements.due(now_ms)
        more, errands = self._steps.due(now_ms)
        self._evaluations.given_up(works)
        self._errands.given_up(errands)
        self._evaluations.expire(now_ms)
        self._errands.expire(now_ms)
        effects += again + more
        placements = self._evaluations.judge(now_ms)
        steps = self._errands.step(now_ms)
        view = self.state.sequence
        effects += _noted(self._placements.propose(placements, view=view, now_ms=now_ms))
        effects += _noted(self._steps.propose(steps, view=view, now_ms=now_ms))
        return [*effects, *self._evaluations.answers(), *self._errands.answers()]

    def deadline(self) -> int | None:
        parts = (
            self.nodes.sweep_at if self.state.cluster.nodes else None,
            self._placements.deadline(),
            self._steps.deadline(),
            self._evaluations.deadline(),
            self._errands.deadline(),
        )
        return min((due for due in parts if due is not None), default=None)


def _noted(proposals: list[Effect]) -> list[Effect]:
    """Each proposal with its line in the log."""
    found: list[Effect] = []
    for effect in proposals:
        if isinstance(effect, Propose):
            proposal = effect.proposal
            fields = {
                "proposal": proposal.id,
                "transactions": len(proposal.transactions),
                "view_sequence": proposal.view_sequence,
            }
            found.append(Note(name="plan_proposed", fields=fields))
        found.append(effect)
    return found

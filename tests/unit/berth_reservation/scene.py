"""Reservation services around a leader that judges as the real one does, in virtual time.

Whatever a service offers is judged at the leader's clock and becomes one record; every service folds it. What
may go wrong is switched on: nobody leads, answers get lost, a replica falls behind, clocks differ.
"""

from typing import Any

from berth import subjects
from berth.effects import Identity, Message, Propose, Reply, in_order
from berth.ids import Namespace, Sequence, Term
from berth.messages.commands import (
    CancelReservation,
    CreateReservation,
    ExtendReservation,
    NoResponders,
    Proposal,
    ProposalAnswer,
    Refusal,
    ReservationAnswer,
    ShrinkReservation,
    SkipReservation,
)
from berth.messages.documents import RESERVATION
from berth.messages.envelope import Record
from berth.messages.events import Event, EventData, ReservationActivated, ReservationEnded, Transaction
from berth.model.charging import recount_usage
from berth.model.check import accept
from berth.model.ledger import State
from berth.model.reservation import Reservation
from berth_reservation.pace import USUAL, Pace
from berth_reservation.service import ReservationService
from tests.builders import T0, TEAM_A, a_record


class Scene:
    """`now`: every service's clock. `leader_lags_ms`: how far the leader's is behind it."""

    def __init__(self, *history: Transaction, replicas: int = 1, now: int = T0, pace: Pace = USUAL) -> None:
        self.now = now
        self.leader = State()
        self.records: list[Record] = []
        self.services = [
            ReservationService(Identity(user=f"reservation-{number + 1}", boot="scene"), pace)
            for number in range(replicas)
        ]
        self.answers: dict[str, ReservationAnswer] = {}
        self.offers: list[Proposal] = []
        self.refusals: list[Refusal] = []
        self.nobody_leads = False
        self.answers_are_lost = False
        self.behind: set[int] = set()
        self.leader_lags_ms = 0
        self._asked = 0
        self._offered: list[tuple[int, Proposal]] = []
        self._missed: dict[int, list[Record]] = {number: [] for number in range(replicas)}
        if history:
            record = a_record(1, *history, at=now)
            self.leader.fold(record)
            for service in self.services:
                service.replay(record)
        for number, service in enumerate(self.services):
            self._perform(number, service.started(now))

    # --- what others do -------------------------------------------------------------------------------

    def create(self, *, by: int = 0, namespace: Namespace = TEAM_A, **document: Any) -> str:
        """Ask for a reservation, written as people write it; the token of the answer."""
        written = {"id": "res1", "namespace": namespace, "resources": {"cpu_cores": 4}, **document}
        body = CreateReservation(reservation=RESERVATION.validate_python(written, strict=False))
        return self._ask(by, body, namespace, "create")

    def cancel(self, name: str = "res1", *, by: int = 0, namespace: Namespace = TEAM_A, evict: bool = False) -> str:
        return self._ask(by, CancelReservation(reservation=name, evict=evict), namespace, "cancel")

    def skip(self, name: str = "res1") -> str:
        return self._ask(0, SkipReservation(reservation=name), TEAM_A, "skip")

    def extend(self, name: str = "res1", **wanted: Any) -> str:
        body = ExtendReservation.model_validate({"reservation": name, **wanted})
        return self._ask(0, body, TEAM_A, "extend")

    def shrink(self, name: str = "res1", **wanted: Any) -> str:
        body = ShrinkReservation.model_validate({"reservation": name, **wanted})
        return self._ask(0, body, TEAM_A, "shrink")

    def why(self, token: str) -> str | None:
        """What a command was refused with; None: it was carried out."""
        refusal = self.answers[token].refusal
        return None if refusal is None else refusal.detail

    def _ask(self, by: int, body: Any, namespace: Namespace, verb: str) -> str:
        self._asked += 1
        token = f"ask-{self._asked}"
        tokens = {"namespace": namespace, "verb": verb}
        message = Message(subject=subjects.RESERVE, body=body, tokens=tokens, reply_to=token)
        self._perform(by, self.services[by].handle(message, self.now))
        return token

    def commit(self, *transactions: Transaction) -> None:
        """What other services and the leader have brought about, lawful or not."""
        self._append(list(transactions))

    # --- the walk ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until nobody has anything to say at this moment."""
        for _ in range(1_000):
            for number, service in enumerate(self.services):
                self._perform(number, service.settle(self.now))
            if self._offered:
                self._judge()
            elif (due := self._next()) is None or due > self.now:
                return
        raise AssertionError("the services never came to rest")

    def advance(self, to: int) -> None:
        """Let time pass; whoever set an alarm wakes at it."""
        self.run()
        while (due := self._next()) is not None and due <= to:
            self.now = due
            self.run()
        self.now = to
        self.run()

    def _next(self) -> int | None:
        return min((due for one in self.services if (due := one.deadline()) is not None), default=None)

    def _judge(self) -> None:
        offered, self._offered = self._offered, []
        if self.nobody_leads:
            for number, proposal in offered:
                self._tell(number, NoResponders(token=proposal.id), proposal.id)
            return
        at, sequence = self._leader_time(), Sequence(self.leader.sequence + 1)
        lawful: list[Transaction] = []
        answers: list[tuple[int, ProposalAnswer]] = []
        with self.leader.journal.trial():
            for number, proposal in offered:
                outcomes = [accept(self.leader, one, at, sequence) for one in proposal.transactions]
                lawful += [one for one, no in zip(proposal.transactions, outcomes, strict=True) if no is None]
                self.refusals += [no for no in outcomes if no is not None]
                answer = ProposalAnswer(id=proposal.id, term=Term(1), sequence=sequence, outcomes=tuple(outcomes))
                answers.append((number, answer))
        if lawful:
            self._append(lawful)
        for number, answer in answers:
            if not self.answers_are_lost:
                self._tell(number, answer, answer.id)

    def _leader_time(self) -> int:
        return max(self.leader.at, self.now - self.leader_lags_ms)

    def _append(self, transactions: list[Transaction]) -> None:
        record = a_record(self.leader.sequence + 1, *transactions, at=self._leader_time())
        self.leader.fold(record)
        self.records.append(record)
        for number in range(len(self.services)):
            self._missed[number].append(record)
            if number not in self.behind:
                self.catch_up(number)
        assert self.leader.cluster.recount() == {n: u for n, u in self.leader.cluster.used.items() if u.instances}
        assert recount_usage(self.leader) == dict(self.leader.quotas.used)

    def catch_up(self, number: int) -> None:
        """A replica folds what it has missed."""
        self.behind.discard(number)
        for record in self._missed[number]:
            self._perform(number, self.services[number].fold(record, self.now))
        self._missed[number].clear()

    def _tell(self, number: int, body: Any, token: str) -> None:
        message = Message(subject=subjects.COMMIT, body=body, tokens={}, token=token)
        self._perform(number, self.services[number].handle(message, self.now))

    def _perform(self, number: int, effects: list[Any]) -> None:
        for effect in in_order(effects):
            if isinstance(effect, Propose):
                self._offered.append((number, effect.proposal))
                self.offers.append(effect.proposal)
            elif isinstance(effect, Reply):
                assert effect.to not in self.answers, "a command is answered once"
                self.answers[effect.to] = effect.body

    # --- what is seen afterwards ----------------------------------------------------------------------------

    def reservation(self, name: str = "res1") -> Reservation:
        return {str(key): row for key, row in self.leader.reservations.reservations.items()}[name]

    @property
    def events(self) -> list[Event]:
        """Everything that was committed after the history."""
        return [event for record in self.records for one in record.transactions for event in one]

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    @property
    def asked(self) -> int:
        """How many commands there were."""
        return self._asked

    @property
    def activated(self) -> list[str]:
        """Which reservations became active, in that order."""
        return [one.reservation for one in self.data(ReservationActivated)]

    @property
    def over(self) -> list[str]:
        """Which reservations ended, in that order."""
        return [one.reservation for one in self.data(ReservationEnded)]

    def data(self, kind: type[EventData]) -> list[Any]:
        return [event.data for event in self.events if isinstance(event.data, kind)]

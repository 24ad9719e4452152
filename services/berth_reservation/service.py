"""Reservation service: commands and time in, proposals out (`berth.v1.commit.reservation`), answers after commit.

Any number of replicas may run: each proposes what is due, the leader does it once, and what was done already
changes nothing. Nothing is believed but the ledger: a proposal without an answer is made again on a newer view.
"""

from collections.abc import Sequence as Listing
from dataclasses import dataclass, replace
from itertools import islice

from berth import subjects
from berth.effects import Effect, Identity, Message, Note, Propose, Reply
from berth.ids import Namespace, ReservationId, Sequence
from berth.messages.commands import (
    NoResponders,
    Proposal,
    ProposalAnswer,
    Refusal,
    RefusalCode,
    ReservationAnswer,
    ReservationCommand,
)
from berth.messages.envelope import Record
from berth.messages.events import Transaction
from berth.model.check import accept
from berth.model.ledger import State
from berth.wire.codec import encode_event
from berth_reservation.agenda import Agenda, Key
from berth_reservation.commands import FINAL, Command, outcome, plan, refused
from berth_reservation.pace import USUAL, Pace
from berth_reservation.timers import Phase, Timers

PROPOSAL_BYTES_MAX = 512 * 1024
"""Half of what the server takes in one message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A proposal on its way: one owner per transaction, a command's number or what is due."""

    owners: tuple[int | Key, ...]
    gives_up_at: int

    @property
    def is_of_time(self) -> bool:
        return not isinstance(self.owners[0], int)


class ReservationService:
    """What it decides: windows, their start and their end, and the end of durations."""

    role = subjects.RESERVATION
    subscriptions = (subjects.RESERVE,)

    def __init__(self, identity: Identity, pace: Pace = USUAL) -> None:
        self.state = State()
        self._identity = identity
        self._pace = pace
        self._agenda = Agenda(pace)
        self._commands: dict[int, Command] = {}
        self._to_plan: Timers[int] = Timers()
        self._offers: dict[str, Offer] = {}
        self._offered = 0
        self._asked = 0

    @property
    def sequence(self) -> Sequence:
        return self.state.sequence

    def replay(self, record: Record) -> None:
        self.state.fold(record)

    def started(self, now_ms: int) -> list[Effect]:
        self._agenda.begin(self.state, now_ms)
        return []

    def fold(self, record: Record, now_ms: int) -> list[Effect]:
        """What stands in the ledger now answers the commands that wanted it, whoever proposed it."""
        self.state.fold(record)
        self._agenda.follow(self.state, record, now_ms)
        return [effect for number in list(self._commands) for effect in self._answered_by_state(number)]

    def handle(self, message: Message, now_ms: int) -> list[Effect]:
        body = message.body
        if isinstance(body, ReservationCommand):
            return self._ask(message, body, now_ms)
        if isinstance(body, ProposalAnswer):
            return self._told(body, now_ms)
        if isinstance(body, NoResponders):
            self._give_up(body.token, now_ms + self._pace.after(2))
        return []

    def settle(self, now_ms: int) -> list[Effect]:
        effects = self._give_up_what_is_late(now_ms)
        planned: list[tuple[Key, Transaction]] = []
        asked: list[tuple[int, Transaction]] = []
        with self.state.journal.trial():  # each is planned on what the earlier ones will have changed
            if sum(offer.is_of_time for offer in self._offers.values()) < self._pace.offers_max:
                effects += self._plan_what_is_due(planned, now_ms)
            effects += self._plan_commands(asked, now_ms)
        effects += [self._propose(part, now_ms, None) for part in _parts(planned)]
        for number, transaction in asked:
            context = self._commands[number].traceparent
            traced = tuple(replace(event, traceparent=context) for event in transaction)
            effects.append(self._propose([(number, traced)], now_ms, context))
        return effects

    def deadline(self) -> int | None:
        times = [
            self._to_plan.next(),
            next((offer.gives_up_at for offer in self._offers.values()), None),
            next((command.gives_up_at for command in self._commands.values()), None),
        ]
        if sum(offer.is_of_time for offer in self._offers.values()) < self._pace.offers_max:
            times.append(self._agenda.next())
        return min((due for due in times if due is not None), default=None)

    # --- commands -----------------------------------------------------------------------------------

    def _ask(self, message: Message, body: ReservationCommand, now: int) -> list[Effect]:
        self._asked += 1
        self._commands[self._asked] = Command(
            body=body,
            namespace=Namespace(message.tokens["namespace"]),
            reply_to=message.reply_to,
            traceparent=message.traceparent,
            asked_at=now,
            gives_up_at=now + self._pace.command_ms,
        )
        if len(self._commands) > self._pace.commands_max:
            text = f"{self._pace.commands_max} commands wait: try again in a moment"
            return self._answer(self._asked, refused(RefusalCode.OVERLOADED, text))
        self._to_plan.set(self._asked, now, Phase.START)
        return self._answered_by_state(self._asked)

    def _answered_by_state(self, number: int) -> list[Effect]:
        answer = outcome(self.state, self._commands[number])
        return [] if answer is None else self._answer(number, answer)

    def _answer(self, number: int, answer: ReservationAnswer) -> list[Effect]:
        command = self._commands.pop(number)
        self._to_plan.drop(number)
        fields = {
            "namespace": command.namespace,
            "reservation": command.reservation,
            "verb": command.body.verb,
            "refusal": answer.refusal.code.value if answer.refusal else None,
        }
        effects: list[Effect] = [Note(name="reservation_answered", fields=fields)]
        if command.reply_to is not None:
            effects.append(Reply(to=command.reply_to, body=answer, traceparent=command.traceparent))
        return effects

    def _plan_commands(self, asked: list[tuple[int, Transaction]], now: int) -> list[Effect]:
        effects: list[Effect] = []
        taken: set[ReservationId] = set()
        for number in list(islice(self._to_plan.take(now), self._pace.transactions_max)):
            command = self._commands[number]
            if command.reservation in taken:  # the ledger decides what an earlier one made of it
                self._to_plan.set(number, now + self._pace.retry_min_ms, Phase.START)
                continue
            taken.add(command.reservation)
            planned = plan(self.state, command, now)
            refusal = planned if isinstance(planned, Refusal) else self._accept(planned, now)
            if refusal is None and not isinstance(planned, Refusal):
                self._to_plan.set(number, now + self._pace.answer_ms, Phase.START)
                asked.append((number, planned))
            elif refusal is not None:
                effects += self._refused_here(number, refusal, now)
        return effects

    def _refused_here(self, number: int, refusal: Refusal, now: int) -> list[Effect]:
        """This view says no. What it does not know, or what it expects to be done by then, may only be late."""
        command = self._commands[number]
        may_be_late = refusal.code is RefusalCode.NOT_FOUND and not command.tries
        if may_be_late or refusal.code is RefusalCode.ALREADY_DONE:
            command.tries += 1
            self._to_plan.set(number, now + self._pace.after(2), Phase.START)
            return []
        return self._answer(number, ReservationAnswer(refusal=refusal))

    def _refused_there(self, number: int, refusal: Refusal | None, now: int) -> list[Effect]:
        """The leader's outcome: None is accepted, so the record is about to be folded."""
        command = self._commands.get(number)
        if command is None or refusal is None:
            return []
        command.tries += 1
        if refusal.code in FINAL or command.tries >= self._pace.tries_max:
            return self._answer(number, ReservationAnswer(refusal=refusal))
        self._to_plan.set(number, now + self._pace.after(command.tries), Phase.START)
        return []

    # --- time ---------------------------------------------------------------------------------------

    def _plan_what_is_due(self, planned: list[tuple[Key, Transaction]], now: int) -> list[Effect]:
        effects: list[Effect] = []
        for key, transactions in self._agenda.due(self.state, now):
            for transaction in transactions:
                refusal = self._accept(transaction, now)
                if refusal is not None:
                    effects += self._postpone(key, refusal, now)
                    break
                planned.append((key, transaction))
        return effects

    def _postpone(self, key: Key, refusal: Refusal, now: int) -> list[Effect]:
        if not self._agenda.refused(self.state, key, refusal, now):
            return []
        spoken = key if isinstance(key, str) else "/".join(key)
        return [Note(name="timer_refused", fields={"of": spoken, "code": refusal.code.value, "detail": refusal.detail})]

    def _accept(self, transaction: Transaction, now: int) -> Refusal | None:
        """What the leader would say; what is lawful is folded, as far as the trial goes."""
        return accept(self.state, transaction, now, Sequence(self.state.sequence + 1))

    # --- proposals ----------------------------------------------------------------------------------

    def _propose(self, owned: Listing[tuple[int | Key, Transaction]], now: int, traceparent: str | None) -> Propose:
        self._offered += 1
        name = self._identity.token(self._offered)
        owners = tuple(owner for owner, _ in owned)
        self._offers[name] = Offer(owners=owners, gives_up_at=now + self._pace.answer_ms)
        transactions = tuple(transaction for _, transaction in owned)
        proposal = Proposal(id=name, transactions=transactions, view_sequence=self.state.sequence)
        return Propose(proposal=proposal, traceparent=traceparent)

    def _told(self, answer: ProposalAnswer, now: int) -> list[Effect]:
        offer = self._offers.pop(answer.id, None)
        if offer is None:
            return []
        effects: list[Effect] = []
        for owner, refusal in zip(offer.owners, answer.outcomes, strict=False):
            if isinstance(owner, int):
                effects += self._refused_there(owner, refusal, now)
            elif refusal is None:
                self._agenda.accepted()
            else:
                effects += self._postpone(owner, refusal, now)
        return effects

    def _give_up(self, name: str, again_at: int) -> None:
        """Nobody says what became of it: its commands are planned again, what is due has its own time."""
        offer = self._offers.pop(name, None)
        for owner in offer.owners if offer else ():
            if isinstance(owner, int) and owner in self._commands:
                self._to_plan.set(owner, again_at, Phase.START)

    def _give_up_what_is_late(self, now: int) -> list[Effect]:
        for name in [name for name, offer in self._offers.items() if offer.gives_up_at <= now]:
            self._give_up(name, now)
        late = [number for number, command in self._commands.items() if command.gives_up_at <= now]
        text = "no leader has decided in time: the same command may safely be sent again"
        return [effect for number in late for effect in self._answer(number, refused(RefusalCode.UNKNOWN, text))]


def _parts(planned: list[tuple[Key, Transaction]]) -> list[list[tuple[Key, Transaction]]]:
    """As few proposals as one message each can carry."""
    parts: list[list[tuple[Key, Transaction]]] = []
    room = 0
    for owned in planned:
        size = sum(len(encode_event(event)) + 1 for event in owned[1])
        if size > room:
            parts.append([])
            room = PROPOSAL_BYTES_MAX
        parts[-1].append(owned)
        room -= size
    return parts

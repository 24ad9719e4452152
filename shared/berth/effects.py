"""What a service wants done, and the shape that every service has: message in, effects out.

A service never awaits, logs or reads a clock. The runner (`berth.runtime`), the cell and the simulated
world perform what it returns, always in the order *propose or append, publish, reply, acknowledge*
(DESIGN section 1, law 3).
"""

from collections.abc import Sequence as Listing
from dataclasses import dataclass
from typing import Any, Protocol

from berth.ids import Sequence
from berth.messages.commands import Proposal
from berth.messages.envelope import Record
from berth.model.ledger import State
from berth.subjects import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One delivery of a stream's message; `handle` is what an acknowledgement is sent to."""

    stream: str
    stream_sequence: int
    count: int
    handle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PinLost:
    """Body of a message on REQUEST: another process is the active quota service now. Whoever receives
    anything else from the work queue holds the pin (DESIGN section 2, "Active quota service").
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What reached a service. `body` is decoded (a type of `berth.messages`); services match on it.
    On REQUEST, None is the nudge, and PinLost comes from the runner itself.

    `tokens`: what stood for the template's names, such as {"namespace": "team-a"}.
    `traceparents`: of each request of a batch, where the sender gave each its own.
    `reply_to`: where an answer goes, if one is wanted. `token`: for answers, the token of the question.
    """

    subject: Subject
    body: Any
    tokens: dict[str, str]
    reply_to: str | None = None
    token: str | None = None
    delivery: Delivery | None = None
    traceparent: str | None = None
    traceparents: tuple[str | None, ...] = ()

    def traceparent_of(self, index: int) -> str | None:
        """The trace context of the batch's request at `index`."""
        return self.traceparents[index] if index < len(self.traceparents) else self.traceparent


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose:
    """Offer to the leader; its ProposalAnswer comes back as a message whose token is the proposal's id."""

    proposal: Proposal
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Publish on `subject` and expect answers with `token`; NoResponders when nobody is there."""

    subject: Subject
    body: Any
    token: str
    tokens: dict[str, str]
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Publish on `subject`. `message_id` makes it idempotent where the subject belongs to a stream."""

    subject: Subject
    body: Any
    tokens: dict[str, str]
    message_id: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Answer a question."""

    to: str
    body: Any
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledge:
    """The message needs no other delivery."""

    delivery: Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class InProgress:
    """The message is still being worked on: do not deliver it again yet."""

    delivery: Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """The message can never be handled: store it with the reason, then acknowledge it."""

    delivery: Delivery
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A decision worth a log line and, where `namespace`/`request` are named, a span attribute.

    `name` is noun_pasttense; `fields` are what a searcher wants.
    """

    name: str
    fields: dict[str, Any]


Effect = Propose | Ask | Publish | Reply | Acknowledge | InProgress | DeadLetter | Note

_RANK: dict[type, int] = {
    Note: 0,
    Propose: 1,
    Ask: 2,
    Publish: 3,
    Reply: 4,
    InProgress: 5,
    DeadLetter: 6,
    Acknowledge: 7,
}


def in_order(effects: Listing[Effect]) -> list[Effect]:
    """The effects as they are performed: what changes state first, acknowledgements last; stable."""
    return sorted(effects, key=lambda effect: _RANK[type(effect)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which process this is among all that ever ran. A service gets it when it is made and takes the ids
    of its proposals and questions from it, so no answer ever meets another's question.

    `user` is the process's name on the bus, such as quota-1; `boot` is new at every start.
    """

    user: str
    boot: str

    def token(self, number: int) -> str:
        """The `number`-th id of this process: one subject token; each number is used once."""
        return f"{self.user}-{self.boot}-{number}"


class Service(Protocol):
    """What the runner drives. `now_ms` is the process's wall clock in milliseconds UTC, for deadlines only:
    domain time is the record's `at`.
    """

    @property
    def role(self) -> str:
        """One of `berth.subjects.SERVICES`."""
        ...

    @property
    def subscriptions(self) -> tuple[Subject, ...]:
        """What this service takes messages of; answers to its own questions reach it besides."""
        ...

    @property
    def state(self) -> State:
        """All that it remembers of the ledger: put here from a snapshot, before `replay` folds the rest."""
        ...

    @property
    def sequence(self) -> Sequence:
        """How far this service has folded."""
        ...

    def replay(self, record: Record) -> None:
        """Fold a record of the past: no effects."""
        ...

    def started(self, now_ms: int) -> list[Effect]:
        """The fold has caught up: drive what waits."""
        ...

    def fold(self, record: Record, now_ms: int) -> list[Effect]:
        """Fold a committed record as it arrives."""
        ...

    def handle(self, message: Message, now_ms: int) -> list[Effect]:
        """Take one message; what can wait for the rest of the burst waits for `settle`."""
        ...

    def settle(self, now_ms: int) -> list[Effect]:
        """The burst is over, or the deadline has come: what was gathered leaves together."""
        ...

    def deadline(self) -> int | None:
        """When `settle` is wanted next although nothing arrives (milliseconds UTC), or None."""
        ...

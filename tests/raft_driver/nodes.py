"""A raft core with a clock and a disk in the hands of the driver, and what it puts on the wire."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from berth_raft.core.effects import Effect, HardState, Persist, Role, Send
from berth_raft.core.messages import (
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    TimeoutNow,
    Tip,
    Vote,
    VoteReply,
)
from berth_raft.core.node import RaftCore
from berth_raft.core.settings import RaftSettings
from berth_raft.core.timer import ElectionTimer

TICK_MS = 1
TICK_US = 1_000 * TICK_MS

TYPES: dict[type[Message], str] = {
    PreVote: "pre_vote",
    PreVoteReply: "pre_vote_reply",
    Vote: "vote",
    VoteReply: "vote_reply",
    Heartbeat: "heartbeat",
    HeartbeatReply: "heartbeat_reply",
    TimeoutNow: "timeout_now",
}

Json = dict[str, Any]


class WholeTicks:
    """Timeouts are drawn in whole ticks, so that a node acts at the tick that it drew."""

    def __init__(self, seed: str) -> None:
        self._random = Random(seed)

    def randint(self, a: int, b: int, /) -> int:
        if a % TICK_US or b % TICK_US:
            return self._random.randint(a, b)
        return self._random.randint(a // TICK_US, b // TICK_US) * TICK_US


class DrivenTimer(ElectionTimer):
    """In the hands of the driver, and drawn from the whole range by candidates too."""

    began_us = 0

    def set_timeout(self, ticks: int) -> None:
        """The timeout that runs ends so many ticks after it began."""
        self.due_us = self.began_us + ticks * TICK_US

    def _retry(self, now_us: int, *, sixths: int) -> None:
        self.began_us = now_us
        super()._retry(now_us, sixths=max(sixths, 6))


class BareCore(RaftCore):
    """A core that shows its vote, and takes its timer from outside."""

    def __init__(
        self, node_id: str, settings: RaftSettings, hard_state: HardState, random: WholeTicks, now_us: int
    ) -> None:
        super().__init__(node_id, settings, hard_state, random, now_us)
        self._timer = self.timer = DrivenTimer(settings, random, now_us)

    @property
    def vote(self) -> str | None:
        return self._vote


@dataclass(slots=True, kw_only=True)
class Node:
    """A core, its clock, its disk, and the effects that it has not performed yet."""

    core: BareCore
    dice: WholeTicks
    persisted: HardState
    now_us: int = 0
    effects: list[Effect] = field(default_factory=list[Effect])
    barrier_term: int = 0
    """The term for which it appended its barrier; only the first `process` after a win does."""
    tip: Tip

    def set_tip(self, tip: Tip) -> None:
        self.tip = tip
        self.core.set_tip(tip)

    def append(self) -> None:
        self.set_tip(Tip(barrier_term=self.core.term, sequence=self.tip.sequence + 1))

    @property
    def owes_barrier(self) -> bool:
        return self.core.role is Role.LEADER and self.barrier_term < self.core.term

    def perform(self) -> Iterator[Send]:
        """Everything that there is to do: the hard state is on disk before a message leaves."""
        while self.effects or self.owes_barrier:
            if self.owes_barrier:
                self.barrier_term = self.core.term
                self.append()
            effects, self.effects = self.effects, []
            for effect in effects:
                if isinstance(effect, Persist):
                    self.persisted = effect.hard_state
                    self.effects += self.core.on_synced(effect.token, self.now_us)
            yield from (effect for effect in effects if isinstance(effect, Send))

    def restart(self) -> None:
        self.core = BareCore(self.core.node_id, self.core.settings, self.persisted, self.dice, self.now_us)
        self.core.set_tip(self.tip)
        self.effects = []


@dataclass(frozen=True, slots=True, kw_only=True)
class OnWire:
    sender: str
    to: str
    message: Message

    def shown(self) -> Json:
        message = self.message
        return {
            "from": int(self.sender),
            "to": int(self.to),
            "type": TYPES[type(message)],
            "term": message.term,
            "reject": isinstance(message, PreVoteReply | VoteReply) and not message.granted,
            "tip": shown_tip(message.tip) if isinstance(message, PreVote | Vote | Heartbeat) else None,
        }


def new_node(name: str, settings: RaftSettings, persisted: HardState, tip: Tip) -> Node:
    dice = WholeTicks(name)
    core = BareCore(name, settings, persisted, dice, 0)
    core.set_tip(tip)
    return Node(core=core, dice=dice, persisted=persisted, tip=tip)


def shown(node: Node) -> Json:
    core = node.core
    return {
        "id": int(core.node_id),
        "role": str(core.role),
        "term": core.term,
        "vote": None if core.vote is None else int(core.vote),
        "leader": None if core.leader is None else int(core.leader),
        "tip": shown_tip(node.tip),
    }


def shown_tip(tip: Tip) -> list[int]:
    return [tip.barrier_term, tip.sequence]

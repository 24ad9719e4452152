"""One raft core with a clock and a disk in the hands of a test, and messages from its peers."""

from random import Random
from typing import TypeVar

from berth_raft.core.effects import Amnesiac, Effect, HardState, Persist, Role, Send
from berth_raft.core.messages import (
    EMPTY,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    Stamp,
    TimeoutNow,
    Tip,
    Vote,
    VoteReply,
)
from berth_raft.core.node import RaftCore
from berth_raft.core.settings import RaftSettings

MS = 1_000
MEMBERS = ("a", "b", "c")
STAMP = Stamp(cluster_id="berth", config_hash="0" * 16, incarnation=1)
BEHIND, LEVEL, AHEAD = (
    Tip(barrier_term=3, sequence=9),
    Tip(barrier_term=3, sequence=10),
    Tip(barrier_term=4, sequence=1),
)


class DrivenNode:
    """Node `a`. Its disk is instant unless `disk_waits`; then `sync` ends what is under way."""

    def __init__(
        self,
        *,
        members: tuple[str, ...] = MEMBERS,
        observers: tuple[str, ...] = (),
        hard_state: HardState | Amnesiac | None = None,
        tip: Tip = EMPTY,
        seed: int = 0,
    ) -> None:
        self.now_us = 1_000_000
        self.disk_waits = False
        self.unsynced: list[Persist] = []
        self.effects: list[Effect] = []
        self.core = RaftCore(
            "a",
            RaftSettings(members=members, observers=observers),
            hard_state or HardState(incarnation=1, term=0, vote=None),
            Random(seed),
            self.now_us,
        )
        self.core.set_tip(tip)

    def hears(self, sender: str, message: Message) -> list[Send]:
        return self.performs(self.core.step(self.now_us, sender, message))

    def waits(self, duration_us: int) -> list[Send]:
        """Ticks at every deadline on the way, as the shell does."""
        until_us = self.now_us + duration_us
        sends: list[Send] = []
        while self.core.deadline() <= until_us:
            self.now_us = max(self.now_us, self.core.deadline())
            sends += self.performs(self.core.tick(self.now_us))
        self.now_us = until_us
        return sends

    def sleeps(self, duration_us: int) -> None:
        """Time passes and nobody ticks."""
        self.now_us += duration_us

    def times_out(self) -> list[Send]:
        return self.waits(max(0, self.core.deadline() - self.now_us))

    def performs(self, effects: list[Effect]) -> list[Send]:
        self.effects += effects
        self.unsynced += [effect for effect in effects if isinstance(effect, Persist)]
        sends = [effect for effect in effects if isinstance(effect, Send)]
        return sends if self.disk_waits or not self.unsynced else sends + self.sync()

    def sync(self) -> list[Send]:
        token = self.unsynced[-1].token
        self.unsynced.clear()
        return self.performs(self.core.on_synced(token, self.now_us))

    def fails(self) -> list[Send]:
        """The disk refuses what was to be written last."""
        token = self.unsynced[-1].token
        self.unsynced.clear()
        return self.performs(self.core.on_persist_failed(token))

    @property
    def written(self) -> list[HardState]:
        """Every hard state that was to be made durable."""
        return [effect.hard_state for effect in self.effects if isinstance(effect, Persist)]

    @property
    def seen(self) -> tuple[Role, int, str | None]:
        return self.core.role, self.core.term, self.core.leader

    @property
    def vote(self) -> str | None:
        return self.written[-1].vote if self.written else None

    @property
    def timer_us(self) -> int:
        """How long until the next timeout."""
        return self.core.deadline() - self.now_us


def a_follower(
    *,
    term: int = 5,
    leader: str | None = "b",
    tip: Tip = EMPTY,
    members: tuple[str, ...] = MEMBERS,
    observers: tuple[str, ...] = (),
) -> DrivenNode:
    """In `term`, having just heard `leader`, or nobody yet."""
    hard_state = HardState(incarnation=1, term=term, vote=None)
    node = DrivenNode(tip=tip, hard_state=hard_state, members=members, observers=observers)
    if leader is not None:
        node.hears(leader, heartbeat(term, leader=leader))
    return node


def a_pre_candidate(*, term: int = 5, tip: Tip = EMPTY, **more: tuple[str, ...]) -> tuple[DrivenNode, PreVote]:
    node = a_follower(term=term, leader=None, tip=tip, **more)
    return node, first(node.times_out(), PreVote)


def a_candidate(*, term: int = 6, tip: Tip = EMPTY, **more: tuple[str, ...]) -> tuple[DrivenNode, Vote]:
    """`term` is the one it campaigns for."""
    node, request = a_pre_candidate(term=term - 1, tip=tip, **more)
    sends = [send for name in node.core.settings.members[1:] for send in node.hears(name, pre_vote_reply(request))]
    return node, first(sends, Vote)


def a_leader(*, term: int = 6, tip: Tip = EMPTY, **more: tuple[str, ...]) -> DrivenNode:
    node, request = a_candidate(term=term, tip=tip, **more)
    for name in node.core.settings.members[1:]:
        node.hears(name, vote_reply(request))
    assert node.core.role is Role.LEADER
    return node


Kind = TypeVar("Kind", bound=Message)


def first(sends: list[Send], kind: type[Kind]) -> Kind:
    return next(send.message for send in sends if isinstance(send.message, kind))


def pre_vote(term: int, *, candidate: str = "c", tip: Tip = EMPTY, asked: int = 1) -> PreVote:
    return PreVote(stamp=STAMP, term=term, round=asked, candidate=candidate, tip=tip)


def vote(term: int, *, candidate: str = "c", tip: Tip = EMPTY, transfer: bool = False, stamp: Stamp = STAMP) -> Vote:
    return Vote(stamp=stamp, term=term, round=1, candidate=candidate, tip=tip, transfer=transfer)


def pre_vote_reply(request: PreVote, *, granted: bool = True, term: int | None = None) -> PreVoteReply:
    return PreVoteReply(stamp=STAMP, term=term or request.term, round=request.round, granted=granted)


def vote_reply(request: Vote, *, granted: bool = True, term: int | None = None) -> VoteReply:
    return VoteReply(stamp=STAMP, term=term or request.term, round=request.round, granted=granted)


def heartbeat(term: int, *, leader: str = "b", active: bool = True, tip: Tip = EMPTY, beat: int = 1) -> Heartbeat:
    return Heartbeat(stamp=STAMP, term=term, round=beat, leader=leader, tip=tip, active=active)


def heartbeat_reply(term: int, beat: int, *, tip: Tip = EMPTY) -> HeartbeatReply:
    return HeartbeatReply(stamp=STAMP, term=term, round=beat, tip=tip)


def timeout_now(term: int) -> TimeoutNow:
    return TimeoutNow(stamp=STAMP, term=term)

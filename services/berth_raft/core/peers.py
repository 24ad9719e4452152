"""What a node knows of each other node: from its messages, for choices and for people, never for promises."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from berth_raft.core.messages import EMPTY, Heartbeat, HeartbeatReply, Message, PreVote, Tip, Vote

CAMPAIGN_LAG_MAX = 256
"""Records: who lags by more does not campaign while a better tip is heard (RAFT section 2, step 4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """`heard_us` is None before the first message. `answered_us` and `answered_round` are about the heartbeats
    of this node while it leads; before its first they say nothing.
    """

    heard_us: int | None = None
    tip: Tip = EMPTY
    term: int = 0
    incarnation: int = 0
    config_hash: str = ""
    answered_us: int = 0
    answered_round: int = 0

    def is_heard(self, now_us: int, *, within_us: int) -> bool:
        return self.heard_us is not None and now_us - self.heard_us < within_us


class Peers:
    """One `Peer` for every other node, in the order of the member list."""

    def __init__(self, names: Sequence[str]) -> None:
        self._peers = {name: Peer() for name in names}

    def view(self) -> dict[str, Peer]:
        return dict(self._peers)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._peers)

    @property
    def answered_us(self) -> dict[str, int]:
        return {name: peer.answered_us for name, peer in self._peers.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._peers

    def heard(self, name: str, message: Message, now_us: int) -> None:
        peer = self._peers[name]
        carries_tip = isinstance(message, PreVote | Vote | Heartbeat | HeartbeatReply)
        self._peers[name] = replace(
            peer,
            heard_us=now_us,
            tip=message.tip if carries_tip else peer.tip,
            term=message.term,
            incarnation=message.stamp.incarnation,
            config_hash=message.stamp.config_hash,
        )

    def change(self, names: Sequence[str], *, round_sent: int, now_us: int) -> None:
        """The members are these now. Who stays keeps what is known; a new one's silence is counted from here."""
        new = Peer(answered_us=now_us, answered_round=round_sent)
        self._peers = {name: self._peers.get(name, new) for name in names}

    def start_term(self, *, round_sent: int, now_us: int) -> None:
        """A term of leadership begins: silence is counted from here, and no heartbeat is out yet."""
        for name, peer in self._peers.items():
            self._peers[name] = replace(peer, answered_us=now_us, answered_round=round_sent)

    def answered(self, name: str, *, answered_round: int, now_us: int) -> None:
        """An answer counts once: a copy of an old one says nothing about now."""
        peer = self._peers[name]
        if answered_round > peer.answered_round:
            self._peers[name] = replace(peer, answered_us=now_us, answered_round=answered_round)

    def is_far_ahead_of(self, tip: Tip, now_us: int, *, within_us: int) -> bool:
        """Whether somebody heard of late reaches so much further than `tip` that the election is left to others."""
        far = tip.sequence + CAMPAIGN_LAG_MAX
        return any(
            peer.tip > tip and peer.tip.sequence > far and peer.is_heard(now_us, within_us=within_us)
            for peer in self._peers.values()
        )

    def best_tip(self, names: Sequence[str], now_us: int, *, within_us: int) -> str | None:
        """Which of `names` reaches furthest among those that were heard of late; the first of them on a tie."""
        recent = [name for name in names if self._peers[name].is_heard(now_us, within_us=within_us)]
        return max(recent, key=lambda name: self._peers[name].tip, default=None)

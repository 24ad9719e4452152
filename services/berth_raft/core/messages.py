"""What raft nodes say to each other (RAFT section 2, "Elections, exactly"; Raft thesis sections 3 and 9).

The sender of a message is not in it: the bus vouches for it (it stands in the subject). `candidate` and `leader`
repeat it, as in the paper, and a message in which they differ is ignored.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Tip:
    """How far a node's copy of the ledger reaches: the term of its last barrier, then the last sequence."""

    barrier_term: int
    sequence: int


EMPTY = Tip(barrier_term=0, sequence=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Who speaks, beside the name: which cluster, which member list, which life of the hard state.

    `incarnation` is 0 while the sender is amnesiac. Another `cluster_id` is ignored; another `config_hash` is only
    reported, since it must never block an election among known nodes.
    """

    cluster_id: str
    config_hash: str
    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreVote:
    """Would you vote for me in `term` (the sender's term + 1)? Changes nothing at either side."""

    stamp: Stamp
    term: int
    round: int
    candidate: str
    tip: Tip


@dataclass(frozen=True, slots=True, kw_only=True)
class PreVoteReply:
    """`term` is the term that was asked for when granted, the voter's own term when not."""

    stamp: Stamp
    term: int
    round: int
    granted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """Vote for me in `term`. `transfer`: the leader itself asked for this election, so stickiness does not apply."""

    stamp: Stamp
    term: int
    round: int
    candidate: str
    tip: Tip
    transfer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteReply:
    """As `PreVoteReply`; a granted one is a promise that is durable at the sender."""

    stamp: Stamp
    term: int
    round: int
    granted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """I lead `term`. `active`: my barrier is in the ledger, so I may commit. `round` counts up within a term."""

    stamp: Stamp
    term: int
    round: int
    leader: str
    tip: Tip
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatReply:
    """The answer to the heartbeat of `round`; with a higher `term` it deposes the sender of the heartbeat."""

    stamp: Stamp
    term: int
    round: int
    tip: Tip


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutNow:
    """The leader of `term` hands over: campaign at once (thesis section 3.10)."""

    stamp: Stamp
    term: int


Request = PreVote | Vote
Message = PreVote | PreVoteReply | Vote | VoteReply | Heartbeat | HeartbeatReply | TimeoutNow

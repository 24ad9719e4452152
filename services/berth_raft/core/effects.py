"""What the core asks the shell to do, and what it must never forget."""

from dataclasses import dataclass
from enum import StrEnum

from berth_raft.core.messages import Message


class Role(StrEnum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True, kw_only=True)
class HardState:
    """What a node has promised: its term and its vote in that term. `incarnation` counts the lives of the file."""

    incarnation: int
    term: int
    vote: str | None

    def __post_init__(self) -> None:
        assert self.incarnation >= 1, "0 is how an amnesiac signs"
        assert self.term >= 0
        assert self.term > 0 or self.vote is None, "nobody is elected in term 0"

    def may_become(self, after: "HardState") -> bool:
        """Whether `after` keeps every promise made in this state (I2)."""
        if (after.incarnation, after.term) == (self.incarnation, self.term):
            return self.vote in (None, after.vote)
        return after.incarnation >= self.incarnation and after.term >= self.term


@dataclass(frozen=True, slots=True, kw_only=True)
class Amnesiac:
    """The hard state is missing or corrupt: this node may have promised anything, so it never votes again
    under that incarnation (RAFT section 2, step 0).
    """

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Everything it depends on is durable: send it now. It may be lost; nobody waits for it."""

    to: str
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Persist:
    """Make `hard_state` durable, then call `on_synced(token)`, or `on_persist_failed(token)`.

    In the order of tokens. A later one replaces the earlier ones: a shell that is behind may write only the last.
    """

    token: int
    hard_state: HardState


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleChanged:
    """The role, term, known leader or its activity is another one now; comes before the effects of the same step.

    Tasks of a leader belong to one (term, role): a shell ends them here, also when the successor is unknown.
    """

    role: Role
    term: int
    leader: str | None
    active: bool

    def __post_init__(self) -> None:
        assert self.term >= 0
        assert self.role is not Role.LEADER or self.leader is not None, "a leader knows itself"
        assert self.role in (Role.LEADER, Role.FOLLOWER) or self.leader is None, "who campaigns follows nobody"
        assert self.leader is not None or not self.active, "nobody is active where nobody leads"


Effect = Send | Persist | RoleChanged

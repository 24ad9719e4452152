"""What leadership tells the election, who watches it, and what it counts."""

from dataclasses import dataclass
from typing import Protocol

from berth.ids import Sequence
from berth_raft.commit import Flush
from berth_raft.core.messages import Tip as ElectionTip


class ElectionControl(Protocol):
    """What leadership tells the election."""

    def set_tip(self, tip: ElectionTip) -> None: ...
    def set_eligible(self, eligible: bool) -> None: ...  # noqa: FBT001
    def activate(self, term: int) -> None: ...
    def resign(self, term: int, why: str) -> None: ...
    def adopt_term(self, term: int) -> None: ...
    def report(self) -> None: ...


class Observer(Protocol):
    """Where spans and metrics of commits go."""

    def flushed(self, flush: Flush, *, began_us: int, appended_us: int, done_us: int) -> None: ...


@dataclass(slots=True, kw_only=True)
class Counts:
    """For people and metrics; never read by a decision."""

    foreign: int = 0
    doubts: int = 0
    lost_races: int = 0
    records: int = 0
    restored: int = 0
    """Records that this node gave back to a stream that had lost them."""
    halted_at: Sequence | None = None
    halted_why: str = ""

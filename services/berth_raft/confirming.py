"""From "the stream has it" to "committed", at level `quorum`: a majority of mirrors has it durably. Pure.

A record of an earlier term counts only below one of this term: a later leader is sure to have it then (Raft paper,
section 5.4.2), since its tip begins with the term of its last barrier.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from berth.ids import Sequence, Term
from berth.messages.commands import Committed
from berth.messages.envelope import Tip
from berth_raft.commit import Answer
from berth_raft.core.messages import Tip as MirrorTip
from berth_raft.core.quorum import majority


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A record that the stream has: the tip that it made, and what its proposers will be told."""

    tip: Tip
    answers: tuple[Answer, ...]


def announcement(tip: Tip) -> Committed:
    """What the leader says to all of a committed record."""
    return Committed(ledger_id=tip.ledger_id, term=tip.term, sequence=tip.sequence, hash=tip.hash, leader=tip.leader)


class Confirmations:
    """What one term has stored and may not tell yet, in order."""

    def __init__(self, members: tuple[str, ...], term: Term) -> None:
        self._members = members
        self._term = term
        self._stored: deque[Stored] = deque()

    def add(self, stored: Stored) -> None:
        self._stored.append(stored)

    def confirmed(self, mirrors: Mapping[str, MirrorTip]) -> list[Stored]:
        """What a majority of `mirrors` has now, taken out."""
        reached = self._reached(mirrors)
        found: list[Stored] = []
        while self._stored and self._stored[0].tip.sequence <= reached:
            found.append(self._stored.popleft())
        return found

    def abandoned(self) -> list[Stored]:
        """The term is over: nobody here can tell what becomes of these."""
        left = list(self._stored)
        self._stored.clear()
        return left

    def _reached(self, mirrors: Mapping[str, MirrorTip]) -> Sequence:
        """The highest sequence that a majority has as part of this term."""
        reaches = sorted(
            (
                tip.sequence if (tip := mirrors.get(name)) is not None and tip.barrier_term == self._term else 0
                for name in self._members
            ),
            reverse=True,
        )
        return Sequence(reaches[majority(self._members) - 1])

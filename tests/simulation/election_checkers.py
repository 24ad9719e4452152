"""The invariants of elections, checked at each message and each change of role (RAFT section 3, I1 to I3)."""

from collections.abc import Sequence

from berth_raft.core.effects import HardState, Role, RoleChanged, Send
from berth_raft.core.messages import Heartbeat, Message, PreVote, PreVoteReply, Vote, VoteReply


class Violation(AssertionError):
    """An invariant does not hold; the first word is its number."""


class Checkers:
    """Knows what every node ever said, also in former lives, as no node does."""

    def __init__(self, voters: Sequence[str]) -> None:
        self._voters = voters
        self.leader_of: dict[int, tuple[str, int]] = {}
        self._vote_of: dict[tuple[str, int], str] = {}
        self._highest_term_of: dict[str, int] = {}

    def role_changed(self, node: str, life: int, change: RoleChanged) -> None:
        if change.role is not Role.LEADER:
            return
        first = self.leader_of.setdefault(change.term, (node, life))
        if first != (node, life):
            raise Violation(f"I1: {first} and {(node, life)} both lead term {change.term}")
        votes = [voter for voter in self._voters if self._is_vote_for(node, voter, change.term)]
        if 2 * len(votes) <= len(self._voters):
            raise Violation(f"I1: {node} leads term {change.term} by the votes of {votes} only")

    def _is_vote_for(self, node: str, voter: str, term: int) -> bool:
        """Its own vote is told to nobody where nobody else votes."""
        return voter == node or self._vote_of.get((voter, term)) == node

    def sent(self, node: str, send: Send, on_disk: HardState | None) -> None:
        """`on_disk` is what a power cut would leave of the sender's hard state now."""
        message = send.message
        if message.stamp.incarnation == 0:
            if isinstance(message, PreVote | Vote) or getattr(message, "granted", False):
                raise Violation(f"I2: {node} forgot everything, yet takes part in elections: {message}")
            return
        self._check_votes(node, send)
        self._check_terms(node, message)
        self._check_durable(node, send, on_disk)

    def _check_votes(self, node: str, send: Send) -> None:
        vote = _vote_in(node, send)
        if vote is None:
            return
        first = self._vote_of.setdefault((node, send.message.term), vote)
        if first != vote:
            raise Violation(f"I2: {node} voted for {first} and {vote} in term {send.message.term}")

    def _check_terms(self, node: str, message: Message) -> None:
        """A granted reply may be about a term that its sender has left since; all else speaks of the present."""
        if isinstance(message, VoteReply | PreVoteReply) and message.granted:
            return
        own = message.term - 1 if isinstance(message, PreVote) else message.term
        if own < self._highest_term_of.get(node, 0):
            raise Violation(f"I2: {node} went back to term {own}: {message}")
        self._highest_term_of[node] = own

    def _check_durable(self, node: str, send: Send, on_disk: HardState | None) -> None:
        message = send.message
        if isinstance(message, PreVoteReply) and message.granted:
            return  # promises nothing
        own = message.term - 1 if isinstance(message, PreVote) else message.term
        if on_disk is None or on_disk.term < own:
            raise Violation(f"I3: {node} sent {message} while its disk says {on_disk}")
        vote = _vote_in(node, send)
        if vote is not None and on_disk.term == message.term and on_disk.vote != vote:
            raise Violation(f"I3: {node} told a vote for {vote} while its disk says {on_disk}")


def _vote_in(node: str, send: Send) -> str | None:
    """Whom the sender votes for by sending this."""
    match send.message:
        case Vote() | Heartbeat():
            return node
        case VoteReply(granted=True):
            return send.to
        case _:
            return None

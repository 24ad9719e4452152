"""Whether the seeds mean anything: cores with one rule taken out, each of which must be found.

A mutant that no check notices is a rule that nobody tests.
"""

from dataclasses import replace

import pytest

from berth_raft.core.effects import Amnesiac, HardState, Role, Send
from berth_raft.core.messages import Heartbeat, Message, Request, VoteReply
from berth_raft.core.node import RaftCore
from berth_raft.core.outbox import Outbox
from berth_raft.core.settings import Dice, RaftSettings
from tests.simulation.test_elections import (
    changes_after_a_rejoin,
    changes_with_a_follower_out_of_reach,
    led_by_another_while_the_leader_is_deaf,
    storm,
)

SEEDS_ENOUGH = 100


class VotesAreNotDurable(RaftCore):
    """Writes the term, forgets the vote that was given in it."""

    def _persist(self) -> None:
        vote = self._vote
        self._vote = None
        super()._persist()
        self._vote = vote


class LeakyOutbox(Outbox):
    def send(self, to: str, message: Message) -> None:
        self._ready.append(Send(to=to, message=message))


class SendsBeforeItIsDurable(RaftCore):
    def __init__(
        self, node_id: str, settings: RaftSettings, hard_state: HardState | Amnesiac, random: Dice, now_us: int
    ) -> None:
        super().__init__(node_id, settings, hard_state, random, now_us)
        self._outbox = LeakyOutbox()


class VotesForEverybody(RaftCore):
    def _grants(self, request: Request) -> bool:
        return request.tip >= self._tip and request.term >= self._term


class CountsAnswersOfAnyTerm(RaftCore):
    def _on_vote_reply(self, sender: str, reply: VoteReply) -> None:
        super()._on_vote_reply(sender, replace(reply, term=self._term, round=self._round))


class CountsCopiesOfAnAnswer(RaftCore):
    """Five voters and a network that delivers twice: two answers look like three."""

    def _on_vote_reply(self, sender: str, reply: VoteReply) -> None:
        if self._role is Role.CANDIDATE and sender in self._granted:
            copies = [name for name in self.settings.members if name not in self._granted]
            super()._on_vote_reply(copies[0], reply)
        else:
            super()._on_vote_reply(sender, reply)


class GoesBackToALowerTerm(RaftCore):
    def _on_heartbeat(self, heartbeat: Heartbeat) -> None:
        if self._role is Role.FOLLOWER and heartbeat.term < self._term:
            self._term = heartbeat.term
        super()._on_heartbeat(heartbeat)


class VotesThoughItForgot(RaftCore):
    """Takes a lost hard state for a new node."""

    def __init__(
        self, node_id: str, settings: RaftSettings, hard_state: HardState | Amnesiac, random: Dice, now_us: int
    ) -> None:
        super().__init__(node_id, settings, hard_state, random, now_us)
        self._amnesiac = False

    def _persist(self) -> None:
        if self._incarnation > 0:
            super()._persist()


@pytest.mark.parametrize(
    "mutant",
    [
        VotesAreNotDurable,
        SendsBeforeItIsDurable,
        VotesForEverybody,
        CountsAnswersOfAnyTerm,
        CountsCopiesOfAnAnswer,
        GoesBackToALowerTerm,
        VotesThoughItForgot,
    ],
)
@pytest.mark.slow
def test_a_storm_finds_the_mutant(mutant: type[RaftCore]) -> None:
    assert first_violation(mutant) is not None


def first_violation(core: type[RaftCore]) -> str | None:
    for seed in range(SEEDS_ENOUGH):
        try:
            storm(seed, core)
        except AssertionError as found:  # a checker's, or an assert of the code itself
            return str(found)
    return None


class IsNotSticky(RaftCore):
    def _is_sticky(self, request: Request) -> bool:
        del request
        return False


class HasNoPreVote(RaftCore):
    def _become_pre_candidate(self) -> None:
        self._become_candidate()


class HasNoCheckQuorum(RaftCore):
    def _end_lost_leadership(self) -> None:
        return


def test_without_stickiness_a_follower_out_of_reach_deposes_the_leader() -> None:
    assert changes_with_a_follower_out_of_reach(0, IsNotSticky) != []


def test_without_pre_vote_a_returning_node_deposes_the_leader() -> None:
    assert changes_after_a_rejoin(0, HasNoPreVote) != []


def test_without_check_quorum_a_deaf_leader_stays() -> None:
    assert not led_by_another_while_the_leader_is_deaf(0, HasNoCheckQuorum)

"""RAFT section 2, "Elections, exactly": heartbeats, timers, check-quorum, timeout_now. One test for each sentence."""

from collections.abc import Callable

import pytest

from berth_raft.core.effects import Role
from berth_raft.core.messages import Heartbeat, HeartbeatReply, Message, PreVote, PreVoteReply, Vote, VoteReply
from tests.unit.berth_raft.driven_node import (
    BEHIND,
    LEVEL,
    MS,
    STAMP,
    DrivenNode,
    a_candidate,
    a_follower,
    a_leader,
    a_pre_candidate,
    first,
    heartbeat,
    heartbeat_reply,
    pre_vote,
    pre_vote_reply,
    timeout_now,
    vote,
    vote_reply,
)

FIVE = ("a", "b", "c", "d", "e")

# ---------------------------------------------------------------- "A winner beats"


def test_a_winner_beats_to_all_other_voters_and_observers_at_once() -> None:
    node, request = a_candidate(term=6, observers=("d",))

    sends = node.hears("b", vote_reply(request))

    assert [send.to for send in sends] == ["b", "c", "d"]
    beats = [send.message for send in sends if isinstance(send.message, Heartbeat)]
    assert [(beat.term, beat.leader, beat.active) for beat in beats] == [(6, "a", False)] * 3


def test_a_leader_beats_every_heartbeat_interval() -> None:
    node = a_leader()

    for _ in range(10):
        assert node.waits(50 * MS - 1) == []
        sends = node.waits(1)
        assert [send.to for send in sends] == ["b", "c"]
        node.hears("b", heartbeat_reply(6, first(sends, Heartbeat).round))


def is_answered_by(node: DrivenNode, *names: str) -> None:
    """One heartbeat interval passes; each of `names` answers."""
    for send in node.waits(50 * MS):
        if isinstance(send.message, Heartbeat) and send.to in names:
            node.hears(send.to, heartbeat_reply(send.message.term, send.message.round))


@pytest.mark.parametrize("term", [5, 9])
@pytest.mark.parametrize("make", [a_pre_candidate, a_candidate, a_leader, a_follower])
def test_a_heartbeat_of_the_same_or_a_higher_term_makes_a_follower_of_its_sender(
    make: Callable[..., DrivenNode | tuple[DrivenNode, Message]], term: int
) -> None:
    made = make(term=5)
    node = made if isinstance(made, DrivenNode) else made[0]

    reply = first(node.hears("c", heartbeat(term, leader="c", beat=3)), HeartbeatReply)

    assert node.seen == (Role.FOLLOWER, term, "c")
    assert (reply.term, reply.round) == (term, 3)
    assert 150 * MS <= node.timer_us <= 300 * MS


def test_a_heartbeat_tells_whether_its_leader_is_active() -> None:
    node = a_follower(leader=None)

    node.hears("b", heartbeat(5, active=False))
    assert not node.core.active
    node.hears("b", heartbeat(5, active=True))
    assert node.core.active


def test_a_heartbeat_of_a_lower_term_is_answered_with_the_own_term_and_otherwise_ignored() -> None:
    node = a_follower(term=5, leader="b")
    node.sleeps(100 * MS)
    before = (node.seen, node.core.deadline(), node.written)

    reply = first(node.hears("c", heartbeat(4, leader="c", beat=3)), HeartbeatReply)

    assert reply.term == 5
    assert (node.seen, node.core.deadline(), node.written) == before


@pytest.mark.parametrize(
    "message",
    [
        PreVoteReply(stamp=STAMP, term=5, round=1, granted=True),
        PreVoteReply(stamp=STAMP, term=5, round=1, granted=False),
        VoteReply(stamp=STAMP, term=5, round=1, granted=True),
        heartbeat_reply(5, 1),
        timeout_now(5),
    ],
)
def test_other_messages_of_a_lower_term_are_ignored(message: Message) -> None:
    node, _ = a_candidate(term=6)
    before = (node.seen, node.core.deadline(), len(node.written))

    assert node.hears("b", message) == []
    assert (node.seen, node.core.deadline(), len(node.written)) == before


@pytest.mark.parametrize("make", [a_follower, a_leader])
@pytest.mark.parametrize(
    "message",
    [
        PreVoteReply(stamp=STAMP, term=9, round=1, granted=False),
        VoteReply(stamp=STAMP, term=9, round=1, granted=False),
        heartbeat_reply(9, 1),
        timeout_now(9),
    ],
)
def test_other_messages_of_a_higher_term_make_a_follower_of_that_term(
    make: Callable[..., DrivenNode], message: Message
) -> None:
    node = make(term=5)

    assert node.hears("b", message) == []
    assert node.seen == (Role.FOLLOWER, 9, None)
    assert (node.written[-1].term, node.vote) == (9, None)


def test_a_granted_pre_vote_reply_of_a_higher_term_makes_nothing_of_anybody() -> None:
    node = a_leader(term=5)

    node.hears("b", PreVoteReply(stamp=STAMP, term=9, round=1, granted=True))

    assert node.seen == (Role.LEADER, 5, "a")


# ---------------------------------------------------------------- "The timer restarts with"


def test_the_timer_restarts_with_an_accepted_heartbeat() -> None:
    node = a_follower(term=5, leader="b")
    node.sleeps(149 * MS)
    node.hears("b", heartbeat(5, beat=2))

    assert 150 * MS <= node.timer_us <= 300 * MS


def test_the_timer_restarts_with_a_granted_real_vote() -> None:
    node = a_follower(term=5, leader=None)
    node.sleeps(149 * MS)
    node.hears("c", vote(6))

    assert 150 * MS <= node.timer_us <= 300 * MS


def test_the_timer_restarts_with_an_own_candidacy_in_a_short_range() -> None:
    node, _ = a_candidate()

    assert 75 * MS <= node.timer_us <= 150 * MS


def test_the_timer_of_a_candidacy_restarts_when_its_requests_leave() -> None:
    node, request = a_pre_candidate(term=5)
    node.disk_waits = True
    node.hears("b", pre_vote_reply(request))
    assert 75 * MS <= node.timer_us <= 150 * MS

    node.sleeps(70 * MS)
    node.sync()

    assert 75 * MS <= node.timer_us <= 150 * MS


@pytest.mark.parametrize("tries, shortest, longest", [(1, 25, 50), (2, 50, 100), (3, 75, 150), (9, 75, 150)])
def test_asking_again_for_a_pre_vote_starts_quickly_and_leaves_more_time_with_each_try(
    tries: int, shortest: int, longest: int
) -> None:
    node = a_follower(term=5, leader=None)

    for _ in range(tries):
        node.times_out()

    assert shortest * MS <= node.timer_us <= longest * MS


def test_hearing_a_leader_makes_the_next_candidacy_a_first_one() -> None:
    node, _ = a_candidate(term=6)
    node.hears("b", heartbeat(6))

    request = first(node.times_out(), PreVote)
    assert 25 * MS <= node.timer_us <= 50 * MS
    node.hears("b", pre_vote_reply(request))
    assert 75 * MS <= node.timer_us <= 150 * MS


def test_having_led_makes_the_next_candidacy_a_first_one() -> None:
    node = a_leader(term=6)
    node.core.resign(node.now_us, "a test")

    request = first(node.times_out(), PreVote)
    assert 25 * MS <= node.timer_us <= 50 * MS
    node.hears("b", pre_vote_reply(request))
    assert 75 * MS <= node.timer_us <= 150 * MS


def test_the_timer_of_a_second_candidacy_in_a_row_leaves_slow_disks_more_time() -> None:
    node, _ = a_candidate(term=6)
    request = first(node.times_out(), PreVote)
    node.hears("b", pre_vote_reply(request))

    assert node.seen == (Role.CANDIDATE, 7, None)
    assert 150 * MS <= node.timer_us <= 300 * MS


@pytest.mark.parametrize(
    "message",
    [pre_vote(6), vote(6, tip=BEHIND), vote(4), heartbeat(4, leader="c"), heartbeat_reply(9, 1)],
    ids=["granted pre-vote", "refused vote", "vote of a lower term", "old heartbeat", "higher term"],
)
def test_the_timer_restarts_with_nothing_else(message: Message) -> None:
    node = a_follower(term=5, leader=None, tip=LEVEL)
    due_us = node.core.deadline()
    node.sleeps(100 * MS)

    node.hears("c", message)

    assert node.core.deadline() == due_us


# ---------------------------------------------------------------- "Check-quorum"


def test_a_leader_without_answers_leads_for_the_minimum_election_timeout() -> None:
    node = a_leader()

    node.waits(150 * MS)

    assert node.core.role is Role.LEADER


def test_a_leader_without_answers_follows_in_the_same_term_after_twice_that_at_the_latest() -> None:
    node = a_leader(term=6)

    node.waits(300 * MS)

    assert node.seen == (Role.FOLLOWER, 6, None)
    assert node.core.last_step_down == "no majority answered"
    assert node.vote == "a"


def test_a_leader_without_answers_steps_down_before_the_next_heartbeats() -> None:
    node = a_leader()
    node.sleeps(300 * MS)

    assert node.performs(node.core.tick(node.now_us)) == []
    assert node.core.role is Role.FOLLOWER


def test_a_leader_that_stepped_down_starts_an_election_timer() -> None:
    node = a_leader(term=6)
    node.waits(300 * MS)

    assert first(node.waits(300 * MS), PreVote).term == 7


def test_a_leader_never_steps_down_while_a_majority_answers() -> None:
    node = a_leader(members=FIVE)

    for _ in range(100):
        is_answered_by(node, "b", "c")

    assert node.core.role is Role.LEADER


@pytest.mark.parametrize("answers", [("b",), ("b", "x", "y")], ids=["one of four", "and two observers"])
def test_a_leader_steps_down_when_only_a_minority_answers(answers: tuple[str, ...]) -> None:
    node = a_leader(members=FIVE, observers=("x", "y"))

    for _ in range(6):
        is_answered_by(node, *answers)

    assert node.core.role is Role.FOLLOWER


def test_copies_of_an_old_answer_do_not_keep_a_leader() -> None:
    node = a_leader()
    beat = first(node.performs(node.core.activate(node.now_us)), Heartbeat)

    for _ in range(6):
        node.hears("b", heartbeat_reply(beat.term, beat.round))
        node.waits(50 * MS)

    assert node.core.role is Role.FOLLOWER


def test_answers_of_an_earlier_term_do_not_keep_a_leader() -> None:
    node = a_leader(term=6)

    for _ in range(6):
        for send in node.waits(50 * MS):
            if isinstance(send.message, Heartbeat):
                node.hears("b", heartbeat_reply(5, send.message.round))

    assert node.core.role is Role.FOLLOWER


def test_an_answer_to_a_heartbeat_that_was_never_sent_does_not_keep_a_leader() -> None:
    node = a_leader(term=6)

    for _ in range(6):
        node.hears("b", heartbeat_reply(6, 2**52))
        node.waits(50 * MS)

    assert node.core.role is Role.FOLLOWER


def test_the_only_voter_is_a_majority_for_ever() -> None:
    node = DrivenNode(members=("a",), observers=("b",))
    node.waits(0)

    node.waits(10_000 * MS)
    node.sleeps(10_000 * MS)
    node.waits(0)

    assert node.seen == (Role.LEADER, 1, "a")


def test_a_leader_that_was_stopped_for_longer_than_the_minimum_timeout_steps_down() -> None:
    """RAFT section 2, step 7: whatever is in its inbox is about the past."""
    node = a_leader(term=6)
    beat = first(node.waits(50 * MS), Heartbeat)
    node.hears("b", heartbeat_reply(6, beat.round))
    node.sleeps(201 * MS)  # the next heartbeat is late by more than 150

    node.hears("c", heartbeat_reply(6, beat.round))

    assert node.seen == (Role.FOLLOWER, 6, None)
    assert node.core.last_step_down == "this process was stopped"


# ---------------------------------------------------------------- "timeout_now"


@pytest.mark.parametrize("make", [a_follower, a_pre_candidate])
def test_timeout_now_of_the_own_term_makes_a_candidate_at_once_without_pre_vote(
    make: Callable[..., DrivenNode | tuple[DrivenNode, Message]],
) -> None:
    made = make(term=5)
    node = made if isinstance(made, DrivenNode) else made[0]

    sends = node.hears("b", timeout_now(5))

    assert node.seen == (Role.CANDIDATE, 6, None)
    assert [type(send.message) for send in sends] == [Vote, Vote]
    assert first(sends, Vote).transfer


def test_timeout_now_of_a_lower_term_is_ignored() -> None:
    node = a_follower(term=5, leader="b")

    assert node.hears("b", timeout_now(4)) == []
    assert node.seen == (Role.FOLLOWER, 5, "b")


def test_timeout_now_does_not_move_a_leader() -> None:
    node = a_leader(term=6)

    assert node.hears("b", timeout_now(6)) == []
    assert node.seen == (Role.LEADER, 6, "a")


def test_timeout_now_does_not_move_an_observer() -> None:
    node = a_follower(term=5, leader="b", members=("b", "c", "d"), observers=("a",))

    assert node.hears("b", timeout_now(5)) == []
    assert node.seen == (Role.FOLLOWER, 5, "b")


def test_a_candidacy_after_a_failed_transfer_is_an_ordinary_one() -> None:
    node = a_follower(term=5, leader="b")
    node.hears("b", timeout_now(5))

    request = first(node.times_out(), PreVote)

    assert not first(node.hears("b", pre_vote_reply(request)), Vote).transfer

"""RAFT section 2, "Elections, exactly": requests, votes and answers. One test for each sentence."""

from dataclasses import replace

import pytest

from berth_raft.core.effects import Role
from berth_raft.core.messages import PreVote, PreVoteReply, Tip, Vote, VoteReply
from tests.unit.berth_raft.driven_node import (
    AHEAD,
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
    pre_vote,
    pre_vote_reply,
    vote,
    vote_reply,
)

# ---------------------------------------------------------------- "A request carries the term that is sought"


def test_a_pre_vote_carries_the_next_term_and_leaves_term_and_vote_unchanged() -> None:
    node, request = a_pre_candidate(term=5, tip=LEVEL)

    assert (request.term, request.candidate, request.tip) == (6, "a", LEVEL)
    assert node.seen == (Role.PRE_CANDIDATE, 5, None)
    assert node.written == []


def test_a_pre_candidate_follows_nobody() -> None:
    node = a_follower(leader="b")
    assert node.core.active

    node.times_out()

    assert node.seen == (Role.PRE_CANDIDATE, 5, None)
    assert not node.core.active


def test_a_vote_request_carries_the_candidates_new_term() -> None:
    node, request = a_candidate(term=6, tip=LEVEL)

    assert (request.term, request.candidate, request.tip, request.transfer) == (6, "a", LEVEL, False)
    assert node.seen == (Role.CANDIDATE, 6, None)


def test_only_voters_are_asked() -> None:
    node = a_follower(leader=None, members=("a", "b", "c"), observers=("d",))

    asked_first = node.times_out()
    asked_then = node.hears("b", pre_vote_reply(first(asked_first, PreVote)))

    assert [send.to for send in asked_first] == ["b", "c"]
    assert [(send.to, type(send.message)) for send in asked_then] == [("b", Vote), ("c", Vote)]


def test_a_candidates_own_vote_is_durable_before_its_requests_leave() -> None:
    node, request = a_pre_candidate(term=5)
    node.disk_waits = True

    assert node.hears("b", pre_vote_reply(request)) == []
    assert (node.written[-1].term, node.written[-1].vote) == (6, "a")

    assert [type(send.message) for send in node.sync()] == [Vote, Vote]


def test_a_candidate_whose_disk_is_slow_waits_for_it_instead_of_counting_up_the_term() -> None:
    node, request = a_pre_candidate(term=5)
    node.disk_waits = True
    node.hears("b", pre_vote_reply(request))

    assert node.waits(2_000 * MS) == []
    assert node.seen == (Role.CANDIDATE, 6, None)

    assert first(node.sync(), Vote).term == 6


def test_the_only_voter_of_a_cluster_wins_at_once() -> None:
    node = DrivenNode(members=("a",))

    node.waits(0)

    assert node.seen == (Role.LEADER, 1, "a")


def test_the_only_voter_of_a_cluster_wins_no_earlier_than_its_vote_is_durable() -> None:
    node = DrivenNode(members=("a",))
    node.disk_waits = True

    node.waits(0)
    assert node.core.role is Role.CANDIDATE

    node.sync()
    assert node.core.role is Role.LEADER


def test_a_majority_of_refusals_does_not_end_a_candidacy_that_can_still_be_won() -> None:
    node, request = a_candidate(members=("a", "b", "c", "d", "e"))
    for name in ("b", "c", "d"):
        node.hears(name, vote_reply(request, granted=False))

    for name in ("b", "c"):  # asked again, after they learnt more
        node.hears(name, vote_reply(request))

    assert node.core.role is Role.LEADER


# ---------------------------------------------------------------- "Else"


def test_a_vote_of_a_higher_term_raises_the_term_though_it_is_refused() -> None:
    node = a_follower(term=5, leader="b", tip=LEVEL)
    node.sleeps(150 * MS)

    reply = first(node.hears("c", vote(9, tip=BEHIND)), VoteReply)

    assert (reply.granted, reply.term) == (False, 9)
    assert node.seen == (Role.FOLLOWER, 9, None)
    assert (node.written[-1].term, node.vote) == (9, None)


def test_a_vote_of_a_higher_term_raises_the_term_and_is_granted() -> None:
    node = a_follower(term=5, leader="b")
    node.sleeps(150 * MS)

    reply = first(node.hears("c", vote(9)), VoteReply)

    assert (reply.granted, reply.term) == (True, 9)
    assert node.seen == (Role.FOLLOWER, 9, None)
    assert (node.written[-1].term, node.vote) == (9, "c")


@pytest.mark.parametrize("tip", [BEHIND, AHEAD])
def test_a_pre_vote_changes_nothing_at_the_voter_nor_its_timer(tip: Tip) -> None:
    node = a_follower(term=5, leader="b", tip=LEVEL)
    node.sleeps(149 * MS)
    before = (node.seen, node.core.deadline(), node.written)
    node.sleeps(1 * MS)

    assert first(node.hears("c", pre_vote(6, tip=tip)), PreVoteReply).granted == (tip == AHEAD)
    assert (node.seen, node.core.deadline(), node.written) == before


@pytest.mark.parametrize(
    "tip, granted",
    [
        (Tip(barrier_term=3, sequence=9), False),
        (Tip(barrier_term=3, sequence=10), True),
        (Tip(barrier_term=3, sequence=11), True),
        (Tip(barrier_term=2, sequence=999), False),
        (Tip(barrier_term=4, sequence=0), True),
    ],
)
def test_a_tip_is_compared_by_the_barriers_term_first(tip: Tip, granted: bool) -> None:
    node = a_follower(term=5, leader=None, tip=Tip(barrier_term=3, sequence=10))

    assert first(node.hears("c", pre_vote(6, tip=tip)), PreVoteReply).granted is granted
    assert first(node.hears("c", vote(6, tip=tip)), VoteReply).granted is granted


def test_in_the_same_term_a_free_vote_is_given_if_no_leader_is_known() -> None:
    node = a_follower(term=5, leader=None)

    assert first(node.hears("c", vote(5)), VoteReply).granted
    assert node.vote == "c"


@pytest.mark.parametrize("request_of", [pre_vote, vote])
def test_in_the_same_term_a_free_vote_is_not_given_if_a_leader_is_known(request_of: type) -> None:
    node = a_follower(term=5, leader="b")

    (reply,) = node.hears("c", request_of(5))
    assert isinstance(reply.message, PreVoteReply | VoteReply)
    assert (reply.message.granted, reply.message.term) == (False, 5)


def test_a_vote_that_was_given_is_not_given_to_another() -> None:
    node = a_follower(term=5, leader=None)
    node.hears("b", vote(6, candidate="b"))

    assert not first(node.hears("c", vote(6, tip=AHEAD)), VoteReply).granted
    assert not first(node.hears("c", pre_vote(6, tip=AHEAD)), PreVoteReply).granted
    assert node.vote == "b"


def test_asked_again_by_the_same_candidate_it_says_yes_again_and_writes_nothing() -> None:
    node = a_follower(term=5, leader=None)
    node.hears("c", vote(6))
    writes = len(node.written)

    assert first(node.hears("c", vote(6)), VoteReply).granted
    assert first(node.hears("c", pre_vote(6)), PreVoteReply).granted
    assert len(node.written) == writes


def test_a_pre_candidate_that_voted_waits_for_the_winner() -> None:
    node, _ = a_pre_candidate(term=5)

    assert first(node.hears("c", vote(5)), VoteReply).granted

    assert node.seen == (Role.FOLLOWER, 5, None)


def test_saying_yes_again_does_not_forget_the_leader_that_was_heard_since() -> None:
    node = a_follower(term=5, leader=None)
    node.hears("b", vote(6, candidate="b"))
    node.hears("b", heartbeat(6, leader="b", active=True))

    node.hears("b", vote(6, candidate="b"))

    assert node.seen == (Role.FOLLOWER, 6, "b")
    assert node.core.active


def test_a_yes_carries_the_term_that_was_asked_for() -> None:
    node = a_follower(term=5, leader=None)

    assert first(node.hears("c", pre_vote(9)), PreVoteReply) == PreVoteReply(
        stamp=replace(STAMP, config_hash=node.core.settings.config_hash), term=9, round=1, granted=True
    )


def test_a_no_carries_the_voters_own_term() -> None:
    node = a_follower(term=5, leader=None, tip=LEVEL)

    reply = first(node.hears("c", pre_vote(9, tip=BEHIND)), PreVoteReply)
    assert (reply.granted, reply.term) == (False, 5)


def test_a_requester_with_a_lower_term_adopts_the_term_of_a_no() -> None:
    node, request = a_pre_candidate(term=5)

    node.hears("b", pre_vote_reply(request, granted=False, term=8))

    assert node.seen == (Role.FOLLOWER, 8, None)
    assert first(node.times_out(), PreVote).term == 9


def test_a_refusal_that_comes_late_does_not_depose_the_winner() -> None:
    node = a_leader(term=6)

    node.hears("c", PreVoteReply(stamp=STAMP, term=6, round=1, granted=False))
    node.hears("c", VoteReply(stamp=STAMP, term=6, round=1, granted=False))

    assert node.seen == (Role.LEADER, 6, "a")


def test_a_pre_vote_of_a_lower_term_is_refused_by_a_leader_too() -> None:
    node = a_leader(term=6)

    reply = first(node.hears("c", pre_vote(4, tip=AHEAD)), PreVoteReply)
    assert (reply.granted, reply.term) == (False, 6)


def test_a_vote_of_a_lower_term_is_refused() -> None:
    node = a_follower(term=5, leader=None)

    reply = first(node.hears("c", vote(4, tip=AHEAD)), VoteReply)
    assert (reply.granted, reply.term) == (False, 5)
    assert node.seen == (Role.FOLLOWER, 5, None)


def test_an_observer_answers_as_a_voter_does() -> None:
    node = a_follower(term=5, leader=None, members=("b", "c", "d"), observers=("a",))

    assert first(node.hears("c", vote(6)), VoteReply).granted
    assert not first(node.hears("b", vote(6, candidate="b")), VoteReply).granted


def test_an_observer_never_campaigns() -> None:
    node = a_follower(term=5, leader="b", members=("b", "c", "d"), observers=("a",))

    assert node.waits(3_000 * MS) == []
    assert node.seen == (Role.FOLLOWER, 5, None)


def test_an_observers_answers_do_not_count_where_it_is_known_as_an_observer() -> None:
    node, request = a_pre_candidate(term=5, observers=("d",))
    node.hears("d", pre_vote_reply(request))
    assert node.core.role is Role.PRE_CANDIDATE

    campaign = first(node.hears("b", pre_vote_reply(request)), Vote)
    node.hears("d", vote_reply(campaign))
    assert node.core.role is Role.CANDIDATE


def test_another_configuration_hash_never_blocks_a_vote_request_among_known_ids() -> None:
    node = a_follower(term=5, leader=None)

    reply = first(node.hears("c", vote(6, stamp=replace(STAMP, config_hash="f" * 16))), VoteReply)

    assert reply.granted
    assert node.core.peers["c"].config_hash == "f" * 16


# ---------------------------------------------------------------- "Answers count once"


def test_answers_count_once_per_voter() -> None:
    node, request = a_candidate(members=("a", "b", "c", "d", "e"))

    for _ in range(3):
        node.hears("b", vote_reply(request))
    assert node.core.role is Role.CANDIDATE

    node.hears("c", vote_reply(request))
    assert node.core.role is Role.LEADER


def test_pre_votes_count_once_per_voter() -> None:
    node, request = a_pre_candidate(members=("a", "b", "c", "d", "e"))

    for _ in range(3):
        node.hears("b", pre_vote_reply(request))
    assert node.core.role is Role.PRE_CANDIDATE


def test_answers_count_only_for_the_term_that_asked() -> None:
    node, request = a_candidate(term=6)

    node.hears("b", vote_reply(request, term=5))
    assert node.core.role is Role.CANDIDATE


def test_answers_count_only_for_the_round_that_asked() -> None:
    """The same term is sought again after a timeout; an answer of the first round may be as old as that."""
    node, first_request = a_pre_candidate(term=5)
    second_request = first(node.times_out(), PreVote)
    assert second_request.term == first_request.term

    node.hears("b", pre_vote_reply(first_request))
    assert node.core.role is Role.PRE_CANDIDATE

    node.hears("b", pre_vote_reply(second_request))
    assert node.core.role is Role.CANDIDATE

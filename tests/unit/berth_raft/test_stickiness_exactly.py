"""RAFT section 2, "Elections, exactly": who has a leader that works does not hear of a higher term."""

import pytest

from berth_raft.core.effects import Role
from berth_raft.core.messages import EMPTY, PreVoteReply, VoteReply
from tests.unit.berth_raft.driven_node import AHEAD, MS, a_follower, a_leader, first, pre_vote, vote


@pytest.mark.parametrize("request_of", [pre_vote, vote])
def test_a_leader_drops_a_request_of_a_higher_term(request_of: type) -> None:
    node = a_leader(term=6)

    assert node.hears("c", request_of(7, tip=AHEAD)) == []
    assert node.seen == (Role.LEADER, 6, "a")


@pytest.mark.parametrize("request_of", [pre_vote, vote])
def test_who_heard_its_leader_within_the_minimum_timeout_drops_a_request_of_a_higher_term(request_of: type) -> None:
    node = a_follower(term=5, leader="b")
    node.sleeps(150 * MS - 1)

    assert node.hears("c", request_of(6, tip=AHEAD)) == []
    assert node.seen == (Role.FOLLOWER, 5, "b")
    assert node.written == []


@pytest.mark.parametrize("request_of", [pre_vote, vote])
def test_who_has_not_heard_its_leader_for_the_minimum_timeout_answers(request_of: type) -> None:
    node = a_follower(term=5, leader="b")
    node.sleeps(150 * MS)

    assert [send.to for send in node.hears("c", request_of(6))] == ["c"]


def test_who_knows_no_leader_is_not_sticky() -> None:
    """It restarted just now, for example."""
    node = a_follower(term=5, leader=None)

    assert first(node.hears("c", vote(6)), VoteReply).granted


def test_who_left_the_term_of_its_leader_is_not_sticky_any_more() -> None:
    node = a_follower(term=5, leader="b")
    node.hears("c", vote(6, transfer=True, tip=EMPTY))

    assert first(node.hears("c", pre_vote(7)), PreVoteReply).granted


def test_a_request_after_a_timeout_now_is_exempt_at_a_follower() -> None:
    node = a_follower(term=5, leader="b")

    assert first(node.hears("c", vote(6, transfer=True)), VoteReply).granted


def test_a_request_after_a_timeout_now_is_exempt_at_the_leader() -> None:
    node = a_leader(term=6)

    assert first(node.hears("c", vote(7, transfer=True)), VoteReply).granted
    assert node.seen == (Role.FOLLOWER, 7, None)


@pytest.mark.parametrize("request_of", [pre_vote, vote])
def test_a_request_after_a_leader_gone_notice_is_exempt(request_of: type) -> None:
    node = a_follower(term=5, leader="b")

    node.performs(node.core.leader_gone(node.now_us))

    assert [send.to for send in node.hears("c", request_of(6))] == ["c"]


def test_a_request_of_the_same_term_is_answered_by_the_leader_too() -> None:
    node = a_leader(term=6)

    reply = first(node.hears("c", vote(6)), VoteReply)
    assert (reply.granted, reply.term) == (False, 6)

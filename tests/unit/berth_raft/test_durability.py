"""Nothing leaves before what it promises is on disk; who forgot promises nothing (RAFT section 2, step 0; I2, I3)."""

from berth_raft.core.effects import Amnesiac, HardState, Role, Send
from berth_raft.core.messages import (
    HeartbeatReply,
    PreVote,
    PreVoteReply,
    Vote,
    VoteReply,
)
from berth_raft.core.outbox import HELD_MESSAGES_MAX
from tests.unit.berth_raft.driven_node import (
    AHEAD,
    BEHIND,
    LEVEL,
    MS,
    STAMP,
    DrivenNode,
    a_follower,
    a_pre_candidate,
    first,
    heartbeat,
    pre_vote,
    timeout_now,
    vote,
)

# ---------------------------------------------------------------- durable before it is sent (I3)


def test_a_vote_leaves_when_it_is_durable() -> None:
    node = a_follower(term=5, leader=None)
    node.disk_waits = True

    assert node.hears("c", vote(6)) == []
    assert (node.written[-1].term, node.vote) == (6, "c")

    assert first(node.sync(), VoteReply).granted


def test_one_step_writes_once_though_it_changes_term_and_vote() -> None:
    node = a_follower(term=5, leader=None)

    node.hears("c", vote(6))

    assert node.written == [HardState(incarnation=1, term=6, vote="c")]


def test_nothing_that_speaks_of_a_new_term_leaves_before_that_is_durable() -> None:
    node = a_follower(term=5, leader=None)
    node.disk_waits = True

    assert node.hears("b", heartbeat(6)) == []
    assert node.hears("b", heartbeat(6, beat=2)) == []
    assert node.hears("c", vote(6)) == []

    assert [type(send.message) for send in node.sync()] == [HeartbeatReply, HeartbeatReply, VoteReply]


def test_an_earlier_token_releases_only_what_waits_for_it() -> None:
    node = a_follower(term=5, leader=None)
    node.disk_waits = True
    node.hears("c", vote(6))
    node.hears("b", vote(7, candidate="b"))

    released = node.core.on_synced(node.unsynced[0].token, node.now_us)

    assert [send.to for send in released if isinstance(send, Send)] == ["c"]


def test_what_was_released_is_not_sent_again() -> None:
    node = a_follower(term=5, leader=None)
    node.hears("c", vote(6))

    assert [send.to for send in node.hears("b", heartbeat(7))] == ["b"]


def test_a_disk_that_hangs_holds_a_bounded_number_of_messages() -> None:
    node = a_follower(term=5, leader=None)
    node.disk_waits = True
    for beat in range(1000):
        node.hears("b", heartbeat(6, beat=beat))

    sends = node.sync()

    assert len(sends) == HELD_MESSAGES_MAX
    assert first(sends[-1:], HeartbeatReply).round == 999


def test_a_vote_that_the_disk_refused_is_told_to_nobody() -> None:
    node = a_follower(term=5, leader=None)
    node.disk_waits = True
    node.hears("c", vote(6))

    assert node.fails() == []
    assert not first(retry(node, "b"), VoteReply).granted, "it is still given, and not to another"


def retry(node: DrivenNode, candidate: str) -> list[Send]:
    """`candidate` asks, so the node writes again, and this time the disk takes it."""
    node.hears(candidate, vote(6, candidate=candidate))
    return node.sync()


def test_a_vote_that_the_disk_refused_is_given_to_the_same_candidate_when_it_asks_again() -> None:
    node = a_follower(term=5, leader=None)
    node.disk_waits = True
    node.hears("c", vote(6))
    node.fails()

    assert first(retry(node, "c"), VoteReply).granted


def test_a_candidate_whose_disk_failed_gives_up_and_tries_again_later() -> None:
    node, request = a_pre_candidate(term=5)
    node.disk_waits = True
    node.hears("b", PreVoteReply(stamp=STAMP, term=6, round=request.round, granted=True))

    node.fails()
    assert node.seen == (Role.FOLLOWER, 6, None)

    node.disk_waits = False
    assert first(node.waits(900 * MS), PreVote).term == 7
    assert node.written[-1] == HardState(incarnation=1, term=6, vote="a"), "the vote that was lost is written again"


def test_a_follower_whose_disk_failed_keeps_its_leader() -> None:
    node = a_follower(term=5, leader=None)
    node.disk_waits = True
    node.hears("b", heartbeat(6))

    node.fails()

    assert node.seen == (Role.FOLLOWER, 6, "b")


def test_a_failure_that_a_newer_write_covers_does_not_end_a_candidacy() -> None:
    node = a_follower(term=5, leader=None)
    node.disk_waits = True
    node.hears("b", heartbeat(6))
    node.hears("b", timeout_now(6))

    node.core.on_persist_failed(node.unsynced[0].token)

    assert first(node.sync(), Vote).term == 7


def test_a_failure_that_a_newer_write_covers_changes_nothing() -> None:
    node = a_follower(term=5, leader=None)
    node.disk_waits = True
    node.hears("c", vote(6))
    node.hears("b", vote(7, candidate="b"))

    node.core.on_persist_failed(node.unsynced[0].token)

    assert [send.to for send in node.sync()] == ["c", "b"]


# ---------------------------------------------------------------- amnesia (step 0)


def test_an_amnesiac_never_votes_and_never_campaigns() -> None:
    node = DrivenNode(hard_state=Amnesiac(why="the file is gone"))

    assert not first(node.hears("b", pre_vote(4, candidate="b", tip=AHEAD)), PreVoteReply).granted
    assert not first(node.hears("b", vote(4, candidate="b", tip=AHEAD)), VoteReply).granted
    assert node.waits(3_000 * MS) == []
    assert node.hears("b", timeout_now(4)) == []


def test_an_amnesiac_rejoins_under_a_new_incarnation_once_it_has_what_the_active_leader_has() -> None:
    node = DrivenNode(hard_state=Amnesiac(why="the file is gone"), tip=BEHIND)
    node.hears("b", heartbeat(7, tip=LEVEL, active=False))
    node.core.set_tip(LEVEL)
    assert not node.core.can_rejoin, "the leader has not proved itself with a barrier"
    node.hears("b", heartbeat(7, tip=LEVEL, active=True))
    node.core.set_tip(BEHIND)
    assert not node.core.can_rejoin, "it lacks what the leader has"
    assert node.performs(node.core.rejoin(node.now_us, 9)) == []

    node.core.set_tip(LEVEL)
    node.performs(node.core.rejoin(node.now_us, 9))

    assert node.written == [HardState(incarnation=9, term=7, vote="b")]
    node.core.leader_gone(node.now_us)
    assert not first(node.hears("c", vote(7, candidate="c", tip=AHEAD)), VoteReply).granted, "its vote is the leader's"
    assert first(node.hears("c", vote(8, candidate="c", tip=AHEAD)), VoteReply).granted


def test_who_recovers_votes_again_above_the_ledgers_term() -> None:
    node = DrivenNode(hard_state=Amnesiac(why="the file is gone"))

    node.performs(node.core.recover(node.now_us, 9, term=5))

    assert node.written == [HardState(incarnation=9, term=6, vote="a")]
    assert not first(node.hears("b", vote(6, candidate="b", tip=AHEAD)), VoteReply).granted
    assert first(node.hears("b", vote(7, candidate="b", tip=AHEAD)), VoteReply).granted


def test_nobody_recovers_who_has_its_votes_or_hears_a_leader() -> None:
    whole, following = a_follower(term=5), DrivenNode(hard_state=Amnesiac(why="the file is gone"))
    following.hears("b", heartbeat(7))

    for node in (whole, following):
        assert node.performs(node.core.recover(node.now_us, 9, term=5)) == []
        assert node.written == []


def test_an_amnesiac_follows_from_memory_and_signs_with_incarnation_0() -> None:
    node = DrivenNode(hard_state=Amnesiac(why="the file is gone"))

    reply = first(node.hears("b", heartbeat(7)), HeartbeatReply)

    assert (reply.term, reply.stamp.incarnation) == (7, 0)
    assert node.seen == (Role.FOLLOWER, 7, "b")
    assert node.written == []

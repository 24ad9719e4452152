"""What the shell tells the core and what comes back: ledger, hints, hand-over (RAFT section 2, steps 1 to 7)."""

from dataclasses import replace
from random import Random

import pytest

from berth_raft.core.effects import HardState, Persist, Role, RoleChanged, Send
from berth_raft.core.messages import (
    Heartbeat,
    PreVote,
    Tip,
    Vote,
)
from berth_raft.core.node import RaftCore
from berth_raft.core.settings import InvalidRaftSetting, RaftSettings
from tests.unit.berth_raft.driven_node import (
    AHEAD,
    BEHIND,
    LEVEL,
    MS,
    STAMP,
    a_candidate,
    a_follower,
    a_leader,
    first,
    heartbeat,
    heartbeat_reply,
    timeout_now,
    vote,
)

# ---------------------------------------------------------------- who may campaign


def test_a_node_whose_disk_or_ledger_is_broken_does_not_campaign() -> None:
    node = a_follower(leader="b")
    node.core.set_eligible(False)

    assert node.waits(3_000 * MS) == []
    assert node.seen == (Role.FOLLOWER, 5, None)
    assert node.hears("b", timeout_now(5)) == []

    node.core.set_eligible(True)
    assert first(node.waits(300 * MS), PreVote).term == 6


def test_not_being_eligible_changes_nothing_for_who_leads_or_follows() -> None:
    """The shell asks a leader to resign; it knows whether that is needed."""
    assert a_leader().core.set_eligible(False) == []
    assert a_follower(leader="b").core.set_eligible(False) == []


def test_a_candidate_that_is_not_eligible_any_more_gives_up() -> None:
    node, _ = a_candidate(term=6)

    assert node.core.set_eligible(False) == [RoleChanged(role=Role.FOLLOWER, term=6, leader=None, active=False)]


def test_who_lags_by_more_than_256_records_leaves_the_election_to_others_while_it_hears_them() -> None:
    far = Tip(barrier_term=3, sequence=10 + 257)
    node = a_follower(tip=LEVEL)
    node.hears("b", heartbeat(5, tip=far, beat=2))

    assert node.waits(550 * MS) == []
    assert first(node.waits(400 * MS), PreVote).tip == LEVEL


def test_who_lags_by_256_records_campaigns() -> None:
    node = a_follower(tip=LEVEL)
    node.hears("b", heartbeat(5, tip=Tip(barrier_term=3, sequence=10 + 256), beat=2))

    assert first(node.waits(300 * MS), PreVote).tip == LEVEL


# ---------------------------------------------------------------- barrier, step-down


def test_a_leader_may_commit_only_after_its_barrier_and_says_so_at_once() -> None:
    node = a_leader(term=6)
    assert not node.core.is_leader

    sends = node.performs(node.core.activate(node.now_us))

    assert node.core.is_leader
    assert [first([send], Heartbeat).active for send in sends] == [True, True]


def test_activating_a_leadership_that_is_gone_does_nothing() -> None:
    node = a_follower()

    assert node.core.activate(node.now_us) == []
    assert not node.core.is_leader


def test_a_barrier_of_a_higher_term_deposes_the_leader() -> None:
    node = a_leader(term=6)

    effects = node.core.adopt_term(node.now_us, 8)

    assert effects[0] == RoleChanged(role=Role.FOLLOWER, term=8, leader=None, active=False)
    assert [effect.hard_state.term for effect in effects if isinstance(effect, Persist)] == [8]
    assert node.core.last_step_down == "a barrier of a higher term"


def test_its_own_barrier_does_not_depose_a_leader() -> None:
    node = a_leader(term=6)

    assert node.core.adopt_term(node.now_us, 6) == []


def test_a_leader_that_resigns_follows_nobody_and_tells_why() -> None:
    node = a_leader(term=6)

    node.core.resign(node.now_us, "in doubt for too long")

    assert node.seen == (Role.FOLLOWER, 6, None)
    assert node.core.last_step_down == "in doubt for too long"
    assert node.core.resign(node.now_us, "again") == []


def test_stepping_down_is_told_though_the_successor_is_unknown() -> None:
    """iotdb 13221: services of the old leader kept running until a new one was known."""
    node = a_leader(term=6)

    effects = node.core.step(node.now_us, "c", vote(7, transfer=True, tip=BEHIND))

    assert effects[0] == RoleChanged(role=Role.FOLLOWER, term=7, leader=None, active=False)


# ---------------------------------------------------------------- hand-over and hints


def test_a_transfer_goes_to_the_voter_with_the_best_tip() -> None:
    node = a_leader(term=6, members=("a", "b", "c"), observers=("d",))
    beat = first(node.waits(50 * MS), Heartbeat)
    for name, tip in (("b", BEHIND), ("c", LEVEL), ("d", AHEAD)):
        node.hears(name, heartbeat_reply(6, beat.round, tip=tip))

    (send,) = node.performs(node.core.transfer(node.now_us))

    assert send == Send(to="c", message=replace(timeout_now(6), stamp=send.message.stamp))
    assert node.core.role is Role.LEADER


def test_a_transfer_goes_to_nobody_who_was_not_heard_of_late() -> None:
    node = a_leader(term=6)
    node.sleeps(150 * MS)

    assert node.performs(node.core.transfer(node.now_us)) == []


def test_a_transfer_goes_where_it_is_told_to() -> None:
    node = a_leader(observers=("d",))

    assert [send.to for send in node.performs(node.core.transfer(node.now_us, to="c"))] == ["c"]
    assert node.performs(node.core.transfer(node.now_us, to="d")) == []
    assert node.performs(node.core.transfer(node.now_us, to="a")) == []


def test_only_a_leader_transfers() -> None:
    node = a_follower()

    assert node.performs(node.core.transfer(node.now_us, to="c")) == []


def test_a_notice_that_the_leader_is_gone_forgets_it_pulls_the_election_forward_and_changes_nothing_else() -> None:
    node = a_follower(leader="b")

    node.performs(node.core.leader_gone(node.now_us))

    assert node.timer_us == 0
    assert node.seen == (Role.FOLLOWER, 5, None)
    assert node.written == []


def test_heirs_do_not_all_campaign_at_once() -> None:
    settings = RaftSettings(members=("a", "b", "c", "d", "e"), observers=("f",))
    waits: list[int] = []
    for name in ("b", "c", "d", "e"):
        core = RaftCore(name, settings, HardState(incarnation=1, term=5, vote=None), Random(1), 0)
        core.step(0, "a", heartbeat(5, leader="a"))
        core.leader_gone(0)
        waits.append(core.deadline())

    assert waits == [0, 12_500, 25_000, 37_500]


def test_a_notice_means_nothing_to_who_leads_or_follows_nobody() -> None:
    leader, nobodys = a_leader(), a_follower(leader=None)
    deadlines = leader.core.deadline(), nobodys.core.deadline()

    leader.core.leader_gone(leader.now_us)
    nobodys.core.leader_gone(nobodys.now_us)

    assert (leader.core.deadline(), nobodys.core.deadline()) == deadlines


# ---------------------------------------------------------------- strangers, start


@pytest.mark.parametrize(
    "sender, message",
    [
        ("z", vote(9, candidate="z")),
        ("a", vote(9, candidate="a")),
        ("b", vote(9, candidate="c")),
        ("b", heartbeat(9, leader="c")),
        ("b", vote(9, candidate="b", stamp=replace(STAMP, cluster_id="another"))),
    ],
    ids=["no member", "itself", "in another's name", "for another leader", "of another cluster"],
)
def test_strangers_are_ignored(sender: str, message: Vote | Heartbeat) -> None:
    node = a_follower(term=5, leader=None)

    assert node.hears(sender, message) == []
    assert node.seen == (Role.FOLLOWER, 5, None)


def test_a_node_that_is_not_in_the_member_list_does_not_start() -> None:
    with pytest.raises(InvalidRaftSetting, match="expected this node, 'z', among a, b, c") as refused:
        RaftCore("z", RaftSettings(members=("a", "b", "c")), HardState(incarnation=1, term=0, vote=None), Random(1), 0)

    assert refused.value.setting == "members"


def test_what_is_known_of_peers_is_there_for_people() -> None:
    node = a_leader(term=6)
    beat = first(node.waits(50 * MS), Heartbeat)
    node.hears("b", heartbeat_reply(6, beat.round, tip=LEVEL))

    assert list(node.core.peers) == ["b", "c"]
    peer = node.core.peers["b"]
    assert (peer.heard_us, peer.tip, peer.term, peer.answered_round) == (node.now_us, LEVEL, 6, beat.round)


def test_a_clock_that_seems_to_go_back_does_no_harm() -> None:
    node = a_follower(term=5, leader="b")

    node.core.step(0, "b", heartbeat(5, beat=2))

    assert node.timer_us >= 150 * MS

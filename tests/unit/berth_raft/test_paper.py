"""Raft as Ongaro's thesis tells it ("Consensus: Bridging Theory and Practice", 2014), section by section, in groups.

Each test names the section that it proves. The sentences of our own rules are in test_elections_exactly.py and
test_roles_exactly.py; where a story is a bug of another implementation, its thread (RAFT section 5) is named.
"""

from random import Random

from berth_raft.core.effects import HardState, Role
from berth_raft.core.messages import Tip
from berth_raft.core.node import RaftCore
from berth_raft.core.settings import RaftSettings
from tests.unit.berth_raft.driven_node import MS, vote
from tests.unit.berth_raft.group import Group

OLD, NEW = Tip(barrier_term=1, sequence=5), Tip(barrier_term=1, sequence=6)


def a_group_led_by_a() -> Group:
    group = Group("a", "b", "c")
    group.times_out("a")
    assert group.leaders == ["a"]
    return group


# ---------------------------------------------------------------- 3.3 and 3.4: terms, elections


def test_3_3_a_stale_leader_follows_when_it_hears_of_a_higher_term() -> None:
    group = a_group_led_by_a()
    group.isolate("a")
    group.times_out("b")
    assert group.leaders == ["a", "b"]

    group.cut = []
    group.waits(50 * MS)

    assert group.leaders == ["b"]
    assert group.followers_of("b") == ["a", "c"]
    assert group.terms == [2, 2, 2]


def test_3_4_who_hears_nobody_for_its_timeout_is_elected() -> None:
    group = Group("a", "b", "c")

    group.times_out("b")

    assert group.leaders == ["b"]
    assert group.followers_of("b") == ["a", "c"]
    assert group.terms == [1, 1, 1]


def test_3_4_heartbeats_keep_the_leader() -> None:
    group = a_group_led_by_a()

    group.waits(10_000 * MS)

    assert group.leaders == ["a"]
    assert group.terms == [1, 1, 1]


def test_3_4_two_of_three_elect() -> None:
    """hashicorp/raft 472: with one node dead, the others never asked each other."""
    group = Group("a", "b", "c")
    group.down = ["c"]

    group.waits(1_000 * MS)

    assert len(group.leaders) == 1


def test_3_4_one_of_three_does_not_elect_itself_and_does_not_count_up_its_term() -> None:
    group = Group("a", "b", "c")
    group.down = ["b", "c"]

    group.waits(10_000 * MS)

    assert group.leaders == []
    assert group.terms == [0]


def test_3_4_first_come_first_served_gives_one_leader_when_two_campaign_at_once() -> None:
    group = Group("a", "b", "c")

    group.times_out("a", "b")

    assert len(group.leaders) == 1
    assert group.terms == [1, 1, 1]


def test_3_4_a_split_vote_ends_by_itself() -> None:
    group = Group("a", "b", "c")
    group.down = ["c"]
    group.times_out("a", "b")
    assert [group.cores[name].role for name in ("a", "b")] == [Role.CANDIDATE, Role.CANDIDATE]

    group.waits(1_000 * MS)

    assert len(group.leaders) == 1


def test_3_4_timeouts_are_spread_over_the_whole_range() -> None:
    settings = RaftSettings(members=("a", "b", "c"))
    state = HardState(incarnation=1, term=0, vote=None)

    drawn = [RaftCore("a", settings, state, Random(seed), 0).deadline() for seed in range(300)]

    assert 150 * MS <= min(drawn) < 155 * MS
    assert 295 * MS < max(drawn) <= 300 * MS


# ---------------------------------------------------------------- 3.6 and 3.8: what must not be lost


def test_3_6_1_nobody_is_elected_whose_ledger_is_behind_a_majority() -> None:
    group = Group("a", "b", "c", tips={"a": OLD, "b": NEW, "c": NEW})

    group.times_out("a")
    assert group.leaders == []

    group.waits(1_000 * MS)
    assert group.leaders in (["b"], ["c"])


def test_3_6_1_who_is_level_with_a_majority_is_elected_though_one_is_ahead() -> None:
    group = Group("a", "b", "c", tips={"a": OLD, "b": OLD, "c": NEW})

    group.times_out("a")

    assert group.leaders == ["a"]


def test_3_8_a_vote_survives_a_restart() -> None:
    """PySyncObj 202: a node that forgets its vote elects two leaders of one term."""
    group = Group("a", "b", "c")
    group.times_out("a")
    assert group.disks["b"] == HardState(incarnation=1, term=1, vote="a")

    group.start("b")
    group.performs("b", group.cores["b"].step(group.now_us, "c", vote(1, candidate="c", tip=NEW)))

    assert group.disks["b"] == HardState(incarnation=1, term=1, vote="a")


def test_3_8_a_term_survives_a_restart_of_all() -> None:
    group = a_group_led_by_a()
    for name in ("a", "b", "c"):
        group.start(name)

    group.waits(1_000 * MS)

    assert len(group.leaders) == 1
    assert group.terms == [2, 2, 2]


# ---------------------------------------------------------------- 3.10: leadership transfer


def test_3_10_a_transfer_makes_the_target_leader_without_waiting_for_a_timeout() -> None:
    group = a_group_led_by_a()

    group.performs("a", group.cores["a"].transfer(group.now_us, to="c"))
    group.delivers()

    assert group.leaders == ["c"]
    assert group.followers_of("c") == ["a", "b"]
    assert group.cores["a"].last_step_down == "a vote request of a higher term"


def test_3_10_a_transfer_to_a_node_that_died_leaves_the_leader_in_place() -> None:
    group = a_group_led_by_a()
    group.down = ["c"]

    group.performs("a", group.cores["a"].transfer(group.now_us, to="c"))
    group.waits(1_000 * MS)

    assert group.leaders == ["a"]


# ---------------------------------------------------------------- 4.2.3, 9.6: nodes that disturb


def test_4_2_3_a_node_that_only_the_leader_does_not_reach_does_not_depose_it() -> None:
    group = a_group_led_by_a()
    group.cut = [("a", "c")]

    group.waits(10_000 * MS)

    assert group.leaders == ["a"]
    assert group.terms == [1, 1, 1]


def test_9_6_a_node_that_returns_after_a_long_partition_changes_nothing() -> None:
    """etcd 9333: its term had grown with each timeout and deposed the leader."""
    group = a_group_led_by_a()
    group.isolate("c")
    group.waits(30_000 * MS)
    assert group.cores["c"].term == 1

    group.cut = []
    group.waits(1_000 * MS)

    assert group.leaders == ["a"]
    assert group.terms == [1, 1, 1]


def test_9_6_nodes_of_mixed_terms_elect() -> None:
    """etcd 9586, canonical/raft 279: pre-vote that never elects when the one with the high term is behind."""
    group = Group("a", "b", "c", tips={"a": OLD, "b": NEW, "c": NEW})
    group.down = ["b"]
    group.performs("a", group.cores["a"].adopt_term(0, 9))  # as after candidacies that led nowhere
    group.performs("c", group.cores["c"].adopt_term(0, 4))

    group.waits(2_000 * MS)

    assert group.leaders == ["c"]
    assert min(group.terms) > 9


def test_9_6_a_node_stuck_at_a_higher_term_is_taken_back_in() -> None:
    """etcd 8501: it ignores the leader's heartbeats and its own pre-votes are not heard."""
    group = a_group_led_by_a()
    group.isolate("c")
    group.performs("c", group.cores["c"].adopt_term(group.now_us, 7))

    group.cut = []
    group.waits(2_000 * MS)

    assert len(group.leaders) == 1
    assert group.terms in ([7, 7, 7], [8, 8, 8])


# ---------------------------------------------------------------- 6.2: check-quorum


def test_6_2_a_leader_that_can_send_but_not_receive_gives_way() -> None:
    """etcd raft 266: it stayed leader for ever."""
    group = a_group_led_by_a()
    group.cut = [("b", "a"), ("c", "a")]

    group.waits(1_000 * MS)

    assert group.leaders in (["b"], ["c"])


def test_6_2_a_leader_in_a_minority_stops_leading_by_itself() -> None:
    group = a_group_led_by_a()
    group.isolate("a")

    group.waits(1_000 * MS)

    assert "a" not in group.leaders
    assert len(group.leaders) == 1

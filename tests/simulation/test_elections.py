"""Elections in many histories: safe in each of them, a leader afterwards, and calm when all is well.

`SEED="41 97"` replays seeds, `SEEDS=5000` runs that many. A failure names its seed; the same seed fails again.
RAFT section 3: I1, I2, I3 are checked at every message; liveness is I17 for elections, stability is I18.
"""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from berth_raft.core.effects import Role
from berth_raft.core.node import RaftCore
from tests.simulation.election_disturbances import Disturber
from tests.simulation.election_faults import Faults, drawn_faults
from tests.simulation.election_world import MS, SECOND, World

LIVENESS_US = 10 * 300 * MS
"""Ten times the longest election timeout (I17)."""


def storm(seed: int, core: type[RaftCore] = RaftCore) -> Disturber:
    """Twelve seconds of faults of every kind. Raises `Violation` at the first invariant that breaks."""
    draw = Random(seed)
    voters, observers = draw.choice([(3, 0), (3, 0), (3, 1), (5, 0), (1, 1)])
    disturber = Disturber(World(seed, voters=voters, observers=observers, faults=drawn_faults(draw), core=core))
    disturber.world.run_for(12 * SECOND)
    return disturber


def calm_world(seed: int, core: type[RaftCore] = RaftCore, *, busy: bool = True) -> World:
    """Three voters and an observer that have elected, without faults; `busy` machines answer and wake up late."""
    faults = Faults(delay_us=(200, 10_000), tick_late_us=20_000) if busy else Faults()
    world = World(seed, observers=1, faults=faults, core=core)
    world.run_for(2 * SECOND)
    assert world.active_leader
    return world


def a_follower(world: World) -> str:
    return next(name for name in world.settings.members if name != world.active_leader)


# ---------------------------------------------------------------- safety, then liveness


def test_no_history_breaks_an_invariant_and_after_the_storm_one_leads(seed: int) -> None:
    disturber = storm(seed)
    world = disturber.world

    disturber.stop()
    world.run_for(LIVENESS_US)
    leader, settled_us = world.active_leader, world.now_us
    assert leader is not None, f"seed {seed}: nobody leads {LIVENESS_US} us after the last fault"

    world.run_for(2 * SECOND)
    assert world.active_leader == leader
    assert world.leader_changes(settled_us) == []


def test_storms_are_worth_their_name() -> None:
    """If these figures shrink, the seeds above prove less than they did."""
    worlds = [storm(seed).world for seed in range(10)]

    terms = sum(len(world.checkers.leader_of) for world in worlds)
    lives = sum(node.life for world in worlds for node in world.nodes.values())
    amnesiacs = sum(
        node.core is not None and node.core.is_amnesiac for world in worlds for node in world.nodes.values()
    )
    assert terms > 50
    assert lives > 150
    assert amnesiacs > 0


def test_one_seed_is_one_history(seed: int) -> None:
    assert storm(seed).world.history == storm(seed).world.history


def test_a_history_does_not_depend_on_how_python_hashes(repository: Path) -> None:
    program = "from tests.simulation.test_elections import storm; print(storm(7).world.history)"
    histories = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=repository,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert histories[0] == histories[1]
    assert len(histories[0]) > 30


# ---------------------------------------------------------------- calm is I18


def test_a_calm_stretch_has_no_leader_change(seed: int) -> None:
    """RAFT asks for none in an hour: that is 180 seeds."""
    world = calm_world(seed)
    started_us = world.now_us

    world.run_for(20 * SECOND)

    assert world.leader_changes(started_us) == []


def test_a_node_that_was_cut_off_for_30_seconds_changes_nothing_when_it_returns(seed: int) -> None:
    """etcd 9333: without pre-vote its high term deposes the leader."""
    assert changes_after_a_rejoin(seed, RaftCore) == []


def changes_after_a_rejoin(seed: int, core: type[RaftCore]) -> list[tuple[int, str, int]]:
    world = calm_world(seed, core)
    started_us = world.now_us
    world.isolate(a_follower(world))
    world.run_for(30 * SECOND)
    world.heal()
    world.run_for(2 * SECOND)
    assert world.active_leader
    return world.leader_changes(started_us)


def test_a_follower_whom_the_leader_does_not_reach_does_not_depose_it(seed: int) -> None:
    """Thesis section 4.2.3: the others hear the leader, so they do not listen to the follower."""
    assert changes_with_a_follower_out_of_reach(seed, RaftCore) == []


def changes_with_a_follower_out_of_reach(seed: int, core: type[RaftCore]) -> list[tuple[int, str, int]]:
    """Only the way from the leader to one follower is cut; that one is heard by everybody."""
    world = calm_world(seed, core)
    started_us = world.now_us
    world.cut[world.active_leader or "", a_follower(world)] = True
    world.run_for(10 * SECOND)
    return world.leader_changes(started_us)


# ---------------------------------------------------------------- failing over


def test_a_leader_that_hears_nobody_gives_way(seed: int) -> None:
    """etcd raft 266: it can send but not receive. Without check-quorum it would rule for ever."""
    assert led_by_another_while_the_leader_is_deaf(seed, RaftCore)


def led_by_another_while_the_leader_is_deaf(seed: int, core: type[RaftCore]) -> bool:
    world = calm_world(seed, core)
    deaf = world.active_leader
    assert deaf is not None
    world.isolate(deaf, is_heard=True)
    world.run_for(2 * SECOND)
    leaders = [name for name, node in world.nodes.items() if node.core is not None and node.core.role is Role.LEADER]
    return bool(leaders) and deaf not in leaders


def test_a_killed_leader_is_replaced_within_a_second(seed: int) -> None:
    """Half of the seeds need less than 200 ms; the bound leaves room for two split votes in a row."""
    world = calm_world(seed, busy=False)
    leader = world.active_leader
    assert leader is not None

    world.nodes[leader].crash(power_fails=True)
    world.run_for(SECOND)

    assert world.active_leader not in (None, leader)


def test_a_transfer_leaves_no_gap_to_wait_for(seed: int) -> None:
    world = calm_world(seed, busy=False)
    leader = world.active_leader
    assert leader is not None
    node = world.nodes[leader]
    assert node.core is not None
    world.ledger_grows = False  # whoever hands over takes no more proposals, and the others catch up
    world.run_for(SECOND)

    node.perform(node.core.transfer(node.clock_us()))
    world.run_for(100 * MS)

    assert world.active_leader not in (None, leader)


def test_a_notice_that_the_leader_is_gone_saves_the_election_timeout(seed: int) -> None:
    world = calm_world(seed, busy=False)
    leader = world.active_leader
    assert leader is not None

    world.nodes[leader].crash(power_fails=False)
    world.run_for(10 * MS)  # what it sent last has arrived
    for node in world.nodes.values():
        if node.core is not None:
            node.perform(node.core.leader_gone(node.clock_us()))
    world.run_for(130 * MS)

    assert world.active_leader not in (None, leader)


def test_a_wrong_notice_does_not_cost_the_leader_its_place(seed: int) -> None:
    """One node only takes the leader for gone: the others still hear it."""
    world = calm_world(seed)
    started_us = world.now_us
    node = world.nodes[a_follower(world)]
    assert node.core is not None

    node.perform(node.core.leader_gone(node.clock_us()))
    world.run_for(2 * SECOND)

    assert world.leader_changes(started_us) == []


@pytest.mark.parametrize("power_fails", [False, True])
def test_all_at_once_may_stop_and_start_again(seed: int, power_fails: bool) -> None:
    world = calm_world(seed)
    term = max(world.checkers.leader_of)

    for node in world.nodes.values():
        node.crash(power_fails=power_fails)
    for node in world.nodes.values():
        node.start()
    world.run_for(SECOND)

    assert world.active_leader
    assert max(world.checkers.leader_of) > term

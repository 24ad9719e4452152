"""The driver of bare raft cores, used as anybody from outside uses it: lines in, lines out."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.raft_driver.world import World

REPOSITORY = Path(__file__).parent.parent.parent

Json = dict[str, Any]


class Driven:
    """A world, and the answers to what was done in it."""

    def __init__(self, *, voters: tuple[int, ...] = (1, 2, 3), **settings: object) -> None:
        self._world = World()
        added = self.tells(do="add", ids=list(voters), voters=list(voters), **settings)
        assert "error" not in added, added

    def tells(self, **command: object) -> Json:
        return self._world.answer(json.dumps(command))

    def does(self, what: str, id: int | None = None, **more: object) -> Json:
        answer = self.tells(do=what, **more, **({} if id is None else {"id": id}))
        assert "error" not in answer, answer
        return answer

    def sends(self, id: int) -> list[tuple[int, str, int, bool]]:
        return [(one["to"], one["type"], one["term"], one["reject"]) for one in self.does("process", id)["messages"]]

    def node(self, id: int) -> Json:
        return next(node for node in self.does("state")["nodes"] if node["id"] == id)

    def settle(self) -> None:
        """Everything that is to be done or on its way."""
        while any(self.sends(id) + self.does("deliver", id)["messages"] for id in self.ids):
            pass

    @property
    def ids(self) -> list[int]:
        return [node["id"] for node in self.does("state")["nodes"]]

    def elect(self, id: int) -> None:
        self.does("campaign", id)
        self.settle()
        assert self.node(id)["role"] == "leader"


def test_lines_in_lines_out_until_end_of_file() -> None:
    commands = [
        {"do": "add", "ids": [1, 2, 3], "voters": [1, 2, 3], "observers": [], "tip": [0, 5], "term": 0},
        {"do": "campaign", "id": 1},
        {"do": "process", "id": 1},
        {"do": "campaign", "id": 9},
        {"do": "reset"},
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.raft_driver"],
        cwd=REPOSITORY,
        input="".join(json.dumps(command) + "\n" for command in commands),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    added, campaigning, asked, unknown, emptied = (json.loads(line) for line in done.stdout.splitlines())
    assert added["nodes"][0] == {
        "id": 1, "role": "follower", "term": 0, "vote": None, "leader": None, "tip": [0, 5],
    }  # fmt: skip
    assert campaigning["nodes"][0]["role"] == "pre_candidate"
    assert asked["messages"] == [
        {"from": 1, "to": to, "type": "pre_vote", "term": 1, "reject": False, "tip": [0, 5]} for to in (2, 3)
    ]
    assert unknown == {"error": "id: expected one of 1, 2, 3, found 9"}
    assert emptied == {"nodes": [], "messages": []}


def test_an_election_step_by_step() -> None:
    world = Driven(tip=[0, 5])

    world.does("campaign", 1)
    assert world.sends(1) == [(2, "pre_vote", 1, False), (3, "pre_vote", 1, False)]
    world.does("deliver", 2)
    assert world.sends(2) == [(1, "pre_vote_reply", 1, False)]
    world.does("deliver", 1)
    assert (world.node(1)["role"], world.node(1)["term"], world.node(1)["vote"]) == ("candidate", 1, 1)
    assert world.sends(1) == [(2, "vote", 1, False), (3, "vote", 1, False)]
    world.does("deliver", 3, types=["vote"])
    assert world.sends(3) == [(1, "vote_reply", 1, False)]
    world.does("deliver", 1)
    assert (world.node(1)["role"], world.node(1)["tip"]) == ("leader", [0, 5])
    assert world.sends(1) == [(2, "heartbeat", 1, False), (3, "heartbeat", 1, False)]
    assert world.node(1)["tip"] == [1, 6]
    world.settle()
    assert [node["leader"] for node in world.does("state")["nodes"]] == [1, 1, 1]


def test_the_only_voter_wins_at_once() -> None:
    world = Driven(voters=(7,))

    world.does("campaign", 7)
    world.does("process", 7)

    assert (world.node(7)["role"], world.node(7)["tip"]) == ("leader", [1, 1])


def test_what_was_not_persisted_is_lost_in_a_crash_and_what_was_is_kept() -> None:
    world = Driven(pre_vote=False)
    world.does("campaign", 1)
    assert world.node(1)["vote"] == 1

    world.does("restart", 1)
    assert (world.node(1)["term"], world.node(1)["vote"], world.sends(1)) == (0, None, [])

    world.does("campaign", 1)
    world.does("process", 1)
    world.does("restart", 1)
    assert (world.node(1)["role"], world.node(1)["term"], world.node(1)["vote"]) == ("follower", 1, 1)


def test_a_restarted_node_grants_no_second_vote_in_its_term() -> None:
    world = Driven(pre_vote=False)
    for candidate in (1, 3):
        world.does("campaign", candidate)
    world.does("process", 1)
    world.does("deliver", 2)
    assert world.sends(2) == [(1, "vote_reply", 1, False)]

    world.does("restart", 2)
    world.does("process", 3)
    world.does("deliver", 2)

    assert world.sends(2) == [(3, "vote_reply", 1, True)]


def test_a_timeout_is_what_it_was_set_to_until_another_is_drawn() -> None:
    world = Driven(election_ticks=10)
    world.does("tick", 1, times=3)

    world.does("timeout", 1, ticks=5)
    world.does("tick", 1)
    assert world.node(1)["role"] == "follower"
    world.does("tick", 1)
    assert world.node(1)["role"] == "pre_candidate"
    world.does("tick", 1, times=9)
    assert world.sends(1) == [(2, "pre_vote", 1, False), (3, "pre_vote", 1, False)]
    world.does("tick", 1, times=11)
    assert world.sends(1) == [(2, "pre_vote", 1, False), (3, "pre_vote", 1, False)]


def test_timeouts_are_drawn_between_once_and_twice_the_minimum() -> None:
    waited: set[int] = set()
    world = Driven(voters=tuple(range(1, 60)), election_ticks=5)
    for id in range(1, 60):
        ticks = 0
        while world.node(id)["role"] == "follower":
            world.does("tick", id)
            ticks += 1
        waited.add(ticks)

    assert waited == set(range(5, 11))


def test_a_message_can_be_dropped_kept_and_taken_by_its_type() -> None:
    world = Driven(pre_vote=False)
    world.does("campaign", 1)
    world.does("process", 1)

    assert len(world.does("deliver", 2, drop=True)["messages"]) == 1
    assert world.sends(2) == []
    assert world.does("deliver", 3, types=["heartbeat"])["messages"] == []
    for _ in range(2):  # what is kept can be delivered twice; the same voter counts once
        assert [one["type"] for one in world.does("deliver", 3, keep=True)["messages"]] == ["vote"]
    assert world.sends(3) == [(1, "vote_reply", 1, False), (1, "vote_reply", 1, False)]
    assert [one["type"] for one in world.does("state")["messages"]] == ["vote", "vote_reply", "vote_reply"]


def test_a_notice_that_the_leader_is_gone_starts_an_election_with_a_tick_only() -> None:
    world = Driven()
    world.elect(1)

    world.does("leader_gone", 2)
    assert (world.node(2)["role"], world.node(2)["leader"], world.node(2)["term"]) == ("follower", None, 1)
    world.does("tick", 2)
    assert world.node(2)["role"] == "pre_candidate"
    for id in (1, 2):
        before = world.node(id)
        world.does("leader_gone", id)
        assert world.node(id) == before


def test_a_leadership_is_handed_over_without_a_pre_vote() -> None:
    world = Driven()
    world.elect(1)

    world.does("transfer", 1, to=3)
    assert world.sends(1) == [(3, "timeout_now", 1, False)]
    world.does("deliver", 3)
    assert (world.node(3)["role"], world.node(3)["term"]) == ("candidate", 2)
    world.settle()
    assert (world.node(3)["role"], world.node(1)["role"]) == ("leader", "follower")


def test_a_tip_behind_wins_nothing() -> None:
    world = Driven()
    world.elect(1)
    for id in (1, 1):
        world.does("propose", id)
    world.does("tick", 1, times=1)
    world.settle()
    world.does("restart", 1)

    assert world.node(1)["tip"] == [1, 3]
    world.does("campaign", 2)
    world.does("process", 2)
    world.does("deliver", 1)
    assert world.sends(1) == [(2, "pre_vote_reply", 1, True)]
    assert "error" in world.tells(do="propose", id=2)


@pytest.mark.parametrize("check_quorum", [True, False])
def test_a_leader_without_a_majority_steps_down_only_where_that_is_checked(check_quorum: bool) -> None:
    world = Driven(check_quorum=check_quorum)
    world.elect(1)

    world.does("tick", 1, times=6)

    assert world.node(1)["role"] == ("follower" if check_quorum else "leader")


@pytest.mark.parametrize("check_quorum", [True, False])
def test_who_hears_a_leader_is_sticky_only_where_quorums_are_checked(check_quorum: bool) -> None:
    world = Driven(check_quorum=check_quorum, pre_vote=False)
    world.elect(1)

    world.does("campaign", 3)
    world.does("process", 3)
    world.does("deliver", 2, types=["vote"])

    assert world.node(2)["term"] == (1 if check_quorum else 2)
    assert len(world.sends(2)) == (0 if check_quorum else 1)


def test_a_changed_list_of_voters_counts_at_who_has_read_it() -> None:
    world = Driven()
    world.does("add", ids=[4], voters=[1, 2, 3, 4])
    world.elect(1)

    world.does("voters", 1, voters=[1, 2, 3, 4])
    world.does("tick", 1)
    assert [to for to, *_ in world.sends(1)] == [2, 3, 4]
    world.does("voters", 1, voters=[2, 3, 4])
    assert (world.node(1)["role"], world.node(1)["leader"]) == ("follower", None)
    before = world.node(1)
    world.does("campaign", 1)
    assert world.node(1) == before, "an observer never campaigns"
    assert "error" in world.tells(do="voters", id=2, voters=[])


@pytest.mark.parametrize(
    "command, why",
    [
        ({"do": "fly"}, "do: expected one of reset, add"),
        ({"do": "tick", "id": "1"}, "id: expected a whole number"),
        ({"do": "tick", "id": 1, "times": -1}, "times: expected a whole number"),
        ({"do": "tick", "id": 1, "speed": 2}, "speed: expected nothing but id times"),
        ({"do": "deliver", "id": 1, "types": ["mail"]}, "types: expected some of pre_vote"),
        ({"do": "add", "ids": [1]}, "ids: expected each new node once, found 1"),
        ({"do": "add", "ids": [9], "voters": [1]}, "members: expected this node, '9'"),
        ({"do": "add", "ids": [9], "election_ticks": 2, "heartbeat_ticks": 1}, "heartbeat_ms: expected less than half"),
    ],
)
def test_a_command_that_cannot_be_carried_out_is_refused_and_changes_nothing(command: Json, why: str) -> None:
    world = Driven()
    before = world.does("state")

    assert why in world.tells(**command)["error"]
    assert world.does("state") == before


@pytest.mark.parametrize("line", ["{", "[]", "1", '"state"', "{}"])
def test_a_line_that_is_no_command_is_refused(line: str) -> None:
    assert "error" in World().answer(line)


@pytest.mark.parametrize("seed", range(10))
def test_no_term_has_two_leaders_whatever_is_done(seed: int) -> None:
    dice = Random(seed)
    world = Driven(
        voters=(1, 2, 3, 4, 5), pre_vote=dice.random() < 0.5, check_quorum=dice.random() < 0.5, election_ticks=4
    )
    leaders: dict[int, int] = {}
    for _ in range(1_500):
        id = dice.randint(1, 5)
        what = dice.choice(["tick"] * 4 + ["process"] * 6 + ["deliver"] * 6 + ["campaign", "leader_gone", "restart"])
        more: Json = {"drop": True} if what == "deliver" and dice.random() < 0.1 else {}
        for node in world.does(what, id, **more)["nodes"]:
            if node["role"] == "leader":
                assert leaders.setdefault(node["term"], node["id"]) == node["id"]

    assert leaders, "somebody was elected"

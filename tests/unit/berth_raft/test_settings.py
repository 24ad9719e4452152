"""What a configuration must be, and how it is refused: which setting, what was expected, what to do."""

from typing import Any

import pytest

from berth_raft.core.quorum import is_majority, majority, majority_answered_us
from berth_raft.core.settings import InvalidRaftSetting, RaftSettings, check_founders

THREE: dict[str, Any] = {"members": ("raft-1", "raft-2", "raft-3")}


def test_the_defaults_are_the_fields_four_numbers() -> None:
    settings = RaftSettings(members=("raft-1", "raft-2", "raft-3"))

    assert (settings.timeout_min_us, settings.timeout_max_us, settings.heartbeat_us) == (150_000, 300_000, 50_000)


@pytest.mark.parametrize(
    "changed, setting, expected",
    [
        ({"election_timeout_min_ms": 0}, "election_timeout_min_ms", "whole number of milliseconds"),
        ({"election_timeout_min_ms": 150.0}, "election_timeout_min_ms", "found 150.0"),
        ({"heartbeat_ms": True}, "heartbeat_ms", "found True"),
        ({"election_timeout_min_ms": 300}, "election_timeout_max_ms", "more than election_timeout_min_ms (300)"),
        ({"election_timeout_max_ms": 100}, "election_timeout_max_ms", "found 100"),
        ({"heartbeat_ms": 75}, "heartbeat_ms", "less than half of election_timeout_min_ms (150), found 75"),
        ({"members": ()}, "members", "at least one voter, found nobody"),
        ({"members": ("a", "b", "a")}, "members", "found a twice"),
        ({"observers": ("raft-1",)}, "members", "found raft-1 twice"),
        ({"members": ("a.b", "c", "d")}, "members", "found 'a.b'"),
        ({"observers": ("*",)}, "observers", "found '*'"),
        ({"cluster_id": "a cluster"}, "cluster_id", "found 'a cluster'"),
    ],
)
def test_a_configuration_that_could_not_elect_is_refused(changed: dict[str, Any], setting: str, expected: str) -> None:
    with pytest.raises(InvalidRaftSetting) as refused:
        RaftSettings(**{**THREE, **changed})

    assert refused.value.setting == setting
    assert expected in refused.value.expected
    assert refused.value.hint
    assert str(refused.value) == f"{setting}: {refused.value.expected}; {refused.value.hint}"


def test_a_cluster_starts_with_an_odd_number_of_voters_and_may_have_an_even_one_while_it_changes() -> None:
    two = RaftSettings(members=("a", "b"))

    with pytest.raises(InvalidRaftSetting, match="odd number of voters, found 2"):
        check_founders(two)
    check_founders(RaftSettings(**THREE))


def test_heartbeats_just_below_half_the_timeout_are_accepted() -> None:
    assert RaftSettings(**THREE, heartbeat_ms=74).heartbeat_us == 74_000


@pytest.mark.parametrize("timeouts, silence_ms", [((150, 300), 225), ((150, 200), 175), ((150, 900), 225)])
def test_a_leader_waits_for_answers_between_once_and_twice_the_minimum_and_within_the_maximum(
    timeouts: tuple[int, int], silence_ms: int
) -> None:
    shortest, longest = timeouts
    settings = RaftSettings(**THREE, election_timeout_min_ms=shortest, election_timeout_max_ms=longest)

    assert settings.quorum_silence_us == silence_ms * 1_000


def test_the_configuration_hash_knows_who_votes_and_not_in_which_order() -> None:
    one = RaftSettings(members=("a", "b", "c"), observers=("d", "e"))

    assert one.config_hash == RaftSettings(members=("c", "a", "b"), observers=("e", "d")).config_hash
    assert one.config_hash != RaftSettings(members=("a", "b", "d"), observers=("c", "e")).config_hash
    assert one.config_hash != RaftSettings(members=("a", "b", "c", "d", "e")).config_hash


@pytest.mark.parametrize("voters, needed", [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_two_majorities_share_a_member(voters: int, needed: int) -> None:
    names = [f"raft-{number}" for number in range(voters)]

    assert majority(names) == needed
    assert 2 * needed > voters
    assert is_majority(names, names[:needed])
    assert not is_majority(names, names[: needed - 1])
    assert not is_majority(names, [*names[: needed - 1], "an-observer"])


def test_a_majority_answered_when_the_slowest_of_the_fastest_half_did() -> None:
    answered = {"a": 100, "b": 30, "c": 50, "d": 10, "e": 20}

    assert majority_answered_us(("a", "b", "c", "d", "e"), answered) == 30
    assert majority_answered_us(("a", "b", "c"), answered) == 50

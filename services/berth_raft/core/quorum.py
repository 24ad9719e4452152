"""Majorities. Every rule of Raft rests on one fact: two of them share a member."""

from collections.abc import Collection, Mapping, Sequence


def majority(voters: Sequence[str]) -> int:
    """How many of `voters` are more than half of them."""
    assert voters, "a cluster has at least one voter"
    return len(voters) // 2 + 1


def is_majority(voters: Sequence[str], agreed: Collection[str]) -> bool:
    """Whether more than half of `voters` stand in `agreed`; who is no voter does not count."""
    return sum(voter in agreed for voter in voters) >= majority(voters)


def majority_answered_us(voters: Sequence[str], answered_us: Mapping[str, int]) -> int:
    """The last instant since which a majority has answered: the oldest of its newest answers."""
    newest_first = sorted((answered_us[voter] for voter in voters), reverse=True)
    return newest_first[majority(voters) - 1]

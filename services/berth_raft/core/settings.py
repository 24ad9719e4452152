"""The numbers and names of a cluster, and why each is refused (RAFT sections 2 and 5)."""

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

NAME_PATTERN = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
CLUSTER_ID_PATTERN = r"[A-Za-z0-9._-]{1,64}"
_MICROSECONDS = 1_000


class InvalidRaftSetting(ValueError):
    """A configuration that could not elect safely or at all. Names the setting, what was expected, what to do."""

    def __init__(self, setting: str, *, expected: str, hint: str) -> None:
        super().__init__(f"{setting}: {expected}; {hint}")
        self.setting = setting
        self.expected = expected
        self.hint = hint


class Dice(Protocol):
    """The part of `random.Random` that the core needs; whoever hands it in has seeded it."""

    def randint(self, a: int, b: int, /) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftSettings:
    """The field's four numbers: election timeout min and max, heartbeat, and as many members as voters.

    Every node of a cluster must be given the same `members` and `observers`; the hash of both is in each message,
    so that a difference is seen.
    """

    members: tuple[str, ...]
    """The voters, this node included."""
    observers: tuple[str, ...] = ()
    """Nodes that follow and answer, but never campaign and never count."""
    cluster_id: str = "berth"
    election_timeout_min_ms: int = 150
    election_timeout_max_ms: int = 300
    heartbeat_ms: int = 50
    pre_vote: bool = True
    """Ask before campaigning (thesis section 9.6). Off only to study elections without it."""
    check_quorum: bool = True
    """A leader without a majority ends its leadership, and who hears a leader ignores higher terms (thesis sections
    6.2 and 4.2.3): one without the other would let a cut-off leader or a returning node stop a working cluster. Off
    only to study elections without them.
    """

    def __post_init__(self) -> None:
        _check_timing(self)
        _check_names(self)

    @property
    def timeout_min_us(self) -> int:
        return self.election_timeout_min_ms * _MICROSECONDS

    @property
    def timeout_max_us(self) -> int:
        return self.election_timeout_max_ms * _MICROSECONDS

    @property
    def heartbeat_us(self) -> int:
        return self.heartbeat_ms * _MICROSECONDS

    @property
    def quorum_silence_us(self) -> int:
        """How long a leader leads without hearing from a majority: between once and twice the minimum election
        timeout, and within the maximum one (RAFT section 2, "Check-quorum").
        """
        return (self.timeout_min_us + min(2 * self.timeout_min_us, self.timeout_max_us)) // 2

    @property
    def config_hash(self) -> str:
        """16 hex digits over members and observers, whatever their order."""
        text = "\n".join([*sorted(self.members), "", *sorted(self.observers)])
        return blake2b(text.encode(), digest_size=8).hexdigest()

    def drawn_timeout_us(self, dice: Dice) -> int:
        """An election timeout, evenly between minimum and maximum (Raft thesis section 3.4)."""
        return dice.randint(self.timeout_min_us, self.timeout_max_us)

    def others(self, node_id: str) -> tuple[str, ...]:
        """Every other voter and observer."""
        return tuple(name for name in (*self.members, *self.observers) if name != node_id)

    def check_membership(self, node_id: str) -> None:
        """Raises:
        InvalidRaftSetting: `node_id` is in neither list.
        """
        if node_id not in self.members and node_id not in self.observers:
            raise InvalidRaftSetting(
                "members",
                expected=f"expected this node, {node_id!r}, among {_listed(self.members)}",
                hint="give every node the whole list, itself included, or start it under one of these names",
            )


def check_founders(settings: RaftSettings) -> None:
    """What a new cluster starts with. A running one has an even number of voters for a while when it grows or
    shrinks one node at a time (RAFT section 2, step 13).

    Raises:
    InvalidRaftSetting: the number of voters is even.
    """
    if len(settings.members) % 2 == 0:
        raise InvalidRaftSetting(
            "members",
            expected=f"expected an odd number of voters, found {len(settings.members)}",
            hint="use 1, 3 or 5; one more than an odd number tolerates no further loss, so make it an observer",
        )


def _check_timing(settings: RaftSettings) -> None:
    shortest, longest = settings.election_timeout_min_ms, settings.election_timeout_max_ms
    for setting in ("election_timeout_min_ms", "election_timeout_max_ms", "heartbeat_ms"):
        found: object = getattr(settings, setting)
        if type(found) is not int or not 1 <= found <= 3_600_000:
            raise InvalidRaftSetting(
                setting,
                expected=f"expected a whole number of milliseconds from 1 to 3600000, found {found!r}",
                hint="the defaults are 150, 300 and 50",
            )
    if shortest >= longest:
        raise InvalidRaftSetting(
            "election_timeout_max_ms",
            expected=f"expected more than election_timeout_min_ms ({shortest}), found {longest}",
            hint="nodes draw their timeouts between the two; twice the minimum is usual",
        )
    if 2 * settings.heartbeat_ms >= shortest:
        raise InvalidRaftSetting(
            "heartbeat_ms",
            expected=f"expected less than half of election_timeout_min_ms ({shortest}), found {settings.heartbeat_ms}",
            hint="one lost heartbeat must not cost the leader its place; a third of the minimum is usual",
        )


def _check_names(settings: RaftSettings) -> None:
    for setting, names in (("members", settings.members), ("observers", settings.observers)):
        for name in names:
            if re.fullmatch(NAME_PATTERN, name) is None:
                raise InvalidRaftSetting(
                    setting,
                    expected=f"expected names of lower-case letters, digits and inner hyphens, found {name!r}",
                    hint="a name is part of a subject; use such as raft-1",
                )
    every = [*settings.members, *settings.observers]
    twice = sorted({name for name in every if every.count(name) > 1})
    if twice:
        raise InvalidRaftSetting(
            "members",
            expected=f"expected each node once in members and observers, found {_listed(twice)} twice",
            hint="a node that is counted twice makes a majority by itself; remove it from one place",
        )
    if not settings.members:
        raise InvalidRaftSetting(
            "members", expected="expected at least one voter, found nobody", hint="use 3 voters, or 1 for development"
        )
    if re.fullmatch(CLUSTER_ID_PATTERN, settings.cluster_id) is None:
        raise InvalidRaftSetting(
            "cluster_id",
            expected=f"expected 1 to 64 letters, digits, dots, hyphens or underscores, found {settings.cluster_id!r}",
            hint="use the id of the ledger",
        )


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names) or "nobody"

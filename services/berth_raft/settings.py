"""What an operator may change about a raft node. Raft's own numbers are the field's four."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from berth.messages.requests import Name
from berth.runtime.settings import ServiceSettings


class RaftNodeSettings(ServiceSettings):
    """`data_dir` holds the hard state; without it a node could forget its vote, so it is required."""

    service: ClassVar[str] = "raft"

    members: tuple[Name, ...] = ("raft-1", "raft-2", "raft-3")
    """The voters, the same list on every node."""
    election_timeout_min_ms: Annotated[int, Field(ge=10)] = 150
    """A follower that hears no leader waits at least this long before it stands; more than twice the heartbeat."""
    election_timeout_max_ms: Annotated[int, Field(ge=20)] = 300
    """And at most this long: each wait is drawn between the two."""
    heartbeat_ms: Annotated[int, Field(ge=5)] = 50
    """How often a leader is heard."""
    watch_nkey_file: Path | None = None
    """Seed of the system account's `watch`: with it the server tells at once when the leader's process ends; None: a
    leader that has died is noticed by its silence, some 60 ms later.
    """
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    """Of the LEDGER stream; checked at every start."""

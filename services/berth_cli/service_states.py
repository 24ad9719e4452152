"""What the processes of a cluster say of themselves: asked of all at once over `$SRV.PING` (ADR-32)."""

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson

from berth.adapters.nats_bus import NatsBus
from berth.ports import Envelope

_PING = "$SRV.PING"
_LATE_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """One process's answer. `user` is its name, such as quota-1, `service` what it is, such as berth-quota;
    `metadata` is what its service tells.
    """

    user: str
    service: str
    ready: bool
    metadata: dict[str, str]

    @property
    def leads(self) -> bool:
        """Whether this is the raft node that may commit now."""
        return self.metadata.get("leader") == "true"

    @property
    def active(self) -> bool | None:
        """Whether it is the quota service that does the work; None where no process stands by for another."""
        told = self.metadata.get("active")
        return None if told is None else told == "true"

    @property
    def sequence(self) -> int | None:
        """How far it has read the ledger, where it says so."""
        told = self.metadata.get("sequence") or self.metadata.get("mirror_sequence") or ""
        return int(told) if told.isdigit() else None


async def service_states(
    bus: NatsBus, *, wanted: int, within_seconds: float = _LATE_SECONDS
) -> dict[str, ServiceState]:
    """The states by process name: as soon as `wanted` processes have answered, or when the time is up."""
    found: dict[str, ServiceState] = {}
    enough = asyncio.Event()

    def receive(envelope: Envelope) -> None:
        if envelope.status is not None:
            return
        state = _state(orjson.loads(envelope.payload))
        found[state.user] = state
        if len(found) >= wanted:
            enough.set()

    inbox = bus.new_inbox()
    end = await bus.subscribe(f"{inbox}.*", receive)
    try:
        bus.publish(_PING, b"", reply=f"{inbox}.ping")
        async with asyncio.timeout(within_seconds):
            await enough.wait()
    except TimeoutError:
        return found
    finally:
        end()
    return found


def _state(answer: dict[str, Any]) -> ServiceState:
    metadata: dict[str, str] = answer["metadata"]
    return ServiceState(
        user=answer["id"].rpartition("-")[0],
        service=answer["name"],
        ready=metadata.get("ready") == "true",
        metadata=metadata,
    )

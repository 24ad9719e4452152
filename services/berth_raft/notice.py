"""Hearing early that the leader's process is gone (RAFT section 2, "Hearing early that the leader is gone").

A probe is an empty message to the leader's own subject. Nobody answers one: either the leader's process is there and
ignores it, or the server says at once that nobody listens (503), which is the notice. It is a pure hint: a wrong one
costs an election, never safety. Whoever asks decides when to ask; here is only how.
"""

from collections.abc import Callable

from berth import subjects
from berth.adapters.connection import Connection
from berth.adapters.replies import NO_RESPONDERS
from berth.ports import Envelope

PROBE = b""
OVERDUE_HEARTBEATS = 1.2
"""A leader that is silent for this many heartbeat intervals is asked for."""
AGAIN_S = (0.005, 0.015)
"""A probe that leaves in the instant in which a process dies is neither delivered nor refused (measured)."""


class LeaderNotice:
    """Asks on one connection. `confirmed` is called with the node of which the server says that nobody listens."""

    def __init__(self, node_id: str, bus: Connection, confirmed: Callable[[str], None]) -> None:
        self._node_id = node_id
        self._bus = bus
        self._confirmed = confirmed
        self._prefix = bus.new_inbox()
        self._end: Callable[[], None] | None = None

    async def start(self) -> None:
        self._end = await self._bus.subscribe(f"{self._prefix}.*", self._receive)

    def stop(self) -> None:
        if self._end is not None:
            self._end()

    def ask(self, leader: str) -> None:
        """Whether `leader` listens."""
        subject = subjects.RAFT_PEER.of(to=leader, sender=self._node_id)
        self._bus.publish(subject, PROBE, reply=f"{self._prefix}.{leader}")

    def _receive(self, envelope: Envelope) -> None:
        if envelope.status == NO_RESPONDERS:
            self._confirmed(envelope.subject.removeprefix(f"{self._prefix}."))

"""A JetStream stream that is not there, with the real one's rules: fencing, the window of message ids, error codes.

RAFT section 1, "Order of checks": expected stream, message id, expected last sequence.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WRONG_LAST_SEQUENCE = 10071
WRONG_STREAM = 10060
TOO_LARGE = 10054


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A message as the stream keeps it."""

    sequence: int
    subject: str
    payload: bytes
    headers: dict[str, str]


def api_error(number: int, status: int, description: str) -> dict[str, Any]:
    """An answer of JetStream that says no."""
    return {"error": {"code": status, "err_code": number, "description": description}}


class SimulatedStream:
    """One stream. Its messages are on disk: they outlive a restart of the server."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        self.configuration = configuration
        self.messages: dict[int, Stored] = {}
        self.last_sequence = 0
        self.on_stored: list[Callable[[], None]] = []
        self._message_ids: dict[str, tuple[int, float]] = {}

    @property
    def name(self) -> str:
        return self.configuration["name"]

    def store(self, subject: str, payload: bytes, headers: dict[str, str]) -> dict[str, Any]:
        """The acknowledgement, or an error: then nothing was stored."""
        wanted_stream = headers.get("Nats-Expected-Stream")
        if wanted_stream is not None and wanted_stream != self.name:
            return api_error(WRONG_STREAM, 400, "expected stream does not match")
        message_id = headers.get("Nats-Msg-Id")
        if message_id is not None and (seen := self._seen(message_id)) is not None:
            return {"stream": self.name, "seq": seen, "duplicate": True}
        expected = headers.get("Nats-Expected-Last-Sequence")
        if expected is not None and int(expected) != self.last_sequence:
            return api_error(WRONG_LAST_SEQUENCE, 400, f"wrong last sequence: {self.last_sequence}")
        if len(payload) > self.configuration["max_msg_size"] > 0:
            return api_error(TOO_LARGE, 400, "message size exceeds maximum allowed")
        return {"stream": self.name, "seq": self._put(subject, payload, headers, message_id)}

    def remove(self, sequence: int) -> None:
        """Acknowledged in a work queue."""
        self.messages.pop(sequence, None)

    def lose_last(self, count: int) -> None:
        """The disk lied: the last `count` messages are gone after a power loss, and their sequences come again."""
        for sequence in range(self.last_sequence - count + 1, self.last_sequence + 1):
            self.messages.pop(sequence, None)
        self.last_sequence -= count

    def state(self) -> dict[str, Any]:
        """As STREAM.INFO tells it."""
        return {
            "messages": len(self.messages),
            "first_seq": min(self.messages, default=self.last_sequence + 1 if self.last_sequence else 0),
            "last_seq": self.last_sequence,
        }

    def _put(self, subject: str, payload: bytes, headers: dict[str, str], message_id: str | None) -> int:
        self.last_sequence += 1
        sequence = self.last_sequence
        self.messages[sequence] = Stored(sequence=sequence, subject=subject, payload=payload, headers=headers)
        if message_id is not None:
            self._message_ids[message_id] = (sequence, asyncio.get_running_loop().time())
        for stored in tuple(self.on_stored):
            stored()
        return sequence

    def _seen(self, message_id: str) -> int | None:
        window = self.configuration["duplicate_window"] / 1e9
        oldest = asyncio.get_running_loop().time() - window
        found = self._message_ids.get(message_id)
        if found is None or found[1] < oldest:
            return None
        return found[0]

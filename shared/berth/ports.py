"""What the real and the simulated world both offer, and nothing more."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from berth.ids import Sequence


class Clock(Protocol):
    """Wall time for stamps and deadlines, monotonic time for intervals."""

    def now_ms(self) -> int:
        """Milliseconds UTC."""
        ...

    def monotonic_us(self) -> int:
        """Microseconds that never go back; the origin means nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One message of the bus as bytes. `status`: a server status such as 503, when it is one."""

    subject: str
    payload: bytes
    headers: dict[str, str]
    reply: str | None = None
    status: int | None = None


class Bus(Protocol):
    """Core publish and subscribe; at most once."""

    def publish(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None, reply: str | None = None
    ) -> None:
        """Queue for sending; returns at once.

        Raises:
            Overloaded: the outbound queue is full; nothing was queued.
            InvalidCommand: payload and headers together exceed what the server takes.
        """
        ...

    async def subscribe(
        self, pattern: str, receive: Callable[[Envelope], None], *, queue: str | None = None
    ) -> Callable[[], None]:
        """Call `receive` for every message; the result ends the subscription."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A message of the LEDGER stream as it is stored, whether it is a record or foreign."""

    sequence: Sequence
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """The stream stored the bytes at `sequence`."""

    sequence: Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRace:
    """The expectation was wrong: nothing was stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotStored:
    """A definite negative (no responders on the first attempt, too large, wrong stream): nothing was stored."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InDoubt:
    """Nobody knows whether it was stored (time-out, disconnect, unclear answer): read back before anything else."""

    why: str


AppendResult = Appended | LostRace | NotStored | InDoubt


class Ledger(Protocol):
    """The one ordered log. Appends are fenced by the expected last sequence (RAFT section 2)."""

    async def append(self, payload: bytes, *, expected: Sequence) -> AppendResult:
        """Store `payload` right after `expected`, or say what happened. One call at a time. Never raises for the bus.

        While an earlier attempt after `expected` is in doubt, only Appended and InDoubt are answered: losing
        the race may mean that the earlier copy won it.
        """
        ...

    async def last_sequence(self) -> Sequence:
        """The stream's last sequence, from the stream's leader.

        Raises:
            Unreachable: nobody answered.
        """
        ...

    @property
    def server_ms(self) -> int | None:
        """The server's wall clock in milliseconds UTC as of the last answer to `last_sequence`; None before it."""
        ...

    async def read(self, sequence: Sequence) -> StoredMessage | None:
        """The message stored at `sequence`, or None; not a stale copy.

        Raises:
            Unreachable: nobody answered.
        """
        ...

    def follow(self, after: Sequence) -> AsyncIterator[list[StoredMessage]]:
        """Every message after `after`, in order, without a hole, in the batches in which they arrive; never ends.

        The first item may be an empty list; an empty list means "nothing more right now" (caught up).

        Raises:
            Halted: the stream is shorter than `after`, or lacks a sequence: a person must act.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedMessage:
    """One delivery of a message of REQUESTS. `sequence`: in the stream; `count`: which delivery, from 1;
    `handle`: what an acknowledgement names.
    """

    subject: str
    payload: bytes
    headers: dict[str, str]
    sequence: int
    count: int
    handle: str


class RequestQueue(Protocol):
    """The work queue REQUESTS: each message comes to the one service that holds the pin, until acknowledged."""

    @property
    def pinned(self) -> bool:
        """Whether this process holds the pin as far as it knows: it received messages and was not refused since."""
        ...

    def pull(self) -> AsyncIterator[list[QueuedMessage]]:
        """Batches as they arrive; never ends. An empty batch: the pin was lost, look at `pinned`."""
        ...

    def acknowledge(self, handle: str) -> None:
        """The message needs no other delivery."""
        ...

    def in_progress(self, handle: str) -> None:
        """The message is still being worked on: do not deliver it again yet."""
        ...

    async def dead_letter(self, message: QueuedMessage, reason: str) -> None:
        """Store the message with `reason` in DEADLETTER, then acknowledge it.

        Raises:
            Unreachable, TimedOut: it may not be stored; it comes again.
        """
        ...


class SnapshotStore(Protocol):
    """Where snapshots are kept, by the position of their last record. Losing one costs time, nothing else."""

    async def stored(self) -> list[Sequence]:
        """The positions that there are snapshots of, newest first."""
        ...

    async def read(self, sequence: Sequence) -> bytes | None:
        """What was stored for that position; None when it is not there any more or cannot be read."""
        ...

    async def write(self, sequence: Sequence, payload: bytes) -> None:
        """Store it whole or not at all; what is older than the one before it may be forgotten."""
        ...

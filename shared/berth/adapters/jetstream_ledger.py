"""The ledger as the JetStream stream LEDGER: fenced appends, reads from the stream's leader, a tail by pull.

RAFT section 2, steps 5, 6 and 12. Whether the server compares rightly is not trusted: an append counts
only when the acknowledgement names the stream and exactly the next sequence.
"""

import base64
import contextlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import tenacity

from berth import subjects
from berth.adapters.connection import Connection
from berth.adapters.jetstream_api import MESSAGE_NOT_FOUND, ApiRefused, JetStreamApi, refusal_in
from berth.adapters.pull import HEARTBEAT, Pull, PullEnded, PullSettings, delivered
from berth.adapters.replies import NobodyThere
from berth.errors import Halted, InvalidCommand, Overloaded, TimedOut, Unreachable
from berth.ids import Sequence
from berth.ports import Appended, AppendResult, Envelope, InDoubt, LostRace, NotStored, StoredMessage

log = logging.getLogger(__name__)

STREAM = subjects.LEDGER_STREAM.name
SUBJECT = subjects.LEDGER.template

LOST_RACE = frozenset({10071, 10164})
"""Wrong last sequence: with the sequence in its text, and in its constant form (RAFT section 1)."""
NOT_STORED = frozenset({10054, 10060})
"""Too large; not the expected stream. Every other refusal, known (10077, 10158) or not, leaves doubt."""

_RETRY_SECONDS_MIN = 0.05
_RETRY_SECONDS_MAX = 1.0
_INACTIVE_SECONDS = 300
_HOLES_MAX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """`consumer`: the reader's own name, `<role>-<instance>`, so that no two readers share one.

    `shared_user`: several processes sign in with this user (`admin`), so a random part is added to the name.
    """

    consumer: str
    shared_user: bool = False
    append_within_seconds: float = 0.5
    batch: int = 256
    heartbeat_seconds: float = 1.0


class JetStreamLedger:
    """The Ledger port. Give it a bus of its own with `keeps_while_disconnected=False`: an append of an old
    leader must not leave late (RAFT section 2, step 1).
    """

    def __init__(self, bus: Connection, api: JetStreamApi, settings: LedgerSettings) -> None:
        self._bus = bus
        self._api = api
        self._settings = settings
        self._doubted: Sequence | None = None
        self._server_ms: int | None = None

    @classmethod
    async def open(cls, bus: Connection, settings: LedgerSettings) -> "JetStreamLedger":
        return cls(bus, await JetStreamApi.open(bus), settings)

    def close(self) -> None:
        self._api.close()

    # --- append -----------------------------------------------------------------------------------

    async def append(self, payload: bytes, *, expected: Sequence) -> AppendResult:
        """Store `payload` right after `expected`, or say what happened. One call at a time. Never raises for the bus.

        While an earlier attempt after `expected` is in doubt, whatever this one meets but success stays in
        doubt too: losing the race may mean that the earlier copy won it.
        """
        result = await self._attempt(payload, expected)
        doubted, self._doubted = self._doubted == expected, None
        if isinstance(result, InDoubt):
            self._doubted = expected
        elif doubted and not isinstance(result, Appended):
            self._doubted = expected
            why = "lost the race" if isinstance(result, LostRace) else result.why
            return InDoubt(why=f"{why}, after an attempt that is in doubt")
        return result

    async def _attempt(self, payload: bytes, expected: Sequence) -> AppendResult:
        if not self._bus.connected:
            return NotStored(why="not connected")
        headers = {"Nats-Expected-Stream": STREAM, "Nats-Expected-Last-Sequence": str(expected)}
        try:
            answer = await self._api.store(
                SUBJECT, payload, headers=headers, within_seconds=self._settings.append_within_seconds
            )
        except NobodyThere:
            return NotStored(why="no stream takes appends now")
        except (InvalidCommand, Overloaded) as error:
            return NotStored(why=error.message)
        except (TimedOut, Unreachable) as error:
            return InDoubt(why=error.message)
        except ValueError:
            return InDoubt(why="the acknowledgement is not JSON")
        return read_acknowledgement(answer, expected)

    # --- read -------------------------------------------------------------------------------------

    async def last_sequence(self) -> Sequence:
        """The stream's last sequence, from the stream's leader.

        Raises:
            Unreachable: nobody answered, or there is no such stream.
        """
        try:
            answer = await self._api.call(f"STREAM.INFO.{STREAM}")
        except ApiRefused as error:
            raise Unreachable(error.message) from None
        self._server_ms = _milliseconds(str(answer["ts"]))
        return Sequence(int(answer["state"]["last_seq"]))

    @property
    def server_ms(self) -> int | None:
        """The server's wall clock in milliseconds UTC as of the last answer to `last_sequence`; None before it."""
        return self._server_ms

    async def read(self, sequence: Sequence) -> StoredMessage | None:
        """The message stored at `sequence`, or None; from the stream's leader, not a copy (no direct get).

        Raises:
            Unreachable: nobody answered, or there is no such stream.
        """
        try:
            message = (await self._api.call(f"STREAM.MSG.GET.{STREAM}", {"seq": sequence}))["message"]
        except ApiRefused as error:
            if error.refusal.number == MESSAGE_NOT_FOUND:
                return None
            raise Unreachable(error.message) from None
        return StoredMessage(
            sequence=Sequence(int(message["seq"])), payload=base64.b64decode(message.get("data", ""), validate=True)
        )

    # --- follow -----------------------------------------------------------------------------------

    async def follow(self, after: Sequence) -> AsyncGenerator[list[StoredMessage], None]:
        """Every message after `after`, in order, without a hole, in the batches in which they arrive; never ends.

        An empty list means "nothing more right now" (caught up). Goes on from where it was after a restart
        of the server, a lost connection, a lost consumer, missing heartbeats.

        Raises:
            Halted: the stream is shorter than what was read, or lacks a sequence: a person must act.
        """
        tail = _Tail(after)
        while True:
            pull, pending = await self._consume(tail.position)
            if pending == 0:
                yield []
            try:
                while True:
                    taken = tail.take(await pull.arrived())
                    if taken.messages:
                        yield taken.messages
                    if taken.missing is not None:
                        log.warning("ledger_hole_seen", extra={"after": tail.position, "next": taken.missing})
                        tail.note_hole(taken.missing)
                        break
                    if taken.pending == 0:
                        yield []
            except PullEnded as ended:
                log.info(
                    "ledger_tail_renewed",
                    extra={"consumer": self._settings.consumer, "after": tail.position, "why": ended.message},
                )
            finally:
                pull.close()

    async def _consume(self, after: Sequence) -> tuple[Pull, int]:
        """A pull from `after` on, tried until it works, and how many messages wait for it."""
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type((Unreachable, ApiRefused)),
            wait=tenacity.wait_exponential(multiplier=_RETRY_SECONDS_MIN, max=_RETRY_SECONDS_MAX),
            before_sleep=self._note_retry,
        ):
            with attempt:
                await self._bus.until_connected()
                return await self._start_consumer(after)
        raise AssertionError("retried for ever")

    def _note_retry(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        extra = {"consumer": self._settings.consumer, "attempt": state.attempt_number, "why": str(error)}
        log.warning("ledger_tail_unavailable", extra=extra)

    async def _start_consumer(self, after: Sequence) -> tuple[Pull, int]:
        settings = self._settings
        last = await self.last_sequence()
        if last < after:
            raise Halted(sequence=after, why=f"{STREAM} ends at {last} now: it lost records or is another stream")
        unique = self._bus.new_inbox().rpartition(".")[2]
        name = f"{settings.consumer}-{unique}" if settings.shared_user else settings.consumer
        if not settings.shared_user:
            with contextlib.suppress(ApiRefused):  # usually there is none; if it is another reason, creating says so
                await self._api.call(f"CONSUMER.DELETE.{STREAM}.{name}")
        pull_settings = PullSettings(
            stream=STREAM, consumer=name, batch=settings.batch, heartbeat_seconds=settings.heartbeat_seconds
        )
        pull = await Pull.open(self._bus, pull_settings)
        pull.on_status = lambda status: _compare_tails(pull, status)
        try:
            created = await self._api.call(
                f"CONSUMER.CREATE.{STREAM}.{name}.{SUBJECT}", _consumer(name, start=after + 1)
            )
        except BaseException:
            pull.close()
            raise
        return pull, int(created["num_pending"])


def _milliseconds(stamp: str) -> int:
    """Of an RFC 3339 stamp with nanoseconds, as the server writes them."""
    return int(datetime.fromisoformat(stamp).timestamp() * 1000)


def read_acknowledgement(answer: dict[str, Any], expected: Sequence) -> AppendResult:
    """What JetStream's answer to an append means; anything that is not clear is doubt."""
    if (refusal := refusal_in(answer)) is not None:
        if refusal.number in LOST_RACE:
            return LostRace()
        if refusal.number in NOT_STORED:
            return NotStored(why=str(refusal))
        return InDoubt(why=str(refusal))
    if answer.get("stream") != STREAM or answer.get("duplicate") or answer.get("seq") != expected + 1:
        return InDoubt(why=f"acknowledged as {answer}, expected sequence {expected + 1} of {STREAM}")
    return Appended(sequence=Sequence(expected + 1))


def _consumer(name: str, *, start: int) -> dict[str, Any]:
    return {
        "stream_name": STREAM,
        "action": "create",
        "config": {
            "name": name,
            "filter_subject": SUBJECT,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": start,
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": int(_INACTIVE_SECONDS * 1e9),
            "mem_storage": True,
            "num_replicas": 1,
        },
    }


def _compare_tails(pull: Pull, status: Envelope) -> bool:
    """End the pull when a heartbeat names a later sequence than the last that came: what is missing was dropped."""
    sent = status.headers.get("Nats-Last-Stream", "")
    came = delivered(pull.last_handle).sequence if pull.last_handle else None
    if status.status == HEARTBEAT and came is not None and sent.isdigit() and int(sent) > came:
        pull.end(f"messages up to {sent} were sent but did not arrive")
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """`pending`: what the stream still has after `messages`, None if unknown. `missing`: the sequence that came
    in place of the next one.
    """

    messages: list[StoredMessage]
    pending: int | None
    missing: Sequence | None = None


class _Tail:
    """What was read so far: skips what comes twice, notices what does not come."""

    def __init__(self, after: Sequence) -> None:
        self.position = after
        self._hole_after: Sequence | None = None
        self._asked = 0

    def take(self, envelopes: list[Envelope]) -> _Taken:
        """The new messages, up to the first hole; what comes after a hole is asked for again."""
        messages: list[StoredMessage] = []
        pending: int | None = None
        for envelope in envelopes:
            at = delivered(envelope.reply or "")
            pending = at.pending
            if at.sequence > self.position + 1:
                return _Taken(messages=messages, pending=None, missing=Sequence(at.sequence))
            if at.sequence == self.position + 1:
                self.position = Sequence(at.sequence)
                messages.append(StoredMessage(sequence=self.position, payload=envelope.payload))
        return _Taken(messages=messages, pending=pending)

    def note_hole(self, found: Sequence) -> None:
        """Raises:
        Halted: the same sequence was missing before, asked for anew each time: the stream does not have it.
        """
        self._asked = self._asked + 1 if self._hole_after == self.position else 1
        self._hole_after = self.position
        if self._asked >= _HOLES_MAX:
            raise Halted(sequence=self.position, why=f"{STREAM} has nothing between it and {found}: records are lost")

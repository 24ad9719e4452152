"""From the messages of the LEDGER stream to the records of one history, in order.

A message that is no record of this history is foreign: ignored, counted and reported, by every reader
alike (RAFT section 2, step 8). A message that is the next record of this history and cannot be read is
not foreign: whoever skipped it would know less than the others, so the follower halts. Positions are
(ledger_id, sequence, hash): a history other than the one that was folded ends the process, which then
starts from the last snapshot of the history that is there, or from nothing.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson
import tenacity

from berth.errors import BerthError, CorruptRecord, Halted, Unreachable
from berth.ids import Sequence
from berth.messages.commands import Committed
from berth.messages.envelope import NO_HASH, Record, Tip, tip_of, why_not_valid
from berth.ports import Ledger, StoredMessage
from berth.wire import codec

log = logging.getLogger(__name__)

BEHIND_SECONDS = 5.0
"""How long a follower may stay behind an announced position before it asks the stream anew."""
_READ_AGAIN = tenacity.wait_random_exponential(multiplier=0.05, max=2)


class OtherHistory(BerthError):
    """The ledger is not the one that was folded: a shorter stream, another ledger, another record there."""

    code = "other_history"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What arrived together. `caught_up`: there was nothing newer when it was read."""

    records: tuple[Record, ...]
    caught_up: bool


class Follower:
    """Reads one ledger on and on. `tip` is the last record given out; nothing is folded here."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.tip: Tip | None = None
        self.seen = Sequence(0)
        """The last message of the stream that was looked at, foreign ones included."""
        self.foreign = 0
        self.is_quorum = False
        """Whether a record of this ledger is committed only when its leader says so (RAFT section 0)."""
        self._announced = Sequence(0)
        self._patience: asyncio.Timeout | None = None

    def resume(self, tip: Tip) -> None:
        """Everything up to `tip`, a record of this ledger, is folded already."""
        assert self.tip is None, "a follower is resumed before it reads"
        self.tip, self.seen = tip, tip.sequence

    async def batches(self) -> AsyncGenerator[Batch]:
        """Records in order, batch by batch, for ever.

        Raises:
            Halted: the next record cannot be read by this release.
            OtherHistory: the stream has become shorter than what was read of it.
        """
        last = await self._last_sequence()
        while True:
            try:
                async with aclosing(self._followed()) as arriving:
                    async for messages in arriving:
                        records, halted = self._records(messages)
                        yield Batch(records=records, caught_up=not messages or self.seen >= last)
                        if halted is not None:
                            raise halted
            except Halted:
                await self._check_length()
                raise
            await self._check_length()
            log.warning("follower_restarted", extra={"sequence": self.seen, "announced": self._announced})

    async def _followed(self) -> AsyncGenerator[list[StoredMessage]]:
        """What the ledger brings, until it fails, ends, or brings nothing although something was announced."""
        messages = self._ledger.follow(self.seen)
        try:
            while True:
                behind = BEHIND_SECONDS if self._announced > self.seen else None
                async with asyncio.timeout(behind) as self._patience:
                    arrived = await anext(messages)
                self._patience = None
                yield arrived
        except Unreachable as error:
            log.warning("ledger_unreachable", extra={"sequence": self.seen, "why": error.message})
        except (StopAsyncIteration, TimeoutError):
            return
        finally:
            if isinstance(messages, AsyncGenerator):
                await messages.aclose()

    async def _last_sequence(self) -> Sequence:
        last = Sequence(0)
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Unreachable), wait=_READ_AGAIN
        ):
            with attempt:
                last = await self._ledger.last_sequence()
        return last

    async def _check_length(self) -> None:
        last = await self._last_sequence()
        if last < self.seen:
            raise OtherHistory(
                f"the ledger ends at {last}, {self.seen} was read before", hint="see RAFT section 2, step 9"
            )

    def _records(self, messages: list[StoredMessage]) -> tuple[tuple[Record, ...], Halted | None]:
        """The records in `messages`, up to one that ends it all."""
        records: list[Record] = []
        for message in messages:
            try:
                record = self._next(message)
            except Halted as halted:
                return tuple(records), halted
            if record is not None:
                records.append(record)
        return tuple(records), None

    # --- one message ------------------------------------------------------------------------------

    def _next(self, message: StoredMessage) -> Record | None:
        assert message.sequence > self.seen, f"{message.sequence} came after {self.seen}"
        self.seen = message.sequence
        try:
            record = codec.decode_record(message.payload)
        except CorruptRecord as error:
            if _continues(self.tip, message):
                raise Halted(sequence=message.sequence, why=error.message) from None
            return self._ignore(message, error.message)
        if (why := why_not_valid(self.tip, record, message.sequence)) is not None:
            return self._ignore(message, why)
        self.tip = tip_of(record)
        if record.created is not None:
            self.is_quorum = record.created.level == "quorum"
        return record

    def _ignore(self, message: StoredMessage, why: str) -> None:
        """An integrity alarm: somebody who is no leader wrote to the ledger's subject."""
        self.foreign += 1
        if self.foreign <= 10 or self.foreign % 1_000 == 0:
            fields = {"sequence": message.sequence, "why": why, "foreign": self.foreign}
            log.warning("foreign_message_ignored", extra=fields)

    # --- what the leader announces ------------------------------------------------------------------

    def compare(self, committed: Committed) -> None:
        """Hold our position against what a leader announced; an older term says nothing.

        Raises:
            OtherHistory: it leads another history than the one that was read here.
        """
        tip = self.tip
        if tip is None or committed.term < tip.term:
            return
        if committed.ledger_id != tip.ledger_id:
            raise OtherHistory(f"{committed.leader} leads ledger {committed.ledger_id}, {tip.ledger_id} was read here")
        if committed.sequence == tip.sequence and committed.hash != tip.hash:
            raise OtherHistory(
                f"record {tip.sequence} has hash {committed.hash} at {committed.leader}, {tip.hash} here"
            )
        self._announced = max(self._announced, committed.sequence)
        if self._announced > self.seen and self._patience is not None and self._patience.when() is None:
            self._patience.reschedule(asyncio.get_running_loop().time() + BEHIND_SECONDS)


def _continues(tip: Tip | None, message: StoredMessage) -> bool:
    """Whether bytes that could not be decoded are linked into this history all the same: hash, place, predecessor."""
    payload = message.payload
    if codec.digest_of(b"{" + payload[codec.HASH_END :]).encode() != payload[9:73]:
        return False
    try:
        members: Any = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(members, dict):
        return False
    named: dict[str, Any] = members  # pyright: ignore[reportUnknownVariableType] parsed JSON
    place = (named.get("seq"), named.get("prev_hash"))
    if tip is None:
        return place == (message.sequence, NO_HASH)
    return named.get("ledger_id") == tip.ledger_id and place == (message.sequence, tip.hash)

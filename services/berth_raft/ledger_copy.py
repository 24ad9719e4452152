"""What a raft node has of the ledger: the state that it folded, and its mirror (RAFT section 2, steps 1, 3, 8, 9).

Reads the stream behind a port, tells records from foreign messages, and notices when the stream is not the one that
was mirrored: shorter, which a leader repairs from its mirror, or another one, which only a person can decide.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from berth.errors import BerthError, CorruptRecord, Unreachable
from berth.ids import Sequence
from berth.messages.envelope import Record, why_not_valid
from berth.model.ledger import State
from berth.ports import Appended, Ledger, StoredMessage
from berth.wire.codec import decode_record
from berth_raft.control import Counts
from berth_raft.core.messages import Tip as MirrorTip
from berth_raft.mirror import Mirror

log = logging.getLogger(__name__)

T = TypeVar("T")

AGAIN_S = 0.05
FILLER = b""
"""Stored again where the stream had a foreign message, so that every record keeps its sequence."""
QUORUM = "quorum"


class MirrorCut(BerthError):
    """This node had more than its leader and must fold again without it."""

    code = "mirror_cut"


class LedgerCopy:
    """`taken` is called after each record that is folded, `halted` when no more can be: both with this copy changed."""

    def __init__(
        self,
        state: State,
        ledger: Ledger,
        mirror: Mirror,
        *,
        taken: Callable[[Record], None],
        halted: Callable[[], None],
    ) -> None:
        self.state = state
        self.mirror = mirror
        self.counts = Counts()
        self.stream_sequence = Sequence(0)
        """The last message of the stream that was looked at."""
        self._ledger = ledger
        self._taken = taken
        self._halted = halted
        self._arrived: deque[StoredMessage] = deque()

    @property
    def is_halted(self) -> bool:
        return self.counts.halted_at is not None

    @property
    def is_quorum(self) -> bool:
        """Whether a record is committed only when a majority of mirrors has it."""
        return self.state.level == QUORUM

    @property
    def tip(self) -> MirrorTip:
        """How far the folded state reaches."""
        tip = self.state.tip
        return MirrorTip(barrier_term=tip.term, sequence=tip.sequence) if tip is not None else self.mirror.tip

    # ------------------------------------------------------------------ at the start

    def load(self) -> None:
        """Fold what the mirror has after the state that a snapshot brought, which the mirror has too."""
        for stored in self.mirror.store.records():
            if self.is_halted:
                return
            if stored.sequence > self.state.sequence:
                self._fold(stored, is_mirrored=True)
        self.mirror.is_durable = self.is_quorum
        if self.state.tip is not None:
            self.mirror.has(self.tip)
            log.info("mirror_loaded", extra={"sequence": self.state.sequence})

    async def align(self) -> None:
        """Compare the mirror with the stream, and go on where both agree."""
        tip = self.state.tip
        if tip is None or self.is_halted:
            return
        last = await self._until_reached(self._ledger.last_sequence)
        common = Sequence(min(last, tip.sequence))
        kept = self.mirror.store.read(common)
        if common and kept is not None:
            stored = await self._until_reached(lambda: self._ledger.read(common))
            if stored is None or stored.payload != kept:
                self._halt(common, "the stream has another record there than the mirror")
                return
        if last < tip.sequence:
            log.warning("ledger_regressed", extra={"sequence": last, "mirror": tip.sequence})
        self.stream_sequence = common

    async def _until_reached(self, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await ask()
            except Unreachable:
                await asyncio.sleep(AGAIN_S)

    # ------------------------------------------------------------------ reading on

    def arrived(self, messages: list[StoredMessage]) -> None:
        """Keep them until `drain`; nothing more is folded by who has halted, so nothing more is kept."""
        if not self.is_halted:
            self._arrived.extend(messages)

    def drain(self) -> None:
        """Take in what arrived."""
        while self._arrived and not self.is_halted:
            stored = self._arrived.popleft()
            if stored.sequence > self.stream_sequence:
                self.take(stored)

    def take(self, stored: StoredMessage) -> None:
        """The next message of the stream."""
        self.stream_sequence = stored.sequence
        tip = self.state.tip
        if tip is not None and stored.sequence <= tip.sequence:
            self._compare(stored)
            return
        self._fold(stored, is_mirrored=False)

    def take_own(self, stored: StoredMessage) -> None:
        """A record of this node's is stored; the tail may have brought it before the acknowledgement came."""
        self.drain()
        if stored.sequence > self.stream_sequence:
            self.take(stored)

    def took_own(self, stored: StoredMessage) -> None:
        """A record of this node's is stored and folded already."""
        self.stream_sequence = stored.sequence
        self.counts.records += 1
        self.mirror.add(stored, self.tip)

    async def read_to_end(self, last: Sequence) -> bool:
        """Whether everything up to `last` is folded; False when the stream does not answer, or this copy halted."""
        self.drain()
        while self.stream_sequence < last and not self.is_halted:
            wanted = Sequence(self.stream_sequence + 1)
            try:
                stored = await self._ledger.read(wanted)
            except Unreachable:
                return False
            if wanted > self.stream_sequence:
                if stored is None:
                    self.stream_sequence = wanted
                else:
                    self.take(stored)
        return not self.is_halted

    def _compare(self, stored: StoredMessage) -> None:
        """The stream has less than the mirror had, and grows again: by what the mirror has, or by another end.

        Raises:
            MirrorCut: a later leader, which had less, went on without what only this mirror had.
        """
        kept = self.mirror.store.read(stored.sequence)
        if kept is None or kept == stored.payload:
            return
        if self._is_later_term(stored, kept):
            self.mirror.store.cut(stored.sequence)
            raise MirrorCut(f"the mirror had records from {stored.sequence} on that no majority had")
        self._halt(stored.sequence, "the stream has another record there than the mirror")

    def _is_later_term(self, stored: StoredMessage, kept: bytes) -> bool:
        """Whether the stream's record follows the same one as the mirror's, in a term that began later."""
        try:
            there, here = decode_record(stored.payload), decode_record(kept)
        except CorruptRecord:
            return False
        return (
            there.elected is not None
            and there.term > here.term
            and (there.ledger_id, there.prev_hash) == (here.ledger_id, here.prev_hash)
            and there.sequence == stored.sequence
        )

    def _fold(self, stored: StoredMessage, *, is_mirrored: bool) -> None:
        try:
            record = decode_record(stored.payload)
            why = why_not_valid(self.state.tip, record, stored.sequence)
        except CorruptRecord as error:
            record, why = None, str(error)
        if record is None or why is not None:
            self.counts.foreign += 1
            log.warning("foreign_message_ignored", extra={"sequence": stored.sequence, "why": why})
            return
        try:
            self.state.fold(record)
        except (AssertionError, LookupError) as error:
            self._halt(stored.sequence, str(error))
            return
        self.counts.records += 1
        self.mirror.is_durable = self.is_quorum
        if not is_mirrored:
            self.mirror.add(stored, self.tip)
            self._taken(record)

    def _halt(self, sequence: Sequence, why: str) -> None:
        self.counts.halted_at, self.counts.halted_why = sequence, why
        self._arrived.clear()
        log.error("fold_halted", extra={"sequence": sequence, "why": why, "runbook": "halted.md"})
        self._halted()

    # ------------------------------------------------------------------ giving back what the stream has lost

    @property
    def has_more_than_the_stream(self) -> bool:
        return self.state.tip is not None and self.state.tip.sequence > self.stream_sequence

    async def restore(self, may_go_on: Callable[[], bool]) -> bool:
        """Append again, byte for byte, what the stream has lost of the mirror; whether it is whole now (step 9)."""
        first = self.stream_sequence
        while self.has_more_than_the_stream and may_go_on() and not self.is_halted:
            sequence = Sequence(self.stream_sequence + 1)
            kept = self.mirror.store.read(sequence)
            payload = FILLER if kept is None else kept
            result = await self._ledger.append(payload, expected=self.stream_sequence)
            if isinstance(result, Appended) or await self._is_there(sequence, payload):
                self.stream_sequence = max(self.stream_sequence, sequence)
                self.counts.restored += kept is not None
            else:
                await asyncio.sleep(AGAIN_S)
        if self.counts.restored:
            extra = {"after": first, "sequence": self.stream_sequence, "records": self.counts.restored}
            log.warning("ledger_restored", extra=extra)
        return not self.has_more_than_the_stream and not self.is_halted

    async def _is_there(self, sequence: Sequence, payload: bytes) -> bool:
        """Whether an append that nobody acknowledged, or another's, stored just this."""
        try:
            stored = await self._ledger.read(sequence)
        except Unreachable:
            return False
        if stored is not None and stored.payload != payload:
            self._halt(sequence, "the stream has another record there than the mirror")
        return stored is not None and stored.payload == payload

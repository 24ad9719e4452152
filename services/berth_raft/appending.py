"""One fenced append, and what became of it: doubt ends by reading, never by guessing (RAFT section 2, step 6)."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from berth.errors import Unreachable
from berth.ids import Sequence
from berth.ports import Appended, InDoubt, Ledger, LostRace, NotStored

log = logging.getLogger(__name__)

RETRY_S = 0.01


class Stored(Enum):
    YES = "yes"
    NO = "no"
    DOUBT = "doubt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`gave_up`: patience or leadership ended before the stream answered."""

    stored: Stored
    was_in_doubt: bool = False
    gave_up: bool = False


async def store(
    ledger: Ledger,
    payload: bytes,
    *,
    expected: Sequence,
    monotonic_us: Callable[[], int],
    patience_us: int,
    may_go_on: Callable[[], bool],
) -> Found:
    """Store `payload` right after `expected`, asking the stream before anything else when that is in doubt.

    The same bytes with the same expectation may be sent again: whichever copy lands first consumes it.
    """
    deadline = monotonic_us() + patience_us
    doubted = False
    while True:
        result = await ledger.append(payload, expected=expected)
        match result:
            case Appended():
                return Found(stored=Stored.YES, was_in_doubt=doubted)
            case LostRace() if not doubted:
                return Found(stored=Stored.NO)
            case NotStored(why=why) if not doubted:
                log.warning("append_not_stored", extra={"why": why, "expected": expected})
                await asyncio.sleep(RETRY_S)
            case InDoubt() | LostRace() | NotStored():
                doubted = True
        while True:
            if monotonic_us() > deadline or not may_go_on():
                stored = Stored.DOUBT if doubted else Stored.NO
                return Found(stored=stored, was_in_doubt=doubted, gave_up=True)
            try:
                found = await ledger.read(Sequence(expected + 1))
                break
            except Unreachable:
                await asyncio.sleep(RETRY_S)
        if found is not None:
            return Found(stored=Stored.YES if found.payload == payload else Stored.NO, was_in_doubt=doubted)
        if doubted:
            await asyncio.sleep(RETRY_S)  # a stream without a leader answers at once, again and again

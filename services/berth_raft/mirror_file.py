"""A raft node's own copy of the ledger on disk (RAFT sections 0 and 2, step 1).

Format 1: the 16 bytes `berth mirror 1\\n` and a zero, then one entry a record, in order, each

    4 bytes   length of the payload, big-endian
    8 bytes   sequence of the record in the stream
    4 bytes   CRC-32 of the 12 bytes before and the payload
    n bytes   the payload, exactly as the stream has it

An entry that ends beyond the end of the file, or as its last entry has a wrong CRC, is a write that was never synced:
it is cut off. Any other flaw means that the disk has changed what it had, and nothing in the file is trusted.
"""

import os
import struct
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from berth.ids import Sequence
from berth.ports import StoredMessage

MAGIC = b"berth mirror 1\n\x00"
_HEAD = struct.Struct(">IQI")
_PAYLOAD_BYTES_MAX = 1024 * 1024


class MirrorCorrupt(Exception):
    """The file is not what was written to it."""


class MirrorFile:
    """One node's mirror. Not for use from two threads at a time."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._sequences = array("Q")
        self._offsets = array("Q")
        self._end = len(MAGIC)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Verified; made where there is none. What was torn by a crash is cut off.

        Raises:
            MirrorCorrupt: the disk has changed what it had.
            OSError: the disk does not answer.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        mirror = cls(opened)
        try:
            mirror._verify()
        except BaseException:
            os.close(opened)
            raise
        return mirror

    @property
    def last(self) -> Sequence:
        """The sequence of the last record; 0 when there is none."""
        return Sequence(self._sequences[-1] if self._sequences else 0)

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[StoredMessage]:
        for index in range(len(self._sequences)):
            yield self._entry(index)

    def read(self, sequence: Sequence) -> bytes | None:
        """The record at `sequence`; None where the stream had none, or it lies beyond the end.

        Raises:
            MirrorCorrupt: it is not what was written.
        """
        index = bisect_left(self._sequences, sequence)
        if index == len(self._sequences) or self._sequences[index] != sequence:
            return None
        return self._entry(index).payload

    def append(self, messages: Iterable[StoredMessage], *, sync: bool) -> None:
        """Add records after the last one; with `sync` they are durable when this returns.

        Raises:
            OSError: the disk is full, or broken. The mirror ends where it ended before.
        """
        data = bytearray()
        sequences, offsets = array("Q"), array("Q")
        for message in messages:
            assert message.sequence > (sequences[-1] if sequences else self.last), "records come in order"
            sequences.append(message.sequence)
            offsets.append(self._end + len(data))
            data += _HEAD.pack(len(message.payload), message.sequence, _crc(message)) + message.payload
        written = os.pwrite(self._file, data, self._end)
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes of the mirror were written: is the disk full?")
        if sync:
            os.fsync(self._file)
        self._end += len(data)
        self._sequences += sequences
        self._offsets += offsets

    def cut(self, first: Sequence) -> None:
        """Forget the records from `first` on; durable when this returns."""
        index = bisect_left(self._sequences, first)
        if index < len(self._sequences):
            self._end = self._offsets[index]
            os.ftruncate(self._file, self._end)
            os.fsync(self._file)
            del self._sequences[index:], self._offsets[index:]

    def close(self) -> None:
        os.close(self._file)

    # --- verifying ----------------------------------------------------------------------------------

    def _verify(self) -> None:
        size = os.fstat(self._file).st_size
        magic = os.pread(self._file, len(MAGIC), 0)
        if size < len(MAGIC) and MAGIC.startswith(magic):
            os.pwrite(self._file, MAGIC, 0)
            os.fsync(self._file)
            return
        if magic != MAGIC:
            raise MirrorCorrupt("it does not begin as a mirror does")
        while self._end < size:
            length = self._entry_bytes(self._end, size)
            if length is None:
                os.ftruncate(self._file, self._end)
                os.fsync(self._file)
                return
            self._end += length

    def _entry_bytes(self, offset: int, size: int) -> int | None:
        """Bytes of the whole entry at `offset`; None when it was torn."""
        head = os.pread(self._file, _HEAD.size, offset)
        if len(head) < _HEAD.size:
            return None
        length, sequence, crc = _HEAD.unpack(head)
        end = offset + _HEAD.size + length
        if end > size:
            if length > _PAYLOAD_BYTES_MAX:
                raise MirrorCorrupt(f"an entry of {length} bytes at {offset}")
            return None
        payload = os.pread(self._file, length, offset + _HEAD.size)
        if crc != _crc(StoredMessage(sequence=Sequence(sequence), payload=payload)):
            if end == size:
                return None
            raise MirrorCorrupt(f"the entry at {offset} has another checksum")
        if sequence <= self.last:
            raise MirrorCorrupt(f"record {sequence} follows {self.last}")
        self._sequences.append(sequence)
        self._offsets.append(offset)
        return _HEAD.size + length

    def _entry(self, index: int) -> StoredMessage:
        offset = self._offsets[index]
        length, sequence, crc = _HEAD.unpack(os.pread(self._file, _HEAD.size, offset))
        payload = os.pread(self._file, length, offset + _HEAD.size)
        found = StoredMessage(sequence=Sequence(sequence), payload=payload)
        if sequence != self._sequences[index] or crc != _crc(found):
            raise MirrorCorrupt(f"record {self._sequences[index]} has changed")
        return found


def _crc(message: StoredMessage) -> int:
    head = struct.pack(">IQ", len(message.payload), message.sequence)
    return zlib.crc32(message.payload, zlib.crc32(head))

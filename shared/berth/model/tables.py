"""Tables of state: dictionaries whose every change can be undone, and whose rows have a digest.

All state and all that is derived from it lives in tables that share one journal. While the journal
records, each change remembers what it replaced, so a transaction that turns out not to be lawful is
taken back exactly. What must live here: every mutation. What must not: meaning.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, Generic, TypeVar

import orjson

K = TypeVar("K")
V = TypeVar("V")

_ABSENT: Final = object()
_MODULUS = 2**64
UNHASHED_MAX = 2_048
RECOUNTED = 16
"""Rows of a restored table that are hashed again: enough to notice that this release describes rows otherwise."""


class Journal:
    """Remembers what changes replaced, as long as somebody may want to take them back. Trials nest."""

    __slots__ = ("_depth", "entries", "recording")

    def __init__(self) -> None:
        self.entries: list[tuple[Table[Any, Any], Any, Any]] = []
        self.recording = False
        self._depth = 0

    def begin(self) -> int:
        """Record from here; ended by exactly one `undo` (of the mark returned) or `keep`."""
        self._depth += 1
        self.recording = True
        return len(self.entries)

    def undo(self, mark: int) -> None:
        """Take back every change since `mark`, last first."""
        assert self._depth > 0, "nothing was begun, so nothing can be undone"
        self.recording = False
        while len(self.entries) > mark:
            table, key, value = self.entries.pop()
            if value is _ABSENT:
                table.drop(key)
            else:
                table.put(key, value)
        self._end()

    def keep(self) -> None:
        """What was changed stays, unless an outer trial takes it back."""
        assert self._depth > 0, "nothing was begun, so nothing can be kept"
        self._end()

    def _end(self) -> None:
        self._depth -= 1
        self.recording = self._depth > 0
        if not self.recording:
            self.entries.clear()

    @contextmanager
    def trial(self) -> Generator[None]:
        """Everything changed inside is taken back at the end."""
        mark = self.begin()
        try:
            yield
        finally:
            self.undo(mark)


class Table(dict[K, V], Generic[K, V]):
    """Rows by key. Change them only with `put` and `drop`; rows themselves are immutable."""

    __slots__ = ("_readers", "journal")

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal = journal
        self._readers: tuple[dict[K, None], ...] = ()

    def changes(self) -> dict[K, None]:
        """The keys that change from now on, undone changes too, for one reader who empties it at will."""
        found: dict[K, None] = {}
        self._readers = (*self._readers, found)
        return found

    def restore(self, rows: Iterable[tuple[K, V]]) -> None:
        """Take in the rows of a snapshot, in their order; there were none, and no reader is told."""
        assert not self, "a snapshot is taken in before anything is folded"
        self.update(rows)

    def reset(self) -> None:
        """As if nothing had been restored."""
        self.clear()

    def put(self, key: K, value: V) -> None:
        journal = self.journal
        if journal.recording:
            journal.entries.append((self, key, self.get(key, _ABSENT)))
        self[key] = value
        if self._readers:
            self._tell(key)

    def _tell(self, key: K) -> None:
        for changed in self._readers:
            changed[key] = None

    def drop(self, key: K) -> None:
        """Remove the row; it must be there."""
        journal = self.journal
        if journal.recording:
            journal.entries.append((self, key, self[key]))
        del self[key]
        if self._readers:
            self._tell(key)


class CountedTable(Table[K, V]):
    """A table that counts its changes, undone ones too: what was derived from it holds while `version` stays."""

    __slots__ = ("version",)

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal)
        self.version = 0

    def put(self, key: K, value: V) -> None:
        self.version += 1
        super().put(key, value)

    def drop(self, key: K) -> None:
        self.version += 1
        super().drop(key)


class DigestedTable(Table[K, V]):
    """A table whose digest is the sum of its rows' hashes: the same rows, whatever their order, give the same.

    A row is hashed once for all of its changes since the digest was last asked for: a placement changes its
    request three times. At most UNHASHED_MAX rows wait, so that asking never takes long.
    """

    __slots__ = ("_describe", "_digest", "_hashes", "_unhashed")

    def __init__(self, journal: Journal, describe: Callable[[V], Any]) -> None:
        super().__init__(journal)
        self._describe = describe
        self._hashes: dict[K, int] = {}
        self._unhashed: dict[K, None] = {}
        self._digest = 0

    def put(self, key: K, value: V) -> None:
        """As any table does, in one call rather than two: a fold comes here for every row of every event."""
        journal = self.journal
        if journal.recording:
            journal.entries.append((self, key, self.get(key, _ABSENT)))
        self[key] = value
        if self._readers:
            self._tell(key)
        unhashed = self._unhashed
        unhashed[key] = None
        if len(unhashed) > UNHASHED_MAX:
            self._hash()

    def drop(self, key: K) -> None:
        super().drop(key)
        self._unhashed[key] = None

    @property
    def digest(self) -> int:
        self._hash()
        return self._digest

    def reset(self) -> None:
        super().reset()
        self._hashes.clear()
        self._unhashed.clear()
        self._digest = 0

    def row_hashes(self) -> list[int]:
        """The hash of each row, in the order of the rows."""
        self._hash()
        return [self._hashes[key] for key in self]

    def restore_hashes(self, hashes: Iterable[int]) -> None:
        """What `row_hashes` said of the rows that were just restored: they need not be hashed again.

        Raises:
            ValueError: these are not the hashes of these rows (a few are counted again).
        """
        self._hashes = dict(zip(self, hashes, strict=True))
        for key in islice(self, RECOUNTED):
            if self._hashes[key] != row_hash(key, self._describe(self[key])):
                raise ValueError(f"the hash of {key} is not that of its row")
        self._digest = sum(self._hashes.values()) % _MODULUS

    def _hash(self) -> None:
        hashes, describe, total = self._hashes, self._describe, self._digest
        for key in self._unhashed:
            if key in hashes:
                total -= hashes.pop(key)
            if key in self:
                found = hashes[key] = row_hash(key, describe(self[key]))
                total += found
        self._digest = total % _MODULUS
        self._unhashed.clear()

    def recount(self) -> int:
        """The digest computed anew from every row; equals `digest`, or a row was changed behind the table's back."""
        return sum(row_hash(key, self._describe(value)) for key, value in self.items()) % _MODULUS


def row_hash(key: Any, fields: Any) -> int:
    """An 8-byte BLAKE2b of the row, as a whole number."""
    row = orjson.dumps((key, fields), option=orjson.OPT_SORT_KEYS)
    return int.from_bytes(blake2b(row, digest_size=8).digest(), "big")

"""The last events of the ledger, ready to be listed: older ones are read from the ledger itself."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import orjson

from berth.ids import Sequence
from berth.messages.envelope import Record
from berth.messages.events import EVENT_TYPES

RECENT_BYTES_MAX = 32 * 1024 * 1024
OVERHEAD_BYTES = 200
"""What Python needs for a record's list of lines besides its bytes, about."""


class RecentEvents:
    """Whole records, newest kept, bounded in bytes. `from_sequence`: the oldest record that is held."""

    def __init__(self, *, bytes_max: int = RECENT_BYTES_MAX) -> None:
        self._records: deque[tuple[Sequence, list[bytes]]] = deque()
        self._bytes_max = bytes_max
        self._bytes = 0

    @property
    def from_sequence(self) -> Sequence:
        """Events of this record and all later ones are held; 0 while there are none."""
        return self._records[0][0] if self._records else Sequence(0)

    def add(self, record: Record) -> None:
        lines = [orjson.dumps(row) for row in event_rows(record)]
        self._records.append((record.sequence, lines))
        self._bytes += _size(lines)
        while self._bytes > self._bytes_max and len(self._records) > 1:
            self._bytes -= _size(self._records.popleft()[1])

    def rows(self, after: tuple[int, int]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Cursor and row of every held event behind (sequence, index), in ledger order."""
        for sequence, lines in self._records:
            if sequence < after[0]:
                continue
            first = after[1] + 1 if sequence == after[0] else 0
            for index in range(first, len(lines)):
                yield f"{sequence}.{index}", orjson.loads(lines[index])


def event_rows(record: Record) -> list[dict[str, Any]]:
    """What `berth events` prints (DESIGN section 5), and whom each event concerns where it says so.

    `at`: milliseconds UTC, as in the record. `index` counts the record's events from 0, `tx` its transactions.
    """
    rows: list[dict[str, Any]] = []
    for number, transaction in enumerate(record.transactions):
        for event in transaction:
            row: dict[str, Any] = {
                "sequence": record.sequence,
                "index": len(rows),
                "tx": number,
                "term": record.term,
                "at": record.at,
                "type": event.type,
                "version": EVENT_TYPES[event.type][1],
            }
            for name in ("namespace", "request", "attempt", "traceparent"):
                value = getattr(event, name)
                if value is not None:
                    row[name] = value
            rows.append(row | {"data": event.data.written()})
    return rows


def _size(lines: list[bytes]) -> int:
    return OVERHEAD_BYTES + sum(len(line) for line in lines)

"""The last events of the ledger, ready to be listed: older ones are read from the ledger itself."""

from collections import deque
from collections.abc import Iterator
from typing import Any

from berth.ids import Sequence
from berth.messages.envelope import Record
from berth.messages.events import EVENT_TYPES

RECENT_EVENTS_MAX = 100_000


class RecentEvents:
    """Whole records, newest kept, bounded in events. `from_sequence`: the oldest record that is held.

    Records are kept as they were folded, whose parts the state holds anyway; rows are made for who asks.
    """

    def __init__(self, *, events_max: int = RECENT_EVENTS_MAX) -> None:
        self._records: deque[Record] = deque()
        self._events_max = events_max
        self._events = 0

    @property
    def from_sequence(self) -> Sequence:
        """Events of this record and all later ones are held; 0 while there are none."""
        return self._records[0].sequence if self._records else Sequence(0)

    def add(self, record: Record) -> None:
        self._records.append(record)
        self._events += _count(record)
        while self._events > self._events_max and len(self._records) > 1:
            self._events -= _count(self._records.popleft())

    def rows(self, after: tuple[int, int]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Cursor and row of every held event behind (sequence, index), in ledger order."""
        for record in self._records:
            if record.sequence < after[0]:
                continue
            first = after[1] + 1 if record.sequence == after[0] else 0
            for index, row in enumerate(event_rows(record)[first:], first):
                yield f"{record.sequence}.{index}", row


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


def _count(record: Record) -> int:
    return sum(map(len, record.transactions))

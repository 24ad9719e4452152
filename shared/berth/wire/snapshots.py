"""A state as bytes, and back: what a process starts from instead of the whole ledger (RAFT section 2, step 10).

`{"hash":"<64 hex>",` and the rest of a first line that says what this is, then one line a table: its rows in
their order, as JSON. As in a record, `hash` covers every byte that follows it. A snapshot shortens replay and
is never the truth: who cannot use one reads the ledger from its beginning. So there is one format, that of
this release, and no upcaster for others: `schema` tells them apart.
"""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Final, cast

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError

from berth.errors import BerthError
from berth.ids import (
    AllocationKey,
    CohortName,
    LedgerId,
    Namespace,
    NodeId,
    RequestKey,
    ReservationId,
    Sequence,
)
from berth.messages.envelope import Tip
from berth.messages.requests import Request
from berth.messages.stored import RequestField
from berth.model.cluster import Allocation, Node
from berth.model.decay import Decayed
from berth.model.ledger import ChangeKey, State
from berth.model.queue import RequestState
from berth.model.quota import Cohort, Quota
from berth.model.reservation import DrawnKey, Reservation
from berth.model.tables import DigestedTable, Table
from berth.resources import Resources
from berth.wire.codec import HASH_END, digest_of

FORMAT = 1
_PLAIN = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_NON_STR_KEYS


class SnapshotUnusable(BerthError):
    """Damaged, of another release, or it does not say what its digests say. An older one or the ledger serves."""

    code = "snapshot_unusable"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """One table of the state: where it is, and how its rows are read."""

    name: str
    rows: TypeAdapter[Any]
    table: Callable[[State], Table[Any, Any]]


TABLES: Final = (
    _Stored(name="nodes", rows=TypeAdapter(list[tuple[NodeId, Node]]), table=lambda state: state.cluster.nodes),
    _Stored(
        name="allocations",
        rows=TypeAdapter(list[tuple[AllocationKey, Allocation]]),
        table=lambda state: state.cluster.allocations,
    ),
    _Stored(name="lost", rows=TypeAdapter(list[tuple[NodeId, None]]), table=lambda state: state.cluster.lost),
    _Stored(
        name="requests",
        rows=TypeAdapter(list[tuple[RequestKey, RequestState]]),
        table=lambda state: state.queue.requests,
    ),
    _Stored(name="waiting", rows=TypeAdapter(list[tuple[RequestKey, None]]), table=lambda state: state.queue.waiting),
    _Stored(name="quotas", rows=TypeAdapter(list[tuple[Namespace, Quota]]), table=lambda state: state.quotas.quotas),
    _Stored(
        name="cohorts", rows=TypeAdapter(list[tuple[CohortName, Cohort]]), table=lambda state: state.quotas.cohorts
    ),
    _Stored(name="usage", rows=TypeAdapter(list[tuple[Namespace, Resources]]), table=lambda state: state.quotas.used),
    _Stored(
        name="decayed", rows=TypeAdapter(list[tuple[Namespace, Decayed]]), table=lambda state: state.quotas.decayed
    ),
    _Stored(
        name="above",
        rows=TypeAdapter(list[tuple[tuple[Namespace, str], int]]),
        table=lambda state: state.quotas.above,
    ),
    _Stored(
        name="reservations",
        rows=TypeAdapter(list[tuple[ReservationId, Reservation]]),
        table=lambda state: state.reservations.reservations,
    ),
    _Stored(
        name="drawn", rows=TypeAdapter(list[tuple[DrawnKey, Resources]]), table=lambda state: state.reservations.drawn
    ),
    _Stored(
        name="drawers",
        rows=TypeAdapter(list[tuple[ReservationId, int]]),
        table=lambda state: state.reservations.drawers,
    ),
    _Stored(
        name="idle_since",
        rows=TypeAdapter(list[tuple[ReservationId, int]]),
        table=lambda state: state.reservations.idle_since,
    ),
    _Stored(
        name="open", rows=TypeAdapter(list[tuple[ReservationId, None]]), table=lambda state: state.reservations.open
    ),
    _Stored(name="demand", rows=TypeAdapter(list[tuple[int, RequestField]]), table=lambda state: state.demand.last),
    _Stored(name="submissions", rows=TypeAdapter(list[tuple[str, int]]), table=lambda state: state.demand.seen),
    _Stored(name="changed", rows=TypeAdapter(list[tuple[ChangeKey, Sequence]]), table=lambda state: state.changed),
    _Stored(name="counts", rows=TypeAdapter(list[tuple[str, int]]), table=lambda state: state.counts),
    _Stored(name="digests_at", rows=TypeAdapter(list[tuple[str, Sequence]]), table=lambda state: state.digests_at),
)
"""Every table but those that follow from these: see `index` of each part of the state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a snapshot says of itself. `digests`: of the state, as `DigestsRecorded` would have them."""

    hash: str
    format: int
    schema: str
    tip: Tip
    ledger_id: LedgerId
    members: tuple[str, ...]
    level: str
    digests: dict[str, str]
    lines: tuple[str, ...]


_HEAD: TypeAdapter[Head] = TypeAdapter(Head)


@cache
def schema() -> str:
    """Tells this release's snapshots from those of others: the rows it has, and its version."""
    described = [(stored.name, stored.rows.json_schema()) for stored in TABLES]
    return digest_of(orjson.dumps([version("berth"), described], option=orjson.OPT_SORT_KEYS))[:16]


# --- writing --------------------------------------------------------------------------------------


def encode(state: State) -> bytes:
    """The snapshot of a state that nobody is trying anything on. The same folds give the same bytes."""
    assert state.tip is not None, "nothing is folded yet"
    assert not state.journal.recording, "what is only tried is no state"
    lines: list[tuple[str, bytes]] = []
    for stored in TABLES:
        table = stored.table(state)
        lines.append((stored.name, orjson.dumps(list(table.items()), default=plain, option=_PLAIN)))
        if isinstance(table, DigestedTable):
            lines.append((_hashes_of(stored), orjson.dumps(table.row_hashes())))
    head = {
        "format": FORMAT,
        "schema": schema(),
        "tip": state.tip,
        "ledger_id": state.ledger_id,
        "members": state.members,
        "level": state.level,
        "digests": state.digests(),
        "lines": [name for name, _ in lines],
    }
    rest = b"\n".join((orjson.dumps(head, default=plain), *(line for _, line in lines)))
    return b'{"hash":"%s",' % digest_of(rest).encode() + rest[1:]


def encode_verified(state: State) -> bytes:
    """The snapshot, read back: whoever starts from it has what `state` is (I12).

    Raises:
        AssertionError: it would not; that is a bug here, found before anybody starts from it.
    """
    payload = encode(state)
    again = State()
    decode_into(again, payload, read_head(payload))
    for stored in TABLES:
        table, copy = stored.table(state), stored.table(again)
        assert table == copy, f"I12: the snapshot of {stored.name} is not what it was made of"
        if isinstance(copy, DigestedTable):
            assert copy.recount() == copy.digest, f"I12: the hashes of {stored.name} are not those of its rows"
    assert encode(again) == payload, "I12: the snapshot of a state from a snapshot differs"
    return payload


def _hashes_of(stored: _Stored) -> str:
    return f"{stored.name}.hashes"


def plain(value: Any) -> Any:
    """What JSON has no word for; members that have their default are left out."""
    if isinstance(value, Request):
        return value.body
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    if is_dataclass(value):
        return {
            field.name: member
            for field in fields(value)
            if (member := getattr(value, field.name)) != field.default or field.default is MISSING
        }
    if isinstance(value, tuple):
        row = cast("Any", value)  # a NamedTuple: orjson has written every other tuple itself
        usual = row._field_defaults
        return {
            name: member
            for name, member in zip(row._fields, row, strict=True)
            if name not in usual or member != usual[name]
        }
    raise TypeError(f"a row holds {type(value).__name__}, which no snapshot can hold")


# --- reading --------------------------------------------------------------------------------------


def read_head(payload: bytes) -> Head:
    """What the snapshot says of itself; every byte is what was written.

    Raises:
        SnapshotUnusable: damaged, or of another release.
    """
    if payload[:9] != b'{"hash":"' or payload[73:HASH_END] != b'",':
        raise SnapshotUnusable("it does not begin with a hash")
    if digest_of(b"{" + payload[HASH_END:]).encode() != payload[9:73]:
        raise SnapshotUnusable("its hash is not that of its bytes")
    try:
        head: Any = orjson.loads(payload[: _end_of_line(payload, 0)])
        if (head["format"], head["schema"]) != (FORMAT, schema()):
            raise SnapshotUnusable("another release wrote it")
        return _HEAD.validate_python(head, strict=False)
    except (ValueError, KeyError, TypeError) as error:
        raise SnapshotUnusable(f"its first line is not that of a snapshot: {error}") from None


def decode_into(state: State, payload: bytes, head: Head) -> None:
    """Put a snapshot's rows into `state`, which has folded nothing, and still has nothing after an error.

    Raises:
        SnapshotUnusable: its rows cannot be read, or are not those of its digests.
    """
    assert state.tip is None, "a snapshot is taken in before anything is folded"
    try:
        _restore(state, payload, head)
    except (ValidationError, ValueError, KeyError) as error:
        for stored in TABLES:
            stored.table(state).reset()
        raise SnapshotUnusable(f"its rows cannot be read: {error}") from None
    state.cluster.index()
    state.queue.index()
    state.reservations.index()
    state.tip, state.ledger_id, state.members, state.level = head.tip, head.ledger_id, head.members, head.level


def _restore(state: State, payload: bytes, head: Head) -> None:
    lines = dict(zip(head.lines, _lines(payload), strict=True))
    for stored in TABLES:
        table = stored.table(state)
        table.restore(stored.rows.validate_json(lines[stored.name], extra="ignore"))
        if isinstance(table, DigestedTable):
            table.restore_hashes(orjson.loads(lines[_hashes_of(stored)]))
    if state.digests() != head.digests:
        raise ValueError(f"they have the digests {state.digests()}, it says {head.digests}")


def _end_of_line(payload: bytes, start: int) -> int:
    found = payload.find(b"\n", start)
    return len(payload) if found < 0 else found


def _lines(payload: bytes) -> Iterator[bytes]:
    """Every line but the first, one at a time."""
    end = _end_of_line(payload, 0)
    while end < len(payload):
        start, end = end + 1, _end_of_line(payload, end + 1)
        yield payload[start:end]

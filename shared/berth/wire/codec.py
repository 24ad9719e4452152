"""Bytes of ledger records, events and proposals (DESIGN section 4, "Events"), and of every other message.

What is hashed is what is stored: a record's hash covers the very bytes that follow it. The proposer
encodes an event once; the leader copies those bytes behind `{"tx":<n>,` and changes none.
"""

import contextlib
import json
from collections.abc import Sequence as Listing
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import accumulate, pairwise
from typing import Any, TypeGuard, TypeVar, cast

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import CoreSchema, SchemaValidator, core_schema

from berth.errors import CorruptRecord, InvalidCommand, Problem
from berth.ids import LedgerId, Sequence, Term
from berth.messages.alike import Alike
from berth.messages.commands import Proposal, Wire
from berth.messages.envelope import MESSAGE_BYTES_MAX, Record
from berth.messages.events import EVENT_TYPES, Event
from berth.messages.requests import REQUEST_LIST, Request
from berth.messages.validation import problems
from berth.wire.upcasters import UPCASTERS, upcast

M = TypeVar("M", bound=BaseModel)

RECORD_MEMBERS = ("hash", "v", "ledger_id", "seq", "term", "leader", "barrier", "at", "prev_hash", "events")
EVENT_MEMBERS = ("tx", "type", "version", "namespace", "request", "attempt", "traceparent", "data")
LINE_START = b'{"type":'
"""The leader writes `{"tx":<n>,` and copies what follows an event's first byte: so every line begins like this."""
LINE_MEMBERS = frozenset(EVENT_MEMBERS[1:])
HASH_END = 75
"""`{"hash":"` and 64 hex digits and `",`: the body's first member begins here."""


def digest_of(body: bytes) -> str:
    """BLAKE2b-256 in hex."""
    return blake2b(body, digest_size=32).hexdigest()


def request_digest(request: Request) -> str:
    """Of the normalised body, members sorted: what R106 compares. Defaults are left out, so a field
    that a later version adds changes no digest.
    """
    return digest_of(orjson.dumps(request.body, option=orjson.OPT_SORT_KEYS))


def request_shape(request: Request) -> bytes:
    """The normalised body without its id: requests of one shape can be placed in the same places."""
    return orjson.dumps(request.shape, option=orjson.OPT_SORT_KEYS)


def body_digest(body: BaseModel) -> str:
    """The same for any other document that is known by its id; defaults are left out here too."""
    members = body.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return digest_of(orjson.dumps(members, option=orjson.OPT_SORT_KEYS))


# --- JSON, strictly -----------------------------------------------------------------------------


def strict_json(payload: bytes) -> Any:
    """The value, refusing duplicate members and NaN.

    Raises:
        ValueError: not such JSON.
    """
    parsed = orjson.loads(payload)
    try:
        if orjson.dumps(parsed) == payload:  # nothing was dropped, so no member stood twice
            return parsed
    except orjson.JSONEncodeError:  # it reads deeper than it writes
        raise ValueError("nested too deeply") from None
    try:
        return json.loads(payload, object_pairs_hook=_each_once, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def encode(message: BaseModel) -> bytes:
    """Any message of `berth.messages` that is a model; members that are None are left out."""
    return message.__pydantic_serializer__.to_json(message, exclude_none=True, by_alias=True)


def decode(kind: type[M], payload: bytes, *, root: str = "") -> M:
    """A message written by one of Berth's own processes.

    Raises:
        InvalidCommand: the bytes are not such a message.
    """
    try:
        return kind.model_validate_json(payload, extra="ignore" if issubclass(kind, Wire) else None)
    except ValidationError as error:
        raise InvalidCommand(problems(error, root=root)) from None


# --- events and records ---------------------------------------------------------------------------


def encode_event(event: Event) -> bytes:
    """One line of JSON without `tx`: the leader writes that member in front."""
    name = event.type
    members: dict[str, Any] = {"type": name, "version": EVENT_TYPES[name][1]}
    if event.namespace is not None:
        members["namespace"] = event.namespace
    if event.request is not None:
        members["request"] = event.request
    if event.attempt is not None:
        members["attempt"] = event.attempt
    if event.traceparent is not None:
        members["traceparent"] = event.traceparent
    members["data"] = event.data.written()
    return orjson.dumps(members)


def decode_event(members: dict[str, Any]) -> Event:
    """The event that `members` (parsed JSON, with or without `tx`) write.

    Raises:
        CorruptRecord: unknown type, a version of the future, or a body that is not of that type.
    """
    try:
        name, version, body = members["type"], members["version"], members["data"]
        kind, newest = EVENT_TYPES[name]
        if version != newest:
            if version > newest:
                raise CorruptRecord(f"{name} has version {version}, this release reads up to {newest}", hint="upgrade")
            body = upcast(name, version, body, to=newest, upcasters=UPCASTERS)
        data = kind.model_validate(body, extra="ignore")
    except ValidationError as error:
        found = problems(error, root=str(members.get("type")))
        raise CorruptRecord("; ".join(str(problem) for problem in found)) from None
    except (KeyError, TypeError) as error:
        raise CorruptRecord(f"not an event: {error}") from None
    return Event(
        data,
        _optional(members, "namespace", str),
        _optional(members, "request", str),
        _optional(members, "attempt", int),
        _optional(members, "traceparent", str),
    )


def _written_events() -> SchemaValidator:
    """Reads a list of events of today's versions in one call, without a step of Python for each."""
    text, number = core_schema.str_schema(strict=True), core_schema.int_schema(strict=True)
    members = {"namespace": text, "request": text, "attempt": number, "traceparent": text}
    envelope = [
        core_schema.dataclass_field(
            name, core_schema.with_default_schema(core_schema.nullable_schema(schema), default=None)
        )
        for name, schema in members.items()
    ]
    kinds: dict[Any, CoreSchema] = {}
    for name, (kind, _) in EVENT_TYPES.items():
        fields = [core_schema.dataclass_field("data", kind.__pydantic_core_schema__), *envelope]
        arguments = core_schema.dataclass_args_schema(Event.__name__, fields)
        kinds[name] = core_schema.dataclass_schema(Event, arguments, ["data", *members], slots=True, frozen=True)
    return SchemaValidator(core_schema.list_schema(core_schema.tagged_union_schema(kinds, "type")))


_EVENTS = _written_events()
_NEWEST = frozenset((name, version) for name, (_, version) in EVENT_TYPES.items())


def decode_events(listed: list[Any]) -> list[Event]:
    """All of them at once where they are as this release writes them, else one by one.

    Raises:
        CorruptRecord: as `decode_event`.
    """
    with contextlib.suppress(KeyError, TypeError, ValidationError):  # reading each alone says what is wrong
        if _NEWEST.issuperset([(members["type"], members["version"]) for members in listed]):
            return _EVENTS.validate_python(listed, extra="ignore")
    return [decode_event(members) for members in listed]


def _optional(members: dict[str, Any], name: str, kind: type) -> Any:
    value = members.get(name)
    if value is not None and type(value) is not kind:
        raise CorruptRecord(f"{name} is not of type {kind.__name__}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordHead:
    """Everything of a record but its events. `at`: milliseconds UTC."""

    ledger_id: LedgerId
    sequence: Sequence
    term: Term
    leader: str
    barrier: Sequence
    at: int
    prev_hash: str


def encode_record(head: RecordHead, transactions: Listing[Listing[bytes]]) -> tuple[bytes, str]:
    """The bytes to store and their hash. `transactions` hold events as `encode_event` wrote them."""
    place = {"v": 1, "ledger_id": head.ledger_id, "seq": head.sequence, "term": head.term, "leader": head.leader}
    front = orjson.dumps({**place, "barrier": head.barrier, "at": head.at, "prev_hash": head.prev_hash})
    events = b",".join(
        b'{"tx":%d,' % number + event[1:] for number, transaction in enumerate(transactions) for event in transaction
    )
    body = front[:-1] + b',"events":[' + events + b"]}"
    found = digest_of(body)
    return b'{"hash":"%s",' % found.encode() + body[1:], found


def decode_record(payload: bytes) -> Record:
    """The record that `payload` stores; its hash is right. Whether it follows: `envelope.why_not_valid`.

    Raises:
        CorruptRecord: the bytes are no record.
    """
    if len(payload) > MESSAGE_BYTES_MAX:
        raise CorruptRecord(f"{len(payload)} bytes, a record has at most {MESSAGE_BYTES_MAX}")
    if payload[:9] != b'{"hash":"' or payload[73:HASH_END] != b'",':
        raise CorruptRecord("does not begin with a hash")
    if digest_of(b"{" + payload[HASH_END:]).encode() != payload[9:73]:
        raise CorruptRecord("its hash is not that of its bytes")
    try:
        members: Any = strict_json(payload)
    except ValueError as error:
        raise CorruptRecord(f"not JSON: {error}") from None
    if not _is_object(members) or tuple(members) != RECORD_MEMBERS or members["v"] != 1:
        raise CorruptRecord("its members are not those of a record of version 1")
    return _record(members)


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return type(value) is dict


def _record(members: dict[str, Any]) -> Record:
    for name in ("seq", "term", "barrier", "at"):
        if type(members[name]) is not int or members[name] < 0:
            raise CorruptRecord(f"{name} is not a whole number of at least 0")
    for name in ("ledger_id", "leader", "prev_hash"):
        if type(members[name]) is not str:
            raise CorruptRecord(f"{name} is not a string")
    return Record(
        hash=members["hash"],
        ledger_id=members["ledger_id"],
        sequence=members["seq"],
        term=members["term"],
        leader=members["leader"],
        barrier=members["barrier"],
        at=members["at"],
        prev_hash=members["prev_hash"],
        transactions=_transactions(members["events"]),
    )


def _transactions(events: Any) -> tuple[tuple[Event, ...], ...]:
    if type(events) is not list or not events:
        raise CorruptRecord("it holds no events")
    listed = cast("list[Any]", events)
    ends: list[int] = []
    """Where each transaction ends, the last one aside."""
    number: Any = 0
    for index, members in enumerate(listed):
        if not _is_object(members) or next(iter(members), None) != "tx":
            raise CorruptRecord("an event does not begin with tx")
        before, number = number, members["tx"]
        if type(number) is not int or number - before not in ((0,) if index == 0 else (0, 1)):
            raise CorruptRecord("tx does not start at 0 and rise by 0 or 1")
        if number != before:
            ends.append(index)
    decoded = decode_events(listed)
    return tuple(tuple(decoded[start:end]) for start, end in pairwise((0, *ends, len(decoded))))


# --- proposals --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedTransaction:
    """A transaction as the leader gets it: the events to judge, and the bytes to copy."""

    events: tuple[Event, ...]
    lines: tuple[bytes, ...]
    size: int = field(init=False)
    """Bytes it adds to a record, commas and `tx` members included (rounded up)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", sum(map(len, self.lines)) + 16 * len(self.lines))


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedProposal:
    id: str
    view_sequence: Sequence
    transactions: tuple[OfferedTransaction, ...]

    @property
    def size(self) -> int:
        """Bytes that it keeps while it waits, roughly."""
        return sum(transaction.size for transaction in self.transactions)


def encode_proposal(proposal: Proposal) -> bytes:
    """A line that names the proposal and the events per transaction, then one event a line."""
    head = {
        "id": proposal.id,
        "view_sequence": proposal.view_sequence,
        "transactions": [len(transaction) for transaction in proposal.transactions],
    }
    lines = [orjson.dumps(head)]
    lines += [encode_event(event) for transaction in proposal.transactions for event in transaction]
    return b"\n".join(lines)


def _strict_lines(lines: Listing[bytes]) -> list[Any]:
    """What each line says. Parsed together; that each value is its own line is seen by writing it again."""
    with contextlib.suppress(orjson.JSONDecodeError, orjson.JSONEncodeError):
        parsed = orjson.loads(b"[%b]" % b",".join(lines))
        if list(map(orjson.dumps, parsed)) == list(lines):
            return parsed
    return [strict_json(line) for line in lines]


def decode_proposal(payload: bytes) -> OfferedProposal:
    """Raises:
    InvalidCommand: the bytes are no proposal; nothing of it was judged.
    """
    first, *lines = payload.split(b"\n")
    try:
        head: Any = strict_json(first)
        counts: list[int] = head["transactions"]
        if sum(counts) != len(lines) or any(type(count) is not int or count < 1 for count in counts):
            raise ValueError("the counts of its transactions do not add up to its events")
        written = _strict_lines(lines)
        for line, members in zip(lines, written, strict=True):
            if not line.startswith(LINE_START) or not set(members) <= LINE_MEMBERS:
                raise ValueError("an event is not written as the leader copies it")
        events = decode_events(written)
        offered = tuple(
            OfferedTransaction(events=tuple(events[start:end]), lines=tuple(lines[start:end]))
            for start, end in pairwise((0, *accumulate(counts)))
        )
        return OfferedProposal(
            id=str(head["id"]), view_sequence=Sequence(int(head["view_sequence"])), transactions=offered
        )
    except (ValueError, KeyError, TypeError, CorruptRecord) as error:
        raise InvalidCommand([Problem(path="proposal", expected=f"not a proposal: {error}")]) from None


# --- requests at the edge -----------------------------------------------------------------------------

_ALIKE = Alike()


def decode_requests(payload: bytes) -> list[Request]:
    """The request documents in a message of `berth.v1.request.<namespace>`: strict, all or none.

    Raises:
        InvalidCommand: naming the path, such as `requests[0].constraints[1].values`.
    """
    try:
        documents: list[Any] = strict_json(payload)
        known = _ALIKE.all_known(documents)
        if known is not None:
            return known
        requests = REQUEST_LIST.validate_json(payload)
    except ValidationError as error:
        raise InvalidCommand(problems(error, root="requests")) from None
    except ValueError as error:
        raise InvalidCommand([Problem(path="requests", expected=f"is not JSON: {error}")]) from None
    _ALIKE.remember_all(documents, requests)
    return requests


def encode_requests(requests: Listing[Request]) -> bytes:
    """The document form, as `nats pub` would send it."""
    return orjson.dumps([request.document() for request in requests])

"""The bytes of a ledger record, exactly, and what is no record (DESIGN section 4, "Events")."""

import json
from hashlib import blake2b
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.errors import CorruptRecord, InvalidCommand
from berth.ids import Attempt, LedgerId, NodeId, Sequence, Term
from berth.messages.commands import Proposal
from berth.messages.envelope import NO_HASH, tip_of, why_not_valid
from berth.messages.events import Event, LeaderElected, LedgerCreated, NodeLost, RequestEnded, RequestStatus, about
from berth.messages.reasons import ReasonCode
from berth.wire.codec import (
    HASH_END,
    RecordHead,
    decode_events,
    decode_proposal,
    decode_record,
    decode_requests,
    encode_event,
    encode_proposal,
    encode_record,
)
from berth.wire.upcasters import Body, Upcaster, upcast

LEDGER = LedgerId("l1")
LOST = Event(NodeLost(node=NodeId("n1")))
CREATED = Event(LedgerCreated(ledger_id=LEDGER, members=("raft-1",), level="ledger"))


def a_head(**changes: Any) -> RecordHead:
    head: dict[str, Any] = {
        "ledger_id": LEDGER,
        "sequence": Sequence(3),
        "term": Term(1),
        "leader": "raft-1",
        "barrier": Sequence(2),
        "at": 1_000,
        "prev_hash": "a" * 64,
    }
    return RecordHead(**{**head, **changes})


def a_record(*transactions: list[Event], **changes: Any) -> bytes:
    payload, _ = encode_record(a_head(**changes), [[encode_event(event) for event in one] for one in transactions])
    return payload


def the_first() -> bytes:
    return a_record([CREATED], sequence=1, term=0, leader="", barrier=0, prev_hash=NO_HASH)


def a_barrier(prev_hash: str, **changes: Any) -> bytes:
    elected = Event(LeaderElected(term=Term(1), leader="raft-1", prev_term=Term(0)))
    return a_record([elected], **{"sequence": 2, "term": 1, "barrier": 2, "prev_hash": prev_hash, **changes})


def test_the_bytes_are_those_that_the_design_gives() -> None:
    payload = a_record([LOST], [LOST, LOST])

    assert payload[:9] == b'{"hash":"'
    assert payload[73:HASH_END] == b'",'
    assert payload[9:73].decode() == blake2b(b"{" + payload[75:], digest_size=32).hexdigest()
    members = json.loads(payload)
    assert list(members) == ["hash", "v", "ledger_id", "seq", "term", "leader", "barrier", "at", "prev_hash", "events"]
    assert [event["tx"] for event in members["events"]] == [0, 1, 1]
    assert list(members["events"][0]) == ["tx", "type", "version", "data"]


def test_the_leader_copies_the_proposers_bytes() -> None:
    line = encode_event(LOST)

    assert b'{"tx":0,' + line[1:] in a_record([LOST])


def test_a_record_is_read_back_as_it_was_written() -> None:
    record = decode_record(a_record([LOST], [LOST]))

    assert (record.sequence, record.term, record.leader, record.barrier) == (3, 1, "raft-1", 2)
    assert record.transactions == ((LOST,), (LOST,))


@pytest.mark.parametrize("offset", [0, 8, 10, 80, -3])
def test_one_changed_byte_is_no_record(offset: int) -> None:
    payload = bytearray(a_record([LOST]))
    payload[offset] ^= 1

    with pytest.raises(CorruptRecord):
        decode_record(bytes(payload))


def signed(body: bytes) -> bytes:
    return b'{"hash":"' + blake2b(b"{" + body, digest_size=32).hexdigest().encode() + b'",' + body


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"tx":0', b'"tx":1'),
        (b'"v":1,', b'"v":2,'),
        (b'"v":1,', b""),
        (b'"at":1000,', b'"at":1000,"at":1000,'),
        (b'"term":1', b'"term":1.0'),
        (b'"term":1', b'"term":-1'),
        (b'"term":1', b'"term":NaN'),
        (b"NodeLost", b"NodeFound"),
        (b'"version":1', b'"version":2'),
        (b'"node":"n1"', b'"name":"n1"'),
    ],
)
def test_a_right_hash_does_not_make_wrong_members_right(old: bytes, new: bytes) -> None:
    body = a_record([LOST])[HASH_END:]
    assert old in body

    with pytest.raises(CorruptRecord):
        decode_record(signed(body.replace(old, new)))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_one_typed_error(payload: bytes) -> None:
    with pytest.raises(CorruptRecord):
        decode_record(payload)


def test_a_ledger_begins_with_its_creation_and_then_a_barrier() -> None:
    first = decode_record(the_first())
    barrier = decode_record(a_barrier(first.hash))

    assert why_not_valid(None, first, 1) is None
    assert why_not_valid(tip_of(first), barrier, 2) is None
    assert why_not_valid(None, barrier, 2) is not None, "a ledger does not begin with a barrier"


@pytest.mark.parametrize(
    "changes",
    [
        {"prev_hash": "b" * 64},
        {"ledger_id": "l2"},
        {"term": 0},
        {"barrier": 1},
    ],
)
def test_a_barrier_that_does_not_follow_is_ignored_by_everybody(changes: dict[str, Any]) -> None:
    first = decode_record(the_first())

    assert why_not_valid(tip_of(first), decode_record(a_barrier(**{"prev_hash": first.hash, **changes})), 2) is not None


def test_a_record_of_a_deposed_leader_does_not_follow() -> None:
    first = decode_record(the_first())
    tip = tip_of(decode_record(a_barrier(first.hash)))

    mine = decode_record(a_record([LOST], prev_hash=tip.hash))
    other_leader = decode_record(a_record([LOST], prev_hash=tip.hash, leader="raft-2"))
    other_place = decode_record(a_record([LOST], prev_hash=tip.hash, sequence=9))

    assert why_not_valid(tip, mine, 3) is None
    assert why_not_valid(tip, other_leader, 3) is not None
    assert why_not_valid(tip, other_place, 3) is not None, "what a record says of its place must be its place"


def test_a_foreign_message_leaves_a_hole_that_the_next_record_may_cross() -> None:
    first = decode_record(the_first())
    tip = tip_of(decode_record(a_barrier(first.hash)))

    assert why_not_valid(tip, decode_record(a_record([LOST], prev_hash=tip.hash, sequence=5)), 5) is None


def test_a_proposal_is_a_line_of_counts_and_one_event_a_line() -> None:
    ended = about(
        ("team-a", "web-1"),  # pyright: ignore[reportArgumentType]
        RequestEnded(status=RequestStatus.RELEASED, reason=ReasonCode.RELEASED),
        attempt=Attempt(2),
    )
    proposal = Proposal(id="p1", transactions=((LOST,), (ended, LOST)), view_sequence=Sequence(7))

    offered = decode_proposal(encode_proposal(proposal))

    assert (offered.id, offered.view_sequence) == ("p1", 7)
    assert tuple(one.events for one in offered.transactions) == proposal.transactions
    assert offered.transactions[1].lines == (encode_event(ended), encode_event(LOST))


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"id":"p","view_sequence":0,"transactions":[2]}\n{}', b"[1]\n2"])
def test_bytes_that_are_no_proposal_are_one_typed_error(payload: bytes) -> None:
    with pytest.raises(InvalidCommand):
        decode_proposal(payload)


LOST_LINE = b'{"type":"NodeLost","version":1,"data":{"node":"n1"}}'


def test_lines_that_only_together_are_json_are_no_proposal() -> None:
    head = b'{"id":"p","view_sequence":0,"transactions":[3]}'
    halves = [b'{"type":"NodeLost","version":1,"more":[{}', b'{}],"data":{"node":"n1"}}']

    with pytest.raises(InvalidCommand):
        decode_proposal(b"\n".join([head, *halves, LOST_LINE + b"," + LOST_LINE]))


def test_a_line_that_is_spelled_otherwise_is_copied_as_it_is() -> None:
    spelled = LOST_LINE.replace(b":", b": ")

    offered = decode_proposal(b'{"id":"p","view_sequence":0,"transactions":[2]}\n' + LOST_LINE + b"\n" + spelled)

    assert offered.transactions[0].events == (LOST, LOST)
    assert offered.transactions[0].lines == (LOST_LINE, spelled)


def test_one_unknown_event_among_known_ones_is_named() -> None:
    with pytest.raises(CorruptRecord, match="version 2"):
        decode_events([{"type": "NodeLost", "version": v, "data": {"node": "n1"}} for v in (1, 2)])


@pytest.mark.parametrize("member", ["tx", "attempt"])
def test_a_fraction_is_no_number_of_an_event(member: str) -> None:
    body = a_record([LOST])[HASH_END:].replace(b'"tx":0', b'"tx":0,"attempt":1')
    number = b"0" if member == "tx" else b"1"

    with pytest.raises(CorruptRecord):
        decode_record(signed(body.replace(b'"%b":%b' % (member.encode(), number), b'"%b":1.5' % member.encode())))


@pytest.mark.parametrize(
    "line",
    [
        b' {"type":"NodeLost","version":1,"data":{"node":"n1"}}',
        b'{"tx":0,"type":"NodeLost","version":1,"data":{"node":"n1"}}',
        b'{"type":"NodeLost","version":1,"data":{"node":"n1"},"more":1}',
        b'{"version":1,"type":"NodeLost","data":{"node":"n1"}}',
    ],
)
def test_a_line_that_the_leader_could_not_copy_is_no_event(line: bytes) -> None:
    with pytest.raises(InvalidCommand):
        decode_proposal(b'{"id":"p","view_sequence":0,"transactions":[1]}\n' + line)


@pytest.mark.parametrize("depth", [33, 200, 255, 300, 1_000, 1_100])
def test_deep_nesting_is_a_typed_error(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    with pytest.raises(InvalidCommand):
        decode_requests(deep)
    with pytest.raises(InvalidCommand):
        decode_proposal(b'{"id":"p","view_sequence":0,"transactions":[1]}\n' + deep)
    with pytest.raises(CorruptRecord):
        decode_record(signed(b'"v":1,"ledger_id":' + deep + b"}"))


def test_an_old_body_is_led_through_every_version_in_between() -> None:
    def second(body: Body) -> Body:
        return {**body, "two": body["one"] + 1}

    def third(body: Body) -> Body:
        return {**body, "three": body["two"] + 1}

    upcasters: dict[tuple[str, int], Upcaster] = {("Thing", 1): second, ("Thing", 2): third}

    assert upcast("Thing", 1, {"one": 1}, to=3, upcasters=upcasters) == {"one": 1, "two": 2, "three": 3}
    assert upcast("Thing", 3, {"x": 1}, to=3, upcasters=upcasters) == {"x": 1}


def test_events_are_written_by_orjson_as_python_reads_them() -> None:
    assert json.loads(encode_event(LOST)) == orjson.loads(encode_event(LOST))

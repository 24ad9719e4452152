"""Raft messages as bytes: golden, there and back, and nothing but `MalformedMessage` for anything else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth_raft.core.messages import (
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    Stamp,
    TimeoutNow,
    Tip,
    Vote,
    VoteReply,
)
from berth_raft.core.wire import MESSAGE_BYTES_MAX, MalformedMessage, decode, encode

STAMP = Stamp(cluster_id="berth", config_hash="0123456789abcdef", incarnation=2)
HEAD = '"cluster_id":"berth","config_hash":"0123456789abcdef","incarnation":2,"term":7'
TIP = Tip(barrier_term=6, sequence=1234)

GOLDEN = {
    f'{{"v":1,"kind":"pre_vote",{HEAD},"round":9,"candidate":"raft-1","tip":[6,1234]}}': PreVote(
        stamp=STAMP, term=7, round=9, candidate="raft-1", tip=TIP
    ),
    f'{{"v":1,"kind":"pre_vote_reply",{HEAD},"round":9,"granted":true}}': PreVoteReply(
        stamp=STAMP, term=7, round=9, granted=True
    ),
    f'{{"v":1,"kind":"vote",{HEAD},"round":9,"candidate":"raft-1","tip":[6,1234],"transfer":false}}': Vote(
        stamp=STAMP, term=7, round=9, candidate="raft-1", tip=TIP, transfer=False
    ),
    f'{{"v":1,"kind":"vote_reply",{HEAD},"round":9,"granted":false}}': VoteReply(
        stamp=STAMP, term=7, round=9, granted=False
    ),
    f'{{"v":1,"kind":"heartbeat",{HEAD},"round":9,"leader":"raft-1","tip":[6,1234],"active":true}}': Heartbeat(
        stamp=STAMP, term=7, round=9, leader="raft-1", tip=TIP, active=True
    ),
    f'{{"v":1,"kind":"heartbeat_reply",{HEAD},"round":9,"tip":[6,1234]}}': HeartbeatReply(
        stamp=STAMP, term=7, round=9, tip=TIP
    ),
    f'{{"v":1,"kind":"timeout_now",{HEAD}}}': TimeoutNow(stamp=STAMP, term=7),
}
TEXTS = list(GOLDEN)
HEARTBEAT = next(text for text in TEXTS if '"heartbeat"' in text)


@pytest.mark.parametrize("text, message", GOLDEN.items())
def test_every_kind_of_message_has_its_bytes(text: str, message: Message) -> None:
    assert encode(message).decode() == text
    assert decode(text.encode()) == message


@pytest.mark.parametrize(
    "part, other",
    [
        ('"kind":"heartbeat"', '"kind":"coup"'),
        ('"kind":"heartbeat"', '"kind":null'),
        ('"kind":"heartbeat"', '"kind":["heartbeat"]'),
        ('"v":1', '"v":2'),
        ('"term":7', '"term":true'),
        ('"term":7', '"term":7.0'),
        ('"term":7', '"term":"7"'),
        ('"term":7', '"term":-1'),
        ('"term":7', '"term":9007199254740992'),
        ('"term":7', '"term":1e999'),
        ('"term":7', '"term":NaN'),
        ('"term":7', f'"term":{"7" * 1000}'),
        ('"term":7', '"term":7,"term":8'),
        ('"term":7', '"term":7,"more":8'),
        ('"term":7,', ""),
        ('"active":true', '"active":1'),
        ('"active":true', '"active":null'),
        ("[6,1234]", "[6]"),
        ("[6,1234]", "[6,1234,1]"),
        ("[6,1234]", '{"0":6,"1":1234}'),
        ("[6,1234]", "[6,true]"),
        ('"raft-1"', '"raft.1"'),
        ('"raft-1"', '"raft-1\\n"'),
        ('"raft-1"', '"\\ud800"'),
        ('"raft-1"', "null"),
        ('"0123456789abcdef"', '"0123456789ABCDEF"'),
        ('"berth"', '""'),
    ],
)
def test_a_message_that_is_not_exactly_ours_is_malformed(part: str, other: str) -> None:
    assert part in HEARTBEAT

    with pytest.raises(MalformedMessage):
        decode(HEARTBEAT.replace(part, other).encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 2_000, b"{" * 2_000, b'"' + b"x" * MESSAGE_BYTES_MAX],
    ids=["nothing", "null", "list", "object", "no UTF-8", "deep", "open", "long"],
)
def test_what_is_no_message_at_all_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(data)


def test_a_number_of_4300_digits_is_malformed_and_nothing_worse() -> None:
    with pytest.raises(MalformedMessage):
        decode(('{"term":' + "9" * 2_000 + "}").encode())
    with pytest.raises(MalformedMessage):
        decode(('{"term":' + "9" * 5_000 + "}").encode())


@given(data=st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(data)


@given(st.data())
def test_a_message_with_one_member_replaced_is_another_message_or_malformed(data: st.DataObject) -> None:
    body = json.loads(data.draw(st.sampled_from(TEXTS)))
    name = data.draw(st.sampled_from(sorted(body)))
    anything = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=3)
    body[name] = data.draw(anything)

    try:
        message = decode(json.dumps(body).encode())
    except MalformedMessage:
        return
    assert decode(encode(message)) == message

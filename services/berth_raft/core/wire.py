"""Raft messages as bytes: one flat JSON object, strict in both directions.

Whatever arrives is either exactly one of our messages or `MalformedMessage`, never another exception: a raft node
that could be stopped by a message would let its sender choose the leader.
"""

import json
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, cast

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
from berth_raft.core.settings import CLUSTER_ID_PATTERN, NAME_PATTERN

VERSION = 1
MESSAGE_BYTES_MAX = 2_048
INTEGER_MAX = 2**53 - 1

KINDS: dict[str, type[Message]] = {
    "pre_vote": PreVote,
    "pre_vote_reply": PreVoteReply,
    "vote": Vote,
    "vote_reply": VoteReply,
    "heartbeat": Heartbeat,
    "heartbeat_reply": HeartbeatReply,
    "timeout_now": TimeoutNow,
}
_KIND_OF = {message_type: kind for kind, message_type in KINDS.items()}


class MalformedMessage(ValueError):
    """Bytes that are not a message of ours. Count it, drop it."""


def encode(message: Message) -> bytes:
    body: dict[str, object] = {"v": VERSION, "kind": _KIND_OF[type(message)]}
    for field in fields(message):
        value = getattr(message, field.name)
        if isinstance(value, Stamp):
            body["cluster_id"] = value.cluster_id
            body["config_hash"] = value.config_hash
            body["incarnation"] = value.incarnation
        elif isinstance(value, Tip):
            body["tip"] = [value.barrier_term, value.sequence]
        else:
            body[field.name] = value
    return json.dumps(body, separators=(",", ":")).encode()


def decode(data: bytes) -> Message:
    """Raises:
    MalformedMessage: not UTF-8, not JSON, a member too many or too few, a wrong type, a number out of bounds.
    """
    body = _parsed(data)
    if body.pop("v", None) != VERSION:
        raise MalformedMessage(f"expected version {VERSION}")
    kind = body.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise MalformedMessage("unknown kind of message")
    message_type = KINDS[kind]
    names = [field.name for field in fields(message_type) if field.name != "stamp"]
    wanted = [*STAMP_MEMBERS, *names]
    if sorted(body) != sorted(wanted):
        raise MalformedMessage(f"{kind} has exactly the members {', '.join(wanted)}")
    values = {name: READERS[name](body[name]) for name in wanted}
    stamp = Stamp(**{name: values.pop(name) for name in STAMP_MEMBERS})
    return message_type(stamp=stamp, **values)


def _parsed(data: bytes) -> dict[str, object]:
    if len(data) > MESSAGE_BYTES_MAX:
        raise MalformedMessage(f"more than {MESSAGE_BYTES_MAX} bytes")
    try:
        body: object = json.loads(data.decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a member twice, too deep
        raise MalformedMessage("not JSON as we write it") from error
    if not isinstance(body, dict):
        raise MalformedMessage("not an object")
    return cast("dict[str, object]", body)


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise MalformedMessage("a member stands twice")
    return body


def _integer(value: object) -> int:
    # bool is an int in Python, and 1.0 equals 1: neither is a number here.
    if type(value) is not int or not 0 <= value <= INTEGER_MAX:
        raise MalformedMessage("expected a whole number from 0 to 2^53 - 1")
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise MalformedMessage("expected true or false")
    return value


def _tip(value: object) -> Tip:
    pair = cast("list[object]", value) if isinstance(value, list) else []
    if len(pair) != 2:
        raise MalformedMessage("expected [barrier term, sequence]")
    return Tip(barrier_term=_integer(pair[0]), sequence=_integer(pair[1]))


def _text(pattern: str) -> Callable[[object], str]:
    compiled = re.compile(pattern)

    def read(value: object) -> str:
        if not isinstance(value, str) or compiled.fullmatch(value) is None:
            raise MalformedMessage(f"expected text that matches {pattern}")
        return value

    return read


STAMP_MEMBERS = ("cluster_id", "config_hash", "incarnation")
READERS: dict[str, Callable[[object], Any]] = {
    "cluster_id": _text(CLUSTER_ID_PATTERN),
    "config_hash": _text("[0-9a-f]{16}"),
    "incarnation": _integer,
    "term": _integer,
    "round": _integer,
    "candidate": _text(NAME_PATTERN),
    "leader": _text(NAME_PATTERN),
    "tip": _tip,
    "granted": _truth,
    "active": _truth,
    "transfer": _truth,
}

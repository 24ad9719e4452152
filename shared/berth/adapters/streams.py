"""The streams and the pinned consumer: made once by `berth init`, compared with what they must be at every start.

RAFT section 2: a stream that may forget or overwrite records is no ledger; nobody starts on one.
"""

import logging
from typing import Any

from berth import subjects
from berth.adapters.jetstream_api import STREAM_EXISTS_OTHERWISE, STREAM_NOT_FOUND, ApiRefused, JetStreamApi
from berth.adapters.nats_server import is_new_enough, parse_version
from berth.errors import BerthError, NotFound

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000

_NEVER = {
    "deny_delete": True,
    "deny_purge": True,
    "allow_rollup_hdrs": False,
    "allow_direct": False,
    "mirror_direct": False,
    "allow_msg_ttl": False,
    "allow_msg_schedules": False,
    "allow_msg_counter": False,
    "allow_atomic": False,
    "allow_batched": False,
    "sealed": False,
    "no_ack": False,
    "subject_delete_marker_ttl": 0,
    "max_msgs_per_subject": -1,
}
"""What the ledger stream must say beside its own numbers; a member that the server leaves out counts as its zero."""

_ABSENT = ("mirror", "sources", "republish", "subject_transform", "placement", "template_owner")


class StreamMisconfigured(BerthError):
    """A stream or consumer exists and is not what Berth needs. Nothing was changed."""

    code = "stream_misconfigured"

    def __init__(self, name: str, problems: list[str]) -> None:
        super().__init__(
            f"{name}: {'; '.join(problems)}",
            hint="Berth does not change it by itself: see docs/runbooks/stream-misconfigured.md",
        )
        self.problems = problems


# --- make -------------------------------------------------------------------------------------------


async def create_streams(
    api: JetStreamApi, *, replicas: int = 1, ack_wait_seconds: float = subjects.ACK_WAIT_SECONDS
) -> None:
    """Make every stream and the pinned consumer; those that exist as they must are left alone.

    Raises:
        StreamMisconfigured: one exists and differs.
        Unreachable: JetStream does not answer.
    """
    for stream in subjects.STREAMS:
        await _create_stream(api, stream, replicas)
    await create_request_consumer(api, ack_wait_seconds=ack_wait_seconds)
    await check_ledger_stream(api, replicas=replicas)


async def _create_stream(api: JetStreamApi, stream: subjects.Stream, replicas: int) -> None:
    wanted = stream_configuration(stream, replicas=replicas)
    try:
        await api.call(f"STREAM.CREATE.{stream.name}", wanted)
    except ApiRefused as error:
        if error.refusal.number != STREAM_EXISTS_OTHERWISE:
            raise
        found = await api.call(f"STREAM.INFO.{stream.name}")
        problems = differences(found["config"], wanted) or [str(error.refusal)]
        raise StreamMisconfigured(stream.name, problems) from None
    log.info("stream_ready", extra={"stream": stream.name, "replicas": replicas})


async def create_request_consumer(api: JetStreamApi, *, ack_wait_seconds: float) -> None:
    """Make the consumer of REQUESTS whose pin decides which quota service is active (DESIGN section 2).

    Raises:
        StreamMisconfigured: it exists and differs in what cannot be changed.
    """
    name = subjects.QUOTA_CONSUMER
    body = {
        "stream_name": subjects.REQUESTS_STREAM.name,
        "action": "",
        "config": request_consumer_configuration(ack_wait_seconds=ack_wait_seconds),
    }
    try:
        await api.call(f"CONSUMER.CREATE.{subjects.REQUESTS_STREAM.name}.{name}", body)
    except ApiRefused as error:
        raise StreamMisconfigured(f"consumer {name}", [str(error.refusal)]) from None


def stream_configuration(stream: subjects.Stream, *, replicas: int) -> dict[str, Any]:
    """The stream as JetStream is asked to make it."""
    return {
        "name": stream.name,
        "subjects": list(stream.subjects),
        "retention": stream.retention,
        "storage": "file",
        "discard": "new",
        "num_replicas": replicas,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_msgs_per_subject": -1,
        "max_consumers": -1,
        "max_age": stream.max_age_seconds * _SECOND,
        "max_msg_size": stream.max_msg_size,
        "duplicate_window": stream.duplicate_window_seconds * _SECOND,
        "deny_delete": stream.deny_delete,
        "deny_purge": stream.deny_delete,
        "allow_direct": False,
        "allow_rollup_hdrs": False,
    }


def request_consumer_configuration(*, ack_wait_seconds: float) -> dict[str, Any]:
    """The pinned consumer (ADR-42), which nats-py cannot ask for."""
    return {
        "name": subjects.QUOTA_CONSUMER,
        "durable_name": subjects.QUOTA_CONSUMER,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(ack_wait_seconds * _SECOND),
        "max_deliver": -1,
        "max_ack_pending": subjects.ACK_PENDING_MAX,
        "replay_policy": "instant",
        "priority_groups": [subjects.PIN_GROUP],
        "priority_policy": "pinned_client",
        "priority_timeout": subjects.PIN_TIMEOUT_SECONDS * _SECOND,
    }


# --- compare ----------------------------------------------------------------------------------------


async def check_ledger_stream(api: JetStreamApi, *, replicas: int = 1) -> None:
    """Assert RAFT section 2's stream configuration, and the server's version; asked at every start of a raft node.

    Whether the server syncs always cannot be read over the bus: whoever starts the server checks it
    (`nats_server.wait_ready`).

    Raises:
        NotFound: there is no such stream yet.
        StreamMisconfigured: it is not as it must be, or the server is too old.
        Unreachable: JetStream does not answer.
    """
    name = subjects.LEDGER_STREAM.name
    try:
        found = await api.call(f"STREAM.INFO.{name}")
    except ApiRefused as error:
        if error.refusal.number != STREAM_NOT_FOUND:
            raise
        raise NotFound(f"no stream {name}", hint="`berth init` makes it (`berth up` runs that)") from None
    problems = ledger_problems(found["config"], replicas=replicas)
    version = parse_version(api.bus.server_version)
    if version is None or not is_new_enough(version):
        problems.append(f"nats-server is {api.bus.server_version}, needed is 2.12.7 of 2.12, or 2.14.0")
    if problems:
        raise StreamMisconfigured(name, problems)


def ledger_problems(found: dict[str, Any], *, replicas: int) -> list[str]:
    """What is wrong with the LEDGER stream's configuration as the server tells it; empty when nothing is."""
    wanted = {**stream_configuration(subjects.LEDGER_STREAM, replicas=replicas), **_NEVER}
    wanted.pop("duplicate_window")  # Nats-Msg-Id is never sent to it, so the window decides nothing
    wanted.pop("max_consumers")
    problems = differences(found, wanted)
    problems += [f"{name} is set" for name in _ABSENT if found.get(name)]
    if found.get("persist_mode", "default") != "default":
        problems.append(f"persist_mode is {found['persist_mode']}, which switches syncing off")
    return problems


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Members of `wanted` that `found` has otherwise; what the server leaves out is the zero of its kind."""
    return [
        f"{name} is {found.get(name, _zero(value))!r}, needed is {value!r}"
        for name, value in wanted.items()
        if found.get(name, _zero(value)) != value
    ]


def _zero(value: object) -> object:
    return type(value)()

"""What JetStream's answers mean: to an append, and about a stream's settings. Nothing here touches a server."""

from typing import Any

import pytest

from berth.adapters.jetstream_ledger import read_acknowledgement
from berth.adapters.pull import Delivered, delivered
from berth.adapters.streams import ledger_problems, stream_configuration
from berth.ids import Sequence
from berth.ports import Appended, AppendResult, InDoubt, LostRace, NotStored
from berth.sim.stream import api_error
from berth.subjects import LEDGER_STREAM

EXPECTED = Sequence(7)


def refused(number: int) -> dict[str, Any]:
    return {**api_error(number, 400, "no"), "stream": "LEDGER", "seq": 0}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"stream": "LEDGER", "seq": 8}, Appended),
        ({"stream": "LEDGER", "seq": 8, "domain": "hub"}, Appended),
        # lost, and that is certain
        (refused(10071), LostRace),
        (refused(10164), LostRace),
        (refused(10054), NotStored),
        (refused(10060), NotStored),
        # known to leave doubt (RAFT section 2, step 6)
        (refused(10158), InDoubt),
        (refused(10077), InDoubt),
        # never heard of: doubt as well
        (refused(10999), InDoubt),
        (refused(0), InDoubt),
        # an acknowledgement that does not prove the append
        ({"stream": "LEDGER", "seq": 9}, InDoubt),
        ({"stream": "LEDGER", "seq": 7}, InDoubt),
        ({"stream": "LEDGER", "seq": 8, "duplicate": True}, InDoubt),
        ({"stream": "OTHER", "seq": 8}, InDoubt),
        ({"seq": 8}, InDoubt),
        ({}, InDoubt),
    ],
)
def test_only_a_clear_answer_ends_the_doubt(answer: dict[str, Any], kind: type[AppendResult]) -> None:
    assert isinstance(read_acknowledgement(answer, EXPECTED), kind)


def test_an_acknowledgement_subject_tells_delivery_sequence_and_what_is_left() -> None:
    expected = Delivered(count=2, sequence=1042, pending=3)

    assert delivered("$JS.ACK.REQUESTS.quota.2.1042.77.1795558171787105871.3") == expected
    assert delivered("$JS.ACK.hub.ACCOUNT.REQUESTS.quota.2.1042.77.1795558171787105871.3.token") == expected


def as_told(**changes: object) -> dict[str, Any]:
    """The settings of LEDGER as a real server tells them: with its own additions."""
    return {
        **stream_configuration(LEDGER_STREAM, replicas=1),
        "compression": "none",
        "consumer_limits": {},
        "mirror_direct": False,
        "sealed": False,
        "metadata": {"_nats.level": "5", "_nats.ver": "2.15.1"},
        **changes,
    }


def test_the_ledger_as_berth_makes_it_has_no_problem() -> None:
    assert ledger_problems(as_told(), replicas=1) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("storage", "memory"),
        ("retention", "interest"),
        ("discard", "old"),
        ("max_msgs", 1_000_000),
        ("max_bytes", 1_000_000_000),
        ("max_age", 1),
        ("max_msgs_per_subject", 1),
        ("max_msg_size", -1),
        ("deny_delete", False),
        ("deny_purge", False),
        ("allow_rollup_hdrs", True),
        ("allow_direct", True),
        ("mirror_direct", True),
        ("allow_msg_ttl", True),
        ("allow_msg_schedules", True),
        ("allow_atomic", True),
        ("subjects", ["berth.v1.ledger", "other"]),
        ("num_replicas", 3),
        ("no_ack", True),
        ("mirror", {"name": "OTHER"}),
        ("sources", [{"name": "OTHER"}]),
        ("republish", {"src": ">", "dest": "x.>"}),
        ("persist_mode", "async"),
    ],
)
def test_a_ledger_that_differs_in_one_setting_is_refused_by_its_name(setting: str, value: object) -> None:
    problems = ledger_problems(as_told(**{setting: value}), replicas=1)

    assert len(problems) == 1
    assert problems[0].startswith(f"{setting} is")

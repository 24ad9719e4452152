"""`--set name=value`: checked before anything is started."""

import os

import pytest

from berth.errors import InvalidSetting
from berth_cli.chosen_settings import chosen


def test_a_name_that_one_service_has_is_enough() -> None:
    assert chosen(["heartbeat_ms=40", "election_timeout_min_ms=200"]) == {
        "raft": {"BERTH_RAFT_HEARTBEAT_MS": "40", "BERTH_RAFT_ELECTION_TIMEOUT_MIN_MS": "200"}
    }


def test_a_name_that_every_service_has_is_for_all_of_them() -> None:
    assert chosen(["log_level=debug"])["quota"] == {"BERTH_QUOTA_LOG_LEVEL": "debug"}
    assert chosen(["log_level=debug"])["raft"] == {"BERTH_RAFT_LOG_LEVEL": "debug"}


def test_a_service_before_the_name_limits_it_to_that_service() -> None:
    assert chosen(["quota.log_level=debug"]) == {"quota": {"BERTH_QUOTA_LOG_LEVEL": "debug"}}


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("hartbeat_ms=40", "did you mean heartbeat_ms"),
        ("quota.heartbeat_ms=40", "unknown setting quota.heartbeat_ms"),
        ("nonsense.log_level=debug", "unknown setting nonsense.log_level"),
        ("nats_url=nats://elsewhere", "unknown setting nats_url"),
        ("heartbeat_ms", "expected name=value"),
        ("heartbeat_ms=often", "BERTH_RAFT_HEARTBEAT_MS"),
        ("log_level=loud", "LOG_LEVEL"),
    ],
)
def test_what_cannot_be_is_refused_with_the_name(assignment: str, said: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        chosen([assignment])

    assert said in str(refused.value)
    assert refused.value.exit_code == 2


def test_checking_leaves_the_environment_as_it_was() -> None:
    before = dict(os.environ)

    chosen(["heartbeat_ms=40"])

    assert dict(os.environ) == before

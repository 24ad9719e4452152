"""Which processes a cluster has and what each is told."""

from pathlib import Path

import pytest

from berth.errors import InvalidSetting
from berth_cli.folder import Folder
from berth_cli.layout import STOP_ORDER, Addresses, ProcessSpec, Wish, inherited, raft_members, services

ADDRESSES = Addresses(nats_url="nats://127.0.0.1:4222", console_port=4223)


def laid_out(wish: Wish | None = None, environment: dict[str, str] | None = None) -> dict[str, ProcessSpec]:
    specs = services(
        Folder(path=Path("/cluster")),
        wish or Wish(),
        members=("raft-1", "raft-2", "raft-3"),
        addresses=ADDRESSES,
        environment=environment or {},
    )
    return {spec.name: spec for spec in specs}


def test_a_cluster_has_every_service_and_its_demo_nodes() -> None:
    assert list(laid_out(Wish(schedulers=2, nodes=5))) == [
        "raft-1",
        "raft-2",
        "raft-3",
        "quota-1",
        "quota-2",
        "scheduler-1",
        "scheduler-2",
        "reservation-1",
        "reservation-2",
        "console",
        "agent",
    ]


def test_an_empty_cluster_has_no_agent() -> None:
    assert "agent" not in laid_out(Wish(nodes=0))


def test_each_process_has_its_own_key_and_folder() -> None:
    told = laid_out()["scheduler-2"]

    assert told.program.module == "berth_scheduler"
    assert told.environment == {
        "BERTH_SCHEDULER_USER": "scheduler-2",
        "BERTH_SCHEDULER_NATS_URL": "nats://127.0.0.1:4222",
        "BERTH_SCHEDULER_NKEY_FILE": "/cluster/keys/scheduler-2.nk",
        "BERTH_SCHEDULER_DATA_DIR": "/cluster/data/scheduler-2",
        "BERTH_SCHEDULER_SNAPSHOT_DIR": "/cluster/data/snapshots",
        "BERTH_SCHEDULER_LOG_FORMAT": "json",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4223",
    }


def test_raft_nodes_know_their_members_and_the_agent_its_nodes() -> None:
    told = laid_out(Wish(nodes=7))

    assert told["raft-2"].environment["BERTH_RAFT_MEMBERS"] == '["raft-1","raft-2","raft-3"]'
    assert told["agent"].environment["BERTH_AGENT_SIMULATE"] == "7"


def test_spans_go_to_the_console_which_passes_them_on() -> None:
    told = laid_out(environment={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})

    assert told["quota-1"].environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4223"
    assert told["console"].environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in laid_out()["console"].environment


def test_no_process_sends_a_signal_past_the_console() -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "a",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "b",
        "OTEL_EXPORTER_OTLP_HEADERS": "c",
        "PATH": "d",
    }

    assert inherited(environment) == {"OTEL_EXPORTER_OTLP_HEADERS": "c", "PATH": "d"}


def test_a_chosen_setting_reaches_the_processes_of_its_service_only() -> None:
    told = laid_out(Wish(settings={"raft": {"BERTH_RAFT_HEARTBEAT_MS": "40"}}))

    assert told["raft-3"].environment["BERTH_RAFT_HEARTBEAT_MS"] == "40"
    assert "BERTH_RAFT_HEARTBEAT_MS" not in told["quota-1"].environment


def test_every_role_stops_at_some_time_and_the_bus_last() -> None:
    roles = [role for group in STOP_ORDER for role in group]

    assert {spec.role for spec in laid_out().values()} | {"nats"} == set(roles)
    assert roles[-1] == "nats"
    assert roles.index("raft") > roles.index("quota")


@pytest.mark.parametrize("count", [0, 2, 4, -1])
def test_a_number_of_raft_nodes_that_adds_no_safety_is_refused(count: int) -> None:
    with pytest.raises(InvalidSetting, match="raft nodes"):
        raft_members(count)

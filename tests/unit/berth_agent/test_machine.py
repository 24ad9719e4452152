"""This machine as a node."""

import pytest

from berth.errors import InvalidCommand, InvalidSetting
from berth.ids import is_name
from berth_agent.machine import label_value, node_name, this_machine
from berth_agent.process import nodes_of
from berth_agent.settings import AgentSettings


def test_this_machine_has_what_it_has() -> None:
    node = this_machine()

    assert is_name(node.id)
    assert node.capacity.vector.cpu_millicores >= 1_000
    assert node.capacity.vector.ram_mb > 100
    assert node.capacity.vector.disk_mb > 100
    assert node.labels["os"] and node.labels["arch"]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Worker_7.example.com", "worker-7-example-com"),
        ("-.-", "node"),
        ("x" * 80, "x" * 63),
        ("a" * 62 + ".b", "a" * 62),
    ],
)
def test_a_host_has_a_valid_name_as_a_node(host: str, name: str) -> None:
    assert node_name(host) == name
    assert is_name(name)


def test_a_label_takes_what_a_machine_says() -> None:
    assert label_value("_Some Machine (v2)_") == "Some-Machine-v2-"[:-1]


def test_the_key_of_one_node_offers_this_machine_under_that_name() -> None:
    assert [node.id for node in nodes_of(AgentSettings(user="agent-n1"))] == ["n1"]


def test_an_agent_may_be_told_what_it_offers() -> None:
    told = '{"id": "n9", "capacity": {"cpu_cores": 2}}'

    assert [node.id for node in nodes_of(AgentSettings(node=told))] == ["n9"]
    assert len(nodes_of(AgentSettings(simulate=4))) == 4


def test_an_agent_cannot_be_two_things_or_nothing_sensible() -> None:
    with pytest.raises(InvalidSetting):
        nodes_of(AgentSettings(simulate=4, node="{}"))
    with pytest.raises(InvalidCommand, match="node"):
        nodes_of(AgentSettings(node='{"id": "A", "capacity": {}}'))

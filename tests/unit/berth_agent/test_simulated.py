"""The demo cluster: varied, repeatable, and large enough for the examples of the documents."""

import pytest

from berth.ids import is_name
from berth_agent.simulated import REGIONS, ZONES, simulated_nodes


def test_a_larger_cluster_begins_with_the_same_nodes() -> None:
    assert simulated_nodes(200)[:20] == simulated_nodes(20)


@pytest.mark.parametrize("count", [1, 3, 20])
def test_the_example_of_the_readme_fits(count: int) -> None:
    fitting = [
        node
        for node in simulated_nodes(count)
        if node.labels["region"] == "us-east-1"
        and not node.taints
        and node.capacity.vector.cpu_millicores >= 4_000
        and node.capacity.vector.ram_mb >= 8_192
    ]

    assert fitting


def test_twenty_nodes_are_varied() -> None:
    nodes = simulated_nodes(20)

    assert {node.labels["region"] for node in nodes} == set(REGIONS)
    assert {node.labels["zone"] for node in nodes} == set(ZONES)
    assert {node.labels["disk"] for node in nodes} == {"ssd", "hdd"}
    assert len({node.capacity.vector for node in nodes}) == 5


def test_nodes_with_gpus_are_behind_a_taint_and_others_are_not() -> None:
    for node in simulated_nodes(60):
        gpus = node.capacity.vector.amount("gpu")
        assert [str(taint) for taint in node.taints] == (["dedicated=gpu:no_schedule"] if gpus else [])
        assert ("gpu" in node.labels) == bool(gpus)


def test_every_region_has_nodes_with_gpus_in_time() -> None:
    regions = {node.labels["region"] for node in simulated_nodes(20) if node.taints}

    assert regions == set(REGIONS)


def test_ids_are_names_and_unique() -> None:
    ids = [node.id for node in simulated_nodes(1_200)]

    assert len(set(ids)) == 1_200
    assert all(is_name(name) for name in ids)


def test_nodes_hold_as_many_instances_as_they_are_told_to() -> None:
    assert [node.capacity.instances for node in simulated_nodes(2, instances=5_000)] == [5_000, 5_000]
    assert simulated_nodes(1)[0].capacity.instances is None

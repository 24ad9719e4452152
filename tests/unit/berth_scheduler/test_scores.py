"""Scores are whole numbers from 0 to 1000 (R11, R12, R24, R25, R43–R45, R48; DESIGN section 4, "Scores")."""

from typing import Any

import pytest

from berth.ids import Attempt, NodeId
from berth.messages.requests import Request
from berth.model.ledger import State
from berth_scheduler.placement import node_verdicts
from berth_scheduler.scores import by_fewest, by_largest, chance, tie
from tests.builders import T0, a_node, a_request, a_state, placed

SSD = {"key": "disk", "operator": "equals", "values": ["ssd"], "mode": "preferred"}


def scores(state: State, request: Request, seed: str = "") -> dict[str, int | None]:
    return {verdict.node: verdict.score for verdict in node_verdicts(state, request, at=T0, seed=seed)}


def one_node(**node: Any) -> State:
    return a_state(a_node("n1", cpu=10_000, ram=10_000, disk=10_000, **node))


# ---------------------------------------------------------------- R43, R44


@pytest.mark.parametrize(
    ("cpu", "ram", "binpack", "spread"),
    [
        (10_000, 10_000, 1000, 0),  # full: 18/18
        (5_000, 5_000, 760, 240),  # half: 13.675/18
        (10_000, 5_000, 880, 120),  # (20 - 1 - 3.1623) / 18
        (1, 1, 0, 1000),  # as good as empty
    ],
)
def test_r43_r44_bin_pack_and_spread_have_nomads_values(cpu: int, ram: int, binpack: int, spread: int) -> None:
    assert scores(one_node(), a_request(cpu=cpu, ram=ram)) == {"n1": binpack}
    assert scores(one_node(), a_request(cpu=cpu, ram=ram, strategy="spread")) == {"n1": spread}


def test_r43_free_is_what_is_left_after_the_placement_of_what_is_not_reserved() -> None:
    state = a_state(
        a_node("n1", cpu=12_000, ram=12_000, reserved=a_request(cpu=2_000, ram=2_000).vector),
        placed(a_request("old", cpu=2_500, ram=2_500), "n1"),
    )

    assert scores(state, a_request(cpu=2_500, ram=2_500)) == {"n1": 760}


def test_r45_disk_is_no_part_of_the_score_and_every_other_dimension_asked_for_is() -> None:
    disk = a_request(cpu=5_000, ram=5_000)
    disk = Request.model_validate({**disk.document(), "resources": {"cpu_cores": 5, "ram_mb": 5_000, "disk_mb": 9_999}})

    assert scores(one_node(), disk) == {"n1": 760}
    assert scores(one_node(), a_request(cpu=5_000)) == {"n1": 760}, "one dimension counts twice"
    gpu = a_request(cpu=5_000, ram=5_000, extended={"gpu": 4})
    assert scores(one_node(extended={"gpu": 4}), gpu) == {"n1": 840}, "2/3 · (√10 + √10 + 1) = 4.883"


def test_a_request_for_nothing_but_disk_has_no_strategy_score() -> None:
    assert scores(one_node(), a_request(cpu=0)) == {"n1": 0}


# ---------------------------------------------------------------- random


def test_random_is_a_hash_of_request_attempt_and_node_salted_with_the_seed() -> None:
    state = a_state(*(a_node(f"n{number}") for number in range(50)))
    request = a_request(strategy="random")

    found = scores(state, request)

    assert found == {node: chance(request, Attempt(1), NodeId(node), "") for node in found}
    assert all(score is not None and 0 <= score <= 1000 for score in found.values())
    assert len(set(found.values())) > 40
    assert found == scores(state, request)
    assert found != scores(state, request, seed="7")
    assert chance(request, Attempt(1), NodeId("n1"), "") != chance(request, Attempt(2), NodeId("n1"), "")


def test_r51_a_tie_depends_on_namespace_request_and_node_alone() -> None:
    same = tie(a_request(cpu=1), NodeId("n1"))

    assert same == tie(a_request(cpu=2, priority=90), NodeId("n1"))
    others = {
        tie(a_request(), NodeId("n2")),
        tie(a_request("other"), NodeId("n1")),
        tie(a_request(namespace="b"), NodeId("n1")),
    }
    assert len(others | {same}) == 4


# ---------------------------------------------------------------- preferences


def test_r11_r12_preferred_weights_are_summed_and_scaled_by_the_largest_in_whole_percent() -> None:
    assert by_largest([2, 4, 11]) == [180, 360, 1000]
    assert by_largest([0, 0]) == [0, 0]
    assert by_largest([-10, 0]) == [0, 1000], "what subtracts counts from the lowest"
    assert by_largest([]) == []


def test_r24_bad_taints_are_counted_and_reversed() -> None:
    assert by_fewest([0, 1, 2]) == [1000, 500, 0]
    assert by_fewest([0, 0]) == [1000, 1000]
    assert by_fewest([1, 3]) == [670, 0], "100 - 1 · 100 // 3"


def test_r48_the_final_score_is_the_weighted_mean_of_those_that_spoke() -> None:
    state = a_state(
        a_node("n1", cpu=2_000, labels={"disk": "ssd"}), a_node("n2", cpu=2_000), a_node("n3", cpu=1_000, labels={})
    )

    assert scores(state, a_request()) == {"n1": 760, "n2": 760, "n3": 1000}, "bin-pack alone"
    found = scores(state, a_request(constraints=[{**SSD, "weight": 7}]))
    assert found == {"n1": (2 * 760 + 1000) // 3, "n2": 2 * 760 // 3, "n3": 2 * 1000 // 3}


def test_weight_0_is_allowed_and_adds_nothing() -> None:
    state = a_state(a_node("n1", cpu=2_000, labels={"disk": "ssd"}), a_node("n2", cpu=2_000))

    assert scores(state, a_request(constraints=[{**SSD, "weight": 0}])) == {"n1": 760, "n2": 760}


def test_strategy_affinity_lets_preferences_lead_and_bin_pack_decide_the_rest() -> None:
    state = a_state(a_node("n1", cpu=2_000, labels={"disk": "ssd"}), a_node("n2", cpu=1_000))

    found = scores(state, a_request(strategy="affinity", constraints=[{**SSD, "weight": 1}]))

    assert found == {"n1": (760 + 4 * 1000) // 5, "n2": 1000 // 5}


def test_preferred_affinity_counts_neighbours_and_anti_affinity_subtracts_them() -> None:
    state = a_state(
        *(a_node(name, labels={"zone": zone}) for name, zone in (("n1", "a"), ("n2", "b"), ("n3", "c"))),
        placed(a_request("x", count=2, labels={"app": "db"}, cpu=1), "n1", "n1"),
        placed(a_request("y", labels={"app": "db"}, cpu=1), "n2"),
    )
    near = {"match_labels": {"app": "db"}, "topology_key": "zone", "mode": "preferred", "weight": 10}

    attracted = scores(state, a_request(cpu=0, affinity=[near]))
    repelled = scores(state, a_request(cpu=0, anti_affinity=[near]))

    assert attracted == {"n1": 1000, "n2": 500, "n3": 0}
    assert repelled == {"n1": 0, "n2": 500, "n3": 1000}


def test_a_preferred_spread_favours_the_emptier_domain_and_a_node_without_the_key_last() -> None:
    state = a_state(
        a_node("n1", labels={"zone": "a"}),
        a_node("n2", labels={"zone": "b"}),
        a_node("n3"),
        placed(a_request("x", labels={"app": "web"}, cpu=1), "n1"),
    )
    even = {"topology_key": "zone", "mode": "preferred", "match_labels": {"app": "web"}}

    assert scores(state, a_request(cpu=0, spread=[even])) == {"n1": 0, "n2": 1000, "n3": 0}


def test_fewer_intolerable_preferences_of_nodes_score_higher_and_tolerated_ones_are_irrelevant() -> None:
    def taint(key: str) -> dict[str, str]:
        return {"key": key, "effect": "prefer_no_schedule"}

    state = a_state(a_node("n1", taints=[taint("x"), taint("y")]), a_node("n2", taints=[taint("x")]), a_node("n3"))

    assert scores(state, a_request(cpu=0)) == {"n1": 0, "n2": 500, "n3": 1000}
    tolerant = a_request(cpu=0, tolerations=[{"operator": "exists", "effect": "prefer_no_schedule"}])
    assert scores(state, tolerant) == {"n1": 0, "n2": 0, "n3": 0}, "nobody speaks: nothing to say"


def test_r12_scales_over_feasible_nodes_only() -> None:
    state = a_state(
        a_node("n1", labels={"disk": "ssd", "zone": "a"}, cpu=1_000),
        a_node("n2", labels={"disk": "ssd"}),
        a_node("n3"),
    )
    zone = {"key": "zone", "operator": "exists", "mode": "preferred", "weight": 100}

    found = scores(state, a_request(cpu=8_000, constraints=[{**SSD, "weight": 1}, zone]))

    assert found == {"n1": None, "n2": 1000, "n3": 2 * 1000 // 3}

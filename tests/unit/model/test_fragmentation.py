"""What free capacity is good for, judged by the recent shapes: scores of the strategy, and what is stranded."""

import random
from typing import Any

import pytest

from berth.ids import NodeId
from berth.messages.events import Event, NodeChanged
from berth.model.fragmentation import Profile, total, usage_by_node
from berth.model.ledger import State
from berth.resources import NOTHING, Resources
from tests.builders import a_node, a_request, a_state, happened, placed, submitted

SSD = {"key": "disk", "operator": "equals", "values": ["ssd"]}


def asked_for(state: State, *requests: dict[str, Any]) -> Profile:
    """Each of `requests` is submitted once, and nothing else was."""
    for number, request in enumerate(requests):
        happened(state, (submitted(a_request(f"recent-{number}", **request)),))
    return Profile(state.demand.typical)


def score(state: State, node: str, profile: Profile, **request: Any) -> int | None:
    known = state.cluster.nodes[NodeId(node)]
    free = known.allocatable.minus(state.cluster.used_on(known.id))
    return profile.keeping(known, free, a_request("it", **request).charge)


# ---------------------------------------------------------------- the score


def test_capacity_that_nobody_else_can_use_scores_1000() -> None:
    state = a_state(a_node("n1", cpu=3_000))
    profile = asked_for(state, {"cpu": 4_000})

    assert score(state, "n1", profile, cpu=1_000) == 1000


def test_a_placement_after_which_every_shape_still_fits_scores_500() -> None:
    state = a_state(a_node("n1", cpu=8_000))
    profile = asked_for(state, {"cpu": 1_000}, {"cpu": 4_000})

    assert score(state, "n1", profile, cpu=4_000) == 500


def test_the_gradient_is_counted_as_documented() -> None:
    """Mean demand 4 cores; 8 free, 2 taken: half the shapes (those of 7) are lost for the 6 cores that remain."""
    state = a_state(a_node("n1", cpu=8_000))
    profile = asked_for(state, {"cpu": 1_000}, {"cpu": 7_000})

    taken, growth = 2 / 4, 1 / 2 * 6 / 4
    assert score(state, "n1", profile, cpu=2_000) == int(1000 * taken / (growth + 2 * taken)) == 285


def test_a_node_whose_rest_is_stranded_already_is_used_before_one_that_large_work_needs() -> None:
    state = a_state(
        a_node("whole", cpu=64_000, extended={"gpu": 8}),
        a_node("broken", cpu=64_000, extended={"gpu": 8}),
        placed(a_request("old", cpu=1_000, extended={"gpu": 1}), "broken"),
    )
    profile = asked_for(state, {"extended": {"gpu": 8}}, {"extended": {"gpu": 1}})

    whole = score(state, "whole", profile, extended={"gpu": 1})
    broken = score(state, "broken", profile, extended={"gpu": 1})

    assert whole is not None
    assert broken is not None
    assert broken > whole


def test_work_without_gpus_keeps_away_from_nodes_with_gpus() -> None:
    state = a_state(a_node("plain", cpu=16_000), a_node("gpu", cpu=16_000, extended={"gpu": 2}))
    profile = asked_for(state, {"cpu": 8_000, "extended": {"gpu": 1}}, {"cpu": 8_000})

    plain, gpu = (score(state, node, profile, cpu=12_000) for node in ("plain", "gpu"))

    assert plain is not None
    assert gpu is not None
    assert plain > gpu


def test_a_shape_that_the_node_does_not_admit_can_use_nothing_there() -> None:
    state = a_state(a_node("n1", cpu=8_000), a_node("n2", cpu=8_000, labels={"disk": "ssd"}))
    profile = asked_for(state, {"cpu": 8_000, "constraints": [SSD]})

    assert score(state, "n1", profile, cpu=1_000) == 1000
    assert (score(state, "n2", profile, cpu=1_000) or 0) < 500


def test_what_the_recent_shapes_never_ask_for_has_no_score() -> None:
    state = a_state(a_node("n1", extended={"gpu": 1}))

    assert score(state, "n1", Profile(()), cpu=1_000) is None
    assert score(state, "n1", asked_for(state, {"cpu": 1}), cpu=0, extended={"gpu": 1}) is None


@pytest.mark.parametrize("seed", range(20))
def test_scores_are_whole_numbers_from_0_to_1000_and_look_ups_agree_with_comparing(seed: int) -> None:
    chance = random.Random(seed)

    def some() -> dict[str, Any]:
        return {
            "cpu": chance.choice([0, 1, 1_000, 7_500]),
            "ram": chance.choice([0, 512, 4_096]),
            "extended": {"gpu": chance.randint(0, 4)},
        }

    state = a_state(a_node("n1", cpu=chance.randint(8_000, 20_000), ram=8_192, extended={"gpu": 5}))
    profile = asked_for(state, *(some() for _ in range(8)))
    node = state.cluster.nodes[NodeId("n1")]
    free = Resources(chance.randint(-5, 9_000), chance.randint(-5, 5_000), 0, 3, (("gpu", chance.randint(1, 5)),))

    fitting = profile.fitting(free, profile.suited(node))
    assert [bool(fitting >> place & 1) for place in range(len(profile.typical))] == [
        one.sample.charge.fits_in(free) for one in profile.typical
    ]
    found = profile.keeping(node, node.allocatable, a_request(**some()).charge)
    assert found is None or 0 <= found <= 1000


# ---------------------------------------------------------------- what is stranded


def test_free_capacity_is_stranded_where_no_recent_shape_that_asks_for_it_fits() -> None:
    state = a_state(
        a_node("n1", cpu=8_000, ram=4_096, extended={"gpu": 2}),
        placed(a_request("old", cpu=7_500, extended={"gpu": 1}), "n1"),
    )
    happened(state, (submitted(a_request("new", cpu=1_000, extended={"gpu": 1})),))
    for number in range(2):
        happened(state, (submitted(a_request(f"ram-{number}", cpu=0, ram=1_024)),))

    (one,) = usage_by_node(state).values()

    assert one.free.cpu_millicores == one.stranded.cpu_millicores == 500
    assert one.fragmentation() == {
        "cpu_millicores": 1.0,
        "ram_mb": 0.0,
        "disk_mb": 1.0,
        "instances": 0.0,
        "gpu": 1.0,
    }, "a GPU without a core to drive it is as good as used"
    assert one.utilization()["gpu"] == 0.5


def test_of_several_nodes_the_parts_are_of_all_together() -> None:
    state = a_state(a_node("n1", cpu=4_000), a_node("n2", cpu=4_000), placed(a_request("old", cpu=3_000), "n2"))
    happened(state, (submitted(a_request("new", cpu=2_000)),), (submitted(a_request("new-2", cpu=3_000)),))

    both = total(usage_by_node(state).values())

    assert both.nodes == 2
    assert both.fragmentation()["cpu_millicores"] == 0.2
    assert both.utilization()["cpu_millicores"] == 0.375


def test_a_node_that_takes_no_work_has_nothing_free() -> None:
    state = a_state(a_node("n1"), (Event(NodeChanged(node=NodeId("n1"), schedulable=False)),))

    assert total(usage_by_node(state).values()).free == NOTHING


def test_without_recent_shapes_nothing_is_called_stranded() -> None:
    state = a_state(a_node("n1"))

    (one,) = usage_by_node(state).values()

    assert set(one.fragmentation().values()) == {0.0}

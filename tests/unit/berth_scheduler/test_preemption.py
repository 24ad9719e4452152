"""Who leaves for whom: the rules of preemption by name (R53–R57), and victims against every smaller choice."""

from typing import Any

import pytest

from berth.messages.commands import Grant
from berth.messages.events import AllocationsEnded, RequestPlaced, RequestQueued, RequestSubmitted
from berth_scheduler.placement import Placed, place
from tests.builders import (
    HOUR,
    SECOND,
    T0,
    TEAM_B,
    a_node,
    a_quota,
    a_request,
    a_reservation,
    a_state,
    activated,
    data_of,
    ended,
    happened,
    placed,
)
from tests.unit.berth_scheduler.evicting import MAY, URGENT, asked, found, low, victims
from tests.unit.berth_scheduler.stage import Stage

# ---------------------------------------------------------------- who


def test_r53_only_strictly_lower_priority_leaves() -> None:
    state = a_state(a_node("n1", cpu=4_000), placed(low("equal", priority=90), "n1"))
    assert victims(state, URGENT) == []

    state = a_state(a_node("n1", cpu=4_000), placed(low("lower", priority=89), "n1"))
    assert victims(state, URGENT) == ["lower.0"]


def test_work_of_another_namespace_stays_whatever_its_priority() -> None:
    state = a_state(a_node("n1", cpu=4_000), placed(low("theirs", namespace=TEAM_B), "n1"))

    assert victims(state, URGENT) == []


@pytest.mark.parametrize("never", ["request", "quota", "grant"])
def test_r53_who_must_not_preempt_does_not(never: str) -> None:
    state = a_state(a_node("n1", cpu=4_000), placed(low("lower"), "n1"))
    if never == "quota":
        happened(state, a_quota(preemption="never"))
    request = a_request("urgent", cpu=4_000, priority=90, preemption="never") if never == "request" else URGENT

    assert victims(state, request, Grant() if never == "grant" else MAY) == []


def test_what_draws_on_a_reservation_is_no_victim() -> None:
    drawn = low("drawn", reservation="res1")
    state = a_state(
        a_node("n1", cpu=4_000),
        a_reservation(start=T0, end=T0 + HOUR, on={"n1": 1}),
        activated(),
        placed(drawn, "n1"),
    )

    assert victims(state, URGENT) == []


def test_r65_what_has_just_begun_is_spared_as_long_as_the_grant_says() -> None:
    state = a_state(a_node("n1", cpu=4_000), placed(low("lower"), "n1"))
    patient = Grant(preempt=True, max_evictions=100, min_run_seconds=30)

    assert victims(state, URGENT, patient, at=T0 + 29 * SECOND) == []
    assert victims(state, URGENT, patient, at=T0 + 30 * SECOND) == ["lower.0"]


def test_no_more_leave_than_the_grant_allows() -> None:
    state = a_state(a_node("n1", cpu=4_000), *(placed(low(f"l{n}", cpu=1_000), "n1") for n in range(4)))

    assert victims(state, URGENT, Grant(preempt=True, max_evictions=3)) == []
    assert len(victims(state, URGENT, Grant(preempt=True, max_evictions=4))) == 4


# ---------------------------------------------------------------- how few


def test_r54_the_most_important_come_back_first() -> None:
    state = a_state(
        a_node("n1", cpu=8_000),
        placed(low("a", cpu=4_000, priority=30), "n1"),
        placed(low("b", cpu=2_000, priority=20), "n1"),
        placed(low("c", cpu=2_000, priority=10), "n1"),
    )

    assert victims(state, URGENT) == ["b.0", "c.0"]


def test_r54_of_the_same_priority_who_came_last_leaves() -> None:
    state = a_state(a_node("n1", cpu=8_000), placed(low("first"), "n1"))
    happened(state, placed(low("second"), "n1"), at=T0 + SECOND)

    assert victims(state, URGENT, at=T0 + HOUR) == ["second.0"]


def test_r54_a_neighbour_that_it_must_not_be_near_may_be_a_victim() -> None:
    loner = low("loner", cpu=100, labels={"app": "noise"})
    state = a_state(a_node("n1"), placed(loner, "n1"), placed(low("other", cpu=100), "n1"))
    apart = [{"match_labels": {"app": "noise"}, "topology_key": "node"}]

    assert victims(state, a_request("urgent", priority=90, anti_affinity=apart)) == ["loner.0"]


def test_r54_affinity_to_a_victim_does_not_help() -> None:
    wanted = low("db", labels={"app": "db"})
    state = a_state(a_node("n1", cpu=4_000), placed(wanted, "n1"))
    near = [{"match_labels": {"app": "db"}, "topology_key": "node"}]

    assert victims(state, a_request("urgent", cpu=4_000, priority=90, affinity=near)) == []


# ---------------------------------------------------------------- which node


def node_chosen(*running: tuple[str, list[tuple[int, int, int]]]) -> str:
    """Where `urgent` goes; each node runs (priority, millicores, seconds after T0)."""
    state = a_state(*(a_node(node, cpu=4_000) for node, _ in running))
    for second in range(3):
        for node, rows in running:
            for number, (priority, cpu, began) in enumerate(rows):
                if began == second:
                    request = low(f"{node}-{number}", cpu=cpu, priority=priority)
                    happened(state, placed(request, node), at=T0 + second * SECOND)
    answer = found(state, URGENT, at=T0 + HOUR)
    assert answer is not None
    (allocation,) = answer.allocations
    return allocation.node


def test_r55_first_the_lowest_highest_priority_counts() -> None:
    assert node_chosen(("n1", [(30, 4_000, 0)]), ("n2", [(20, 2_000, 0), (20, 2_000, 0)])) == "n2"


def test_r55_then_the_lowest_sum_of_priorities() -> None:
    assert node_chosen(("n1", [(30, 2_000, 0), (20, 2_000, 0)]), ("n2", [(30, 2_000, 0), (10, 2_000, 0)])) == "n2"


def test_r55_then_the_fewest_victims() -> None:
    three = [(10, 2_000, 0), (0, 1_000, 0), (0, 1_000, 0)]
    assert node_chosen(("n1", three), ("n2", [(10, 2_000, 0), (0, 2_000, 0)])) == "n2"


def test_r55_then_who_began_last_and_then_the_first_node() -> None:
    assert node_chosen(("n1", [(10, 4_000, 0)]), ("n2", [(10, 4_000, 1)])) == "n2"
    assert node_chosen(("n1", [(10, 4_000, 0)]), ("n2", [(10, 4_000, 0)])) == "n1"


@pytest.mark.parametrize(
    "node",
    [
        {"taints": ({"key": "dedicated", "effect": "no_schedule"},)},
        {"labels": {"zone": "b"}},
        {"cpu": 3_999},
    ],
)
def test_r57_a_node_that_its_own_row_rules_out_is_not_cleared(node: dict[str, Any]) -> None:
    row: dict[str, Any] = {"cpu": 4_000, "labels": {"zone": "a"}, **node}
    state = a_state(a_node("n1", **row), placed(low("lower", cpu=3_999), "n1"))
    zone_a = [{"key": "zone", "operator": "equals", "values": ["a"]}]

    assert victims(state, a_request("urgent", cpu=4_000, priority=90, constraints=zone_a)) == []


def test_r57_nobody_leaves_one_node_for_a_place_on_another() -> None:
    held = a_reservation(start=T0 + HOUR, end=T0 + 2 * HOUR, on={"n1": 1})
    state = a_state(a_node("n1", cpu=4_000), held, a_node("n2", cpu=3_000), placed(low("lower", cpu=3_000), "n2"))

    assert victims(state, URGENT) == []


# ---------------------------------------------------------------- gangs


def test_a_gang_that_would_keep_too_few_leaves_as_a_whole() -> None:
    gang = low("gang", count=2)
    state = a_state(a_node("n1", cpu=4_000), a_node("n2", cpu=4_000), placed(gang, "n1", "n2"))

    assert victims(state, URGENT) == ["gang.0", "gang.1"]


def test_a_gang_with_instances_to_spare_loses_only_what_is_in_the_way() -> None:
    gang = low("gang", count=2, min_count=1)
    state = a_state(a_node("n1", cpu=4_000), a_node("n2", cpu=4_000), placed(gang, "n1", "n2"))

    assert len(victims(state, URGENT)) == 1


def test_a_node_where_one_leaves_is_better_than_one_where_its_siblings_leave_too() -> None:
    state = a_state(
        a_node("n1", cpu=4_000),
        a_node("n2", cpu=4_000),
        a_node("n3", cpu=4_000),
        placed(low("gang", count=2), "n1", "n2"),
        placed(low("single"), "n3"),
    )

    assert victims(state, URGENT) == ["single.0"]


def test_a_gang_takes_what_is_free_and_evicts_for_the_rest() -> None:
    state = a_state(a_node("n1", cpu=4_000), a_node("n2", cpu=4_000), placed(low("lower"), "n1"))

    answer = found(state, a_request("urgent", cpu=4_000, priority=90, count=2))

    assert answer is not None
    assert sorted(one.node for one in answer.allocations) == ["n1", "n2"]
    assert [one.id for one in answer.evicted] == ["lower.0"]


def test_nobody_is_evicted_for_more_than_a_gang_needs() -> None:
    state = a_state(a_node("n1", cpu=4_000), a_node("n2", cpu=4_000), placed(low("l1"), "n1"), placed(low("l2"), "n2"))

    assert len(victims(state, a_request("urgent", cpu=4_000, priority=90, count=2, min_count=1))) == 1


# ---------------------------------------------------------------- quota


def test_r60_where_the_quota_is_short_the_lowest_and_latest_leave_wherever_they_run() -> None:
    state = a_state(
        a_node("n1"),
        a_node("n2"),
        a_quota(hard={"cpu_millicores": 8_000}),
        placed(low("a", cpu=4_000, priority=20), "n1"),
        placed(low("b", cpu=2_000, priority=10), "n2"),
    )
    happened(state, placed(low("c", cpu=2_000, priority=10), "n2"), at=T0 + SECOND)
    short = MAY.model_copy(update={"quota_short": True})

    assert victims(state, a_request("urgent", cpu=2_000, priority=90), short, at=T0 + HOUR) == ["c.0"]
    assert victims(state, a_request("urgent", cpu=3_000, priority=90), short, at=T0 + HOUR) == ["b.0", "c.0"]
    assert victims(state, a_request("urgent", cpu=8_000, priority=90), short, at=T0 + HOUR) == ["a.0", "b.0", "c.0"]


def test_who_does_not_use_what_is_short_is_not_evicted_for_it() -> None:
    state = a_state(
        a_node("n1", extended={"gpu": 4}),
        a_quota(hard={"gpu": 1}),
        placed(low("cheap", cpu=100, priority=0), "n1"),
        placed(low("gpu", cpu=100, priority=50, extended={"gpu": 1}), "n1"),
    )
    short = MAY.model_copy(update={"quota_short": True})

    assert victims(state, a_request("urgent", priority=90, extended={"gpu": 1}), short) == ["gpu.0"]


# ---------------------------------------------------------------- in the walk


def test_evict_and_place_are_one_transaction_and_the_victim_waits_again() -> None:
    stage = Stage(a_node("n1", cpu=4_000), placed(low("lower", grace_seconds=60), "n1"))

    stage.evaluate(asked(URGENT))
    stage.run()

    (transaction,) = stage.leader.records[-1].transactions
    kinds = [type(data) for data in data_of(transaction)]
    assert kinds == [AllocationsEnded, RequestQueued, RequestSubmitted, RequestPlaced]
    assert stage.where(URGENT) == ["n1"]
    assert stage.leader.state.queue.requests[URGENT.key].victims == (("lower.0", "team-a", "n1", "preempted"),)


def test_a_victim_that_must_not_be_rescheduled_ends_evicted() -> None:
    victim = low("lower", reschedule="never")
    stage = Stage(a_node("n1", cpu=4_000), placed(victim, "n1"))

    stage.evaluate(asked(URGENT))
    stage.run()

    assert stage.status(victim) == "evicted"


def test_two_of_one_batch_do_not_evict_the_same_victim() -> None:
    nodes = [a_node(node, cpu=4_000) for node in ("n1", "n2")]
    stage = Stage(*nodes, placed(low("l1"), "n1"), placed(low("l2"), "n2"))
    second = a_request("second", cpu=4_000, priority=90)

    stage.evaluate(asked(URGENT), asked(second))
    stage.run()

    assert sorted(stage.where(URGENT) + stage.where(second)) == ["n1", "n2"]
    assert len(stage.sent) == 1, "nobody lost a race"


def test_nobody_is_evicted_for_room_that_is_about_to_be_known() -> None:
    """What is in flight may be refused: then its room is free, and nobody need leave."""
    stage = Stage(a_node("n1", cpu=8_000), placed(low("lower"), "n1"))
    first = a_request("first", cpu=4_000, priority=90)

    stage.evaluate(asked(first), asked(URGENT))
    stage.settle()
    assert stage.offered_nodes() == [["n1"]], "`urgent` waits for what becomes of `first`"

    stage.run()
    assert stage.where(URGENT) == ["n1"]
    assert stage.leader.state.queue.requests[URGENT.key].victims[0][0] == "lower.0"


def test_a_victim_that_has_left_meanwhile_is_a_lost_race() -> None:
    stage = Stage(a_node("n1", cpu=4_000), placed(low("lower"), "n1"))
    stage.evaluate(asked(URGENT))
    stage.settle()
    stage.leader.happened(ended(stage.leader.state, low("lower").key), at=stage.now)

    stage.run()

    assert stage.where(URGENT) == ["n1"]
    assert stage.leader.state.queue.requests[URGENT.key].victims == ()


def test_r63_who_was_evicted_does_not_evict_back() -> None:
    state = a_state(a_node("n1", cpu=4_000), placed(URGENT, "n1"))

    for priority in range(0, 91, 10):
        victim = low("back", priority=priority)
        assert not isinstance(place(state, victim, missing=1, at=T0), Placed)
        assert victims(state, victim) == []

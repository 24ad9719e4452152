"""Which node each instance gets, and the reasons when none does (DESIGN sections 4 and 5)."""

from collections.abc import Sequence as Listing
from typing import Any

import pytest

from berth.ids import Attempt, NodeId, Sequence
from berth.messages.events import Event, NodeChanged, RequestPlaced, WakeOn, about
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Request, Taint
from berth.model.ledger import State
from berth_scheduler.placement import Placed, node_verdicts, place
from berth_scheduler.scores import tie
from berth_scheduler.unplaceable import Unplaceable
from tests.builders import HOUR, T0, a_node, a_request, a_reservation, a_state, activated, ended, happened, placed

WEB = {"app": "web"}
APART = [{"match_labels": WEB, "topology_key": "zone"}]


def nodes_for(state: State, request: Request, missing: int | None = None) -> list[str]:
    """Where the instances go; placing leaves the state as it was."""
    before = (state.digest(), dict(state.cluster.used))
    found = place(state, request, missing=missing or request.count, at=T0)
    assert (state.digest(), dict(state.cluster.used)) == before
    assert isinstance(found, Placed), found
    return [one.node for one in found.allocations]


def why(state: State, request: Request) -> Unplaceable:
    found = place(state, request, missing=request.count, at=T0)
    assert isinstance(found, Unplaceable), found
    return found


def counts(found: Unplaceable) -> dict[str, int]:
    return {reason.code.value: reason.nodes for reason in found.reasons}


def wakes(found: Unplaceable) -> list[str]:
    return [wake.on.value for wake in found.wake]


# ---------------------------------------------------------------- choosing


def test_the_best_score_wins() -> None:
    state = a_state(a_node("big", cpu=8_000), a_node("snug", cpu=2_000), a_node("small", cpu=500))

    assert nodes_for(state, a_request(cpu=1_000)) == ["snug"]
    assert nodes_for(state, a_request(cpu=1_000, strategy="spread")) == ["big"]


def test_equal_scores_go_to_the_smallest_hash_whatever_the_order_of_registration() -> None:
    names = [f"n{number}" for number in range(9)]
    request = a_request()
    expected = min(names, key=lambda name: tie(request, NodeId(name)))

    assert nodes_for(a_state(*map(a_node, names)), request) == [expected]
    assert nodes_for(a_state(*map(a_node, reversed(names))), request) == [expected]


def test_each_instance_sees_its_earlier_siblings() -> None:
    state = a_state(a_node("n1", cpu=4_000), a_node("n2", cpu=3_000))

    found = place(state, a_request(count=3, cpu=2_000), missing=3, at=T0)

    assert isinstance(found, Placed)
    assert sorted(one.node for one in found.allocations) == ["n1", "n1", "n2"]
    assert [one.id for one in found.allocations] == ["web.0", "web.1", "web.2"]
    assert {one.charge for one in found.allocations} == {a_request(cpu=2_000).charge}


def test_a_gang_is_placed_whole_or_not_at_all() -> None:
    state = a_state(a_node("n1", cpu=4_000), a_node("n2", cpu=1_000))

    found = why(state, a_request(count=3, cpu=2_000, min_count=3))

    siblings, *rest = (reason for reason in found.reasons if reason.code is not ReasonCode.INFEASIBLE)
    assert (siblings.code, siblings.needed, siblings.best_available) == (ReasonCode.SIBLINGS_DO_NOT_FIT, 3, 2)
    assert sum(reason.nodes for reason in rest) == 2


def test_a_partial_gang_takes_what_there_is_from_min_count_on() -> None:
    state = a_state(a_node("n1", cpu=4_000), a_node("n2", cpu=1_000))

    assert nodes_for(state, a_request(count=5, min_count=2, cpu=2_000)) == ["n1", "n1"]
    assert nodes_for(state, a_request(count=5, min_count=1, cpu=2_000)) == ["n1", "n1"]
    assert counts(why(state, a_request(count=5, min_count=3, cpu=2_000)))["siblings_do_not_fit"] == 0


def test_a_started_gang_that_misses_instances_takes_even_one() -> None:
    gang = a_request("gang", count=3, min_count=2, cpu=2_000)
    state = a_state(a_node("n1", cpu=6_000))
    happened(state, placed(gang, "n1", "n1"))

    found = place(state, gang, missing=1, at=T0)

    assert isinstance(found, Placed)
    assert [one.id for one in found.allocations] == ["gang.2"]


def test_replacements_take_the_free_index_with_the_next_number() -> None:
    gang = a_request("gang", count=2, cpu=1_000)
    state = a_state(a_node("n1"), placed(gang, "n1", "n1"))
    happened(state, ended(state, gang.key)[:1])

    first = place(state, gang, missing=2, at=T0)
    assert isinstance(first, Placed)
    assert [one.id for one in first.allocations] == ["gang.0.1", "gang.1.1"]

    again = about(gang.key, RequestPlaced(allocations=first.allocations), attempt=Attempt(3))
    happened(state, (again,))
    happened(state, ended(state, gang.key)[:1])
    second = place(state, gang, missing=2, at=T0)
    assert isinstance(second, Placed)
    assert [one.id for one in second.allocations] == ["gang.0.2", "gang.1.2"]


# ---------------------------------------------------------------- any assignment that exists is found


def test_an_affinity_among_siblings_begins_in_a_domain_that_holds_all_of_them() -> None:
    """Bin-pack alone would begin in zone a, which holds only two of three."""
    state = a_state(
        *(a_node(f"a{number}", cpu=1_000, labels={"zone": "a"}) for number in range(2)),
        *(a_node(f"b{number}", cpu=1_100, labels={"zone": "b"}) for number in range(3)),
    )
    together = a_request(count=3, cpu=1_000, labels=WEB, affinity=[{"match_labels": WEB, "topology_key": "zone"}])

    assert sorted(nodes_for(state, together)) == ["b0", "b1", "b2"]


def test_spread_over_two_keys_is_searched_to_its_end() -> None:
    """Greedy goes wrong here: the snuggest first node leaves no lawful place for the second."""
    state = a_state(
        a_node("n1", cpu=1_000, labels={"zone": "a", "rack": "1"}),
        a_node("n2", cpu=1_200, labels={"zone": "b", "rack": "1"}),
        a_node("n3", cpu=1_400, labels={"zone": "a", "rack": "2"}),
    )
    terms = [{"match_labels": WEB, "topology_key": key} for key in ("zone", "rack")]
    apart = a_request(count=2, cpu=1_000, labels=WEB, anti_affinity=terms)

    assert sorted(nodes_for(state, apart)) == ["n2", "n3"]


def test_the_placement_of_a_gang_obeys_its_own_anti_affinity() -> None:
    state = a_state(*(a_node(f"n{number}", labels={"zone": "abc"[number % 3]}) for number in range(6)))

    found = nodes_for(state, a_request(count=3, cpu=1_000, labels=WEB, anti_affinity=APART))

    assert len({int(node[1:]) % 3 for node in found}) == 3


# ---------------------------------------------------------------- reasons


def test_each_node_counts_once_under_its_first_reason_and_the_numbers_are_the_best() -> None:
    taint = Taint.model_validate({"key": "dedicated", "value": "gpu", "effect": "no_schedule"}, strict=False)
    state = a_state(
        a_node("n1", cpu=1_000, ram=10),
        a_node("n2", cpu=2_500, ram=10),
        a_node("n3", cpu=8_000, ram=100),
        a_node("n4", taints=(taint,)),
        a_node("n5", cpu=1, taints=(taint,)),
        a_node("n6"),
        (Event(NodeChanged(node=NodeId("n6"), schedulable=False)),),
    )

    found = why(state, a_request(cpu=4_000, ram=1_000))

    assert counts(found) == {
        "untolerated_taint": 2,
        "node_cordoned": 1,
        "insufficient_cpu": 2,
        "insufficient_ram": 1,
    }
    cpu, ram = found.reasons[2:]
    assert (cpu.dimension, cpu.needed, cpu.best_available) == ("cpu_millicores", 4_000, 2_500)
    assert (ram.dimension, ram.needed, ram.best_available) == ("ram_mb", 1_000, 100)
    assert found.reasons[0].detail == "dedicated=gpu:no_schedule"


def test_what_waits_for_capacity_wakes_on_capacity_and_nodes() -> None:
    state = a_state(a_node(cpu=2_000), placed(a_request("old", cpu=1_500), "n1"))

    found = why(state, a_request(cpu=1_000))

    assert counts(found) == {"insufficient_cpu": 1}
    assert wakes(found) == ["capacity", "nodes"]


@pytest.mark.parametrize(
    "request_",
    [
        a_request(cpu=9_000),
        a_request(constraints=[{"key": "zone", "operator": "in", "values": ["a"]}]),
        a_request(node="n7"),
        a_request(count=3, cpu=3_000),
        a_request(count=2, cpu=10, labels=WEB, anti_affinity=[{**APART[0], "topology_key": "node"}]),
    ],
)
def test_what_no_node_could_ever_hold_is_infeasible_and_wakes_on_nodes_only(request_: Request) -> None:
    found = why(a_state(a_node()), request_)

    assert found.reasons[0].code is ReasonCode.INFEASIBLE
    assert sum(reason.nodes for reason in found.reasons) == 1, "it is about no node"
    assert wakes(found) == ["nodes"]


def test_a_cluster_without_nodes_holds_nothing() -> None:
    found = why(a_state(), a_request())

    assert counts(found) == {"infeasible": 0}


def test_what_waits_for_a_neighbour_wakes_on_placements_too() -> None:
    state = a_state(a_node(labels={"zone": "a"}))

    found = why(state, a_request(affinity=[{"match_labels": {"app": "db"}, "topology_key": "zone"}]))

    assert counts(found) == {"affinity_not_met": 1}
    assert WakeOn.PLACEMENT.value in wakes(found)


def test_a_placement_is_noted_as_what_wakes_a_neighbour() -> None:
    state = a_state(a_node())
    found = why(state, a_request(affinity=[{"match_labels": {"app": "db"}, "topology_key": "node"}]))
    (wake,) = (wake for wake in found.wake if wake.on is WakeOn.PLACEMENT)
    before = state.last_change(wake, a_request().namespace)

    happened(state, placed(a_request("db", labels={"app": "db"}), "n1"))

    assert (before, state.last_change(wake, a_request().namespace)) == (Sequence(0), state.sequence)


def test_a_request_that_draws_waits_for_its_reservation() -> None:
    state = a_state(a_node("n1"), a_node("n2"), a_reservation(start=T0, end=T0 + HOUR, on={"n1": 1}))
    drawing = a_request(cpu=4_000, reservation="res1")

    early = why(state, drawing)
    assert counts(early) == {"reservation_not_active": 2}
    assert [(wake.on, wake.name) for wake in early.wake] == [(WakeOn.RESERVATION, "res1")]

    happened(state, activated())
    assert nodes_for(state, drawing) == ["n1"]
    happened(state, placed(drawing, "n1"))
    full = why(state, a_request("more", cpu=1, reservation="res1"))
    assert counts(full) == {"outside_reservation": 1, "reservation_full": 1}
    assert wakes(full) == ["capacity", "nodes", "reservation"]


def test_siblings_draw_one_after_the_other() -> None:
    state = a_state(a_node("n1"), a_reservation(start=T0, end=T0 + HOUR, on={"n1": 2}, cpu=2_000), activated())

    assert nodes_for(state, a_request(count=2, cpu=2_000, reservation="res1")) == ["n1", "n1"]
    assert "siblings_do_not_fit" in counts(why(state, a_request(count=3, cpu=2_000, reservation="res1")))


# ---------------------------------------------------------------- verdicts


def test_explain_names_every_node_as_it_was_before_the_first_instance() -> None:
    state = a_state(
        a_node("n2", labels={"disk": "ssd"}, cpu=1_000, ram=10),
        a_node("n1"),
        a_node("n3", labels={"disk": "ssd"}),
    )
    preference = {"key": "disk", "operator": "equals", "values": ["ssd"], "mode": "preferred", "weight": 50}
    request = a_request(count=2, cpu=8_000, ram=100, constraints=[preference])

    found = node_verdicts(state, request, at=T0)

    assert [(one.node, one.feasible, one.preferred) for one in found] == [
        ("n1", True, 0),
        ("n2", False, 50),
        ("n3", True, 50),
    ]
    assert [reason.code.value for reason in found[1].reasons] == ["insufficient_cpu", "insufficient_ram"]
    assert found[1].score is None and found[0].reasons == ()
    assert (found[2].score or 0) > (found[0].score or 0)


def best_of(found: Listing[Any]) -> str:
    return max(found, key=lambda one: one.score or -1).node


@pytest.mark.parametrize("strategy", ["binpack", "spread", "random", "affinity"])
def test_what_is_chosen_is_what_explain_scores_best(strategy: str) -> None:
    state = a_state(*(a_node(f"n{number}", cpu=2_000 + 700 * number) for number in range(7)))
    request = a_request(cpu=1_900, strategy=strategy)

    assert nodes_for(state, request) == [best_of(node_verdicts(state, request, at=T0))]

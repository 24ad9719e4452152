"""Conditions that exclude each other are found whatever the cluster, and never where a node could meet them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from berth.ids import NodeId
from berth.model.contradictions import contradiction
from berth.model.feasibility import meets_constraints
from tests.builders import a_node, a_request, a_state


def condition(text: str) -> dict[str, Any]:
    """`zone in a,b` as a document."""
    key, operator, *values = text.split(" ")
    return {"key": key, "operator": operator, "values": values[0].split(",") if values else []}


def clash(*conditions: str, **document: Any) -> str | None:
    return contradiction(a_request(constraints=[condition(one) for one in conditions], **document))


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (["zone equals a", "zone equals b"], "zone equals a contradicts zone equals b"),
        (["zone in a,b", "zone in c"], "zone in a,b contradicts zone in c"),
        (["zone in a", "zone not_in a"], "zone in a contradicts zone not_in a"),
        (["zone equals a", "zone not_equals a"], "zone equals a contradicts zone not_equals a"),
        (["zone exists", "zone not_exists"], "zone exists contradicts zone not_exists"),
        (["zone not_exists", "zone in a"], "zone not_exists contradicts zone in a"),
        (["size gt 5", "size lt 6"], "size gt 5 contradicts size lt 6"),
        (["size in small", "size gt 5"], "size in small contradicts size gt 5"),
        (["size gt 9223372036854775807", "size exists"], "size gt 9223372036854775807 never holds"),
        (
            ["zone in a,b", "zone in b,c", "zone in a,c"],
            "zone in a,b, zone in b,c and zone in a,c contradict each other",
        ),
        (["zone in a,b", "zone in b,c"], None),
        (["zone not_in a", "zone not_exists"], None),
        (["size gt 5", "size lt 7", "size not_equals 6"], None),
        (["zone equals a", "rack equals b"], None),
    ],
)
def test_r5_conditions_on_one_key_that_exclude_each_other_are_named(conditions: list[str], said: str | None) -> None:
    assert clash(*conditions) == said


def test_what_is_only_preferred_contradicts_nothing() -> None:
    preferred = {**condition("zone equals b"), "mode": "preferred"}

    assert contradiction(a_request(constraints=[condition("zone equals a"), preferred])) is None


def test_r8_alternatives_that_all_contradict_are_no_alternatives() -> None:
    alternatives = [[condition("zone equals b")], []]

    assert clash("zone equals a", any_of=alternatives) == (
        "no alternative can hold: zone equals a contradicts zone equals b; it is empty"
    )
    assert clash("zone equals a", any_of=[*alternatives, [condition("rack exists")]]) is None


def test_the_node_that_it_is_pinned_to_is_a_condition_too() -> None:
    assert clash("node.id in n2,n3", node="n1") == "node.id in n2,n3 contradicts node.id equals n1"


def test_r29_nobody_is_near_and_far_from_the_same() -> None:
    term = {"match_labels": {"app": "db"}, "topology_key": "zone"}

    said = contradiction(a_request(labels={"app": "web"}, affinity=[term], anti_affinity=[term]))

    assert said == "affinity to app=db in zone contradicts anti-affinity to the same"
    assert contradiction(a_request(labels={"app": "db"}, affinity=[term], anti_affinity=[term])) is None, "R32"
    preferred = {**term, "mode": "preferred"}
    assert contradiction(a_request(labels={"app": "web"}, affinity=[term], anti_affinity=[preferred])) is None


VALUES = some.sampled_from(["", "a", "b", "5", "6", "06", "7"])
LISTS = some.lists(VALUES, min_size=1, max_size=3)
NUMBERS = some.sampled_from(["4", "5", "6", "7"])


@some.composite
def conditions(draw: Any) -> dict[str, Any]:
    operator = draw(some.sampled_from(["equals", "not_equals", "in", "not_in", "exists", "not_exists", "gt", "lt"]))
    values = {
        "in": LISTS,
        "not_in": LISTS,
        "exists": some.just([]),
        "not_exists": some.just([]),
        "gt": some.lists(NUMBERS, min_size=1, max_size=1),
        "lt": some.lists(NUMBERS, min_size=1, max_size=1),
    }.get(operator, some.lists(VALUES, min_size=1, max_size=1))
    return {"key": "zone", "operator": operator, "values": draw(values)}


@given(some.lists(conditions(), max_size=4), some.one_of(some.none(), VALUES))
def test_r5_a_contradiction_is_never_claimed_where_a_node_meets_them_all(
    those: list[dict[str, Any]], value: str | None
) -> None:
    request = a_request(constraints=those)
    state = a_state(a_node(labels={} if value is None else {"zone": value}))

    if meets_constraints(state.cluster.nodes[NodeId("n1")], request):
        assert contradiction(request) is None

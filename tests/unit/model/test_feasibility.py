"""May a node take one more instance: operators, taints, reservations, fit, and the words for each no (R1–R39)."""

from typing import Any

import pytest

from berth.ids import NodeId
from berth.messages.documents import Owner
from berth.messages.events import Event, NodeChanged, NodeLost
from berth.messages.reasons import PRECEDENCE, Reason, ReasonCode
from berth.messages.requests import Request, Taint
from berth.model.feasibility import (
    admits,
    capacity_reasons,
    fits,
    intolerable,
    preferred_weight,
    required_reasons,
    why_not,
)
from berth.model.ledger import State
from berth.model.windows import free_now
from tests.builders import HOUR, T0, TEAM_B, a_node, a_request, a_reservation, a_state, activated, placed

N1 = NodeId("n1")


def codes(reasons: list[Reason]) -> list[str]:
    return [reason.code.value for reason in reasons]


def why(state: State, request: Request, node: str = "n1") -> list[str]:
    """The codes of everything that keeps `request` off the node; the quick answer must agree."""
    row = state.cluster.nodes[NodeId(node)]
    found = why_not(state, row, request, T0)
    quick = fits(state, row, request, free_now(state, row, request.reservation), T0)
    assert quick == (not capacity_reasons(state, row, request, T0))
    assert found == sorted(found, key=lambda reason: PRECEDENCE[reason.code])
    return codes(found)


def constrained(*constraints: dict[str, Any], **more: Any) -> Request:
    return a_request(constraints=list(constraints), **more)


# ---------------------------------------------------------------- R1–R5: operators

LABELS = {"region": "us-east-1", "empty": "", "cores": "0206", "word": "12a", "huge": "9223372036854775808"}

OPERATORS: list[tuple[str, str, list[str], bool]] = [
    ("region", "equals", ["us-east-1"], True),
    ("region", "equals", ["eu-west-1"], False),
    ("zone", "equals", ["a"], False),
    ("region", "in", ["eu-west-1", "us-east-1"], True),
    ("region", "in", ["eu-west-1"], False),
    ("zone", "in", ["a"], False),
    ("empty", "in", [""], True),
    ("region", "not_equals", ["us-east-1"], False),
    ("region", "not_equals", ["eu-west-1"], True),
    ("zone", "not_equals", ["a"], True),
    ("region", "not_in", ["us-east-1", "x"], False),
    ("region", "not_in", ["x"], True),
    ("zone", "not_in", ["a"], True),
    ("empty", "exists", [], True),
    ("zone", "exists", [], False),
    ("empty", "not_exists", [], False),
    ("zone", "not_exists", [], True),
    ("cores", "gt", ["204"], True),
    ("cores", "gt", ["206"], False),
    ("cores", "gt", ["+0205"], True),
    ("cores", "lt", ["207"], True),
    ("cores", "lt", ["206"], False),
    ("cores", "gt", ["-9223372036854775808"], True),
    ("zone", "gt", ["0"], False),
    ("zone", "lt", ["0"], False),
    ("word", "gt", ["1"], False),
    ("word", "lt", ["99"], False),
    ("huge", "gt", ["1"], False),
    ("node.id", "equals", ["n1"], True),
    ("node.id", "not_in", ["n1", "n2"], False),
    ("node.cpu_cores", "gt", ["7"], True),
    ("node.cpu_cores", "gt", ["8"], False),
    ("node.ram_mb", "lt", ["16385"], True),
    ("node.gpu", "gt", ["3"], True),
    ("node.tpu", "exists", [], False),
    ("node.tpu", "not_exists", [], True),
]


@pytest.mark.parametrize(("key", "operator", "values", "holds"), OPERATORS)
def test_r1_to_r4_each_operator_holds_or_not(key: str, operator: str, values: list[str], holds: bool) -> None:
    state = a_state(a_node(labels=LABELS, extended={"gpu": 4}, cpu=8_500))

    found = why(state, constrained({"key": key, "operator": operator, "values": values}))

    assert found == ([] if holds else ["constraint_not_met"])


def test_a_label_named_like_a_capacity_wins_but_nothing_hides_the_id() -> None:
    state = a_state(a_node(labels={"node.ram_mb": "1", "node.id": "other"}))

    assert why(state, constrained({"key": "node.ram_mb", "operator": "equals", "values": ["1"]})) == []
    assert why(state, constrained({"key": "node.id", "operator": "equals", "values": ["n1"]})) == []


def test_r9_all_constraints_must_hold_and_each_that_does_not_is_named() -> None:
    state = a_state(a_node(labels={"region": "us-east-1"}))
    request = constrained(
        {"key": "region", "operator": "in", "values": ["us-east-1"]},
        {"key": "disk", "operator": "equals", "values": ["ssd"]},
        {"key": "fast", "operator": "exists"},
    )

    found = why_not(state, state.cluster.nodes[N1], request, T0)

    assert [reason.detail for reason in found] == ["disk equals ssd", "fast exists"]


def test_a_preferred_constraint_never_filters_and_counts_its_weight() -> None:
    state = a_state(a_node(labels={"disk": "ssd", "zone": "a"}))
    request = constrained(
        {"key": "disk", "operator": "equals", "values": ["ssd"], "mode": "preferred", "weight": 5},
        {"key": "zone", "operator": "equals", "values": ["a"], "mode": "preferred", "weight": 11},
        {"key": "zone", "operator": "equals", "values": ["b"], "mode": "preferred", "weight": 100},
    )

    assert why(state, request) == []
    assert preferred_weight(state.cluster.nodes[N1], request) == 16, "R11"


# ---------------------------------------------------------------- R7, R8: alternatives

IN_A = {"key": "zone", "operator": "in", "values": ["a"]}
IN_B = {"key": "zone", "operator": "in", "values": ["b"]}
FAST = {"key": "fast", "operator": "exists"}


ALTERNATIVES: list[tuple[list[Any], bool]] = [
    ([[IN_A], [IN_B]], True),
    ([[IN_B], [IN_A]], True),
    ([[IN_A, FAST]], False),
    ([[IN_B], []], False),
    ([[]], False),
    ([[IN_A], []], True),
    ([], True),
]


@pytest.mark.parametrize(("any_of", "allowed"), ALTERNATIVES)
def test_r7_r8_one_alternative_is_enough_and_an_empty_one_matches_nothing(any_of: list[Any], allowed: bool) -> None:
    state = a_state(a_node(labels={"zone": "a"}))

    assert why(state, a_request(any_of=any_of)) == ([] if allowed else ["no_alternative_matches"])


def test_r9_alternatives_hold_beside_constraints() -> None:
    state = a_state(a_node(labels={"zone": "a"}))

    assert why(state, constrained(FAST, any_of=[[IN_A]])) == ["constraint_not_met"]
    assert why(state, constrained(FAST, any_of=[[IN_B]])) == ["constraint_not_met", "no_alternative_matches"]


# ---------------------------------------------------------------- R19–R25: taints

GPU = {"key": "dedicated", "value": "gpu", "effect": "no_schedule"}


def tainted(*taints: dict[str, Any]) -> State:
    return a_state(a_node(taints=tuple(Taint.model_validate(taint, strict=False) for taint in taints)))


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"operator": "exists"}, True),  # R19
        ({"key": "dedicated", "operator": "exists"}, True),
        ({"key": "dedicated", "operator": "exists", "value": "other"}, True),  # R21: exists ignores the value
        ({"key": "other", "operator": "exists"}, False),
        ({"key": "dedicated", "value": "gpu"}, True),  # R21: equals is the default
        ({"key": "dedicated", "value": "cpu"}, False),
        ({"key": "dedicated"}, False),
        ({"key": "dedicated", "value": "gpu", "effect": "no_schedule"}, True),
        ({"key": "dedicated", "value": "gpu", "effect": "no_execute"}, False),  # R20
        ({"operator": "exists", "effect": "no_execute"}, False),
    ],
)
def test_r19_to_r21_what_a_toleration_tolerates(toleration: dict[str, Any], tolerated: bool) -> None:
    state = tainted(GPU)

    assert why(state, a_request(tolerations=[toleration])) == ([] if tolerated else ["untolerated_taint"])


def test_r21_an_empty_value_equals_an_empty_value() -> None:
    state = tainted({"key": "dedicated", "effect": "no_schedule"})

    assert why(state, a_request(tolerations=[{"key": "dedicated"}])) == []


def test_r23_each_filtering_taint_is_named_and_a_preference_never_filters() -> None:
    state = tainted(GPU, {"key": "old", "effect": "no_execute"}, {"key": "slow", "effect": "prefer_no_schedule"})

    found = required_reasons(state, state.cluster.nodes[N1], a_request())

    assert [(reason.code, reason.detail) for reason in found] == [
        (ReasonCode.UNTOLERATED_TAINT, "dedicated=gpu:no_schedule"),
        (ReasonCode.UNTOLERATED_TAINT, "old:no_execute"),
    ]


def test_r24_r25_only_a_fitting_effect_makes_a_preference_tolerable() -> None:
    slow = {"key": "slow", "effect": "prefer_no_schedule"}
    node = tainted(slow, {**slow, "key": "far"}, GPU).cluster.nodes[N1]

    assert intolerable(node, a_request()) == 2, "of the tolerable kind only"
    assert intolerable(node, a_request(tolerations=[{"key": "slow", "operator": "exists"}])) == 1
    assert intolerable(node, a_request(tolerations=[{"operator": "exists", "effect": "prefer_no_schedule"}])) == 0
    assert intolerable(node, a_request(tolerations=[{"operator": "exists", "effect": "no_schedule"}])) == 2


# ---------------------------------------------------------------- the node's own state


def changed(**fields: Any) -> tuple[Event, ...]:
    return (Event(NodeChanged(node=N1, **fields)),)


@pytest.mark.parametrize(
    ("happened", "code"),
    [
        (changed(schedulable=False), "node_cordoned"),
        (changed(draining=True), "node_draining"),
        ((Event(NodeLost(node=N1)),), "node_lost"),
    ],
)
def test_a_cordoned_a_draining_and_a_lost_node_take_nothing(happened: tuple[Event, ...], code: str) -> None:
    state = a_state(a_node(), happened)

    assert why(state, a_request(tolerations=[{"operator": "exists"}])) == [code]
    assert not admits(state.cluster.nodes[N1], a_request())


def test_a_pinned_request_goes_to_its_node_only() -> None:
    state = a_state(a_node("n1"), a_node("n2"))

    assert why(state, a_request(node="n2"), "n1") == ["wrong_node"]
    assert why(state, a_request(node="n2"), "n2") == []


# ---------------------------------------------------------------- R39: fit


def test_r39_every_short_dimension_is_named_with_what_is_needed_and_what_is_there() -> None:
    state = a_state(
        a_node(cpu=4_000, ram=1_000, disk=0, extended={"gpu": 1}), placed(a_request("old", cpu=1_500), "n1")
    )
    request = a_request(cpu=4_000, ram=2_000, extended={"gpu": 2, "fpga": 1})

    found = capacity_reasons(state, state.cluster.nodes[N1], request, T0)

    assert [(one.code.value, one.dimension, one.needed, one.best_available) for one in found] == [
        ("insufficient_cpu", "cpu_millicores", 4_000, 2_500),
        ("insufficient_ram", "ram_mb", 2_000, 1_000),
        ("insufficient_extended", "fpga", 1, 0),
        ("insufficient_extended", "gpu", 2, 1),
    ]


def test_r39_what_is_not_asked_for_never_refuses_on_an_over_committed_node() -> None:
    state = a_state(a_node(cpu=4_000), placed(a_request("old", cpu=4_000), "n1"), a_node(cpu=1_000))

    assert why(state, a_request(cpu=0, ram=64)) == []
    found = capacity_reasons(state, state.cluster.nodes[N1], a_request(cpu=1), T0)
    assert (found[0].needed, found[0].best_available) == (1, 0), "never less than nothing"


def test_reserved_capacity_is_not_for_work_and_instances_are_a_dimension() -> None:
    reserved = a_state(a_node(cpu=4_000, reserved=a_request(cpu=1_000).vector))
    full = a_state(a_node(instances=1), placed(a_request("old"), "n1"))

    assert why(reserved, a_request(cpu=3_001)) == ["insufficient_cpu"]
    assert why(reserved, a_request(cpu=3_000)) == []
    assert why(full, a_request()) == ["insufficient_instances"]


# ---------------------------------------------------------------- reservations


def reserved(*, active: bool = True, owners: tuple[Owner, ...] = ()) -> State:
    """n1 and n2 of 8 cores; res1 holds 4 of n1 from T0 on."""
    state = a_state(
        a_node("n1"), a_node("n2"), a_reservation(start=T0, end=T0 + HOUR, on={"n1": 1}, cpu=4_000, owners=owners)
    )
    return state if not active else a_state_with(state)


def a_state_with(state: State) -> State:
    state.fold_transaction(activated(), at=T0, sequence=state.sequence)
    return state


def test_who_draws_may_only_use_nodes_where_the_reservation_holds_something() -> None:
    state = reserved()

    assert why(state, a_request(cpu=4_000, reservation="res1"), "n1") == []
    assert why(state, a_request(cpu=4_000, reservation="res1"), "n2") == ["outside_reservation"]


def test_what_is_held_is_not_free_for_others_and_the_reason_says_so() -> None:
    state = reserved()

    assert why(state, a_request(cpu=4_000)) == []
    assert why(state, a_request(cpu=4_001)) == ["held_by_reservation"]
    assert why(state, a_request(cpu=8_001)) == ["insufficient_cpu"]


def test_a_reservation_that_is_used_up_is_full_even_on_an_empty_node() -> None:
    state = reserved()

    assert why(state, a_request(cpu=4_001, reservation="res1")) == ["reservation_full"]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (a_request(reservation="res2"), "reservation_unknown"),
        (a_request(namespace=TEAM_B, reservation="res1"), "reservation_not_owned"),
    ],
)
def test_a_reservation_of_nobody_or_of_another_namespace_is_refused(request_: Request, code: str) -> None:
    assert code in why(reserved(), request_)


def test_r94_owners_are_alternatives_and_all_fields_of_one_must_agree() -> None:
    state = reserved(
        owners=(Owner(namespace=TEAM_B, labels={"app": "train"}), Owner(namespace=TEAM_B, labels={"x": "y"}))
    )

    assert why(state, a_request(namespace=TEAM_B, reservation="res1", labels={"app": "train", "more": "1"})) == []
    assert why(state, a_request(namespace=TEAM_B, reservation="res1", labels={"app": "web"})) == [
        "reservation_not_owned"
    ]
    assert why(state, a_request(reservation="res1", labels={"app": "train"})) == ["reservation_not_owned"], (
        "only owners"
    )


def test_a_reservation_that_has_not_begun_is_not_active() -> None:
    assert "reservation_not_active" in why(reserved(active=False), a_request(reservation="res1"))


def test_r87_a_window_to_come_lets_work_run_that_ends_in_time() -> None:
    state = a_state(a_node(), a_reservation(start=T0 + HOUR, end=T0 + 2 * HOUR, on={"n1": 1}, cpu=8_000))

    assert why(state, a_request(duration_seconds=3_600)) == []
    assert why(state, a_request(duration_seconds=3_601)) == ["held_by_reservation"]
    assert why(state, a_request()) == ["held_by_reservation"], "without a duration it never ends"

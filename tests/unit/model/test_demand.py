"""The recent shapes: counted over the last submissions, the same in every process, and undone with the rest."""

from typing import Any

from berth.model.demand import RECENT_MAX, RENEWED_EVERY, TYPICAL_MAX
from berth.model.ledger import State
from tests.builders import a_node, a_request, a_reservation, a_state, happened, placed, submitted

SSD = {"key": "disk", "operator": "equals", "values": ["ssd"]}


def came(state: State, count: int, prefix: str, **request: Any) -> None:
    happened(state, *((submitted(a_request(f"{prefix}-{number}", **request)),) for number in range(count)))


def shapes(state: State) -> list[tuple[int, int]]:
    """(millicores, how often) of the typical shapes."""
    return [(one.sample.charge.cpu_millicores, one.times) for one in state.demand.typical]


def test_what_was_asked_for_most_stands_first() -> None:
    state = a_state()

    came(state, 1, "a", cpu=1_000)
    came(state, 3, "b", cpu=2_000)

    assert shapes(state) == [(2_000, 3), (1_000, 1)]


def test_requests_that_differ_in_what_they_require_of_a_node_have_different_shapes() -> None:
    state = a_state()

    came(state, 1, "plain")
    came(state, 1, "picky", constraints=[SSD])
    came(state, 1, "tolerant", tolerations=[{"operator": "exists"}])
    came(state, 1, "wishful", constraints=[{**SSD, "mode": "preferred"}], priority=90, labels={"app": "web"})

    assert [one.times for one in state.demand.typical] == [2, 1, 1], "a preference makes no shape of its own"


def test_what_has_one_place_to_go_says_nothing_about_others() -> None:
    state = a_state(a_node(), a_reservation(start=10**13, end=10**13 + 1, on={"n1": 1}))

    came(state, 1, "pinned", node="n1")
    came(state, 1, "drawing", reservation="res1")

    assert state.demand.typical == ()


def test_only_the_last_submissions_count() -> None:
    state = a_state()

    came(state, RECENT_MAX, "old", cpu=1_000)
    came(state, RECENT_MAX, "new", cpu=2_000)

    assert shapes(state) == [(2_000, RECENT_MAX)]


def test_the_typical_shapes_are_one_object_until_they_are_renewed() -> None:
    state = a_state()
    came(state, RENEWED_EVERY, "a")
    before = state.demand.typical

    came(state, RENEWED_EVERY - 1, "b", cpu=5_000)
    assert state.demand.typical is before

    came(state, 1, "c", cpu=5_000)
    assert shapes(state) == [(1_000, RENEWED_EVERY), (5_000, RENEWED_EVERY)]


def test_rare_shapes_beyond_the_bound_are_left_out() -> None:
    state = a_state()

    for number in range(RENEWED_EVERY):
        came(state, 1, f"r{number}", cpu=1_000 + min(number, 200))

    assert len(state.demand.typical) == TYPICAL_MAX
    assert shapes(state)[0] == (1_200, RENEWED_EVERY - 200)
    assert shapes(state)[1] == (1_000, 1), "among equals the one that came first"


def test_a_trial_leaves_no_trace_in_the_order_of_shapes() -> None:
    straight, tried = a_state(), a_state()
    for state in (straight, tried):
        came(state, 1, "a", cpu=1_000)

    with tried.journal.trial():
        tried.demand.submitted(a_request("x", cpu=3_000))
        tried.demand.submitted(a_request("y", cpu=2_000))
    for state in (straight, tried):
        came(state, 1, "b", cpu=2_000)
        came(state, 2, "c", cpu=3_000)

    assert shapes(tried) == shapes(straight) == [(3_000, 2), (1_000, 1), (2_000, 1)]


def test_a_copy_goes_on_where_the_original_is() -> None:
    state = a_state(a_node(), placed(a_request("a", cpu=1_000), "n1"))
    copy = a_state()
    came(copy, 5, "else", cpu=7_000)

    copy.demand.resume(state.demand)
    assert shapes(copy) == [(1_000, 1)]

    came(copy, 1, "b", cpu=2_000)
    assert shapes(copy) == [(1_000, 1), (2_000, 1)]

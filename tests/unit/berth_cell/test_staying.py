"""What a drain has still to take from a node, and what each of it waits for."""

import pytest

from berth.errors import NotFound
from berth.ids import AllocationId, NodeId
from berth.messages.events import AllocationsReleasing, Event, How, NodeChanged, about
from berth.messages.reasons import ReasonCode
from berth.model.ledger import State
from berth_cell.staying import SHOWN_MAX, staying
from tests.builders import T0, a_node, a_request, a_state, happened, placed

N1 = NodeId("n1")
DEADLINE = "2026-01-01T01:00:00Z"


def drained(*transactions: tuple[Event, ...]) -> State:
    state = a_state(a_node("n1"), a_node("n2", cpu=1_000), *transactions)
    happened(state, (Event(NodeChanged(node=N1, draining=True, drain_until=T0 + 3_600_000)),))
    return state


def test_what_has_no_place_says_why_for_every_node() -> None:
    state = drained(placed(a_request("big", cpu=4_000), "n1"))
    before = state.digest()

    (row,) = staying(state, N1, at_ms=T0)

    assert (row["id"], row["namespace"], row["waits_for"], row["until"]) == ("big.0", "team-a", "place", DEADLINE)
    assert sum(reason["nodes"] for reason in row["reasons"]) == 2
    assert {reason["code"] for reason in row["reasons"]} >= {"node_draining"}
    assert state.digest() == before


def test_what_has_a_place_is_about_to_move() -> None:
    (row,) = staying(drained(placed(a_request("small", cpu=500), "n1")), N1, at_ms=T0)

    assert (row["waits_for"], row["reasons"]) == ("place", [])


def test_what_must_not_run_elsewhere_waits_for_the_deadline_and_what_was_told_to_stop_for_its_grace() -> None:
    slow = a_request("slow", grace_seconds=30)
    state = drained(placed(a_request("once", reschedule="never"), "n1"), placed(slow, "n1"))
    ids = (AllocationId("slow.0"),)
    told = AllocationsReleasing(ids=ids, how=How.EVICTED, reason=ReasonCode.DRAINED, until=T0 + 30_000)
    happened(state, (about(slow.key, told),))

    found = {row["id"]: (row["waits_for"], row["until"]) for row in staying(state, N1, at_ms=T0)}

    assert found == {"once.0": ("deadline", DEADLINE), "slow.0": ("grace", "2026-01-01T00:00:30Z")}


def test_a_node_that_is_not_drained_holds_nothing_back_and_an_unknown_one_is_not_found() -> None:
    state = a_state(a_node("n1"), placed(a_request(), "n1"))

    assert staying(state, N1, at_ms=T0) == []
    with pytest.raises(NotFound):
        staying(state, NodeId("n9"), at_ms=T0)


def test_only_so_many_are_told_one_by_one() -> None:
    state = a_state(a_node("n1", instances=200))
    for number in range(SHOWN_MAX + 5):
        happened(state, placed(a_request(f"r{number}", cpu=1), "n1"))
    happened(state, (Event(NodeChanged(node=N1, draining=True)),))

    assert len(staying(state, N1, at_ms=T0)) == SHOWN_MAX

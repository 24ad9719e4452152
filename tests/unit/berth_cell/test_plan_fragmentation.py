"""A plan on a live state judges by the shapes that were asked for there, also by those of requests that are over."""

from berth_cell.plan import plan
from berth_scheduler.placement import Placed, place
from tests.builders import T0, a_node, a_request, a_state, ended, happened, placed


def test_a_plan_ranks_by_the_recent_shapes_of_the_state_it_copies() -> None:
    state = a_state(a_node("n1", cpu=4_000), a_node("n2", cpu=3_000))
    for number in range(8):
        request = a_request(f"old-{number}", cpu=4_000)
        happened(state, placed(request, "n1"))
        happened(state, ended(state, request.key))
    before = state.demand.typical
    wanted = a_request("it", cpu=3_000, strategy="fragmentation")

    (decision,) = plan(state, [wanted], at_ms=T0).decisions

    found = place(state, wanted, missing=1, at=T0)
    assert isinstance(found, Placed)
    assert [one.node for one in decision.allocations] == [one.node for one in found.allocations] == ["n2"]
    assert state.demand.typical is before

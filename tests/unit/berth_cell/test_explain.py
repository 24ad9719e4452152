"""Why not, for every node, and the smallest change: a test applies it and sees the request placed."""

import pytest

from berth.errors import NotFound
from berth.ids import Attempt, NodeId, RequestId, Sequence
from berth.messages.events import RequestQueued, Transaction, Wake, WakeOn, about
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth_cell.explain import explain
from berth_cell.plan import plan
from tests.builders import T0, TEAM_A, a_node, a_quota, a_request, a_state, placed, submitted


def queued(request: Request, *reasons: Reason) -> Transaction:
    data = RequestQueued(reasons=reasons, wake=(Wake(on=WakeOn.CAPACITY),), evaluated_at=Sequence(0))
    return (submitted(request), about(request.key, data, attempt=Attempt(1)))


SHORT_OF_CPU = Reason(code=ReasonCode.INSUFFICIENT_CPU, nodes=2, needed=8_000, best_available=5_000)


def test_every_node_is_named_with_its_reasons() -> None:
    waiting = a_request("big", cpu=8_000)
    state = a_state(a_node("n1", cpu=4_000), a_node("n2", cpu=5_000), queued(waiting, SHORT_OF_CPU))

    told = explain(state, waiting.key, at_ms=T0)

    assert told["status"] == "queued"
    assert [(node["node"], node["reasons"][0]["code"]) for node in told["nodes"]] == [
        ("n1", "insufficient_cpu"),
        ("n2", "insufficient_cpu"),
    ]


def test_the_smallest_change_of_the_request_is_one_that_places_it() -> None:
    waiting = a_request("big", cpu=8_000)
    state = a_state(a_node("n1", cpu=4_000), a_node("n2", cpu=5_000), queued(waiting, SHORT_OF_CPU))

    change = explain(state, waiting.key, at_ms=T0)["change"]

    assert (change["node"], change["at_most"]) == ("n2", {"cpu_millicores": 5_000})
    smaller = a_request("smaller", cpu=change["at_most"]["cpu_millicores"])
    assert plan(state, [smaller], at_ms=T0).decisions[0].allocations[0].node == "n2"


def test_a_quota_that_blocks_is_what_has_to_change() -> None:
    reason = Reason(code=ReasonCode.QUOTA_HARD, dimension="cpu_millicores", needed=3_000, best_available=1_000)
    waiting = a_request(cpu=3_000)
    state = a_state(a_node(), a_quota(hard={"cpu_millicores": 4_000}), queued(waiting, reason))

    change = explain(state, waiting.key, at_ms=T0)["change"]

    assert (change["kind"], change["namespace"], change["raise_by"]) == ("quota", TEAM_A, 2_000)


def test_a_node_that_only_another_rule_keeps_away_is_no_reason_to_ask_for_less() -> None:
    picky = a_request(cpu=8_000, constraints=[{"key": "disk", "operator": "exists"}])
    state = a_state(a_node("n1"), queued(picky, Reason(code=ReasonCode.INFEASIBLE)))

    assert explain(state, picky.key, at_ms=T0)["change"] is None


def test_a_placed_request_is_judged_as_if_it_were_placed_anew_and_nothing_changes() -> None:
    web = a_request("web", cpu=8_000)
    state = a_state(a_node("n1", cpu=8_000), placed(web, "n1"))
    before = state.digest()

    told = explain(state, web.key, at_ms=T0)

    assert told["nodes"][0]["feasible"] is True
    assert told["change"] is None
    assert state.digest() == before
    assert state.cluster.used_on(NodeId("n1")).cpu_millicores == 8_000


def test_an_unknown_request_is_not_found() -> None:
    with pytest.raises(NotFound):
        explain(a_state(), (TEAM_A, RequestId("nobody")), at_ms=T0)

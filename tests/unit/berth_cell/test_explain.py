"""Why not, for every node, and the smallest change: a test applies it and sees the request placed."""

import pytest

from berth.errors import NotFound
from berth.ids import Attempt, NodeId, RequestId, Sequence
from berth.messages.events import RequestQueued, Transaction, Wake, WakeOn, about
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth_cell.explain import explain
from tests.builders import T0, TEAM_A, a_node, a_request, a_state, placed, submitted


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


def test_what_was_looked_at_adds_up_and_the_best_nodes_say_why() -> None:
    preference = {"key": "disk", "operator": "equals", "values": ["ssd"], "mode": "preferred", "weight": 5}
    web = a_request("web", cpu=2_000, constraints=[preference])
    state = a_state(
        a_node("n1", cpu=4_000),
        a_node("n2", cpu=8_000, labels={"disk": "ssd"}),
        a_node("n3", cpu=1_000),
        placed(web, "n1"),
    )

    told = explain(state, web.key, at_ms=T0)

    assert (told["examined"], told["feasible"], told["counts"]) == (3, 2, {"insufficient_cpu": 1})
    scores = {one["node"]: one["score"] for one in told["nodes"]}
    assert [one["node"] for one in told["best"]] == ["n2", "n1"]
    for one in told["best"]:
        parts = one["parts"].values()
        weighted = sum(part["score"] * part["weight"] for part in parts)
        assert one["score"] == scores[one["node"]] == weighted // sum(part["weight"] for part in parts), "R48"
    assert told["best"][0]["parts"]["preferred"] == {"score": 1000, "weight": 1}


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

"""`plan`: the services' own decisions on a copy of a state, in document order (DESIGN section 5, "Plan result")."""

import json
from typing import Any

from berth.ids import NodeId, RequestId
from berth.messages.documents import CLUSTER, ClusterDocument
from berth.messages.events import Event, NodeChanged
from berth.messages.requests import Request
from berth.model.ledger import State
from berth_cell.cell import Cell
from berth_cell.plan import plan, plan_document
from berth_cell.seed import of_document
from tests.builders import T0, TEAM_A, a_node, a_quota, a_request

NODES = [
    {"id": "n1", "capacity": {"cpu_cores": 4, "ram_mb": 8_192}, "labels": {"zone": "a"}},
    {"id": "n2", "capacity": {"cpu_cores": 8, "ram_mb": 8_192}, "labels": {"zone": "b"}},
]
RUNNING = {"id": "r0.0", "request": "r0", "namespace": "team-a", "node": "n1", "resources": {"cpu_cores": 3}}


def a_cluster(**document: Any) -> ClusterDocument:
    return CLUSTER.validate_python({"nodes": NODES, **document}, strict=False)


def planned(cluster: ClusterDocument, *requests: Request, explain: bool = False) -> list[dict[str, Any]]:
    """The decisions as scripts read them."""
    result = plan_document(cluster, requests, at_ms=T0, explain=explain)
    return json.loads(json.dumps(result.as_mapping()))["decisions"]


def statuses(decisions: list[dict[str, Any]]) -> dict[str, str]:
    return {decision["request"]: decision["status"] for decision in decisions}


# --- the shape --------------------------------------------------------------------------------------------------


def test_the_result_has_the_documented_shape() -> None:
    result = plan_document(a_cluster(), [a_request("web", cpu=2_000)], at_ms=T0).as_mapping()

    assert list(result)[:3] == ["version", "sequence", "decisions"]
    assert result["version"] == 1
    assert result["utilization"] == {"cpu": round(2 / 12, 6), "ram": 0.0, "disk": 0.0, "instances": round(1 / 220, 6)}
    (decision,) = result["decisions"]
    assert {name: decision[name] for name in ("namespace", "request", "status", "attempt", "earliest_start")} == {
        "namespace": "team-a",
        "request": "web",
        "status": "placed",
        "attempt": 1,
        "earliest_start": None,
    }
    assert decision["allocations"] == [{"id": "web.0", "node": "n1"}]
    assert (decision["evicted"], decision["reasons"]) == ([], [])
    assert decision["quota"] == {"guaranteed": {}, "borrowed": {}, "burst": {}}
    assert "nodes" not in decision


def test_lists_are_lists_in_every_decision() -> None:
    for decision in planned(a_cluster(), a_request("huge", cpu=9_000), a_request("web")):
        assert all(isinstance(decision[name], list) for name in ("allocations", "evicted", "reasons"))


def test_the_reasons_of_one_instance_count_every_node_once() -> None:
    cluster = a_cluster(allocations=[RUNNING])

    (decision,) = planned(cluster, a_request("huge", cpu=8_000, constraints=[_in_zone("b")], ram=9_000))

    assert sum(reason.get("nodes", 0) for reason in decision["reasons"]) == len(NODES)


def _in_zone(zone: str) -> dict[str, Any]:
    return {"key": "zone", "operator": "equals", "values": [zone]}


# --- one after the other ----------------------------------------------------------------------------------------


def test_document_order_is_arrival_order_and_each_sees_the_earlier_ones() -> None:
    first, second = a_request("first", cpu=8_000), a_request("second", cpu=8_000, priority=50)

    assert statuses(planned(a_cluster(), first, second)) == {"first": "placed", "second": "queued"}
    assert statuses(planned(a_cluster(), second, first)) == {"second": "placed", "first": "queued"}


def test_what_was_queued_by_the_plan_stays_so_whatever_comes_after() -> None:
    """`filler` evicts `r0` and leaves room that `patient`, decided before it, would fit into."""
    cluster = a_cluster(
        nodes=NODES[:1],
        allocations=[RUNNING | {"priority": 10}],
        quotas=[{"namespace": "team-a", "hard": {"cpu_cores": 100}}],
    )

    patient, filler = a_request("patient", cpu=2_000, priority=10), a_request("filler", cpu=2_000, priority=90)

    assert statuses(planned(cluster, patient, filler)) == {"patient": "queued", "filler": "placed"}


def test_explain_shows_every_node_as_it_was_before_the_first_instance() -> None:
    cluster = a_cluster(allocations=[RUNNING])
    gang = a_request("gang", cpu=2_000, count=3, constraints=[{**_in_zone("b"), "mode": "preferred", "weight": 7}])

    (decision,) = planned(cluster, gang, explain=True)

    full, free = decision["nodes"]
    assert (full["node"], full["feasible"], full["score"], full["preferred"]) == ("n1", False, None, 0)
    assert [reason["code"] for reason in full["reasons"]] == ["insufficient_cpu"]
    assert (free["node"], free["feasible"], free["reasons"], free["preferred"]) == ("n2", True, [], 7)
    assert 0 <= free["score"] <= 1_000


def test_explain_names_every_failing_reason_of_a_node_and_ignores_quotas() -> None:
    cluster = a_cluster(
        nodes=[NODES[0] | {"schedulable": False}, NODES[1]],
        quotas=[{"namespace": "team-a", "hard": {"cpu_cores": 1}}],
    )

    (decision,) = planned(cluster, a_request("big", cpu=6_000, constraints=[_in_zone("b")]), explain=True)

    assert decision["status"] == "rejected", "more than hard could ever allow"
    n1, n2 = decision["nodes"]
    codes = [reason["code"] for reason in n1["reasons"]]
    assert codes == ["constraint_not_met", "node_cordoned", "insufficient_cpu"]
    assert n2["feasible"]


# --- on a state -------------------------------------------------------------------------------------------------


def a_state_of(cluster: ClusterDocument) -> State:
    return Cell(at_ms=T0, history=of_document(cluster, at_ms=T0)).state


def test_a_plan_on_a_state_says_what_a_plan_on_its_document_says_and_leaves_it_alone() -> None:
    cluster = a_cluster(
        allocations=[RUNNING],
        quotas=[{"namespace": "team-a", "hard": {"cpu_cores": 8}}],
        reservations=[
            {
                "id": "res1",
                "namespace": "team-a",
                "start": "2025-12-31T00:00:00Z",
                "end": "2026-01-02T00:00:00Z",
                "resources": {"cpu_cores": 2},
                "nodes": ["n2"],
            }
        ],
    )
    requests = [a_request("a", cpu=2_000), a_request("b", cpu=2_000, reservation="res1"), a_request("c", cpu=2_000)]
    state = a_state_of(cluster)
    before = state.digest()

    on_state = plan(state, requests, at_ms=T0)
    on_document = plan_document(cluster, requests, at_ms=T0)

    assert _substance(on_state.as_mapping()) == _substance(on_document.as_mapping())
    assert statuses(on_state.as_mapping()["decisions"]) == {"a": "placed", "b": "placed", "c": "queued"}
    assert state.digest() == before


def _substance(result: dict[str, Any]) -> list[Any]:
    kept = ("request", "status", "allocations", "reasons", "quota")
    return [{name: decision[name] for name in kept} for decision in result["decisions"]] + [result["utilization"]]


def test_what_waits_goes_on_waiting_unless_it_is_asked_about() -> None:
    cell = Cell(at_ms=T0, history=[(T0, a_node("n1", cpu=4_000))])
    waiting, other = a_request("waiting", cpu=6_000), a_request("other", cpu=6_000)
    cell.submit([waiting])
    more = [a_node("n2", cpu=8_000)]

    asked = plan(cell.state, [other], at_ms=T0, changes=more)
    assert [decision.status for decision in asked.decisions] == ["placed"]

    asked = plan(cell.state, [waiting], at_ms=T0, changes=more)
    assert [(one.status, one.allocations[0].node) for one in asked.decisions] == [("placed", "n2")]
    assert cell.decisions[TEAM_A, RequestId("waiting")].status == "queued"


def test_what_is_placed_already_is_answered_as_it_stands() -> None:
    cell = Cell(at_ms=T0, history=[(T0, a_node("n1"))])
    web = a_request("web")
    cell.submit([web])

    (decision,) = plan(cell.state, [web], at_ms=T0).decisions

    assert (decision.status, decision.allocations[0].id) == ("placed", "web.0")


def test_changes_come_before_the_requests() -> None:
    state = a_state_of(a_cluster())
    cordoned = (Event(NodeChanged(node=NodeId("n1"), schedulable=False)),)

    (decision,) = plan(state, [a_request("web")], at_ms=T0, changes=[cordoned]).decisions

    assert decision.allocations[0].node == "n2"


def test_a_quota_that_blocks_is_the_reason() -> None:
    cell = Cell(at_ms=T0, history=[(T0, a_node("n1")), (T0, a_quota(hard={"cpu_millicores": 1_500}))])

    first, second = plan(cell.state, [a_request("a"), a_request("b")], at_ms=T0).decisions

    assert (first.status, second.status) == ("placed", "queued")
    assert [reason.code for reason in second.reasons] == ["quota_hard"]
    assert first.quota.guaranteed == {"cpu_millicores": 1_000, "instances": 1}


def test_the_salt_varies_only_the_strategy_random() -> None:
    cluster = a_cluster(nodes=[{"id": f"n{number}", "capacity": {"cpu_cores": 4}} for number in range(20)])
    free, packed = a_request("free", strategy="random"), a_request("packed")

    def nodes(salt: str) -> list[str]:
        result = plan_document(cluster, [free, packed], at_ms=T0, salt=salt)
        return [decision.allocations[0].node for decision in result.decisions]

    chosen = [nodes(salt) for salt in ("", "1", "2", "3")]
    assert nodes("1") == chosen[1]
    assert len({first for first, _ in chosen}) > 1

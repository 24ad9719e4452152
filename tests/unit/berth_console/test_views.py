"""Rows of the folded state in the shapes that scripts rely on."""

import pytest

from berth.ids import AllocationId, Attempt, NodeId, Sequence
from berth.messages.events import (
    AllocationPlaced,
    AllocationsEnded,
    Event,
    How,
    NodeChanged,
    RequestPlaced,
    RequestQueued,
    ReservationEnded,
    Wake,
    WakeOn,
    about,
)
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Effect, Request, Taint
from berth.messages.reservation_events import ReservationStatus
from berth.model.ledger import State
from berth.model.read_models import Row
from berth_console import views
from berth_console.cluster_view import ClusterView, gauges
from berth_console.views import Rows, Selection
from tests.builders import (
    HOUR,
    T0,
    TEAM_A,
    TEAM_B,
    a_node,
    a_quota,
    a_request,
    a_reservation,
    a_state,
    activated,
    ended,
    happened,
    placed,
    submitted,
)

ALL = Selection()
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NO_ROOM = Reason(code=ReasonCode.INSUFFICIENT_CPU, nodes=1, needed=4_000, best_available=2_000)


def rows(found: Rows) -> list[Row]:
    return [row for _, row in found]


def names(found: Rows) -> list[str]:
    return [row["id"] for _, row in found]


def queued(state: State, request: Request) -> None:
    """The request is submitted and waits for room."""
    waits = RequestQueued(reasons=(NO_ROOM,), wake=(Wake(on=WakeOn.CAPACITY),), evaluated_at=Sequence(1))
    happened(state, (submitted(request), about(request.key, waits, attempt=Attempt(1))))


def test_a_request_row_says_where_it_stands() -> None:
    state = a_state(a_node())
    web = a_request("web")
    opened = submitted(web)
    happened(
        state,
        (Event(opened.data, opened.namespace, opened.request, opened.attempt, TRACEPARENT), *placed(web, "n1")[1:]),
    )

    assert rows(views.requests(state, ALL)) == [
        {
            "id": "web",
            "namespace": "team-a",
            "status": "placed",
            "attempt": 1,
            "sequence": 2,
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            "reasons": [],
            "queue_position": None,
            "ahead": [],
            "ahead_because": {},
            "earliest_start": None,
        }
    ]


def test_queued_requests_have_places_by_priority_and_then_by_age() -> None:
    state = a_state(a_node())
    for name, priority in (("old", 50), ("new", 50), ("urgent", 90), ("idle", 0)):
        queued(state, a_request(name, priority=priority))

    found = {row["id"]: row["queue_position"] for row in rows(views.requests(state, ALL))}

    assert found == {"urgent": 1, "old": 2, "new": 3, "idle": 4}
    assert rows(views.requests(state, ALL))[0]["reasons"] == [
        {"code": "insufficient_cpu", "nodes": 1, "needed": 4_000, "best_available": 2_000}
    ]


def test_a_decision_row_is_the_decision_message() -> None:
    state = a_state(a_node(), placed(a_request("web"), "n1"))

    [row] = rows(views.requests(state, Selection(decisions=True)))
    decision = row["decision"]

    assert (decision["request"], decision["status"]) == ("web", "placed")
    assert decision["allocations"] == [{"id": "web.0", "node": "n1"}]
    assert decision["evicted"] == decision["reasons"] == []


def test_an_allocation_row_has_its_charge_with_every_dimension() -> None:
    state = a_state(a_node(extended={"gpu": 4}), placed(a_request("web", cpu=1_500, extended={"gpu": 1}), "n1"))

    assert rows(views.allocations(state, ALL)) == [
        {
            "id": "web.0",
            "request": "web",
            "namespace": "team-a",
            "node": "n1",
            "state": "placed",
            "resources": {"cpu_millicores": 1_500, "ram_mb": 0, "disk_mb": 0, "instances": 1, "extended": {"gpu": 1}},
            "reservation": None,
        }
    ]


def test_allocations_that_ended_are_listed_only_when_everything_is_wanted() -> None:
    web = a_request("web")
    state = a_state(a_node(), placed(web, "n1"), placed(a_request("db"), "n1"))
    happened(state, ended(state, web.key))

    assert names(views.allocations(state, ALL)) == ["db.0"]
    assert names(views.allocations(state, Selection(everything=True))) == ["db.0", "web.0"]


def test_allocations_are_found_by_their_own_id_and_by_that_of_their_request() -> None:
    state = a_state(a_node(), placed(a_request("web", count=2), "n1", "n1"), placed(a_request("db"), "n1"))

    assert names(views.allocations(state, Selection(ids=frozenset({"web"})))) == ["web.0", "web.1"]
    assert names(views.allocations(state, Selection(ids=frozenset({"team-a/web.1"})))) == ["web.1"]


def test_a_node_row_shows_capacity_and_use() -> None:
    taints = (Taint(key="dedicated", value="gpu", effect=Effect.NO_SCHEDULE),)
    state = a_state(a_node(cpu=8_000, labels={"zone": "a"}, taints=taints), placed(a_request(cpu=2_000), "n1"))
    happened(state, (Event(NodeChanged(node=NodeId("n1"), schedulable=False)),))

    [row] = rows(views.nodes(state, ALL))

    assert (row["id"], row["state"], row["schedulable"], row["labels"]) == ("n1", "ready", False, {"zone": "a"})
    assert row["taints"] == [{"key": "dedicated", "value": "gpu", "effect": "no_schedule"}]
    assert (row["capacity"]["cpu_millicores"], row["used"]["cpu_millicores"]) == (8_000, 2_000)
    assert (row["used"]["instances"], row["used"]["disk_mb"], row["used"]["extended"]) == (1, 0, {})


def test_a_node_row_shows_how_far_its_drain_has_come() -> None:
    state = a_state(a_node("n1"), a_node("n2"), placed(a_request("web"), "n1"), placed(a_request("db"), "n1"))
    assert rows(views.nodes(state, ALL))[0]["drain"] is None
    happened(state, (Event(NodeChanged(node=NodeId("n1"), draining=True, drain_until=T0 + 60_000)),))
    leaves = AllocationsEnded(ids=(AllocationId("web.0"),), how=How.EVICTED, reason=ReasonCode.DRAINED)
    charge = a_request("web").charge
    comes = RequestPlaced(allocations=(AllocationPlaced(id=AllocationId("web.0.1"), node=NodeId("n2"), charge=charge),))
    key = a_request("web").key
    happened(state, (about(key, leaves, attempt=Attempt(2)), about(key, comes, attempt=Attempt(2))))

    row = rows(views.nodes(state, ALL))[0]

    assert (row["draining"], row["drain"]) == (
        True,
        {
            "since": "2026-01-01T00:00:00Z",
            "deadline": "2026-01-01T00:01:00Z",
            "moved": 1,
            "evicted": 0,
            "left": 1,
            "releasing": 0,
        },
    )
    drain = {gauge.name: gauge.value for gauge in gauges(state) if "drain" in gauge.name}
    assert drain == {
        "berth.node.drain.moved": 1,
        "berth.node.drain.evicted": 0,
        "berth.node.drain.left": 1,
        "berth.node.drain.deadline": (T0 + 60_000) / 1000,
    }


def test_a_quota_row_shows_limits_and_use_by_dimension() -> None:
    state = a_state(a_node(), a_quota(hard={"cpu_millicores": 4_000}, soft={"cpu_millicores": 3_000}))
    happened(state, placed(a_request(cpu=1_000), "n1"), placed(a_request("free", namespace=TEAM_B), "n1"))

    limited, unlimited = rows(views.quotas(state, ALL))

    assert limited["namespace"] == TEAM_A
    assert (limited["hard"], limited["soft"]) == ({"cpu_millicores": 4_000}, {"cpu_millicores": 3_000})
    assert limited["used"] == {"cpu_millicores": 1_000, "ram_mb": 0, "disk_mb": 0, "instances": 1}
    assert limited["guaranteed"]["cpu_millicores"] == 1_000
    assert (limited["borrowed"], limited["burst"]) == ({}, {})
    assert (limited["available"]["cpu_millicores"], limited["available"]["ram_mb"]) == (2_000, None)
    assert (unlimited["namespace"], unlimited["hard"]) == (TEAM_B, {})
    assert set(unlimited["available"].values()) == {None}


def test_a_reservation_row_shows_its_window_its_nodes_and_what_is_drawn() -> None:
    state = a_state(a_node(), a_reservation(start=T0, end=T0 + HOUR, on={"n1": 1}, cpu=4_000), activated())
    happened(state, placed(a_request("web", cpu=1_000, reservation="res1"), "n1"))

    assert rows(views.reservations(state, ALL)) == [
        {
            "id": "res1",
            "namespace": "team-a",
            "state": "active",
            "start": "2026-01-01T00:00:00Z",
            "end": "2026-01-01T01:00:00Z",
            "nodes": ["n1"],
            "count": 1,
            "held": [{"node": "n1", "count": 1}],
            "resources": {"cpu_millicores": 4_000, "ram_mb": 0, "disk_mb": 0, "instances": 0, "extended": {}},
            "used": {"cpu_millicores": 1_000, "ram_mb": 0, "disk_mb": 0, "instances": 1, "extended": {}},
            "free": {"cpu_millicores": 3_000, "ram_mb": 0, "disk_mb": 0, "instances": 0, "extended": {}},
            "charged": {"cpu_millicores": 4_000, "ram_mb": 0, "disk_mb": 0, "instances": 1, "extended": {}},
            "priority": 50,
            "use": "restricted",
            "on_expiry": "keep",
            "grace_seconds": 0,
            "on_node_loss": "replace_down",
            "owners": [],
            "missing": 0,
            "because": None,
            "ended": None,
            "series": None,
            "occurrence": 1,
            "recurrence": None,
            "next": None,
        }
    ]


def test_a_reservation_that_is_over_is_listed_only_when_it_is_asked_for() -> None:
    state = a_state(a_node(), a_reservation(start=T0 + HOUR, end=T0 + 2 * HOUR, on={"n1": 1}))
    over = ReservationEnded(reservation=next(iter(state.reservations.open)), status=ReservationStatus.CANCELLED)
    happened(state, (Event(over, TEAM_A),))

    assert names(views.reservations(state, ALL)) == []
    assert names(views.reservations(state, Selection(everything=True))) == ["res1"]
    assert names(views.reservations(state, Selection(ids=frozenset({"res1"})))) == ["res1"]


@pytest.mark.parametrize(
    "wanted, found",
    [
        (Selection(), ["a", "b", "a"]),
        (Selection(namespace=TEAM_A), ["a", "b"]),
        (Selection(namespace=TEAM_B), ["a"]),
        (Selection(namespace="nobody"), []),
        (Selection(ids=frozenset({"a"})), ["a", "a"]),
        (Selection(ids=frozenset({"team-b/a"})), ["a"]),
        (Selection(namespace=TEAM_A, ids=frozenset({"a", "unknown"})), ["a"]),
        (Selection(namespace=TEAM_A, ids=frozenset({"team-b/a"})), []),
        (Selection(after="team-a/a"), ["b", "a"]),
        (Selection(after="team-a/b"), ["a"]),
        (Selection(namespace=TEAM_A, ids=frozenset({"a", "b"}), after="team-a/a"), ["b"]),
    ],
)
def test_rows_are_selected_by_namespace_id_and_cursor(wanted: Selection, found: list[str]) -> None:
    state = a_state(a_node())
    for request in (a_request("b"), a_request("a"), a_request("a", namespace=TEAM_B)):
        happened(state, placed(request, "n1"))

    assert names(views.requests(state, wanted)) == found


def test_the_overview_counts_what_there_is_and_follows_the_state() -> None:
    web = a_request("web")
    state = a_state(a_node("n1"), a_node("n2"), placed(web, "n1"))
    view = ClusterView(state, lambda: None)

    before = view.overview()
    happened(state, ended(state, web.key))

    assert (before.leader, before.term, before.sequence, before.nodes) == ("raft-1", 1, 1, {"ready": 2})
    assert (before.requests, before.allocations) == ({"placed": 1}, {"placed": 1})
    assert view.overview().requests == {"released": 1}


def test_gauges_are_computed_from_the_state() -> None:
    state = a_state(a_node("n1", cpu=8_000, ram=0, disk=0), placed(a_request("web", cpu=1_000), "n1"))

    found = {
        (gauge.name, *(value for _, value in gauge.labels)): gauge.value
        for gauge in ClusterView(state, lambda: None).gauges()
    }

    assert found == {
        ("berth.requests", "team-a", "placed"): 1,
        ("berth.node.capacity", "cpu_millicores", "n1"): 8_000,
        ("berth.node.capacity", "instances", "n1"): 110,
        ("berth.node.used", "cpu_millicores", "n1"): 1_000,
        ("berth.node.used", "instances", "n1"): 1,
        ("berth.node.free", "cpu_millicores", "n1"): 7_000,
        ("berth.node.free", "instances", "n1"): 109,
        ("berth.cluster.utilization", "cpu_millicores"): 0.125,
        ("berth.cluster.utilization", "instances"): 0.009091,
        ("berth.cluster.fragmentation", "cpu_millicores"): 0.0,
        ("berth.cluster.fragmentation", "instances"): 0.0,
        ("berth.quota.used", "cpu_millicores", "team-a"): 1_000,
        ("berth.quota.used", "instances", "team-a"): 1,
        ("berth.quota.drift",): 0,
    }


def test_a_state_without_a_record_is_an_empty_cluster() -> None:
    state = State()

    for table in (views.requests, views.allocations, views.nodes, views.quotas, views.reservations):
        assert rows(table(state, ALL)) == []
    assert ClusterView(state, lambda: None).overview().leader == ""

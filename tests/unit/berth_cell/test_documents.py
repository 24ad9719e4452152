"""What a cluster document means, and which documents are none (DESIGN section 5, "Cluster document")."""

from typing import Any

import pytest

from berth.errors import InvalidCommand
from berth.messages.decisions import Decision
from berth.messages.documents import CLUSTER
from berth.messages.requests import Request
from berth_cell.plan import plan_document
from tests.builders import MINUTE, T0, a_request

NODE = {"id": "n1", "capacity": {"cpu_cores": 8, "ram_mb": 16_384}}


def planned(document: dict[str, Any], *requests: Request) -> list[Decision]:
    cluster = CLUSTER.validate_python({"nodes": [NODE], **document}, strict=False)
    return list(plan_document(cluster, requests, at_ms=T0).decisions)


def outcome(decision: Decision) -> tuple[str, list[str]]:
    return decision.status, [reason.code for reason in decision.reasons]


def an_allocation(request: str, cpu: float = 1, **document: Any) -> dict[str, Any]:
    amounts = {"cpu_cores": cpu}
    return {
        "id": f"{request}.0",
        "request": request,
        "namespace": "team-a",
        "node": "n1",
        "resources": amounts,
        **document,
    }


def a_window(start: str, end: str, cpu: float = 4, **document: Any) -> dict[str, Any]:
    amounts = {"cpu_cores": cpu}
    return {"id": "res1", "namespace": "team-a", "start": start, "end": end, "resources": amounts, **document}


# --- nodes ------------------------------------------------------------------------------------------------------


def test_instances_left_out_are_110_and_other_resources_are_none() -> None:
    full = a_request("full", cpu=0, count=110)

    placed, more = planned({}, full, a_request("one-more", cpu=0))
    (disk,) = planned({}, a_request("disk", extended={"gpu": 1}))

    assert (placed.status, outcome(more)) == ("placed", ("queued", ["insufficient_instances"]))
    assert disk.reasons[0].code == "infeasible"


def test_what_is_reserved_for_the_system_is_nobodys() -> None:
    node = NODE | {"reserved": {"cpu_cores": 2}}

    (decision,) = planned({"nodes": [node]}, a_request("web", cpu=7_000))

    assert outcome(decision) == ("queued", ["infeasible", "insufficient_cpu"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"schedulable": False}, "node_cordoned"), ({"state": "lost"}, "node_lost")],
)
def test_a_node_that_takes_nothing_says_why(change: dict[str, Any], reason: str) -> None:
    (decision,) = planned({"nodes": [NODE | change]}, a_request("web"))

    assert reason in outcome(decision)[1]


def test_a_node_that_left_is_not_there() -> None:
    (decision,) = planned({"nodes": [NODE | {"state": "left"}]}, a_request("web"))

    assert outcome(decision) == ("queued", ["infeasible"])


def test_an_over_committed_node_takes_what_asks_for_nothing_of_what_is_over_used() -> None:
    allocations = [an_allocation("r0", 20)]

    cpu, ram = planned({"allocations": allocations}, a_request("cpu"), a_request("ram", cpu=0, ram=1_024))

    assert (cpu.status, ram.status) == ("queued", "placed")


# --- allocations ------------------------------------------------------------------------------------------------


def test_what_runs_uses_its_node_and_its_quota() -> None:
    quotas = [{"namespace": "team-a", "hard": {"cpu_cores": 5}}]

    one, two = planned({"allocations": [an_allocation("r0", 4)], "quotas": quotas}, a_request("one"), a_request("two"))

    assert one.status == "placed"
    assert outcome(two) == ("queued", ["quota_hard"])


def test_what_was_over_before_now_runs_no_more() -> None:
    over = an_allocation("r0", 8, placed_at="2025-12-31T00:00:00Z", ends_at="2025-12-31T01:00:00Z")

    (decision,) = planned({"allocations": [over]}, a_request("web", cpu=8_000))

    assert decision.status == "placed"


def test_nothing_was_placed_later_than_now() -> None:
    """Otherwise the plan would be made at that time, when this window is over."""
    future = an_allocation("r0", 1, placed_at="2027-01-01T00:00:00Z")
    window = a_window("2025-12-31T00:00:00Z", "2026-01-02T00:00:00Z", nodes=["n1"])

    (decision,) = planned({"allocations": [future], "reservations": [window]}, a_request("web", cpu=4_000))

    assert outcome(decision) == ("queued", ["held_by_reservation"])


def test_instances_of_one_request_may_be_placed_at_different_times() -> None:
    instances = [
        an_allocation("r0", 2, placed_at="2025-12-30T00:00:00Z"),
        an_allocation("r0", 2, id="r0.1", placed_at="2025-12-31T00:00:00Z"),
    ]

    (decision,) = planned({"allocations": instances}, a_request("web", cpu=5_000))

    assert outcome(decision) == ("queued", ["insufficient_cpu"])


# --- reservations -----------------------------------------------------------------------------------------------


def test_a_window_that_has_begun_is_active_and_its_owner_draws_on_it() -> None:
    window = a_window("2025-12-31T23:00:00Z", "2026-01-01T01:00:00Z", nodes=["n1"])

    mine, others, rest = planned(
        {"reservations": [window]},
        a_request("mine", cpu=4_000, reservation="res1"),
        a_request("others", cpu=5_000, namespace="team-b"),
        a_request("rest", cpu=4_000, namespace="team-b"),
    )

    assert (mine.status, others.status, rest.status) == ("placed", "queued", "placed")


def test_a_window_to_come_is_kept_free_for_its_time() -> None:
    window = a_window("2026-01-01T00:10:00Z", "2026-01-01T01:00:00Z", cpu=8, nodes=["n1"])

    endless, backfill, drawing = planned(
        {"nodes": [NODE, NODE | {"id": "n2", "schedulable": False}], "reservations": [window]},
        a_request("endless"),
        a_request("backfill", duration_seconds=10 * MINUTE // 1_000),
        a_request("drawing", reservation="res1"),
    )

    assert outcome(endless) == ("queued", ["node_cordoned", "held_by_reservation"])
    assert backfill.status == "placed"
    assert outcome(drawing) == ("queued", ["reservation_not_active"])
    assert drawing.reasons[0].nodes == 2, "on each of them"


def test_a_window_without_nodes_is_held_where_it_would_be_booked() -> None:
    nodes = [NODE | {"id": "full"}, NODE | {"id": "free"}]
    running = an_allocation("r0", 8, node="full")
    window = a_window("2025-12-31T23:00:00Z", "2026-01-01T01:00:00Z", cpu=8)

    (decision,) = planned(
        {"nodes": nodes, "allocations": [running | {"placed_at": "2025-12-31T00:00:00Z"}], "reservations": [window]},
        a_request("mine", cpu=8_000, reservation="res1"),
    )

    assert [one.node for one in decision.allocations] == ["free"]


def test_a_window_that_nobody_may_book_is_held_all_the_same() -> None:
    window = a_window("2025-12-31T23:00:00Z", "2026-01-01T01:00:00Z", cpu=8, count=2, nodes=["n1"])

    (decision,) = planned({"reservations": [window]}, a_request("web"))

    assert outcome(decision) == ("queued", ["held_by_reservation"])


def test_a_window_on_no_node_is_held_nowhere() -> None:
    window = a_window("2025-12-31T23:00:00Z", "2026-01-01T01:00:00Z")

    (decision,) = planned({"nodes": [], "reservations": [window]}, a_request("web"))

    assert outcome(decision) == ("queued", ["infeasible"])


# --- what is no document ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"allocations": [an_allocation("r0", node="nowhere")]}, "cluster.allocations[0].node"),
        (
            {"reservations": [a_window("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", nodes=["n1", "nowhere"])]},
            "cluster.reservations[0].nodes[1]",
        ),
        ({"nodes": [NODE, NODE]}, "cluster.nodes[1]"),
        ({"allocations": [an_allocation("r0"), an_allocation("r0")]}, "cluster.allocations[1]"),
        (
            {"cohorts": [{"name": "a", "parent": "b"}, {"name": "b", "parent": "a"}]},
            "cluster.cohorts[0].parent",
        ),
    ],
)
def test_a_document_that_contradicts_itself_is_refused_with_its_path(document: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidCommand) as refused:
        planned(document, a_request("web"))

    assert path in [problem.path for problem in refused.value.problems]


def test_a_request_stands_once() -> None:
    with pytest.raises(InvalidCommand) as refused:
        planned({}, a_request("web"), a_request("other"), a_request("web"))

    (problem,) = refused.value.problems
    assert (problem.path, problem.expected) == ("requests[2].id", "expected each once, requests[0] has it")

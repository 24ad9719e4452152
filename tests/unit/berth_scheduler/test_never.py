"""What could never be placed says so at once and precisely; what only has to wait does not."""

from typing import Any

import pytest

from berth.messages.events import NodeChanged
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Request
from berth.model.ledger import State
from berth_scheduler.placement import place
from berth_scheduler.unplaceable import Unplaceable
from tests.builders import T0, Event, NodeId, a_node, a_request, a_state, placed

WEB = {"app": "web"}


def never(state: State, request: Request) -> str | None:
    """Why it could never be placed, in detail; None: it waits."""
    found = place(state, request, missing=request.count, at=T0)
    assert isinstance(found, Unplaceable)
    first = found.reasons[0]
    if first.code is not ReasonCode.INFEASIBLE:
        return None
    assert [wake.on for wake in found.wake] == ["nodes"]
    return first.detail or ""


def apart(key: str, **more: Any) -> dict[str, Any]:
    return {"match_labels": WEB, "topology_key": key, **more}


def a_cluster(*zones: str) -> State:
    return a_state(*(a_node(f"n{number}", cpu=4_000, labels={"zone": zone}) for number, zone in enumerate(zones)))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (
            a_request(cpu=9_000),
            "the largest of the nodes that suit has 4000 cpu_millicores, 9000 are asked for",
        ),
        (
            a_request(cpu=1, constraints=[{"key": "zone", "operator": "in", "values": ["a"]}], ram=99_999),
            "the largest of the nodes that suit has 16384 ram_mb, 99999 are asked for",
        ),
        (a_request(node="n9"), "there is no node n9"),
        (a_request(constraints=[{"key": "disk", "operator": "exists"}]), ""),
        (a_request(spread=[{"topology_key": "rack", "match_labels": WEB}]), ""),
        (a_request(count=7, cpu=2_000), "the empty cluster has room for 6, 7 must run"),
        (
            a_request(count=4, cpu=10, labels=WEB, anti_affinity=[apart("node")]),
            "anti-affinity to itself in node leaves room for 3, 4 must run",
        ),
        (
            a_request(count=3, cpu=10, labels=WEB, anti_affinity=[apart("zone")]),
            "anti-affinity to itself in zone leaves room for 2, 3 must run",
        ),
        (
            a_request(count=2, cpu=10, labels=WEB, affinity=[apart("zone")], anti_affinity=[apart("zone")]),
            "affinity and anti-affinity to itself in zone leave room for 1, 2 must run",
        ),
        (
            a_request(count=5, cpu=10, labels=WEB, spread=[apart("zone", min_domains=3, max_skew=2)]),
            "3 domains of zone are wanted and there are 2, which leaves room for 4, 5 must run",
        ),
        (
            a_request(
                constraints=[
                    {"key": "zone", "operator": "equals", "values": ["a"]},
                    {"key": "zone", "operator": "equals", "values": ["b"]},
                ]
            ),
            "zone equals a contradicts zone equals b",
        ),
    ],
)
def test_what_no_cluster_like_this_could_hold_says_why(request_: Request, said: str) -> None:
    assert never(a_cluster("a", "a", "b"), request_) == said


def test_a_gang_of_which_fewer_must_run_is_judged_by_those() -> None:
    apart_everywhere = a_request(count=4, min_count=3, cpu=10, labels=WEB, anti_affinity=[apart("node")])

    found = place(a_cluster("a", "a", "b"), apart_everywhere, missing=4, at=T0)

    assert not isinstance(found, Unplaceable) and len(found.allocations) == 3


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (a_request(cpu=2_000), "it is full: somebody may leave"),
        (a_request(cpu=10, affinity=[apart("zone")]), "somebody may come"),
        (
            a_request(count=3, cpu=10, labels=WEB, spread=[apart("zone", max_skew=1)]),
            "R35: there are enough domains; others may raise the minimum",
        ),
    ],
)
def test_what_others_may_mend_waits(request_: Request, why: str) -> None:
    state = a_state(
        a_node("n1", cpu=2_000, labels={"zone": "a"}),
        a_node("n2", cpu=2_000, labels={"zone": "b"}),
        placed(a_request("full-1", cpu=1_985, labels={"app": "web"} if "enough" in why else {}), "n1"),
        placed(a_request("full-2", cpu=2_000), "n2"),
    )

    assert never(state, request_) is None, why


def test_a_node_that_will_come_back_still_counts() -> None:
    cordoned = (Event(NodeChanged(node=NodeId("n0"), schedulable=False)),)
    state = a_state(a_node("n0", cpu=4_000), cordoned)

    assert never(state, a_request(cpu=3_000)) is None
    assert never(state, a_request(cpu=5_000)) is not None

"""The smallest change that explain names is applied as a reader would apply it, and the request is placed."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from berth.ids import Attempt, NodeId, RequestId, ReservationId, Sequence
from berth.messages.events import (
    Event,
    NodeChanged,
    RequestQueued,
    RequestStatus,
    Transaction,
    Wake,
    WakeOn,
    about,
)
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth.model.ledger import State
from berth_cell import seed
from berth_cell.cell import Cell
from berth_cell.explain import explain
from berth_cell.plan import plan
from berth_quota.administration import stated
from tests.builders import (
    HOUR,
    MINUTE,
    T0,
    TEAM_A,
    a_node,
    a_quota,
    a_request,
    a_reservation,
    a_state,
    ended,
    happened,
    placed,
    submitted,
)
from tests.unit.berth_scheduler.test_placement_properties import clusters, requests

WEB = {"app": "web"}


def waiting(state: State, request: Request) -> None:
    """The request is queued, for whatever reason."""
    data = RequestQueued(
        reasons=(Reason(code=ReasonCode.INFEASIBLE),),
        wake=(Wake(on=WakeOn.NODES),),
        evaluated_at=Sequence(0),
    )
    happened(state, (submitted(request), about(request.key, data, attempt=Attempt(1))))


def proposed(state: State, request: Request) -> dict[str, Any] | None:
    waiting(state, request)
    before = state.digest()
    change = explain(state, request.key, at_ms=T0)["change"]
    assert state.digest() == before, "it was only tried"
    return change


def smallest(state: State, request: Request) -> dict[str, Any]:
    change = proposed(state, request)
    assert change is not None
    return change


# --- what a reader does with it ----------------------------------------------------------------------------------


def placed_after(state: State, request: Request, change: dict[str, Any]) -> bool:
    """Apply `change` and submit the request as if it came then."""
    if change["kind"] == "time":
        return placed_at(state, request, change["at"])
    document, happening = dict(request.document()), _happening(state, change)
    match change["kind"]:
        case "toleration":
            document["tolerations"] = [*document.get("tolerations", []), change["toleration"]]
        case "request":
            document["resources"] = _reduced(document["resources"], change["at_most"])
        case "preemption":
            document |= {name: change[name] for name in ("priority", "preemption")}
        case "count":
            document |= {"count": change["count"], "min_count": None}
        case "drop" if change["index"] is None:
            document.pop(change["field"])
        case "drop":
            del document[change["field"]][change["index"]]
        case _:
            assert happening, change
    asked = Request.model_validate(document, strict=False)
    (decision,) = plan(state, [asked], at_ms=T0, changes=happening).decisions
    if change["kind"] == "preemption":
        assert [one.allocation for one in decision.evicted] == [one["allocation"] for one in change["evicted"]]
    return decision.status is RequestStatus.PLACED


def _happening(state: State, change: dict[str, Any]) -> list[Transaction]:
    match change["kind"]:
        case "uncordon":
            return [(Event(NodeChanged(node=change["node"], schedulable=True, draining=False)),)]
        case "label":
            labels = dict(state.cluster.nodes[change["node"]].labels)
            labels.pop(change["key"], None)
            if change["value"] is not None:
                labels[change["key"]] = change["value"]
            return [(Event(NodeChanged(node=change["node"], labels=labels)),)]
        case "release":
            return [ended(state, (change["namespace"], RequestId(change["request"])))]
        case "quota":
            quota = state.quotas.quotas[change["namespace"]]
            limits = {"hard": dict(quota.hard), "soft": dict(quota.soft)}
            for one in change["raised"]:
                limits[one["limit"]][one["dimension"]] = one["to"]
            return [(stated(replace(quota, hard=limits["hard"], soft=limits["soft"])),)]
        case _:
            return []


def _reduced(resources: dict[str, Any], at_most: dict[str, int]) -> dict[str, Any]:
    amounts = {**resources, "extended": dict(resources.get("extended", {}))}
    for dimension, amount in at_most.items():
        match dimension:
            case "cpu_millicores":
                amounts["cpu_cores"] = amount / 1000
            case "ram_mb" | "disk_mb":
                amounts[dimension] = amount
            case _:
                amounts["extended"][dimension] = amount
    return amounts


def placed_at(state: State, request: Request, at: str) -> bool:
    """The request waits in a cell until then."""
    cell = Cell(at_ms=T0, history=seed.of_state(state))
    cell.advance(int(datetime.fromisoformat(at).timestamp() * 1000) + MINUTE)
    return cell.state.queue.requests[request.key].status is RequestStatus.PLACED


# --- kind by kind ------------------------------------------------------------------------------------------------


def test_the_least_of_an_amount_that_is_too_much() -> None:
    state = a_state(a_node("n1", cpu=4_000), a_node("n2", cpu=5_000))
    big = a_request("big", cpu=8_000)

    change = smallest(state, big)

    assert (change["kind"], change["node"], change["at_most"]) == ("request", "n2", {"cpu_millicores": 5_000})
    assert change["sentence"] == "ask for at most 5000 cpu_millicores: n2 has that"
    assert placed_after(state, big, change)


def test_an_extended_resource_is_an_amount_like_any_other() -> None:
    state = a_state(a_node("n1", extended={"gpu": 2}), a_node("n2"))
    trains = a_request(extended={"gpu": 4})

    change = smallest(state, trains)

    assert change["at_most"] == {"gpu": 2}
    assert placed_after(state, trains, change)


def test_a_quota_that_blocks_is_what_has_to_change() -> None:
    state = a_state(a_node(), a_quota(hard={"cpu_millicores": 4_000, "ram_mb": 100}))
    happened(state, placed(a_request("old", cpu=3_000, ram=50), "n1"))
    web = a_request(cpu=3_000, ram=100)

    change = smallest(state, web)

    assert (change["kind"], change["namespace"], change["dimension"], change["raise_by"]) == (
        "quota",
        TEAM_A,
        "cpu_millicores",
        2_000,
    )
    assert [(one["dimension"], one["limit"], one["to"]) for one in change["raised"]] == [
        ("cpu_millicores", "hard", 6_000),
        ("ram_mb", "hard", 150),
    ]
    assert placed_after(state, web, change)


def test_a_node_that_is_only_cordoned_is_uncordoned() -> None:
    state = a_state(a_node("n1"), a_node("n2", cpu=100))
    happened(state, (Event(NodeChanged(node=NodeId("n1"), schedulable=False)),))
    web = a_request()

    change = smallest(state, web)

    assert change == {"kind": "uncordon", "node": "n1", "sentence": "uncordon n1"}
    assert placed_after(state, web, change)


@pytest.mark.parametrize(
    ("taints", "toleration"),
    [
        (
            [{"key": "gpu", "value": "a", "effect": "no_schedule"}],
            {"operator": "equals", "key": "gpu", "value": "a", "effect": "no_schedule"},
        ),
        (
            [{"key": "gpu", "effect": "no_schedule"}, {"key": "gpu", "effect": "no_execute"}],
            {"operator": "exists", "key": "gpu"},
        ),
        (
            [{"key": "gpu", "effect": "no_schedule"}, {"key": "old", "effect": "no_execute"}],
            {"operator": "exists"},
        ),
    ],
)
def test_r19_the_narrowest_toleration_that_will_do(taints: list[dict[str, Any]], toleration: dict[str, Any]) -> None:
    state = a_state(a_node("n1", taints=taints))
    web = a_request()

    change = smallest(state, web)

    assert change["toleration"] == toleration
    assert placed_after(state, web, change)


@pytest.mark.parametrize(
    ("document", "label"),
    [
        ({"constraints": [{"key": "disk", "operator": "in", "values": ["ssd"]}]}, ("disk", "ssd")),
        ({"constraints": [{"key": "zone", "operator": "not_in", "values": ["a"]}]}, ("zone", None)),
        ({"constraints": [{"key": "size", "operator": "gt", "values": ["7"]}]}, ("size", "8")),
        ({"any_of": [[{"key": "disk", "operator": "equals", "values": ["ssd"]}]]}, ("disk", "ssd")),
        ({"spread": [{"topology_key": "rack", "match_labels": WEB}]}, ("rack", "r1")),
    ],
)
def test_a_label_that_is_missing_or_in_the_way(document: dict[str, Any], label: tuple[str, str | None]) -> None:
    elsewhere = a_node("n2", cpu=1, labels={"rack": "r1", "zone": "a"})
    state = a_state(a_node("n1", labels={"zone": "a"}), elsewhere)
    web = a_request(**document)

    change = smallest(state, web)

    assert (change["node"], change["key"], change["value"]) == ("n1", *label)
    assert placed_after(state, web, change)


def test_a_point_in_time_at_which_something_ends() -> None:
    state = a_state(a_node("n1"))
    happened(state, placed(a_request("job", cpu=6_000, duration_seconds=3_600), "n1"), at=T0)
    web = a_request(cpu=8_000)

    change = smallest(state, web)

    assert (change["kind"], change["at"]) == ("time", "2026-01-01T01:00:00Z")
    assert placed_after(state, web, change)


def test_a_reservation_that_has_not_begun_is_waited_for() -> None:
    state = a_state(a_node("n1"), a_reservation(start=T0 + HOUR, end=T0 + 2 * HOUR, on={"n1": 1}))
    drawing = a_request(cpu=4_000, reservation="res1")

    change = smallest(state, drawing)

    assert (change["kind"], change["at"]) == ("time", "2026-01-01T01:00:00Z")
    assert placed_after(state, drawing, change)
    assert ReservationId("res1") in state.reservations.reservations


def test_what_fits_by_now_only_waits_for_its_turn() -> None:
    change = smallest(a_state(a_node("n1")), a_request())

    assert change["kind"] == "time"
    assert change["sentence"] == "wait: it fits now, and is placed when its turn comes"


def test_the_lowest_priority_from_which_on_it_preempts() -> None:
    state = a_state(a_node("n1", cpu=4_000))
    happened(state, placed(a_request("low", cpu=2_000, priority=60), "n1"))
    happened(state, placed(a_request("high", cpu=2_000, priority=80), "n1"))
    apart = [{"match_labels": WEB, "topology_key": "node"}]
    web = a_request(cpu=1_000, labels=WEB, anti_affinity=apart)
    happened(state, placed(a_request("web-0", cpu=0, priority=70, labels=WEB), "n1"))

    change = smallest(state, web)

    assert (change["kind"], change["priority"]) == ("preemption", 71)
    assert placed_after(state, web, change)


def test_fewer_instances() -> None:
    state = a_state(a_node("n1"), a_node("n2"))
    apart = [{"match_labels": WEB, "topology_key": "node"}]
    gang = a_request(count=3, labels=WEB, anti_affinity=apart)

    change = smallest(state, gang)

    assert change == {"kind": "count", "count": 2, "sentence": "ask for 2 instances at most"}
    assert placed_after(state, gang, change)


def test_another_namespaces_request_that_keeps_it_away_would_have_to_leave() -> None:
    state = a_state(a_node("n1"))
    term: dict[str, Any] = {"match_labels": {}, "topology_key": "node", "namespaces": [TEAM_A]}
    happened(state, placed(a_request("hermit", namespace="team-b", anti_affinity=[term]), "n1"))
    web = a_request()

    change = smallest(state, web)

    assert (change["kind"], change["request"]) == ("release", "hermit")
    assert placed_after(state, web, change)


def test_r5_of_two_rules_that_contradict_each_other_one_is_left_out() -> None:
    state = a_state(a_node("n1", labels={"zone": "a"}))
    both = [{"key": "zone", "operator": "equals", "values": [zone]} for zone in ("b", "a")]
    web = a_request(constraints=both)

    change = smallest(state, web)

    assert change == {"kind": "drop", "field": "constraints", "index": 0, "sentence": "leave out constraints[0]"}
    assert placed_after(state, web, change)


def test_where_no_single_change_would_do_none_is_named() -> None:
    assert proposed(a_state(), a_request()) is None


# --- any cluster -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(clusters(), requests(), some.sampled_from([0, 1]))
def test_whatever_the_cluster_the_change_that_is_named_places_the_request(
    cluster: tuple[State, Any], request_: Request, hard: int
) -> None:
    state, _ = cluster
    if hard:
        happened(state, a_quota(request_.namespace, hard={"cpu_millicores": 1_000}))
    (now,) = plan(state, [request_], at_ms=T0).decisions
    if now.status is RequestStatus.PLACED:
        return

    change = proposed(state, request_)

    if change is not None:
        assert placed_after(state, request_, change), change

"""Random clusters against the reference: no rule is broken, and nothing is refused that has a place."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from berth.ids import NodeId, ReservationId
from berth.messages.events import Event, NodeChanged, RequestStatus, ReservationEnded, Transaction
from berth.messages.requests import Request, Taint
from berth.messages.reservation_events import ReservationStatus
from berth.model.check import check
from berth.model.ledger import State
from berth_cell.plan import plan
from berth_scheduler.board import Board
from berth_scheduler.placement import Placed, node_verdicts, place
from tests.builders import (
    HOUR,
    T0,
    TEAM_A,
    TEAM_B,
    a_node,
    a_request,
    a_reservation,
    a_state,
    activated,
    ended,
    happened,
    placed,
    submitted,
)
from tests.unit.berth_scheduler import reference
from tests.unit.berth_scheduler.reference import Picture, Running

TAINTS = [("old", "no_schedule"), ("new", "no_execute"), ("old", "prefer_no_schedule")]
APPS = ["web", "db"]
KEYS = ["node", "zone", "rack"]

labels = some.fixed_dictionaries({}, optional={"app": some.sampled_from(APPS), "tier": some.just("front")})
node_labels = some.fixed_dictionaries({}, optional={"zone": some.sampled_from("ab"), "rack": some.sampled_from("xy")})
rows = some.fixed_dictionaries(
    {
        "cpu": some.integers(0, 4),
        "labels": node_labels,
        "schedulable": some.sampled_from([True, True, True, False]),
        "gpu": some.integers(0, 2),
        "taints": some.lists(some.sampled_from(TAINTS), max_size=2, unique=True) | some.just([]),
    }
)
terms = some.fixed_dictionaries(
    {"match_labels": labels, "topology_key": some.sampled_from(KEYS)},
    optional={"mode": some.just("preferred"), "weight": some.integers(0, 3)},
)
spreads = some.fixed_dictionaries(
    {"match_labels": labels, "topology_key": some.sampled_from(KEYS), "max_skew": some.integers(1, 2)},
    optional={"mode": some.just("preferred"), "min_domains": some.integers(1, 3)},
)
VALUES = some.lists(some.sampled_from("ab"), min_size=1, unique=True)
constraints = some.one_of(
    some.fixed_dictionaries(
        {"key": some.just("zone"), "operator": some.sampled_from(["in", "not_in"]), "values": VALUES}
    ),
    some.fixed_dictionaries(
        {"key": some.sampled_from(["zone", "rack"]), "operator": some.sampled_from(["exists", "not_exists"])}
    ),
)
alternatives = some.lists(some.lists(constraints, max_size=2), min_size=1, max_size=2)
tolerations = some.sampled_from(
    [
        [],
        [{"operator": "exists"}],
        [{"operator": "exists", "key": "old"}],
        [{"operator": "exists", "key": "new", "effect": "no_execute"}],
    ]
)


@some.composite
def requests(draw: Any, name: str = "new") -> Request:
    return a_request(
        name,
        namespace=draw(some.sampled_from([TEAM_A, TEAM_A, TEAM_B])),
        cpu=draw(some.integers(0, 2)) * 1000,
        count=draw(some.integers(1, 3)),
        labels=draw(labels),
        strategy=draw(some.sampled_from(["binpack", "spread", "random", "affinity"])),
        constraints=draw(some.lists(constraints, max_size=1)),
        affinity=draw(some.lists(terms, max_size=2)),
        anti_affinity=draw(some.lists(terms, max_size=1)),
        spread=draw(some.lists(spreads, max_size=1)),
        any_of=draw(some.just([]) | some.just([]) | alternatives),
        extended={"gpu": draw(some.sampled_from([0, 0, 1]))},
        tolerations=draw(tolerations),
    )


@some.composite
def clusters(draw: Any) -> tuple[State, Picture]:
    """Up to five nodes on which up to four allocations run, as a state and as a picture."""
    nodes = {f"n{number}": row for number, row in enumerate(draw(some.lists(rows, min_size=1, max_size=5)))}
    state = a_state(*(_registered(name, row) for name, row in nodes.items()))
    running: list[Running] = []
    for number in range(draw(some.integers(0, 4))):
        node = draw(some.sampled_from(sorted(nodes)))
        request = a_request(
            f"old-{number}",
            namespace=draw(some.sampled_from([TEAM_A, TEAM_B])),
            cpu=draw(some.integers(0, 1)) * 1000,
            labels=draw(labels),
            anti_affinity=draw(some.lists(terms, max_size=1)),
            extended={"gpu": draw(some.sampled_from([0, 1]))},
            priority=draw(some.sampled_from([10, 50])),
        )
        happened(state, placed(request, node))
        cpu, gpu = request.vector.cpu_millicores, request.vector.amount("gpu")
        running.append(
            Running(node, request.namespace, request.labels, cpu, request.anti_affinity, gpu, request.priority)
        )
    return state, Picture({name: {**row, "cpu": row["cpu"] * 1000} for name, row in nodes.items()}, tuple(running))


def _registered(name: str, row: dict[str, Any]) -> Transaction:
    taints = tuple(Taint.model_validate({"key": key, "effect": effect}, strict=False) for key, effect in row["taints"])
    gpus = {"gpu": row["gpu"]} if row["gpu"] else {}
    registered = a_node(name, cpu=row["cpu"] * 1000, labels=row["labels"], taints=taints, extended=gpus)
    return (*registered, Event(NodeChanged(node=NodeId(name), schedulable=row["schedulable"])))


@pytest.mark.slow
@given(clusters(), requests())
def test_a_request_is_placed_exactly_if_an_assignment_exists_and_the_assignment_is_lawful(
    cluster: tuple[State, Picture], request_: Request
) -> None:
    state, picture = cluster

    found = place(state, request_, missing=request_.count, at=T0)

    lawful = set(reference.assignments(picture, request_, request_.count))
    if isinstance(found, Placed):
        assert tuple(one.node for one in found.allocations) in lawful
        assert check(state, _offered(request_, found), T0) is None, "the leader agrees"
    else:
        assert not lawful
        if request_.count == 1:
            assert sum(reason.nodes for reason in found.reasons) == len(state.cluster.nodes)
            assert all(reason.nodes or reason.code.value == "infeasible" for reason in found.reasons)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=2_000)
@given(clusters(), requests())
def test_in_2000_random_clusters_no_plan_breaks_a_rule_and_what_is_queued_has_no_place_even_where_others_leave(
    cluster: tuple[State, Picture], request_: Request
) -> None:
    """Constraints, alternatives, taints, affinity with symmetry, spread, extended resources, gangs and preemption, by
    the services themselves.
    """
    state, picture = cluster

    (decision,) = plan(state, [request_], at_ms=T0).decisions

    evicted = {one.allocation for one in decision.evicted}
    below = [one for one in picture.running if one.namespace == request_.namespace and one.priority < request_.priority]
    names = {f"old-{place}.0": one for place, one in enumerate(picture.running)}
    victims = [names[name] for name in sorted(evicted)]
    if decision.status is RequestStatus.PLACED:
        assert all(any(one is other for other in below) for one in victims), "R53"
        lawful = reference.assignments(picture.without(victims), request_, request_.count)
        assert tuple(one.node for one in decision.allocations) in set(lawful)
        for spared in victims:
            fewer = picture.without([one for one in victims if one is not spared])
            nodes = tuple(one.node for one in decision.allocations)
            assert nodes not in set(reference.assignments(fewer, request_, request_.count)), "R54: nobody is needless"
    else:
        assert not any(reference.assignments(picture, request_, request_.count))
        for node in sorted(picture.nodes) if request_.count == 1 else ():
            there = [one for one in below if one.node == node]
            for many in range(1, len(there) + 1):
                for those in combinations(there, many):
                    assert not reference.allowed(picture.without(those), request_, node), "R54, R57"


def _offered(request: Request, found: Placed) -> Transaction:
    opening, event = placed(request, *(one.node for one in found.allocations))
    return (submitted(request), event) if opening.key == request.key else ()


@pytest.mark.slow
@given(clusters(), requests())
def test_every_node_is_feasible_with_a_score_or_not_with_reasons(
    cluster: tuple[State, Picture], request_: Request
) -> None:
    state, picture = cluster

    for verdict in node_verdicts(state, request_, at=T0):
        assert verdict.feasible == reference.allowed(picture, request_, verdict.node)
        assert verdict.feasible == (not verdict.reasons) == (verdict.score is not None)
        assert verdict.score is None or 0 <= verdict.score <= 1000


KEPT = pytest.mark.parametrize("kept", [Board, Board.following], ids=["comparing", "following"])


@pytest.mark.slow
@KEPT
@given(some.data())
def test_a_board_that_is_kept_answers_like_a_new_one_whatever_happens_in_between(
    kept: Callable[[State], Board], data: some.DataObject
) -> None:
    state, _ = data.draw(clusters())
    board = kept(state)
    asked = [data.draw(requests()) for _ in range(2)]
    for step in range(6):
        match data.draw(some.sampled_from(["register", "change", "place", "end", "try", "silence"])):
            case "register":
                happened(state, _registered(f"n{data.draw(some.integers(0, 6))}", data.draw(rows)))
            case "change":
                node = data.draw(some.sampled_from(sorted(state.cluster.nodes)))
                happened(state, (Event(NodeChanged(node=node, draining=data.draw(some.booleans()))),))
            case "place":
                node = data.draw(some.sampled_from(sorted(state.cluster.nodes)))
                happened(state, placed(a_request(f"step-{step}", cpu=1000), node))
            case "end":
                live = sorted(key for key, known in state.queue.requests.items() if known.live)
                if live:
                    happened(state, ended(state, data.draw(some.sampled_from(live))))
            case "try":
                with state.journal.trial():
                    node = data.draw(some.sampled_from(sorted(state.cluster.nodes)))
                    state.fold_transaction(placed(a_request("tried", cpu=500), node), at=T0, sequence=state.sequence)
                    _agree(state, board, asked)
            case _:
                board.silent = frozenset(data.draw(some.lists(some.sampled_from(sorted(state.cluster.nodes)))))
        _agree(state, board, asked)


def _agree(state: State, board: Board, asked: list[Request]) -> None:
    for request in asked:
        fresh = Board(state)
        fresh.silent = board.silent
        expected = place(state, request, missing=request.count, at=T0, board=fresh)
        assert place(state, request, missing=request.count, at=T0, board=board) == expected


def test_six_nodes_and_four_instances_are_searched_to_the_end() -> None:
    """Wherever it begins, the best second node is a decoy that leaves no lawful fourth: (a, 2) or (c, 4)."""
    cells = {"n1": "a1", "n2": "b2", "n3": "c3", "n4": "d4", "decoy-1": "a2", "decoy-2": "c4"}
    state = a_state(
        *(
            a_node(name, cpu=1_000 if "decoy" in name else 2_000, labels={"zone": cell[0], "rack": cell[1]})
            for name, cell in cells.items()
        )
    )
    apart = [{"match_labels": {"app": "web"}, "topology_key": key} for key in ("zone", "rack")]
    request = a_request(count=4, cpu=1_000, labels={"app": "web"}, anti_affinity=apart)

    found = place(state, request, missing=4, at=T0)

    assert isinstance(found, Placed)
    assert sorted(one.node for one in found.allocations) == ["n1", "n2", "n3", "n4"]


def test_a_large_cluster_is_searched_from_each_domain() -> None:
    """25 snug nodes in zone a draw the greedy; only zone b holds all 26. Trying all orders would take for ever."""
    state = a_state(
        *(a_node(f"a{number}", cpu=1_000, labels={"zone": "a"}) for number in range(25)),
        *(a_node(f"b{number}", cpu=2_000, labels={"zone": "b"}) for number in range(26)),
    )
    together = [{"match_labels": {"app": "web"}, "topology_key": "zone"}]
    alone = [{"match_labels": {"app": "web"}, "topology_key": "node"}]
    request = a_request(count=26, cpu=1_000, labels={"app": "web"}, affinity=together, anti_affinity=alone)

    found = place(state, request, missing=26, at=T0)

    assert isinstance(found, Placed)
    assert {one.node[0] for one in found.allocations} == {"b"}


@KEPT
def test_a_board_that_is_kept_sees_holds_come_and_go(kept: Callable[[State], Board]) -> None:
    state = a_state(a_node("n1"))
    board = kept(state)
    asked = [a_request(cpu=8_000), a_request("drawing", cpu=4_000, reservation="res1")]
    over = Event(ReservationEnded(reservation=ReservationId("res1"), status=ReservationStatus.CANCELLED), TEAM_A)
    windows = a_reservation(start=T0 + HOUR, end=T0 + 2 * HOUR, on={"n1": 1}, cpu=4_000)

    for happening in ((), windows, activated(), (over,)):
        if happening:
            happened(state, happening)
        _agree(state, board, asked)
    assert isinstance(place(state, asked[0], missing=1, at=T0, board=board), Placed)

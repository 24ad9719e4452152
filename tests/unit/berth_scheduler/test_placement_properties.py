"""Random clusters against the reference: no rule is broken, and nothing is refused that has a place."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from berth.ids import NodeId
from berth.messages.events import Event, NodeChanged, Transaction
from berth.messages.requests import Request, Taint
from berth.model.check import check
from berth.model.ledger import State
from berth_scheduler.board import Board
from berth_scheduler.placement import Placed, node_verdicts, place
from tests.builders import T0, TEAM_A, TEAM_B, a_node, a_request, a_state, ended, happened, placed, submitted
from tests.unit.berth_scheduler import reference
from tests.unit.berth_scheduler.reference import Picture, Running

TAINT = Taint.model_validate({"key": "old", "effect": "no_schedule"}, strict=False)
APPS = ["web", "db"]
KEYS = ["node", "zone", "rack"]

labels = some.fixed_dictionaries({}, optional={"app": some.sampled_from(APPS), "tier": some.just("front")})
node_labels = some.fixed_dictionaries({}, optional={"zone": some.sampled_from("ab"), "rack": some.sampled_from("xy")})
rows = some.fixed_dictionaries(
    {
        "cpu": some.integers(0, 4),
        "labels": node_labels,
        "schedulable": some.sampled_from([True, True, True, False]),
        "taint": some.sampled_from([False, False, False, True]),
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
constraints = some.fixed_dictionaries(
    {"key": some.just("zone"), "operator": some.just("in"), "values": some.lists(some.sampled_from("ab"), min_size=1)}
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
        tolerations=draw(some.sampled_from([[], [{"operator": "exists"}]])),
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
        )
        happened(state, placed(request, node))
        cpu = request.vector.cpu_millicores
        running.append(Running(node, request.namespace, request.labels, cpu, request.anti_affinity))
    return state, Picture({name: {**row, "cpu": row["cpu"] * 1000} for name, row in nodes.items()}, tuple(running))


def _registered(name: str, row: dict[str, Any]) -> Transaction:
    taints = (TAINT,) if row["taint"] else ()
    registered = a_node(name, cpu=row["cpu"] * 1000, labels=row["labels"], taints=taints)
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


@pytest.mark.slow
@given(some.data())
def test_a_board_that_is_kept_answers_like_a_new_one_whatever_happens_in_between(data: some.DataObject) -> None:
    state, _ = data.draw(clusters())
    board = Board(state)
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


def test_six_nodes_and_four_instances_are_always_searched_to_the_end() -> None:
    """Two long rows of domains that exclude each other: only one order in hundreds is lawful."""
    cells = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "z"), ("c", "y"), ("d", "w")]
    state = a_state(
        *(
            a_node(f"n{number}", cpu=1_000 + 10 * number, labels={"zone": zone, "rack": rack})
            for number, (zone, rack) in enumerate(cells)
        )
    )
    apart = [{"match_labels": {"app": "web"}, "topology_key": key} for key in ("zone", "rack")]
    request = a_request(count=4, cpu=1_000, labels={"app": "web"}, anti_affinity=apart)

    found = place(state, request, missing=4, at=T0)

    assert isinstance(found, Placed)
    taken = [cells[int(one.node[1:])] for one in found.allocations]
    assert all(len(set(column)) == 4 for column in zip(*taken, strict=True))
    assert all(one != other for one, other in pairwise(taken))

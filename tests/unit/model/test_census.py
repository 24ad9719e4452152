"""Neighbours are counted once and then kept: the same as counted anew, and no dearer when more runs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from berth.ids import NodeId
from berth.messages.events import Event, NodeChanged, NodeLeft
from berth.messages.requests import Request
from berth.model.census import Census
from berth.model.feasibility import surroundings_of
from berth.model.ledger import State
from berth.model.topology import Surroundings
from tests.builders import T0, TEAM_A, TEAM_B, a_node, a_request, a_state, ended, happened, placed

APPS = some.sampled_from(["web", "db"])
ZONES = some.sampled_from([{}, {"zone": "a"}, {"zone": "b"}])
NODES = some.sampled_from(["n1", "n2", "n3"])

ASKING = [
    a_request(
        f"asks-{namespace}",
        namespace=namespace,
        labels={"app": "web"},
        affinity=[
            {"match_labels": {"app": "db"}, "topology_key": "zone"},
            {"match_labels": {"app": "web"}, "topology_key": "node", "namespaces": [TEAM_A, TEAM_B]},
        ],
        anti_affinity=[
            {"match_labels": {}, "topology_key": "node"},
            {"match_labels": {"app": "db"}, "topology_key": "zone", "mode": "preferred", "weight": 3},
        ],
        constraints=constraints,
        spread=[
            {"topology_key": "zone", "match_labels": {"app": "web"}, "min_domains": 2},
            {"topology_key": "node", "match_labels": {"app": "db"}, "mode": "preferred"},
        ],
    )
    for namespace in (TEAM_A, TEAM_B)
    for constraints in ([], [{"key": "zone", "operator": "in", "values": ["a"]}])
]


@pytest.mark.slow
@given(some.data())
def test_what_is_kept_is_what_would_be_counted_anew_whatever_happens_in_between(data: some.DataObject) -> None:
    state = a_state(*(a_node(name) for name in ("n1", "n2")))
    for step in range(8):
        with_trial = data.draw(some.booleans())
        mark = state.journal.begin() if with_trial else None
        _something(state, data, step)
        _agree(state)
        if mark is not None:
            state.journal.undo(mark)
            _agree(state)


def _something(state: State, data: some.DataObject, step: int) -> None:
    match data.draw(some.sampled_from(["register", "change", "leave", "place", "place", "end"])):
        case "register":
            _fold(state, a_node(data.draw(NODES), labels=data.draw(ZONES)))
        case "change":
            node = data.draw(some.sampled_from(sorted(state.cluster.nodes)))
            _fold(state, (Event(NodeChanged(node=node, labels=data.draw(ZONES))),))
        case "leave":
            idle = [name for name in sorted(state.cluster.nodes) if not state.cluster.on_node(name)]
            if len(idle) > 1:
                _fold(state, (Event(NodeLeft(node=data.draw(some.sampled_from(idle)))),))
        case "place":
            node = data.draw(some.sampled_from(sorted(state.cluster.nodes)))
            term = {"match_labels": {"app": data.draw(APPS)}, "topology_key": data.draw(some.sampled_from(["zone"]))}
            apart = [term] if data.draw(some.booleans()) else []
            namespace = data.draw(some.sampled_from([TEAM_A, TEAM_B]))
            labels = {"app": data.draw(APPS)}
            running = a_request(f"r{step}", namespace=namespace, cpu=1, labels=labels, anti_affinity=apart)
            _fold(state, placed(running, node))
        case _:
            live = sorted(key for key, known in state.queue.requests.items() if known.live)
            if live:
                _fold(state, ended(state, data.draw(some.sampled_from(live))))


def _fold(state: State, transaction: Any) -> None:
    state.fold_transaction(transaction, at=T0, sequence=state.sequence)


def _agree(state: State) -> None:
    for request in ASKING:
        kept, anew = _seen(state, request), _seen(state, request, anew=True)
        assert kept == anew


def _seen(state: State, request: Request, *, anew: bool = False) -> dict[str, Any]:
    usual = state.census
    if anew:
        state.census = Census(state.cluster)
    try:
        around = surroundings_of(state, request)
    finally:
        state.census = usual
    assert around is not None
    return _told(around)


def _told(around: Surroundings) -> dict[str, Any]:
    return {
        "found": [neighbours.found for neighbours in around.everyone()],
        "spread": [(one.neighbours.found, one.lowest) for one in around.spread],
        "joint": around.joint,
        "repelled": {key: sorted(domains) for key, domains in around.repelled.items()},
    }


class CountedLabels(dict[str, str]):
    """Labels that count how often somebody reads one."""

    reads = 0

    def get(self, *args: Any) -> Any:
        CountedLabels.reads += 1
        return super().get(*args)


def test_r34_a_question_about_neighbours_costs_no_more_where_more_runs() -> None:
    """The guard of the index: after the first question only the node on which something was placed is looked at."""
    few, many = _reads_of_the_second_question(running=2), _reads_of_the_second_question(running=40)

    assert 0 < few <= 4 * 3
    assert many == few


def _reads_of_the_second_question(*, running: int) -> int:
    """How many labels of what runs are read once the first question is answered and one more was placed."""
    state = a_state(*(a_node(f"n{number}", labels={"zone": "ab"[number % 2]}) for number in range(running + 1)))
    for number in range(running):
        request = a_request(f"r{number}", cpu=1, labels={"app": "web"})
        happened(state, placed(request, f"n{number}"))
        key = next(iter(state.cluster.on_node(NodeId(f"n{number}"))))
        counted = CountedLabels(request.labels)
        _label(state, key, counted)
    asking = ASKING[0]
    surroundings_of(state, asking)
    happened(state, placed(a_request("one-more", cpu=1, labels={"app": "web"}), f"n{running}"))
    key = next(iter(state.cluster.on_node(NodeId(f"n{running}"))))
    _label(state, key, CountedLabels(app="web"))
    CountedLabels.reads = 0
    surroundings_of(state, asking)
    return CountedLabels.reads


def _label(state: State, key: Any, labels: dict[str, str]) -> None:
    table = state.cluster.on_node(state.cluster.allocations[key].node)
    table.put(key, table[key]._replace(labels=labels))

"""A proposal to defragment: moves that may be made, after which more of the recent requests fit."""

from typing import Any

from berth.model.ledger import State
from berth_cell.defrag import propose
from berth_cli.defrag import lines
from tests.builders import T0, a_node, a_request, a_state, happened, placed, submitted


def a_scattered_cluster(**node: Any) -> State:
    """Two nodes of 8 GPUs with one small job each, and eight recent requests for all 8 GPUs of a node."""
    state = a_state(
        a_node("n1", extended={"gpu": 8}, **node),
        a_node("n2", extended={"gpu": 8}, **node),
        placed(a_request("a", cpu=100, extended={"gpu": 1}), "n1"),
        placed(a_request("b", cpu=100, extended={"gpu": 1}), "n2"),
    )
    for number in range(6):
        happened(state, (submitted(a_request(f"large-{number}", cpu=100, extended={"gpu": 8})),))
    return state


def moves(told: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(move["allocation"], move["from"], move["to"]) for move in told["moves"]]


def test_small_work_is_gathered_so_that_a_large_request_fits() -> None:
    state = a_scattered_cluster()
    before = state.digest()

    told = propose(state, at_ms=T0, moves=16)

    assert moves(told) == [("a.0", "n1", "n2")]
    assert told["after"]["places"] - told["before"]["places"] == 6, "n1 has room for those that want 8 GPUs"
    assert told["before"]["fragmentation"]["gpu"] == 0.0, "the small shape can use all that is free"
    assert state.digest() == before
    assert {name: len(state.cluster.on_node(name)) for name in state.cluster.nodes} == {"n1": 1, "n2": 1}


def test_a_node_is_cleared_by_several_moves_where_one_gains_nothing() -> None:
    state = a_scattered_cluster()
    happened(state, placed(a_request("c", cpu=100, extended={"gpu": 2}), "n1"))

    told = propose(state, at_ms=T0, moves=16)

    assert moves(told) == [("b.0", "n2", "n1")], "one move off n2 gains as much as two off n1"
    happened(state, placed(a_request("d", cpu=100, extended={"gpu": 2}), "n2"))
    assert moves(propose(state, at_ms=T0, moves=16)) == [("a.0", "n1", "n2"), ("c.0", "n1", "n2")]
    assert moves(propose(state, at_ms=T0, moves=1)) == [], "half of it is good for nothing"


def test_nothing_is_moved_to_where_it_may_not_go() -> None:
    state = a_scattered_cluster(labels={"zone": "a"})
    pinned = a_state(
        a_node("n1", extended={"gpu": 8}),
        a_node("n2", extended={"gpu": 8}),
        placed(a_request("a", cpu=100, extended={"gpu": 1}, node="n1"), "n1"),
        placed(a_request("b", cpu=100, extended={"gpu": 1}, node="n2"), "n2"),
    )
    for number in range(8):
        happened(pinned, (submitted(a_request(f"large-{number}", cpu=100, extended={"gpu": 8})),))

    assert len(moves(propose(state, at_ms=T0, moves=16))) == 1
    assert moves(propose(pinned, at_ms=T0, moves=16)) == []
    assert lines(propose(pinned, at_ms=T0, moves=16)) == ["no move would let more of the recent requests fit"]


def test_people_read_the_moves_and_what_they_are_good_for() -> None:
    told = lines(propose(a_scattered_cluster(), at_ms=T0, moves=16))

    assert [line.split() for line in told[:2]] == [["ALLOCATION", "FROM", "TO"], ["team-a/a.0", "n1", "n2"]]
    assert told[2].startswith("places for recent requests")

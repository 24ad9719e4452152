"""Strategy `fragmentation`: the node whose use keeps the most of the recent shapes placeable is chosen."""

from typing import Any

from berth.messages.requests import Request
from berth.model.ledger import State
from berth_scheduler.board import Board
from berth_scheduler.placement import Placed, node_verdicts, place
from tests.builders import T0, a_node, a_request, a_state, happened, placed, submitted


def scores(state: State, request: Request) -> dict[str, int | None]:
    return {verdict.node: verdict.score for verdict in node_verdicts(state, request, at=T0)}


def where(state: State, request: Request, board: Board | None = None) -> list[str]:
    found = place(state, request, missing=request.count, at=T0, board=board)
    assert isinstance(found, Placed)
    return [one.node for one in found.allocations]


def wanted(**document: Any) -> Request:
    return a_request("it", strategy="fragmentation", **document)


def test_small_work_leaves_alone_what_large_work_just_fits_on() -> None:
    """Four GPUs are left on the large machine either way; bin-pack looks only at how full a node gets."""
    state = a_state(
        a_node("small", cpu=32_000, extended={"gpu": 4}),
        a_node("large", cpu=96_000, extended={"gpu": 8}),
        placed(a_request("old", cpu=1_000, extended={"gpu": 2}), "large"),
    )
    for number in range(4):
        happened(state, (submitted(a_request(f"large-{number}", cpu=4_000, extended={"gpu": 4})),))
    for number in range(4):
        happened(state, (submitted(a_request(f"tiny-{number}", cpu=4_000, extended={"gpu": 2})),))

    assert where(state, wanted(cpu=16_000, extended={"gpu": 2})) == ["large"]
    assert where(state, a_request("it", cpu=16_000, extended={"gpu": 2})) == ["small"]


def test_before_anything_was_submitted_it_packs() -> None:
    state = a_state(a_node("n1", cpu=2_000), a_node("n2", cpu=1_000))

    assert scores(state, wanted()) == scores(state, a_request("it")) == {"n1": 760, "n2": 1000}


def test_a_board_that_is_kept_judges_by_the_shapes_as_they_are_now() -> None:
    state = a_state(a_node("n1", cpu=8_000), a_node("n2", cpu=5_000))
    board = Board(state)
    where(state, wanted(cpu=1_000), board)

    for number in range(16):
        happened(state, (submitted(a_request(f"r{number}", cpu=8_000)),))
        assert where(state, wanted(cpu=1_000), board) == where(state, wanted(cpu=1_000))
    assert where(state, wanted(cpu=1_000), board) == ["n2"]


def test_instances_of_one_request_see_what_their_siblings_took() -> None:
    state = a_state(a_node("n1", cpu=3_000), a_node("n2", cpu=4_000))
    for number in range(4):
        happened(state, (submitted(a_request(f"r{number}", cpu=4_000)),))

    assert where(state, wanted(cpu=1_000, count=4)) == ["n1", "n1", "n1", "n2"]

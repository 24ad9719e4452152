"""Submitting only if what decides about a request has not changed since it was looked at."""

from typing import Any

from berth import subjects
from berth.ids import NodeId, RequestId
from berth.messages.commands import ApplyQuotas
from berth.messages.documents import QuotaDocument
from berth.messages.node_commands import SetNode
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Request
from berth_cell.cell import Cell
from berth_cell.plan import plan
from tests.builders import T0, TEAM_A, TEAM_B, a_node, a_request

WEB = (TEAM_A, RequestId("web"))


def a_cell(*nodes: str) -> Cell:
    return Cell(at_ms=T0, history=[(T0, a_node(node)) for node in nodes])


def only_if(sequence: int, name: str = "web", **document: Any) -> Request:
    return a_request(name, if_sequence=sequence, **document)


def is_refused(cell: Cell, request: Request) -> bool:
    """Whether it was answered as a conflict, and left no trace."""
    before = cell.state.sequence
    cell.submit([request])
    decision = cell.decisions[request.key]
    assert cell.unacknowledged == {}
    if [reason.code for reason in decision.reasons] != [ReasonCode.CONFLICT]:
        return False
    assert decision.status.value == "rejected"
    assert decision.reasons[0].detail == f"or the state has moved on from {request.if_sequence}"
    assert request.key not in cell.state.queue.requests
    assert cell.state.sequence == before
    return True


def test_a_plan_that_still_holds_is_carried_out() -> None:
    cell = a_cell("n1")
    planned = plan(cell.state, [a_request("web")], at_ms=T0)

    cell.submit([only_if(planned.sequence)])

    assert planned.sequence == cell.state.sequence - 1
    assert cell.decisions[WEB].allocations == planned.decisions[0].allocations


def test_what_was_placed_meanwhile_anywhere_is_a_conflict_and_the_id_is_free_for_another_try() -> None:
    cell = a_cell("n1", "n2")
    seen = cell.state.sequence
    cell.submit([a_request("other", namespace=TEAM_B)])

    assert is_refused(cell, only_if(seen))

    cell.submit([only_if(cell.state.sequence)])
    assert cell.decisions[WEB].status.value == "placed"


def test_what_was_released_meanwhile_is_a_conflict() -> None:
    cell = a_cell("n1")
    cell.submit([a_request("other")])
    seen = cell.state.sequence
    cell.release(TEAM_A, [RequestId("other")])

    assert is_refused(cell, only_if(seen))


def test_a_change_of_nodes_is_a_conflict_and_so_is_one_of_quotas() -> None:
    cell = a_cell("n1", "n2")
    seen = cell.state.sequence
    cell.ask(subjects.ADMIN_NODE, SetNode(node=NodeId("n2"), schedulable=False))
    assert is_refused(cell, only_if(seen))

    seen = cell.state.sequence
    quota = QuotaDocument.model_validate({"namespace": TEAM_B, "hard": {"cpu_cores": 4.0}})
    cell.ask(subjects.ADMIN_QUOTA, ApplyQuotas(quotas=(quota,)))
    assert is_refused(cell, only_if(seen))


def test_what_is_only_queued_or_rejected_meanwhile_is_none() -> None:
    cell = a_cell("n1")
    cell.submit([a_request("other")])
    seen = cell.state.sequence
    cell.submit([a_request("waits", cpu=99_000)])
    assert cell.state.sequence > seen

    assert not is_refused(cell, only_if(seen))
    assert cell.decisions[WEB].status.value == "placed"


def test_it_is_not_queued_either_on_a_state_that_has_moved() -> None:
    cell = a_cell("n1")
    seen = cell.state.sequence
    cell.submit([a_request("other")])

    assert is_refused(cell, only_if(seen, cpu=99_000))


def test_of_two_on_the_same_state_the_second_is_refused() -> None:
    cell = a_cell("n1")
    seen = cell.state.sequence

    cell.submit([only_if(seen, "web"), only_if(seen, "other")])

    first, second = (cell.decisions[TEAM_A, RequestId(name)] for name in ("web", "other"))
    assert sorted([first.status.value, second.status.value]) == ["placed", "rejected"]


def test_a_state_that_is_to_come_is_a_conflict() -> None:
    cell = a_cell("n1")

    assert is_refused(cell, only_if(cell.state.sequence + 10))


def test_the_same_again_gets_the_outcome_that_stands() -> None:
    cell = a_cell("n1")
    request = only_if(cell.state.sequence)
    cell.submit([request])

    cell.submit([request])

    assert cell.decisions[WEB].status.value == "placed"


def test_a_second_body_under_the_id_is_decided_once_the_first_is_refused() -> None:
    cell = a_cell("n1")
    seen = cell.state.sequence
    cell.submit([a_request("other")])

    cell.submit([only_if(seen), a_request("web")])

    assert cell.decisions[WEB].status.value == "placed"
    assert cell.unacknowledged == {}

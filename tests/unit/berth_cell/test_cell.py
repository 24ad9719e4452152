"""A cell: the real services from hand to hand, on real bytes, at one instant or through time."""

import pytest

from berth import subjects
from berth.ids import Attempt, NodeId, RequestId, Sequence
from berth.messages.commands import NodeLeave, RaftCommand
from berth.messages.documents import NodeState
from berth.messages.envelope import Record
from berth.messages.events import RequestQueued, Wake, WakeOn, about
from berth.messages.node_commands import SetNode
from berth.messages.reasons import Reason, ReasonCode
from berth.wire.codec import decode_record
from berth_cell.cell import Cell, Step
from tests.builders import SECOND, T0, TEAM_A, a_node, a_request, placed, submitted

WEB = (TEAM_A, RequestId("web"))


def a_cell(*nodes: str) -> Cell:
    return Cell(at_ms=T0, history=[(T0, a_node(node)) for node in nodes])


def leave(cell: Cell, node: str) -> None:
    """The node is taken out of service; what ran there is queued again."""
    answer = cell.ask(subjects.NODE_LEAVE, NodeLeave(node=NodeId(node)))
    assert answer.refusal is None, answer.refusal
    cell.run()


def test_everybody_folds_what_the_ledger_holds() -> None:
    cell = a_cell("n1")
    cell.submit([a_request("web")])

    states = [cell.state, cell.quota.state, cell.scheduler.state, cell.reservation.state]

    assert len({state.digest() for state in states}) == 1
    assert [decode_record(payload).sequence for payload in cell.ledger] == list(range(1, len(cell.ledger) + 1))
    assert cell.state.sequence == len(cell.ledger)


def test_every_message_is_acknowledged_once_all_of_it_is_decided() -> None:
    cell = a_cell("n1")

    cell.submit([a_request("web"), a_request("huge", cpu=99_000)])
    cell.release(TEAM_A, [RequestId("web"), RequestId("nobody")])

    assert (cell.unacknowledged, cell.dead_letters) == ({}, [])
    assert [decision.status for decision in cell.decisions.values()] == ["released", "queued"]


def test_history_is_folded_as_it_stands_and_may_break_what_transactions_promise() -> None:
    cell = Cell(at_ms=T0, history=[(T0, a_node("n1", cpu=1_000)), (T0 - 5, placed(a_request("web", cpu=9_000), "n1"))])

    assert cell.state.cluster.used_on(NodeId("n1")).cpu_millicores == 9_000
    assert [decode_record(payload).at for payload in cell.ledger] == sorted([T0 - 5, T0 - 5, T0, T0])


@pytest.mark.parametrize(("drives_queued", "status"), [(True, "placed"), (False, "queued")])
def test_what_waited_before_is_driven_although_no_message_comes(drives_queued: bool, status: str) -> None:
    request = a_request("web")
    queued = RequestQueued(
        reasons=(Reason(code=ReasonCode.INSUFFICIENT_CPU),), wake=(Wake(on=WakeOn.CAPACITY),), evaluated_at=Sequence(0)
    )
    history = [(T0, a_node("n1")), (T0, (submitted(request), about(WEB, queued, attempt=Attempt(1))))]

    cell = Cell(at_ms=T0, history=history, drives_queued=drives_queued)

    assert cell.state.queue.requests[WEB].status == status


def test_nodes_beat_while_time_passes_but_for_those_that_are_silent() -> None:
    cell = a_cell("n1", "n2", "n3", "n4")
    cell.silent.add(NodeId("n2"))

    cell.advance(T0 + 30 * SECOND)

    states = {name: node.state for name, node in cell.state.cluster.nodes.items()}
    assert states == {name: NodeState.LOST if name == "n2" else NodeState.READY for name in ("n1", "n2", "n3", "n4")}
    assert cell.now_ms == T0 + 30 * SECOND


def test_a_command_is_answered_and_what_nobody_answers_is_said() -> None:
    cell = a_cell("n1")

    answer = cell.ask(subjects.ADMIN_NODE, SetNode(node=NodeId("n1"), schedulable=False))
    assert answer.refusal is None
    assert not cell.state.cluster.nodes[NodeId("n1")].schedulable
    assert cell.ask(subjects.NODE_LEAVE, NodeLeave(node=NodeId("n9"))).refusal is None

    with pytest.raises(LookupError, match="no service of a cell takes"):
        cell.ask(subjects.ADMIN_RAFT, RaftCommand())


def test_whoever_watches_sees_each_step_of_the_walk_in_order() -> None:
    cell = a_cell("n1")
    seen: list[Step] = []
    cell.watch = seen.append

    cell.submit([a_request("web")])

    walk = ["client Message", "quota Ask", "scheduler Propose", "leader Record", "quota Publish", "quota Acknowledge"]
    told = [f"{step.by} {type(step.what).__name__}" for step in seen]
    assert [step for step in told if step in walk] == walk
    (record,) = [step.what for step in seen if isinstance(step.what, Record)]
    assert record.sequence == cell.state.sequence


def test_what_waits_says_that_it_is_infeasible_once_the_only_node_that_could_hold_it_has_left() -> None:
    cell = Cell(at_ms=T0, history=[(T0, a_node("small", cpu=1_000)), (T0, a_node("large", cpu=8_000))])
    cell.submit([a_request("full", cpu=8_000), a_request("web", cpu=4_000, priority=0)])
    assert [reason.code.value for reason in cell.decisions[WEB].reasons] == ["insufficient_cpu"]

    leave(cell, "large")

    assert cell.state.queue.requests[WEB].status.value == "queued"
    first = cell.state.queue.requests[WEB].reasons[0]
    assert first.code is ReasonCode.INFEASIBLE
    assert first.detail == "the largest of the nodes that suit has 1000 cpu_millicores, 4000 are asked for"


def test_a_gang_that_waits_says_so_too_when_too_few_nodes_are_left() -> None:
    cell = a_cell("n1", "n2", "n3")
    cell.submit([a_request(f"full-{number}", cpu=8_000) for number in range(3)])
    apart = [{"match_labels": {"app": "web"}, "topology_key": "node"}]
    cell.submit([a_request("web", count=3, cpu=1_000, labels={"app": "web"}, anti_affinity=apart)])
    assert "infeasible" not in [reason.code.value for reason in cell.decisions[WEB].reasons]

    leave(cell, "n3")

    first = cell.state.queue.requests[WEB].reasons[0]
    assert first.detail == "anti-affinity to itself in node leaves room for 2, 3 must run"

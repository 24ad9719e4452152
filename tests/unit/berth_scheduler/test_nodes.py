"""Agents and operators: register, leave, stopped, the full list, cordon, uncordon (DESIGN sections 2 and 4)."""

from typing import Any

import pytest

from berth import subjects
from berth.ids import Attempt, NodeId, allocation_id
from berth.messages.commands import (
    AdminAnswer,
    NodeAllocationsWanted,
    NodeAnswer,
    NodeLeave,
    NodeRegister,
    NodeStopped,
    RefusalCode,
)
from berth.messages.documents import NodeDocument, NodeState
from berth.messages.events import AllocationsReleasing, Event, How, NodeChanged, NodeLeft, NodeLost, about
from berth.messages.node_commands import RemoveNode
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Request
from berth_scheduler.limits import Limits
from tests.builders import SECOND, T0, a_node, a_request, placed
from tests.unit.berth_scheduler.stage import Stage, attempt_of, item

WEB = a_request("web", cpu=1_000)
GRACEFUL = a_request("slow", cpu=1_000, grace_seconds=30)
PATIENT = a_request("patient", tolerations=[{"key": "berth/lost", "operator": "exists"}])
N1 = NodeId("n1")
LOST = (Event(NodeLost(node=N1)),)


def register(stage: Stage, node: str = "n1", **document: Any) -> NodeAnswer:
    written = {"id": node, "capacity": {"cpu_cores": 8, "ram_mb": 16_384}, **document}
    command = NodeRegister(node=NodeDocument.model_validate(written, strict=False), session="s1")
    return stage.ask(subjects.NODE_REGISTER, command, NodeAnswer)


def leave(stage: Stage, node: str = "n1") -> NodeAnswer:
    return stage.ask(subjects.NODE_LEAVE, NodeLeave(node=NodeId(node)), NodeAnswer)


def stopped(stage: Stage, *names: str, node: str = "n1") -> NodeAnswer:
    return stage.ask(subjects.NODE_STOPPED, NodeStopped(node=NodeId(node), allocations=names), NodeAnswer)


def listed(stage: Stage, node: str = "n1") -> NodeAnswer:
    return stage.ask(subjects.NODE_ALLOCATIONS, NodeAllocationsWanted(node=NodeId(node)), NodeAnswer)


def releasing(request: Request) -> tuple[Event, ...]:
    ids = (allocation_id(request.id, 0),)
    data = AllocationsReleasing(ids=ids, how=How.RELEASED, reason=ReasonCode.RELEASED, until=T0 + 30 * SECOND)
    return (about(request.key, data, attempt=Attempt(2)),)


# ---------------------------------------------------------------- register


def test_a_node_registers_and_is_told_how_often_to_beat() -> None:
    stage = Stage(a_node("n0"))

    answer = register(stage, labels={"zone": "a"}, capacity={"cpu_cores": 4, "extended": {"gpu": 1}})

    assert (answer.refusal, answer.sequence, answer.heartbeat_ms) == (None, stage.leader.state.sequence, 1_000)
    node = stage.leader.state.cluster.nodes[N1]
    assert (node.capacity.cpu_millicores, node.capacity.instances, node.capacity.amount("gpu")) == (4_000, 110, 1)
    assert (dict(node.labels), node.schedulable) == ({"zone": "a"}, True)


def test_a_node_may_register_cordoned() -> None:
    stage = Stage(a_node("n0"))

    register(stage, schedulable=False)

    assert not stage.leader.state.cluster.nodes[N1].schedulable


@pytest.mark.parametrize(("nodes", "interval"), [(1, 1_000), (200, 1_000), (400, 2_000), (2_000, 10_000)])
def test_the_heartbeats_of_the_whole_cluster_are_at_most_200_a_second(nodes: int, interval: int) -> None:
    stage = Stage(*(a_node(f"m{number}") for number in range(nodes - 1)))

    assert register(stage).heartbeat_ms == interval


def test_registering_again_as_before_changes_nothing_and_keeps_what_runs() -> None:
    stage = Stage(a_node("n0"))
    register(stage)
    stage.leader.happened(placed(WEB, "n1"), at=T0)
    stage.fold()
    before = stage.leader.state.sequence

    answer = register(stage)

    assert (answer.refusal, stage.leader.state.sequence) == (None, before)
    assert stage.where(WEB) == ["n1"]


def test_registering_with_less_than_is_used_is_a_fact_and_keeps_what_runs() -> None:
    stage = Stage(a_node("n1"), placed(a_request("big", cpu=8_000), "n1"))

    answer = register(stage, capacity={"cpu_cores": 1})

    assert answer.refusal is None
    assert stage.leader.state.cluster.nodes[N1].capacity.cpu_millicores == 1_000
    stage.evaluate(item(WEB))
    stage.run()
    assert stage.verdicts() == {"web": "unplaceable"}


def test_a_lost_node_returns_empty_and_what_it_had_is_queued_again() -> None:
    stage = Stage(a_node("n1"), placed(PATIENT, "n1"), LOST)

    answer = register(stage)

    assert answer.refusal is None
    assert stage.leader.state.cluster.nodes[N1].state is NodeState.READY
    assert (stage.where(PATIENT), stage.status(PATIENT)) == ([], "queued")
    assert attempt_of(stage.leader.state, PATIENT.key) == 3


def test_a_registration_that_finds_no_leader_is_answered_unknown_in_the_end() -> None:
    stage = Stage(a_node("n0"), limits=Limits(give_up_ms=1_000))
    document = NodeDocument.model_validate({"id": "n1", "capacity": {}}, strict=False)
    stage.handle(subjects.NODE_REGISTER, NodeRegister(node=document, session="s"), reply_to="agent")
    stage.settle()
    stage.nobody_leads()

    stage.now += 1_000
    stage.settle()

    answer = stage.replies["agent"]
    assert answer.refusal is not None and answer.refusal.code is RefusalCode.UNKNOWN


def test_a_message_delivered_twice_registers_once_and_both_are_answered() -> None:
    stage = Stage(a_node("n0"))
    document = NodeDocument.model_validate({"id": "n1", "capacity": {}}, strict=False)
    for to in ("one", "two"):
        stage.handle(subjects.NODE_REGISTER, NodeRegister(node=document, session="s"), reply_to=to)

    stage.run()

    assert len(stage.sent) == 1
    assert stage.replies["one"] == stage.replies["two"]


# ---------------------------------------------------------------- leave


def test_a_node_that_leaves_gives_its_work_back_to_the_queue() -> None:
    stage = Stage(a_node("n1"), a_node("n2"), placed(WEB, "n1"), placed(GRACEFUL, "n1"))

    answer = leave(stage)

    assert (answer.refusal, answer.sequence) == (None, stage.leader.state.sequence)
    assert list(stage.leader.state.cluster.nodes) == ["n2"]
    assert (stage.status(WEB), stage.status(GRACEFUL)) == ("queued", "queued")
    assert leave(stage).refusal is None, "gone is gone"


def test_a_lost_node_may_leave_for_good() -> None:
    stage = Stage(a_node("n1"), a_node("n2"), placed(PATIENT, "n1"), LOST)

    assert leave(stage).refusal is None

    assert list(stage.leader.state.cluster.nodes) == ["n2"]
    assert stage.status(PATIENT) == "queued"


def test_a_node_with_more_than_fits_one_transaction_leaves_in_several() -> None:
    many = [a_request(f"r{number}", cpu=1) for number in range(300)]
    stage = Stage(a_node("n1", instances=400), *(placed(request, "n1") for request in many))

    assert leave(stage).refusal is None

    assert list(stage.leader.state.cluster.nodes) == []
    assert {stage.status(request) for request in many} == {"queued"}
    assert stage.state.digest() == stage.leader.state.digest()


# ---------------------------------------------------------------- remove


def remove(stage: Stage, node: str = "n1", *, force: bool = False) -> AdminAnswer:
    return stage.ask(subjects.ADMIN_NODE, RemoveNode(node=NodeId(node), force=force), AdminAnswer)


def test_an_empty_node_is_removed_and_counts_no_longer() -> None:
    stage = Stage(a_node("n1"), a_node("n2"))

    answer = remove(stage)

    assert (answer.refusal, answer.sequence) == (None, stage.leader.state.sequence)
    assert list(stage.leader.state.cluster.nodes) == ["n2"]
    again = remove(stage)
    assert again.refusal is not None and again.refusal.code is RefusalCode.NOT_FOUND


def test_a_node_with_work_is_not_removed_and_the_operator_reads_what_to_do() -> None:
    stage = Stage(a_node("n1"), a_node("n2"), *(placed(a_request(f"r{number}"), "n1") for number in range(5)))

    answer = remove(stage)

    assert answer.refusal is not None
    assert (answer.refusal.code, answer.refusal.detail) == (
        RefusalCode.RULE,
        (
            "n1 still has team-a/r0.0, team-a/r1.0, team-a/r2.0 and 2 more: drain it first, or force its removal, "
            "which evicts them at once"
        ),
    )
    assert N1 in stage.leader.state.cluster.nodes


def test_a_node_that_is_being_drained_is_removed_when_that_is_done() -> None:
    stage = Stage(a_node("n1"), a_node("n2", cpu=0), placed(WEB, "n1"))
    stage.set_node("n1", draining=True, deadline_seconds=3_600)
    refused = remove(stage)
    assert refused.refusal is not None and "wait until its drain is done" in refused.refusal.detail

    stage.leader.happened(a_node("n3"), at=stage.now)
    stage.advance(1_000, beating=("n1", "n2", "n3"))

    assert stage.where(WEB) == ["n3"]
    assert remove(stage).refusal is None
    assert sorted(stage.leader.state.cluster.nodes) == ["n2", "n3"]


def test_a_removal_by_force_evicts_at_once_also_before_the_deadline_of_a_drain() -> None:
    many = [a_request(f"r{number}", cpu=1) for number in range(300)]
    stage = Stage(a_node("n1", instances=400), a_node("n2", cpu=0), *(placed(request, "n1") for request in many))
    stage.set_node("n1", draining=True, deadline_seconds=3_600)

    answer = remove(stage, force=True)

    assert answer.refusal is None
    assert list(stage.leader.state.cluster.nodes) == ["n2"]
    assert {stage.status(request) for request in many} == {"queued"}
    assert stage.state.digest() == stage.leader.state.digest()


def test_what_waits_for_a_lost_node_is_given_up_only_by_force() -> None:
    stage = Stage(a_node("n1"), a_node("n2"), placed(PATIENT, "n1"), LOST)

    refused = remove(stage)
    assert refused.refusal is not None and "team-a/patient.0 wait for it" in refused.refusal.detail
    assert remove(stage, force=True).refusal is None

    assert (stage.status(PATIENT), list(stage.leader.state.cluster.nodes)) == ("queued", ["n2"])


def test_work_that_comes_while_a_node_is_being_removed_keeps_it_there() -> None:
    stage = Stage(a_node("n1"), a_node("n2"))
    stage.handle(subjects.ADMIN_NODE, RemoveNode(node=N1), reply_to="operator")
    stage.settle()
    stage.leader.happened(placed(WEB, "n1"), at=stage.now)

    stage.advance(1_000, beating=("n1", "n2"))

    answer = stage.replies["operator"]
    assert answer.refusal is not None and answer.refusal.code is RefusalCode.RULE
    assert stage.where(WEB) == ["n1"]


def test_the_heartbeats_of_a_removed_node_do_not_bring_it_back_but_registering_anew_does() -> None:
    stage = Stage(a_node("n1"), a_node("n2"))
    remove(stage)

    stage.advance(10_000, beating=("n1", "n2"))
    assert list(stage.leader.state.cluster.nodes) == ["n2"]

    assert register(stage).refusal is None
    assert sorted(stage.leader.state.cluster.nodes) == ["n1", "n2"]


# ---------------------------------------------------------------- stopped


def test_what_the_agent_has_stopped_consumes_no_longer_and_ends_its_request() -> None:
    stage = Stage(a_node("n1"), placed(GRACEFUL, "n1"), releasing(GRACEFUL))
    assert stage.leader.state.cluster.used_on(N1).cpu_millicores == 1_000

    answer = stopped(stage, "team-a/slow.0")

    assert answer.refusal is None
    assert stage.status(GRACEFUL) == "released"
    assert stage.leader.state.cluster.used_on(N1).cpu_millicores == 0


def test_only_releasing_allocations_of_the_own_node_are_stopped() -> None:
    stage = Stage(a_node("n1"), a_node("n2"), placed(WEB, "n1"), placed(GRACEFUL, "n2"), releasing(GRACEFUL))

    stopped(stage, "team-a/web.0", "team-a/slow.0", "team-a/nothing.0", "nonsense")

    assert (stage.status(WEB), stage.status(GRACEFUL)) == ("placed", "placed")
    assert stage.sent == []
    stopped(stage, "team-a/slow.0", node="n2")
    assert stage.status(GRACEFUL) == "released"


# ---------------------------------------------------------------- the full list


def test_an_agent_gets_its_full_list_with_its_sequence() -> None:
    stage = Stage(a_node("n1"), a_node("n2"), placed(WEB, "n1"), placed(GRACEFUL, "n1"), placed(PATIENT, "n2"))
    stage.leader.happened(releasing(GRACEFUL), at=T0)
    stage.fold()

    answer = listed(stage)

    assert answer.sequence == stage.leader.state.sequence
    assert [(one["id"], one["state"]) for one in answer.allocations] == [
        ("team-a/slow.0", "releasing"),
        ("team-a/web.0", "placed"),
    ]
    assert answer.allocations[0]["until"] == T0 + 30 * SECOND
    assert answer.allocations[1]["resources"] == {"cpu_millicores": 1_000, "instances": 1}


def test_what_is_only_assumed_is_not_listed() -> None:
    stage = Stage(a_node("n1"))
    stage.evaluate(item(WEB))
    stage.settle()

    stage.handle(subjects.NODE_ALLOCATIONS, NodeAllocationsWanted(node=N1), reply_to="agent")

    assert stage.replies["agent"].allocations == ()


@pytest.mark.parametrize(
    ("happened", "code"),
    [
        ((), RefusalCode.NOT_FOUND),
        ((a_node("n1"), (Event(NodeLeft(node=N1)),)), RefusalCode.NOT_FOUND),
        ((a_node("n1"), LOST), RefusalCode.RULE),
    ],
)
def test_an_agent_learns_whether_its_node_is_gone_or_only_lost(happened: tuple[Any, ...], code: RefusalCode) -> None:
    stage = Stage(a_node("n0"), *happened)

    answer = listed(stage)

    assert answer.refusal is not None and answer.refusal.code is code
    assert (answer.allocations, answer.sequence) == ((), stage.leader.state.sequence)


# ---------------------------------------------------------------- operators


def test_an_operator_cordons_and_uncordons_and_only_what_changes_is_an_event() -> None:
    stage = Stage(a_node("n1"))

    answer = stage.set_node("n1", schedulable=False)
    assert (answer.refusal, answer.sequence) == (None, stage.leader.state.sequence)
    assert not stage.leader.state.cluster.nodes[N1].schedulable
    assert stage.set_node("n1", schedulable=False).sequence is None, "nothing had to be committed"

    stage.evaluate(item(WEB))
    stage.run()
    assert stage.outcomes[-1].reasons[0].code is ReasonCode.NODE_CORDONED
    stage.set_node("n1", schedulable=True)
    (changed,) = stage.leader.records[-1].transactions[0]
    assert changed.data == NodeChanged(node=N1, schedulable=True)


def test_a_node_that_nobody_knows_is_not_found() -> None:
    answer = Stage(a_node("n1")).set_node("n9", schedulable=False)

    assert answer.refusal is not None and answer.refusal.code is RefusalCode.NOT_FOUND


def test_cordoning_leaves_alone_what_runs() -> None:
    stage = Stage(a_node("n1"), placed(WEB, "n1"))

    stage.set_node("n1", schedulable=False)
    stage.advance(2_000, beating=("n1",))

    assert stage.where(WEB) == ["n1"]

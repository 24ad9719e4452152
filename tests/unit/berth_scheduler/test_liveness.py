"""Silence and loss: who counts as lost, when, and what becomes of what ran there (DESIGN section 2, "Nodes")."""

from typing import Any

import pytest

from berth import subjects
from berth.ids import NodeId
from berth.messages.commands import Heartbeat, Verdict
from berth.messages.documents import NodeState
from berth.messages.events import AllocationsEnded, Event, How, NodeLeft, NodeLost, RequestQueued
from berth.messages.reasons import ReasonCode
from tests.builders import SECOND, a_node, a_request, placed
from tests.unit.berth_scheduler.stage import Stage, attempt_of, item

FOUR = ("n1", "n2", "n3", "n4")
REST = FOUR[1:]
WEB = a_request("web")


def four(*transactions: Any) -> Stage:
    """Four nodes, so that the loss of one is not yet a third of them."""
    return Stage(*map(a_node, FOUR), *transactions)


def lost(stage: Stage) -> list[str]:
    return sorted(node.id for node in stage.leader.state.cluster.nodes.values() if node.state is NodeState.LOST)


def test_a_node_is_lost_after_five_seconds_of_silence_and_its_work_is_queued_again_in_one_transaction() -> None:
    stage = four(placed(WEB, "n1"))

    stage.advance(4_500, beating=REST)
    assert lost(stage) == []
    stage.advance(500, beating=REST)

    assert lost(stage) == ["n1"]
    (transaction,) = stage.leader.records[-1].transactions
    assert [type(event.data) for event in transaction] == [NodeLost, AllocationsEnded, RequestQueued]
    assert {event.attempt for event in transaction} == {None}, "a victim's events name no attempt"
    assert (stage.status(WEB), attempt_of(stage.leader.state, WEB.key)) == ("queued", 3)
    waiting = stage.leader.state.queue.requests[WEB.key]
    assert all(stage.leader.state.last_change(wake, WEB.namespace) > waiting.evaluated_at for wake in waiting.wake), (
        "whoever folds it drives it at once"
    )


def test_a_beat_in_time_keeps_a_node() -> None:
    stage = four()

    for _ in range(5):
        stage.advance(4_500, beating=REST)
        stage.advance(500, beating=FOUR)

    assert lost(stage) == []


def test_every_node_gets_a_full_period_after_the_scheduler_started() -> None:
    stage = four()
    stage.now += 3_600 * SECOND
    stage.scheduler.started(stage.now)

    stage.advance(4_500)

    assert lost(stage) == []


def test_a_node_that_has_just_registered_counts_as_heard() -> None:
    stage = four()
    stage.advance(4_000, beating=FOUR)
    stage.leader.happened(a_node("n5"), at=stage.now)
    stage.fold()

    stage.advance(4_500, beating=FOUR)
    assert lost(stage) == []
    stage.advance(500, beating=FOUR)
    assert lost(stage) == ["n5"]


def test_the_leader_believes_a_loss_only_when_it_hears_nothing_either_and_is_asked_again() -> None:
    stage = four()
    stage.leader.hears.add("n1")

    stage.advance(8_000, beating=REST)
    assert lost(stage) == []

    stage.leader.hears.clear()
    stage.advance(1_000, beating=REST)
    assert lost(stage) == ["n1"]


def test_heartbeats_of_nodes_that_nobody_registered_are_not_remembered() -> None:
    stage = four()

    for number in range(1_000):
        stage.handle(subjects.NODE_HEARTBEAT, Heartbeat(node=NodeId(f"stranger-{number}"), session="s"))
    assert len(stage.scheduler.nodes.pulse.nodes) == 4

    stage.leader.happened((Event(NodeLeft(node=NodeId("n4"))),), at=stage.now)
    stage.fold()
    stage.advance(1_000, beating=FOUR)
    assert stage.scheduler.nodes.pulse.nodes == ["n1", "n2", "n3"]


# ---------------------------------------------------------------- many at once


def test_when_more_than_a_third_falls_silent_they_keep_their_work_for_five_times_as_long() -> None:
    stage = four(placed(WEB, "n1"))

    stage.advance(24_500, beating=("n3", "n4"))
    assert lost(stage) == []
    stage.advance(500, beating=("n3", "n4"))

    assert lost(stage) == ["n1", "n2"]
    assert stage.status(WEB) == "queued"


def test_meanwhile_they_take_nothing_new_and_nothing_is_queued_on_that_ground() -> None:
    stage = four(*(placed(a_request(f"full-{node}", cpu=8_000), node) for node in ("n3", "n4")))
    stage.advance(6_000, beating=("n3", "n4"))

    stage.evaluate(item(WEB))
    stage.run()
    assert (stage.outcomes, stage.offers) == ([], []), "it would fit, if they are only out of earshot"

    stage.advance(500, beating=FOUR)
    assert stage.verdicts() == {"web": "accepted"}


def test_what_waits_for_silent_nodes_too_long_goes_back_as_unavailable() -> None:
    stage = four(*(placed(a_request(f"full-{node}", cpu=8_000), node) for node in ("n3", "n4")))
    stage.advance(6_000, beating=("n3", "n4"))

    stage.evaluate(item(WEB))
    stage.advance(5_000, beating=("n3", "n4"))

    assert stage.verdicts() == {"web": Verdict.UNAVAILABLE}


def test_exactly_a_third_is_lost_as_usual() -> None:
    stage = Stage(*map(a_node, FOUR[:3]))

    stage.advance(5_000, beating=("n2", "n3"))

    assert lost(stage) == ["n1"]


# ---------------------------------------------------------------- what ran there


def tolerating(name: str, seconds: int | None) -> Any:
    toleration = {"key": "berth/lost", "operator": "exists", "effect": "no_execute", "seconds": seconds}
    return a_request(name, tolerations=[toleration])


def test_r27_r28_an_allocation_outlives_its_node_for_its_toleration_of_the_loss() -> None:
    at_once, later, for_ever = WEB, tolerating("later", 30), tolerating("ever", None)
    stage = four(*(placed(request, "n1") for request in (at_once, later, for_ever)))

    stage.advance(5_000, beating=REST)
    assert [stage.status(one) for one in (at_once, later, for_ever)] == ["queued", "placed", "placed"]
    stage.advance(29_500, beating=REST)
    assert stage.status(later) == "placed"
    stage.advance(1_000, beating=REST)
    assert [stage.status(one) for one in (later, for_ever)] == ["queued", "placed"]
    stage.advance(60_000, beating=REST)
    assert stage.where(for_ever) == ["n1"]


def test_a_request_that_must_not_be_rescheduled_ends_as_lost() -> None:
    once = a_request("once", reschedule="never")
    stage = four(placed(once, "n1"))

    stage.advance(5_000, beating=REST)

    known = stage.leader.state.queue.requests[once.key]
    assert (known.status.value, known.ended) == ("lost", ReasonCode.LOST_WITH_NODE)


def test_below_min_count_the_whole_gang_leaves_and_waits_again() -> None:
    gang = a_request("gang", count=3, grace_seconds=10)
    stage = four(placed(gang, "n1", "n2", "n3"))

    stage.advance(5_000, beating=REST)

    assert (stage.where(gang), stage.status(gang)) == ([], "queued")
    allocations = stage.leader.state.cluster.allocations
    states = [
        allocations[gang.namespace, name].state.value
        for name in stage.leader.state.queue.requests[gang.key].allocations
    ]
    assert states == ["lost", "releasing", "releasing"], "its siblings have their grace"


def test_a_gang_above_min_count_runs_on_with_fewer() -> None:
    gang = a_request("gang", count=3, min_count=2)
    stage = four(placed(gang, "n1", "n2", "n3"))

    stage.advance(5_000, beating=REST)

    assert (stage.where(gang), stage.status(gang)) == (["n2", "n3"], "placed")


def test_two_nodes_of_one_gang_that_are_lost_together_lose_it_once() -> None:
    gang = a_request("gang", count=2)
    stage = Stage(*(a_node(f"n{number}") for number in range(1, 8)), placed(gang, "n1", "n2"))

    stage.advance(6_000, beating=("n3", "n4", "n5", "n6", "n7"))

    assert lost(stage) == ["n1", "n2"]
    assert stage.status(gang) == "queued"
    ends = [
        (event.data.how, event.data.ids)
        for record in stage.leader.records
        for transaction in record.transactions
        for event in transaction
        if isinstance(event.data, AllocationsEnded)
    ]
    assert ends == [(How.LOST, ("gang.0",)), (How.EVICTED, ("gang.1",))]


@pytest.mark.parametrize("nodes", [1, 5])
def test_a_lost_node_takes_nothing(nodes: int) -> None:
    stage = Stage(*(a_node(f"n{number}") for number in range(nodes)))
    others = tuple(f"n{number}" for number in range(1, nodes))
    stage.advance(26_000, beating=others)
    assert lost(stage) == ["n0"]

    stage.evaluate(item(a_request(node="n0")))
    stage.run()

    assert stage.verdicts() == {"web": "unplaceable"}
    assert ReasonCode.NODE_LOST in [reason.code for reason in stage.outcomes[0].reasons]
    assert NodeId("n0") in stage.leader.state.cluster.lost

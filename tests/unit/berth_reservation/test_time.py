"""What time changes: windows start and end, durations are over, whoever is late or early."""

from typing import Any

from berth.ids import Attempt, Namespace, NodeId, RequestId, Sequence
from berth.messages.commands import RefusalCode
from berth.messages.documents import OnExpiry
from berth.messages.events import (
    AllocationsEnded,
    AllocationsReleasing,
    Event,
    How,
    NodeLeft,
    RequestEnded,
    RequestQueued,
    RequestStatus,
    ReservationEnded,
    ReservationHeld,
    Wake,
    WakeOn,
    about,
)
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.reservation_events import Because, HoldCause, ReservationStatus
from berth.model.ledger import State
from berth.model.reservation import ReservationState
from tests.builders import (
    HOUR,
    MINUTE,
    SECOND,
    T0,
    TEAM_A,
    TEAM_B,
    a_node,
    a_quota,
    a_request,
    a_reservation,
    activated,
    ended,
    placed,
)
from tests.unit.berth_reservation.scene import Scene

ONE, TWO = T0 + HOUR, T0 + 2 * HOUR


def status(state: State, request: str = "web", *, namespace: Namespace = TEAM_A) -> RequestStatus:
    return state.queue.requests[namespace, RequestId(request)].status


def held(**more: Any) -> Any:
    """Six of eight cores of n1, from one to two o'clock."""
    return a_reservation(start=ONE, end=TWO, on={"n1": 1}, cpu=6_000, **more)


# ---------------------------------------------------------------- starts


def test_a_reservation_is_activated_at_its_start_once_however_many_replicas_run() -> None:
    scene = Scene(a_node(), held(), replicas=3)

    scene.advance(ONE - 1)
    assert scene.records == []
    scene.advance(ONE)

    assert scene.types == ["ReservationActivated"]
    assert scene.records[0].at == ONE
    assert [refusal.code for refusal in scene.refusals] == [RefusalCode.ALREADY_DONE] * 2


def test_a_clock_that_is_ahead_of_the_leaders_asks_again_until_it_is_time() -> None:
    scene = Scene(a_node(), held())
    scene.leader_lags_ms = 300

    scene.advance(ONE + SECOND)

    assert scene.types == ["ReservationActivated"]
    assert {refusal.code for refusal in scene.refusals} == {RefusalCode.TOO_EARLY}


def test_a_clock_an_hour_ahead_costs_a_question_now_and_then_and_does_no_harm() -> None:
    requests = [placed(a_request(f"r{number}", duration_seconds=60), "n1") for number in range(50)]
    scene = Scene(a_node(cpu=64_000), *requests, a_reservation(start=T0 + MINUTE, end=ONE, on={"n1": 1}))
    scene.leader_lags_ms = HOUR

    scene.advance(T0 + 10 * MINUTE)
    assert scene.records == []
    assert sum(len(offer.transactions) for offer in scene.offers) < 51 + 10 * 60
    scene.leader_lags_ms = 0
    scene.advance(T0 + 10 * MINUTE + 10 * SECOND)

    assert scene.reservation().state is ReservationState.ACTIVE
    assert len(scene.data(RequestEnded)) == 50


def test_what_came_due_while_nobody_watched_is_done_at_the_start_of_the_service() -> None:
    history = [
        a_node(cpu=64_000),
        a_reservation("over", start=T0, end=T0 + MINUTE, on={"n1": 1}),
        activated("over"),
        a_reservation("begun", start=T0 + MINUTE, end=TWO, on={"n1": 1}),
        a_reservation("missed", start=T0 + MINUTE, end=T0 + 2 * MINUTE, on={"n1": 1}),
        placed(a_request(duration_seconds=60), "n1"),
    ]
    late = Scene(*history)
    late.now = ONE

    late.advance(ONE)

    assert late.reservation("over").state is ReservationState.EXPIRED
    assert late.reservation("begun").state is ReservationState.ACTIVE
    assert late.reservation("missed").state is ReservationState.EXPIRED, "never used, but once over, it is over (R96)"
    assert status(late.leader) is RequestStatus.EXPIRED


def test_r87_work_that_ends_at_the_start_is_gone_when_the_window_begins() -> None:
    backfill = [placed(a_request(f"r{number}", cpu=2_000, duration_seconds=3_600), "n1") for number in range(4)]
    scene = Scene(a_node(cpu=8_000), held(), *backfill)

    scene.advance(ONE)

    assert scene.reservation().state is ReservationState.ACTIVE
    assert {(one.how, one.reason) for one in scene.data(AllocationsEnded)} == {(How.EXPIRED, ReasonCode.DURATION_OVER)}
    assert {one.at for one in scene.records} == {ONE}
    assert scene.refusals == []


def test_one_window_begins_where_another_ends() -> None:
    scene = Scene(
        a_node(cpu=8_000),
        a_reservation("first", start=T0, end=ONE, on={"n1": 2}, on_expiry=OnExpiry.EVICT),
        activated("first"),
        a_reservation("next", start=ONE, end=TWO, on={"n1": 2}),
        placed(a_request(cpu=3_000, reservation="first"), "n1"),
    )

    scene.advance(ONE)

    assert scene.reservation("first").state is ReservationState.EXPIRED
    assert scene.reservation("next").state is ReservationState.ACTIVE
    assert scene.refusals == []


def test_what_is_in_the_way_of_a_start_is_evicted_in_one_transaction_and_waits_again() -> None:
    scene = Scene(a_node(cpu=8_000), held())
    scene.commit(placed(a_request("keeps", cpu=2_000, priority=10), "n1"))
    scene.commit(placed(a_request("least", cpu=3_000, priority=20), "n1"))
    scene.commit(placed(a_request("most", cpu=3_000, priority=30), "n1"))
    scene.commit(placed(a_request("never", cpu=1_000, priority=0, reschedule="never"), "n1"))

    scene.advance(ONE)

    assert scene.reservation().state is ReservationState.ACTIVE
    (transaction,) = scene.records[-1].transactions
    assert transaction[-1].type == "ReservationActivated"
    assert all(event.attempt is None for event in transaction)
    assert status(scene.leader, "never") is RequestStatus.EVICTED
    assert [status(scene.leader, name) for name in ("least", "most")] == [RequestStatus.QUEUED] * 2
    assert status(scene.leader, "keeps") is RequestStatus.PLACED, "without the two others it is not in the way"


def test_the_least_important_leaves_first_and_no_more_than_must_be() -> None:
    scene = Scene(a_node(cpu=8_000), held())
    for name, priority in (("low", 10), ("middle", 20), ("high", 90)):
        scene.commit(placed(a_request(name, cpu=1_000, priority=priority), "n1"))

    scene.advance(ONE)

    found = {name: status(scene.leader, name) for name in ("low", "middle", "high")}
    assert found == {"low": RequestStatus.QUEUED, "middle": RequestStatus.PLACED, "high": RequestStatus.PLACED}


def test_an_evicted_request_is_to_be_looked_at_at_once() -> None:
    scene = Scene(a_node(cpu=8_000), held(), placed(a_request(cpu=4_000), "n1"))

    scene.advance(ONE)

    known = scene.leader.queue.requests[TEAM_A, RequestId("web")]
    (queued,) = scene.data(RequestQueued)
    assert [reason.code for reason in queued.reasons] == [ReasonCode.PREEMPTED]
    assert max(scene.leader.last_change(wake, TEAM_A) for wake in known.wake) > known.evaluated_at, "R101"


def test_a_gang_leaves_as_a_whole() -> None:
    scene = Scene(a_node("n1", cpu=8_000), a_node("n2"), held())
    gang, partial = a_request("gang", cpu=3_000, count=2), a_request("partial", cpu=2_000, count=2, min_count=1)
    scene.commit(placed(gang, "n1", "n2"), placed(partial, "n1", "n2"))

    scene.advance(ONE)

    live = {name: scene.leader.queue.requests[TEAM_A, RequestId(name)].live for name in ("gang", "partial")}
    assert live["gang"] == ()
    assert scene.reservation().state is ReservationState.ACTIVE


def test_a_hold_shrinks_with_its_nodes() -> None:
    scene = Scene(
        a_node("n1", cpu=8_000),
        a_node("n2"),
        a_node("n3"),
        a_reservation(start=ONE, end=TWO, on={"n1": 2, "n2": 1, "n3": 2}, cpu=4_000),
    )
    scene.commit((Event(NodeLeft(node=NodeId("n2"))),), a_node("n3", cpu=5_000))

    scene.advance(ONE)

    (shrunk,) = scene.data(ReservationHeld)
    assert {one.node: one.count for one in shrunk.nodes} == {"n1": 2, "n3": 1}
    assert scene.reservation().state is ReservationState.ACTIVE


def test_a_reservation_that_lost_all_its_nodes_expires_at_its_end() -> None:
    scene = Scene(a_node(), held())
    scene.commit((Event(NodeLeft(node=NodeId("n1"))),))

    scene.advance(TWO)

    assert scene.types == ["NodeLeft", "ReservationHeld", "ReservationEnded"]
    (broken,) = scene.data(ReservationHeld)
    assert not broken.nodes
    assert broken.because == Because(cause=HoldCause.NODE_LEFT, names=("n1",))
    assert scene.reservation().state is ReservationState.EXPIRED
    assert len(scene.offers) == 2, "what cannot be done is not offered"


def test_a_start_beyond_the_hard_limit_waits_until_there_is_room() -> None:
    scene = Scene(a_node(cpu=64_000), a_quota(hard={"cpu_millicores": 8_000}), held())
    request = a_request(cpu=4_000)
    scene.commit(placed(request, "n1"))
    scene.advance(ONE + MINUTE)
    assert scene.reservation().state is ReservationState.HELD

    scene.commit(ended(scene.leader, request.key))
    scene.advance(ONE + MINUTE + 3 * SECOND)

    assert scene.reservation().state is ReservationState.ACTIVE


# ---------------------------------------------------------------- ends


def test_what_draws_on_a_reservation_that_keeps_stays_and_is_charged_to_its_own_namespace() -> None:
    scene = Scene(
        a_node(),
        a_reservation(start=T0, end=ONE, on={"n1": 1}, owners=({"namespace": TEAM_B},)),
        activated(),
        placed(a_request(cpu=1_000, namespace=TEAM_B, reservation="res1"), "n1"),
    )

    scene.advance(ONE)

    assert scene.types == ["ReservationEnded"]
    assert status(scene.leader, namespace=TEAM_B) is RequestStatus.PLACED
    assert scene.leader.quotas.used_by(TEAM_A).cpu_millicores == 0
    assert scene.leader.quotas.used_by(TEAM_B).cpu_millicores == 1_000


def test_what_draws_on_a_reservation_that_evicts_ends_in_the_same_transaction() -> None:
    scene = Scene(
        a_node("n1"),
        a_node("n2"),
        a_reservation(start=T0, end=ONE, on={"n1": 1, "n2": 1}, on_expiry=OnExpiry.EVICT),
        activated(),
        placed(a_request(cpu=2_000, count=2, reservation="res1"), "n1", "n2"),
        placed(a_request("other", cpu=1_000), "n1"),
    )

    scene.advance(ONE)

    (transaction,) = scene.records[0].transactions
    assert [event.type for event in transaction] == ["AllocationsEnded", "RequestEnded", "ReservationEnded"]
    (gone,) = scene.data(AllocationsEnded)
    assert (gone.how, gone.reason, len(gone.ids)) == (How.EXPIRED, ReasonCode.RESERVATION_OVER, 2)
    assert (status(scene.leader), status(scene.leader, "other")) == (RequestStatus.EXPIRED, RequestStatus.PLACED)


def test_more_than_a_record_holds_ends_in_parts_and_the_last_part_ends_the_reservation() -> None:
    requests = [placed(a_request(f"r{number}", cpu=10, reservation="res1"), "n1") for number in range(600)]
    scene = Scene(
        a_node(cpu=64_000, instances=1_000),
        a_reservation(start=T0, end=ONE, on={"n1": 1}, cpu=64_000, on_expiry=OnExpiry.EVICT),
        activated(),
        *requests,
        replicas=2,
    )

    scene.advance(ONE)

    assert max(len(one) for record in scene.records for one in record.transactions) <= 512
    assert scene.types.count("RequestEnded") == 600
    assert scene.types[-1] == "ReservationEnded"
    assert scene.reservation().state is ReservationState.EXPIRED


def test_what_is_releasing_already_ends_as_it_was_going_to() -> None:
    request = a_request(cpu=1_000, grace_seconds=7_200, reservation="res1")
    scene = Scene(
        a_node(),
        a_reservation(start=T0, end=ONE, on={"n1": 1}, on_expiry=OnExpiry.EVICT),
        activated(),
        placed(request, "n1"),
    )
    live = scene.leader.queue.requests[request.key].live
    releasing = AllocationsReleasing(ids=live, how=How.RELEASED, reason=ReasonCode.RELEASED, until=TWO)
    scene.commit((about(request.key, releasing, attempt=Attempt(2)),))

    scene.advance(ONE)

    assert scene.reservation().state is ReservationState.EXPIRED
    assert status(scene.leader) is RequestStatus.RELEASED


def test_a_request_that_waits_again_keeps_waiting_when_the_last_of_it_is_gone() -> None:
    request = a_request(cpu=1_000, grace_seconds=7_200, reservation="res1")
    scene = Scene(
        a_node(),
        a_reservation(start=T0, end=ONE, on={"n1": 1}, on_expiry=OnExpiry.EVICT),
        activated(),
        placed(request, "n1"),
    )
    live = scene.leader.queue.requests[request.key].live
    releasing = AllocationsReleasing(ids=live, how=How.EVICTED, reason=ReasonCode.DRAINED, until=TWO)
    queued = RequestQueued(
        reasons=(Reason(code=ReasonCode.DRAINED),), wake=(Wake(on=WakeOn.CAPACITY),), evaluated_at=Sequence(1)
    )
    scene.commit((about(request.key, releasing), about(request.key, queued)))

    scene.advance(ONE)

    assert scene.reservation().state is ReservationState.EXPIRED
    assert status(scene.leader) is RequestStatus.QUEUED


def test_r96_an_end_that_comes_late_changes_nothing() -> None:
    scene = Scene(a_node(), held(), replicas=2)
    scene.behind = {1}
    scene.cancel(by=0)
    scene.run()

    scene.advance(TWO)
    scene.catch_up(1)
    scene.advance(TWO + HOUR)

    assert [one.status for one in scene.data(ReservationEnded)] == [ReservationStatus.CANCELLED]
    assert {refusal.code for refusal in scene.refusals} == {RefusalCode.ALREADY_DONE}


def test_r92_an_unused_reservation_is_released_after_its_time() -> None:
    scene = Scene(
        a_node(), a_reservation(start=T0, end=TWO, on={"n1": 1}, release_if_unused_after_seconds=300), activated()
    )

    scene.advance(T0 + 5 * MINUTE - 1)
    assert scene.records == []
    scene.advance(T0 + 5 * MINUTE)

    assert scene.reservation().state is ReservationState.RELEASED


def test_r92_the_time_counts_anew_when_it_was_used_meanwhile() -> None:
    scene = Scene(
        a_node(), a_reservation(start=T0, end=TWO, on={"n1": 1}, release_if_unused_after_seconds=300), activated()
    )
    request = a_request(cpu=1_000, reservation="res1")
    scene.advance(T0 + 4 * MINUTE)
    scene.commit(placed(request, "n1"))
    scene.advance(T0 + 20 * MINUTE)
    scene.commit(ended(scene.leader, request.key))

    scene.advance(T0 + 25 * MINUTE - 1)
    assert scene.reservation().state is ReservationState.ACTIVE
    scene.advance(T0 + 26 * MINUTE)
    assert scene.reservation().state is ReservationState.RELEASED


def test_r94_a_reservation_to_be_used_once_is_over_after_its_first_use() -> None:
    scene = Scene(a_node(), a_reservation(start=T0, end=TWO, on={"n1": 2}, allocate_once=True), activated())

    scene.commit(placed(a_request(cpu=1_000, reservation="res1"), "n1"))
    scene.run()

    assert scene.reservation().state is ReservationState.RELEASED
    assert status(scene.leader) is RequestStatus.PLACED
    assert scene.leader.quotas.used_by(TEAM_A).cpu_millicores == 1_000, "the remainder is returned"

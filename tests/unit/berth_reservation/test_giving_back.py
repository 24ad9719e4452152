"""What ends before its time, and what becomes of the work that draws on it (R90)."""

from typing import Any

from berth.messages.events import AllocationsEnded, AllocationsReleasing, How, RequestEnded
from berth.messages.reasons import ReasonCode
from berth.messages.reservation_events import EndCause, ReservationEnded
from berth.model.cluster import AllocationState
from berth.model.reservation import ReservationState
from tests.builders import HOUR, SECOND, T0, a_node, a_quota, a_request, ended, placed
from tests.unit.berth_reservation.scene import Scene

ONE = T0 + HOUR


def in_use(**document: Any) -> Scene:
    scene = Scene(a_node("n1"), a_quota())
    scene.create(duration_seconds=3_600, **document)
    scene.run()
    scene.commit(placed(a_request("drawer", cpu=4_000, reservation="res1"), "n1"))
    return scene


def test_r90_cancel_with_evict_takes_what_draws_along_in_one_transaction() -> None:
    scene = in_use()
    token = scene.cancel(evict=True)
    scene.run()

    assert scene.why(token) is None
    (gone,) = scene.data(AllocationsEnded)
    assert (gone.how, gone.reason) == (How.EVICTED, ReasonCode.RESERVATION_CANCELLED)
    assert scene.types[-3:] == ["AllocationsEnded", "RequestEnded", "ReservationEnded"]
    assert scene.reservation().ended is EndCause.CANCELLED
    assert scene.leader.quotas.used_by(scene.reservation().namespace).cpu_millicores == 0


def test_r90_after_the_end_what_draws_has_its_grace_and_no_more() -> None:
    scene = in_use(on_expiry="evict", grace_seconds=30)
    scene.advance(ONE)

    (told,) = scene.data(AllocationsReleasing)
    assert (told.how, told.reason, told.until) == (How.EXPIRED, ReasonCode.RESERVATION_OVER, ONE + 30 * SECOND)
    assert scene.reservation().state is ReservationState.EXPIRED
    (leaving,) = scene.leader.cluster.allocations.values()
    assert leaving.state is AllocationState.RELEASING
    assert scene.leader.quotas.used_by(leaving.namespace).cpu_millicores == 4_000, "it pays for itself now"


def test_without_grace_what_draws_leaves_with_the_reservation_or_stays() -> None:
    evicting, keeping = in_use(on_expiry="evict"), in_use()
    evicting.advance(ONE)
    keeping.advance(ONE)

    assert evicting.types[-3:] == ["AllocationsEnded", "RequestEnded", "ReservationEnded"]
    assert [one.reason for one in evicting.data(RequestEnded)] == [ReasonCode.RESERVATION_OVER]
    assert keeping.types[-1:] == ["ReservationEnded"]
    assert [one.state for one in keeping.leader.cluster.allocations.values()] == [AllocationState.PLACED]


def test_a_window_after_one_with_grace_is_booked_around_what_may_overrun() -> None:
    scene = in_use(on_expiry="evict", grace_seconds=600, resources={"cpu_cores": 8})
    scene.commit(placed(a_request("more", cpu=4_000, reservation="res1"), "n1"))

    token = scene.create(id="next", start="2026-01-01T01:00:00Z", duration_seconds=60, resources={"cpu_cores": 8})
    scene.run()

    refusal = scene.answers[token].refusal
    assert refusal is not None
    assert refusal.earliest_start == ONE + 600 * SECOND


def test_r96_the_late_expiry_of_a_consumed_reservation_changes_nothing() -> None:
    scene = Scene(a_node("n1"))
    scene.create(duration_seconds=3_600, allocate_once=True)
    scene.run()
    scene.commit(placed(a_request("drawer", cpu=4_000, reservation="res1"), "n1"))
    scene.run()
    assert (scene.reservation().state, scene.reservation().ended) == (ReservationState.RELEASED, EndCause.USED)

    scene.advance(ONE + HOUR)

    assert scene.over == ["res1"]
    assert scene.reservation().state is ReservationState.RELEASED


def test_each_end_names_its_cause() -> None:
    scene = Scene(a_node("n1", cpu=64_000))
    scene.create(id="over", duration_seconds=60)
    scene.create(id="unused", duration_seconds=3_600, release_if_unused_after_seconds=10)
    scene.create(id="given-back", duration_seconds=3_600)
    scene.run()
    scene.cancel("given-back")
    scene.advance(ONE)

    ends = {one.reservation: one.cause for one in scene.data(ReservationEnded)}
    assert ends == {"over": EndCause.OVER, "unused": EndCause.UNUSED, "given-back": EndCause.CANCELLED}


def test_use_that_comes_and_goes_begins_the_time_without_use_anew() -> None:
    scene = Scene(a_node("n1"))
    scene.create(duration_seconds=3_600, release_if_unused_after_seconds=600)
    scene.run()
    request = a_request("drawer", cpu=4_000, reservation="res1")
    scene.commit(placed(request, "n1"))
    scene.advance(T0 + 1_000 * SECOND)
    assert scene.over == []

    scene.commit(ended(scene.leader, request.key))
    scene.advance(T0 + 1_599 * SECOND)
    assert scene.over == []
    scene.advance(T0 + 1_600 * SECOND)
    assert scene.over == ["res1"]

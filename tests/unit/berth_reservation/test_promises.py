"""A held reservation keeps its capacity, or says on whose account it does not (R92)."""

from typing import Any

from berth.ids import NodeId
from berth.messages.documents import Displace, OnNodeLoss
from berth.messages.events import (
    Event,
    NodeChanged,
    NodeLeft,
    NodeLost,
    ReservationCreated,
    ReservationHeld,
    Transaction,
)
from berth.messages.reservation_events import Because, HoldCause
from berth.model.reservation import ReservationState
from tests.builders import (
    HOUR,
    MINUTE,
    SECOND,
    T0,
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
IN_AN_HOUR: dict[str, Any] = {"start": "2026-01-01T01:00:00Z", "end": "2026-01-01T02:00:00Z"}


def lost(node: str) -> Transaction:
    return (Event(NodeLost(node=NodeId(node))),)


def drained(node: str, *, draining: bool = True) -> Transaction:
    return (Event(NodeChanged(node=NodeId(node), draining=draining)),)


def where(scene: Scene, name: str = "res1") -> dict[str, int]:
    return {str(node): count for node, count in scene.reservation(name).holds}


def causes(scene: Scene) -> list[Because | None]:
    return [one.because for one in scene.data(ReservationHeld)]


# ---------------------------------------------------------------- nodes that fail


def test_r92_a_held_reservation_moves_from_a_lost_node_to_another() -> None:
    scene = Scene(a_node("n1"), a_node("n2"), a_node("n3"))
    scene.create(count=3, **IN_AN_HOUR)
    scene.run()
    assert where(scene) == {"n1": 2, "n2": 1}

    scene.commit(lost("n1"))
    scene.run()

    assert where(scene) == {"n2": 2, "n3": 1}
    assert causes(scene)[-1] == Because(cause=HoldCause.NODE_LOST, names=("n1",))
    scene.advance(ONE)
    assert scene.activated == ["res1"]


def test_r92_a_drained_node_and_one_that_leaves_are_replaced_too() -> None:
    scene = Scene(a_node("n1"), a_node("n2"), a_node("n3"))
    scene.create(count=2, **IN_AN_HOUR)
    scene.run()

    scene.commit(drained("n1"))
    scene.run()
    scene.commit((Event(NodeLeft(node=NodeId("n2"))),))
    scene.run()

    assert where(scene) == {"n3": 2}
    assert [one.cause for one in causes(scene)[1:] if one] == [HoldCause.NODE_DRAINED, HoldCause.NODE_LEFT]


def test_r92_a_static_reservation_never_moves_and_starts_with_what_is_left() -> None:
    scene = Scene(a_node("n1", cpu=4_000), a_node("n2"))
    scene.create(nodes=["n1", "n2"], count=2, on_node_loss="static", **IN_AN_HOUR)
    scene.run()
    scene.commit(lost("n1"))
    scene.run()
    assert where(scene) == {"n1": 1, "n2": 1}

    scene.advance(ONE)

    assert where(scene) == {"n2": 1}
    assert causes(scene)[-1] == Because(cause=HoldCause.NODE_LOST, names=("n1",))
    assert scene.reservation().body.on_node_loss is OnNodeLoss.STATIC


def test_a_promise_that_nothing_can_keep_is_broken_with_its_cause_and_filled_up_later() -> None:
    scene = Scene(a_node("n1", cpu=4_000), a_node("n2", cpu=4_000))
    scene.create(count=2, **IN_AN_HOUR)
    scene.run()

    scene.commit(lost("n1"))
    scene.run()
    assert (where(scene), scene.reservation().missing) == ({"n2": 1}, 1)
    assert scene.reservation().because == Because(cause=HoldCause.NODE_LOST, names=("n1",))

    scene.commit(a_node("n3", cpu=4_000))
    scene.advance(T0 + 10 * SECOND)
    assert (where(scene), scene.reservation().missing) == ({"n2": 1, "n3": 1}, 0)
    assert causes(scene)[-1] == Because(cause=HoldCause.REFILLED)


def test_a_second_loss_is_answered_at_once_too_and_a_start_is_never_late_for_it() -> None:
    scene = Scene(a_node("n1", cpu=4_000), a_node("n2", cpu=4_000))
    scene.create(count=2, **IN_AN_HOUR)
    scene.run()
    scene.commit(lost("n1"))
    scene.run()
    scene.commit(lost("n2"))
    scene.run()
    assert where(scene) == {}

    scene.commit(a_node("n3", cpu=4_000))
    scene.advance(ONE - 100)
    scene.commit(a_node("n4", cpu=1_000))
    scene.advance(ONE)

    assert where(scene) == {"n3": 1}
    assert scene.records[-1].at == ONE
    assert scene.activated == ["res1"]


def test_an_active_reservation_gets_another_node_for_what_nobody_draws() -> None:
    scene = Scene(a_node("n1", cpu=4_000), a_node("n2", cpu=4_000), a_node("n3", cpu=4_000), a_quota())
    scene.create(count=2, duration_seconds=3_600)
    scene.run()
    scene.commit(placed(a_request("drawer", cpu=1_000, reservation="res1"), "n1"))

    scene.commit(drained("n1"), drained("n2"))
    scene.run()

    assert where(scene) == {"n1": 1, "n3": 1}, "what is drawn stays where it is"
    assert scene.reservation().state is ReservationState.ACTIVE
    assert scene.leader.quotas.used_by(scene.reservation().namespace).cpu_millicores == 8_000


def test_a_start_during_which_a_node_is_gone_finds_another_at_once() -> None:
    scene = Scene(a_node("n1", cpu=4_000), a_node("n2", cpu=4_000), replicas=1)
    scene.create(**IN_AN_HOUR)
    scene.run()
    scene.now = ONE
    scene.commit(lost("n1"))
    scene.run()

    assert where(scene) == {"n2": 1}
    assert scene.types[-2:] == ["ReservationHeld", "ReservationActivated"]


def test_a_service_that_starts_again_replaces_what_was_lost_meanwhile() -> None:
    scene = Scene(
        a_node("n1"),
        a_node("n2"),
        a_reservation(start=ONE, end=TWO, on={"n1": 1}, named=False),
        lost("n1"),
    )

    scene.run()

    assert where(scene) == {"n2": 1}


# ---------------------------------------------------------------- those of higher priority

IMPORTANT: dict[str, Any] = {"id": "vip", "priority": 90, "displace": "lower_priority", **IN_AN_HOUR}


def test_higher_priority_displaces_lower_when_asked_and_that_is_held_elsewhere() -> None:
    scene = Scene(a_node("n1"), a_node("n2", labels={"zone": "b"}))
    scene.create(count=2, **IN_AN_HOUR)
    scene.run()
    assert where(scene) == {"n1": 2}

    scene.create(nodes=["n1"], count=2, **IMPORTANT)
    scene.run()

    assert where(scene, "vip") == {"n1": 2}
    assert where(scene) == {"n2": 2}
    assert scene.reservation().because == Because(cause=HoldCause.DISPLACED, names=("vip",))
    assert scene.reservation("vip").body.displace is Displace.LOWER_PRIORITY


def test_who_is_displaced_and_finds_no_other_place_is_told() -> None:
    scene = Scene(a_node("n1"))
    scene.create(count=2, **IN_AN_HOUR)
    scene.run()

    scene.create(**IMPORTANT)
    scene.run()

    assert (where(scene, "vip"), where(scene)) == ({"n1": 1}, {"n1": 1})
    assert (scene.reservation().missing, scene.reservation().because) == (
        1,
        Because(cause=HoldCause.DISPLACED, names=("vip",)),
    )


def test_only_as_many_as_needed_are_displaced_the_least_important_first() -> None:
    scene = Scene(a_node("n1", cpu=12_000))
    for name, priority in (("low", 10), ("middle", 20), ("high", 95)):
        scene.create(id=name, priority=priority, **IN_AN_HOUR)
        scene.run()

    scene.create(**IMPORTANT)
    scene.run()

    assert {name: where(scene, name) for name in ("low", "middle", "high", "vip")} == {
        "low": {},
        "middle": {"n1": 1},
        "high": {"n1": 1},
        "vip": {"n1": 1},
    }


def test_nobody_is_displaced_who_is_as_important_active_or_not_asked_about() -> None:
    scene = Scene(a_node("n1", cpu=4_000))
    scene.create(priority=90, **IN_AN_HOUR)
    scene.run()

    same = scene.create(**IMPORTANT)
    lower = scene.create(id="other", priority=95, **IN_AN_HOUR)
    scene.run()

    for token in (same, lower):
        refusal = scene.answers[token].refusal
        assert refusal is not None
        assert refusal.earliest_start == TWO
    assert where(scene) == {"n1": 1}


# ---------------------------------------------------------------- work that would break one


def test_r87_work_that_surely_ends_in_time_uses_what_is_held_for_later() -> None:
    scene = Scene(a_node("n1", cpu=4_000))
    scene.create(**IN_AN_HOUR)
    scene.run()

    scene.commit(placed(a_request("short", cpu=4_000, duration_seconds=3_600), "n1"))
    scene.advance(ONE)

    assert scene.activated == ["res1"]
    assert where(scene) == {"n1": 1}


def test_r89_a_window_uses_only_what_is_expected_free_at_its_start() -> None:
    scene = Scene(
        a_node("n1", cpu=4_000),
        placed(a_request("long", cpu=1_000, duration_seconds=5_400), "n1"),
    )

    token = scene.create(**IN_AN_HOUR)
    scene.run()
    refusal = scene.answers[token].refusal
    assert refusal is not None
    assert refusal.earliest_start == T0 + 90 * MINUTE
    assert refusal.in_the_way == ("team-a/long (until 2026-01-01T01:30:00Z)",)

    scene.create(start="2026-01-01T01:30:00Z", duration_seconds=60)
    scene.run()
    assert where(scene) == {"n1": 1}


def test_soonest_is_the_first_window_of_its_length_that_works() -> None:
    scene = Scene(
        a_node("n1", cpu=4_000),
        placed(a_request("long", cpu=1_000, duration_seconds=5_400), "n1"),
    )

    scene.create(soonest=True, duration_seconds=3_600)
    scene.create(id="free", soonest=True, duration_seconds=3_600, resources={"cpu_cores": 1})
    scene.run()

    assert scene.reservation().body.start == T0 + 90 * MINUTE
    assert scene.reservation("free").state is ReservationState.ACTIVE
    created = [one.reservation.id for one in scene.data(ReservationCreated)]
    assert created == ["res1", "free"]


def test_the_earlier_end_of_what_runs_leaves_a_promise_where_it_is() -> None:
    scene = Scene(a_node("n1", cpu=4_000))
    request = a_request("long", cpu=4_000, duration_seconds=1_800)
    scene.commit(placed(request, "n1"))
    scene.create(**IN_AN_HOUR)
    scene.run()
    before = where(scene)

    scene.commit(ended(scene.leader, request.key))
    scene.run()

    assert where(scene) == before
    assert causes(scene) == [None]


def test_an_unused_active_reservation_still_counts_for_its_namespace() -> None:
    scene = Scene(a_node("n1"), a_quota(), a_reservation(start=T0, end=ONE, on={"n1": 1}), activated())

    assert scene.leader.quotas.used_by(scene.reservation().namespace).cpu_millicores == 4_000

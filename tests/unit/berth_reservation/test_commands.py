"""Commands about reservations: proposed until it is known what became of them, answered by the ledger."""

from typing import Any

from berth.messages.commands import RefusalCode
from berth.messages.events import ReservationCreated, ReservationEnded
from berth.messages.reservation_events import ReservationStatus
from berth.model.reservation import ReservationState
from berth_reservation.pace import Pace
from tests.builders import HOUR, MINUTE, SECOND, T0, TEAM_A, TEAM_B, a_node, a_quota, a_request, ended, placed
from tests.unit.berth_reservation.scene import Scene

IN_AN_HOUR: dict[str, Any] = {"start": "2026-01-01T01:00:00Z", "end": "2026-01-01T02:00:00Z", "nodes": ["n1"]}


def code(scene: Scene, token: str) -> RefusalCode | None:
    refusal = scene.answers[token].refusal
    return None if refusal is None else refusal.code


# ---------------------------------------------------------------- create


def test_a_reservation_is_answered_with_its_row_once_it_is_committed() -> None:
    scene = Scene(a_node())

    token = scene.create(count=2, **IN_AN_HOUR)
    assert token not in scene.answers, "nothing is answered before it is committed"
    scene.run()

    answer = scene.answers[token]
    assert (answer.refusal, answer.sequence) == (None, 2)
    assert answer.reservation is not None
    assert answer.reservation["state"] == "held"
    assert answer.reservation["held"] == [{"node": "n1", "count": 2}]
    assert scene.types == ["ReservationCreated", "ReservationHeld"]


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    scene = Scene(a_node())

    token = scene.create(count=3, **IN_AN_HOUR)
    scene.run()

    assert code(scene, token) is RefusalCode.CAPACITY
    assert scene.records == []


def test_r106_the_same_command_again_gets_the_same_answer_from_any_replica() -> None:
    scene = Scene(a_node(), replicas=2)
    first = scene.create(by=0, **IN_AN_HOUR)
    scene.run()

    again = scene.create(by=1, **IN_AN_HOUR)

    assert scene.answers[again] == scene.answers[first]
    assert len(scene.data(ReservationCreated)) == 1


def test_r106_the_same_command_twice_at_once_books_once() -> None:
    scene = Scene(a_node(), replicas=2)
    tokens = [scene.create(by=by, **IN_AN_HOUR) for by in (0, 0, 1)]

    scene.advance(T0 + MINUTE)

    assert [code(scene, token) for token in tokens] == [None, None, None]
    assert len(scene.data(ReservationCreated)) == 1


def test_r106_another_body_or_another_namespace_is_a_conflict() -> None:
    scene = Scene(a_node(), replicas=2)
    scene.create(**IN_AN_HOUR)
    at_once = scene.create(by=1, count=2, **IN_AN_HOUR)
    scene.advance(T0 + SECOND)

    later = scene.create(count=2, **IN_AN_HOUR)
    theirs = scene.create(namespace=TEAM_B, **IN_AN_HOUR)

    assert [code(scene, token) for token in (at_once, later, theirs)] == [RefusalCode.CONFLICT] * 3
    assert len(scene.data(ReservationCreated)) == 1


def test_two_of_one_burst_see_each_other() -> None:
    scene = Scene(a_node(cpu=8_000))

    first, second = scene.create(id="a", **IN_AN_HOUR), scene.create(id="b", count=2, **IN_AN_HOUR)
    scene.run()

    assert (code(scene, first), code(scene, second)) == (None, RefusalCode.CAPACITY)


def test_a_reservation_from_now_on_waits_for_a_leader_whose_clock_is_behind() -> None:
    scene = Scene(a_node(), now=T0)
    scene.leader_lags_ms = 400
    token = scene.create(duration_seconds=60)

    scene.advance(T0 + SECOND)

    assert code(scene, token) is None
    assert scene.reservation().state is ReservationState.ACTIVE
    assert scene.reservation().body.start == T0


def test_a_command_waits_while_nobody_leads() -> None:
    scene = Scene(a_node())
    scene.nobody_leads = True
    token = scene.create(**IN_AN_HOUR)
    scene.advance(T0 + 3 * SECOND)
    assert token not in scene.answers

    scene.nobody_leads = False
    scene.advance(T0 + 4 * SECOND)

    assert code(scene, token) is None


def test_a_command_that_nobody_decides_is_answered_as_unknown() -> None:
    scene = Scene(a_node())
    scene.nobody_leads = True
    token = scene.create(**IN_AN_HOUR)

    scene.advance(T0 + 8 * SECOND)

    assert code(scene, token) is RefusalCode.UNKNOWN
    refusal = scene.answers[token].refusal
    assert refusal is not None
    assert "safely be sent again" in refusal.detail


def test_a_lost_answer_changes_nothing() -> None:
    scene = Scene(a_node())
    scene.answers_are_lost = True

    token = scene.create(**IN_AN_HOUR)
    scene.advance(T0 + 10 * SECOND)

    assert code(scene, token) is None
    assert len(scene.data(ReservationCreated)) == 1


def test_a_replica_that_is_behind_books_again_on_the_newer_view() -> None:
    scene = Scene(a_node(cpu=8_000), replicas=2)
    scene.behind = {1}
    scene.create(id="theirs", by=0, count=2, **IN_AN_HOUR)
    scene.run()

    token = scene.create(id="mine", by=1, **IN_AN_HOUR)
    scene.run()
    assert token not in scene.answers, "the leader refused, and this replica does not know why"
    scene.catch_up(1)
    scene.advance(T0 + SECOND)

    assert code(scene, token) is RefusalCode.CAPACITY


def test_too_many_commands_at_once_are_refused_as_overloaded() -> None:
    scene = Scene(a_node(), pace=Pace(commands_max=1))

    tokens = [scene.create(id="a", **IN_AN_HOUR), scene.create(id="b", **IN_AN_HOUR)]
    scene.run()

    assert [code(scene, token) for token in tokens] == [None, RefusalCode.OVERLOADED]


# ---------------------------------------------------------------- cancel


def test_a_held_reservation_is_cancelled_and_its_capacity_free_again() -> None:
    scene = Scene(a_node())
    scene.create(count=2, **IN_AN_HOUR)
    scene.run()

    token = scene.cancel()
    scene.run()

    assert code(scene, token) is None
    assert scene.reservation().state is ReservationState.CANCELLED
    scene.create(id="next", count=2, **IN_AN_HOUR)
    scene.run()
    assert scene.reservation("next").state is ReservationState.HELD


def test_an_active_reservation_is_released() -> None:
    scene = Scene(a_node())
    scene.create(duration_seconds=3_600)
    scene.run()

    token = scene.cancel()
    scene.run()

    assert code(scene, token) is None
    assert scene.reservation().state is ReservationState.RELEASED
    assert scene.leader.quotas.used_by(TEAM_A).cpu_millicores == 0


def test_r90_a_reservation_in_use_is_not_cancelled_until_its_users_are_gone() -> None:
    scene = Scene(a_node())
    scene.create(duration_seconds=3_600)
    scene.run()
    request = a_request(reservation="res1")
    scene.commit(placed(request, "n1"))

    token = scene.cancel()
    scene.run()
    refusal = scene.answers[token].refusal
    assert refusal is not None
    assert refusal.code is RefusalCode.RULE
    assert refusal.detail.startswith("res1 is in use by team-a/web: release those first, cancel it with `--evict`")

    scene.commit(ended(scene.leader, request.key))
    token = scene.cancel()
    scene.run()
    assert code(scene, token) is None


def test_cancelling_twice_is_answered_alike_and_done_once() -> None:
    scene = Scene(a_node())
    scene.create(**IN_AN_HOUR)
    scene.run()

    tokens = [scene.cancel(), scene.cancel()]
    scene.advance(T0 + SECOND)
    tokens.append(scene.cancel())

    assert [code(scene, token) for token in tokens] == [None, None, None]
    assert len(scene.data(ReservationEnded)) == 1


def test_a_reservation_of_another_namespace_is_not_found() -> None:
    scene = Scene(a_node())
    scene.create(**IN_AN_HOUR)
    scene.run()

    tokens = [scene.cancel(namespace=TEAM_B), scene.cancel("unknown")]
    scene.advance(T0 + SECOND)

    assert [code(scene, token) for token in tokens] == [RefusalCode.NOT_FOUND] * 2
    assert scene.reservation().state is ReservationState.HELD


def test_a_replica_that_has_not_heard_of_a_reservation_yet_waits_for_it() -> None:
    scene = Scene(a_node(), replicas=2)
    scene.behind = {1}
    scene.create(by=0, **IN_AN_HOUR)
    scene.run()

    token = scene.cancel(by=1)
    scene.run()
    scene.catch_up(1)
    scene.advance(T0 + SECOND)

    assert code(scene, token) is None
    assert scene.reservation().state is ReservationState.CANCELLED


def test_r96_an_expired_reservation_is_not_cancelled() -> None:
    scene = Scene(a_node())
    scene.create(**IN_AN_HOUR)
    scene.advance(T0 + 3 * HOUR)

    token = scene.cancel()

    assert code(scene, token) is RefusalCode.ALREADY_DONE
    assert [one.status for one in scene.data(ReservationEnded)] == [ReservationStatus.EXPIRED]


def test_the_hard_limit_counts_from_the_start_on() -> None:
    scene = Scene(a_node(cpu=64_000), a_quota(hard={"cpu_millicores": 8_000}))
    scene.create(count=2, **IN_AN_HOUR)
    scene.run()
    assert scene.leader.quotas.used_by(TEAM_A).cpu_millicores == 0

    scene.advance(T0 + HOUR)

    assert scene.leader.quotas.used_by(TEAM_A).cpu_millicores == 8_000

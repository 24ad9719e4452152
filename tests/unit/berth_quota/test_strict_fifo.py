"""Where a namespace is strict_fifo, whoever does not fit keeps back those behind it (R73)."""

from berth.messages.reasons import ReasonCode
from tests.builders import TEAM_A, TEAM_B, a_quota
from tests.unit.berth_quota.settings_of_walks import a_walk, cores, wants
from tests.unit.berth_quota.walk import Walk

STRICT = "strict_fifo"


def strict(room: int = 4, **quota: object) -> Walk:
    return a_walk(a_quota(TEAM_A, queueing=STRICT, **quota), room=room)


def why(walk: Walk, request: str) -> list[tuple[ReasonCode, str | None]]:
    return [(reason.code, reason.detail) for reason in walk.decision(request).reasons]


def test_r73_a_head_that_does_not_fit_keeps_back_those_behind_it() -> None:
    walk = strict()
    walk.submit(wants("runs", 2))
    walk.submit(wants("big", 3))

    walk.submit(wants("small", 1))

    assert why(walk, "small") == [(ReasonCode.BEHIND_ANOTHER, "big")]

    walk.release("runs")

    assert [walk.said(name)[-1][0] for name in ("big", "small")] == ["placed", "placed"]


def test_r73_best_effort_it_does_not() -> None:
    walk = a_walk(room=4)
    walk.submit(wants("runs", 2))
    walk.submit(wants("big", 3))

    walk.submit(wants("small", 1))

    assert walk.said("small") == [("placed", 1)]


def test_it_keeps_back_nobody_of_another_namespace() -> None:
    walk = strict()
    walk.submit(wants("runs", 2))
    walk.submit(wants("big", 3))

    walk.submit(wants("theirs", 1, namespace=TEAM_B))

    assert walk.said("theirs") == [("placed", 1)]


def test_whoever_is_more_important_is_the_head_itself() -> None:
    walk = strict()
    walk.submit(wants("runs", 2))
    walk.submit(wants("big", 3))

    walk.submit(wants("urgent", 1, priority=90))

    assert walk.said("urgent") == [("placed", 1)]


def test_who_would_not_borrow_does_not_overtake_who_would() -> None:
    walk = strict(8, soft=cores(2), cohort="research")
    walk.happened(a_quota("lender", soft=cores(8), cohort="research"))
    walk.submit(wants("runs", 1))

    walk.hold_scheduler = True
    walk.submit(wants("borrows", 3), wants("own", 1))
    walk.hold_scheduler = False
    walk.run()

    assert walk.evaluated() == ["runs", "borrows", "own"]


def test_when_the_head_is_given_up_the_next_one_goes() -> None:
    walk = strict()
    walk.submit(wants("runs", 2))
    walk.submit(wants("big", 3), wants("small", 1), wants("last", 1))
    assert why(walk, "last") == [(ReasonCode.BEHIND_ANOTHER, "big")]

    walk.release("big")

    assert [walk.said(name)[-1][0] for name in ("small", "last")] == ["placed", "placed"]


def test_when_the_head_passes_its_deadline_the_next_one_goes() -> None:
    walk = strict()
    walk.submit(wants("runs", 2))
    walk.submit(wants("big", 3, queue_deadline_seconds=10), wants("small", 1))

    walk.wait(10_000)

    assert walk.said("big")[-1][0] == "rejected"
    assert walk.said("small")[-1][0] == "placed"


def test_a_head_that_no_scheduler_has_answered_for_is_waited_for_in_memory() -> None:
    walk = strict()
    walk.hold_scheduler = True
    walk.submit(wants("first", 1))
    walk.submit(wants("second", 1))
    walk.wait(walk.bounds.turn_ms)
    assert walk.evaluated() == ["first"]
    assert walk.types_of("second") == []

    walk.hold_scheduler = False
    walk.run()

    assert [walk.said(name) for name in ("first", "second")] == [[("placed", 1)], [("placed", 1)]]


def test_when_it_is_strict_no_more_everybody_may_go() -> None:
    walk = strict()
    walk.submit(wants("runs", 2))
    walk.submit(wants("big", 3), wants("small", 1))

    walk.happened(a_quota(TEAM_A))

    assert walk.said("small")[-1][0] == "placed"


def test_a_standby_that_takes_over_keeps_the_order() -> None:
    walk = strict()
    walk.submit(wants("runs", 2))
    walk.submit(wants("big", 3), wants("small", 1))
    walk.kill()
    walk.start()
    walk.nudged()

    assert why(walk, "small") == [(ReasonCode.BEHIND_ANOTHER, "big")]

    walk.release("runs")

    assert [walk.said(name)[-1][0] for name in ("big", "small")] == ["placed", "placed"]


def test_the_place_in_the_queue_says_so() -> None:
    walk = strict(4, soft=cores(3), cohort="research")
    walk.happened(a_quota("lender", soft=cores(8), cohort="research"))
    walk.submit(wants("runs", 2))
    walk.submit(wants("big", 3), wants("small", 1))

    rows = {str(row["id"]): row for row in walk.requests(TEAM_A).items}

    assert (rows["big"]["queue_position"], rows["small"]["queue_position"]) == (1, 2)
    assert rows["small"]["ahead"] == [{"namespace": TEAM_A, "id": "big", "because": "strict_fifo"}]

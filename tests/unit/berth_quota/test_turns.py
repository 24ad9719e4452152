"""One evaluation at a time: schedulers on one view would choose the same nodes."""

from collections.abc import Iterable

from berth.messages.commands import Evaluation, Verdict
from tests.unit.berth_quota.settings_of_walks import a_walk, wants
from tests.unit.berth_quota.walk import verdict


def names(evaluations: Iterable[Evaluation]) -> list[list[str]]:
    return [[item.request.id for item in one.items] for one in evaluations]


def test_what_arrives_while_an_evaluation_is_under_way_leaves_with_the_next_one() -> None:
    walk = a_walk(room=10)
    walk.hold_scheduler = True
    for name in ("a", "b", "c"):
        walk.submit(wants(name))
    assert names(walk.evaluations) == [["a"]]

    walk.hold_scheduler = False
    walk.run()

    assert names(walk.evaluations) == [["a"], ["b", "c"]]
    assert [walk.said(name)[-1][0] for name in ("a", "b", "c")] == ["placed"] * 3


def test_the_next_evaluation_names_the_record_of_the_last_placement() -> None:
    walk = a_walk(room=10)
    walk.submit(wants("a"))
    placed_at = walk.decision("a").sequence
    walk.submit(wants("b"))

    assert [item.view for one in walk.evaluations for item in one.items][1] == placed_at


def test_a_scheduler_that_is_silent_holds_up_others_for_one_turn() -> None:
    walk = a_walk(room=10)
    walk.hold_scheduler = True
    walk.submit(wants("a"))
    walk.drop_asked("a")
    walk.submit(wants("b"))
    walk.wait(walk.bounds.turn_ms - 1)
    assert names(walk.evaluations) == [["a"]]

    walk.hold_scheduler = False
    walk.wait(1)

    assert names(walk.evaluations) == [["a"], ["b"]]
    assert walk.said("b")[-1][0] == "placed"


def test_where_turns_take_long_the_next_one_is_waited_for_longer() -> None:
    walk = a_walk(room=10)
    walk.hold_scheduler = True
    walk.submit(wants("slow"))
    walk.wait(walk.bounds.turn_ms - 1)
    walk.hold_scheduler = False
    walk.run()

    walk.hold_scheduler = True
    walk.submit(wants("a"))
    walk.submit(wants("b"))
    walk.wait(3 * walk.bounds.turn_ms)
    assert names(walk.evaluations) == [["slow"], ["a"]]

    walk.wait(walk.bounds.turn_ms)
    assert names(walk.evaluations) == [["slow"], ["a"], ["b"]]


def test_one_that_is_sent_alone_holds_up_nobody() -> None:
    walk = a_walk(room=10)
    walk.scheduler.verdicts["a"] = verdict("a", Verdict.CONTENDED)
    walk.hold_scheduler = True
    walk.submit(wants("a"))
    walk.submit(wants("b"))
    walk.hold_scheduler = False
    walk.run()

    assert names(walk.evaluations)[:1] == [["a"]]
    assert sorted(names(walk.evaluations)[1:]) == [["a"], ["b"]]
    assert [walk.said(name)[-1][0] for name in ("a", "b")] == ["placed"] * 2

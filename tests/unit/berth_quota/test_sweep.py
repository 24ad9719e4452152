"""Now and then it is looked whether somebody waits who should have been woken: a find is a defect (R101)."""

from berth.ids import RequestKey
from berth.messages.commands import Verdict
from berth.messages.events import Wake, WakeOn
from berth.messages.reasons import Reason, ReasonCode
from berth_quota.bounds import Bounds
from tests.builders import HOUR
from tests.unit.berth_quota.settings_of_walks import a_walk, wants
from tests.unit.berth_quota.walk import Walk, verdict

NEVER_COMES = (Wake(on=WakeOn.RESERVATION, name="nothing"),)
WRONG = (Reason(code=ReasonCode.INSUFFICIENT_CPU, nodes=1),)


def mistaken(walk: Walk, request: str) -> None:
    """A scheduler says that it has no place, and names nothing that would wake it."""
    outcome = verdict(request, Verdict.UNPLACEABLE, reasons=WRONG, wake=NEVER_COMES, evaluated_at=1)
    walk.scheduler.verdicts[request] = outcome
    walk.submit(wants(request))
    assert walk.said(request)[-1][0] == "queued"


def test_r101_who_was_not_woken_is_placed_by_the_sweep_and_counted_as_a_defect() -> None:
    walk = a_walk()
    mistaken(walk, "forgotten")

    walk.wait(2 * walk.bounds.sweep_ms)

    assert walk.said("forgotten")[-1] == ("placed", 2)
    assert walk.quota.wakeups_missed == 1
    assert walk.missed == [wants("forgotten").key]


def test_who_waits_with_reason_is_tried_and_nothing_is_written() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"))
    walk.submit(wants("waits"))
    before = walk.leader.sequence

    walk.wait(HOUR)

    assert walk.evaluated().count("waits") > 2
    assert walk.leader.sequence == before
    assert walk.quota.wakeups_missed == 0


def test_who_becomes_due_while_it_is_tried_is_no_find() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"))
    walk.submit(wants("waits"))
    walk.hold_scheduler = True
    walk.wait(walk.bounds.sweep_ms + 1)
    assert walk.evaluated()[-1] == "waits"

    walk.release("full")
    walk.hold_scheduler = False
    walk.run()

    assert walk.said("waits")[-1][0] == "placed"
    assert walk.quota.wakeups_missed == 0


def test_of_many_shapes_a_few_are_tried_at_a_time_and_all_in_turn() -> None:
    walk = a_walk(room=1, bounds=Bounds(swept_max=3))
    walk.submit(wants("full"))
    names = [f"w{number}" for number in range(10)]
    for number, name in enumerate(names):
        walk.submit(wants(name, 2 + number))
    walk.evaluations.clear()

    walk.wait(2 * walk.bounds.sweep_ms - 1)
    assert len(walk.evaluated()) == 3

    walk.wait(4 * walk.bounds.sweep_ms)
    assert set(walk.evaluated()) == set(names)


def test_after_a_take_over_the_whole_queue_is_driven_a_part_at_a_time() -> None:
    walk = a_walk(room=1, bounds=Bounds(rulings_max=5))
    walk.submit(wants("full"))
    keys: list[RequestKey] = []
    for number in range(20):
        request = wants(f"w{number}", 2 + number)
        keys.append(request.key)
        walk.submit(request)
    walk.kill()
    walk.start()
    walk.evaluations.clear()

    walk.nudged()
    walk.wait(100)

    assert [len(one.items) <= 5 for one in walk.evaluations] == [True] * len(walk.evaluations)
    assert sorted(walk.evaluated()) == sorted(str(key[1]) for key in keys)

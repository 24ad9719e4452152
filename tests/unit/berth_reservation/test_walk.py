"""The walk of work that draws on a reservation, through the real quota, scheduler and reservation services."""

from typing import Any

from berth import subjects
from berth.ids import Namespace, RequestId
from berth.messages.commands import CancelReservation, CreateReservation, ReservationAnswer
from berth.messages.documents import RESERVATION, time_text
from berth.messages.reasons import ReasonCode
from berth_cell.cell import Cell
from tests.builders import SECOND, T0, TEAM_A, TEAM_B, a_node, a_quota, a_request

START, END = T0 + 2 * SECOND, T0 + 4 * SECOND


def a_cell(*more: Any) -> Cell:
    return Cell(at_ms=T0, history=[(T0, a_node("n1", cpu=8_000)), *((T0, transaction) for transaction in more)])


def reserve(cell: Cell, **document: Any) -> ReservationAnswer:
    """From two to four seconds after the beginning, all of n1, unless `document` says otherwise."""
    window = {"start": time_text(START), "end": time_text(END), "nodes": ["n1"], "count": 2}
    written: dict[str, Any] = {
        "id": "res1",
        "namespace": TEAM_A,
        "resources": {"cpu_cores": 4},
        **window,
        **document,
    }
    command = CreateReservation(reservation=RESERVATION.validate_python(written, strict=False))
    return cell.ask(subjects.RESERVE, command, namespace=written["namespace"], verb="create")


def submit(cell: Cell, request: str, *, namespace: Namespace = TEAM_A, **document: Any) -> None:
    cell.submit([a_request(request, namespace=namespace, **document)])


def outcome(cell: Cell, request: str, *, namespace: Namespace = TEAM_A) -> tuple[str, list[ReasonCode]]:
    decision = cell.decisions[namespace, RequestId(request)]
    return decision.status, [reason.code for reason in decision.reasons]


def test_work_that_draws_waits_for_the_start_runs_in_the_window_and_leaves_with_it() -> None:
    cell = a_cell()
    assert reserve(cell, on_expiry="evict").refusal is None
    submit(cell, "drawing", cpu=3_000, count=2, reservation="res1")
    assert outcome(cell, "drawing") == ("queued", [ReasonCode.RESERVATION_NOT_ACTIVE])

    cell.advance(START)
    assert outcome(cell, "drawing") == ("placed", [])
    cell.advance(END)

    assert outcome(cell, "drawing") == ("expired", [ReasonCode.RESERVATION_OVER])


def test_r87_work_with_an_end_uses_the_time_before_and_work_without_waits_until_after() -> None:
    cell = a_cell()
    reserve(cell)
    submit(cell, "backfill", cpu=8_000, duration_seconds=2)
    submit(cell, "endless", cpu=8_000)
    assert outcome(cell, "backfill") == ("placed", [])
    assert outcome(cell, "endless")[0] == "queued"

    cell.advance(START)
    assert outcome(cell, "backfill") == ("expired", [ReasonCode.DURATION_OVER])
    assert outcome(cell, "endless") == ("queued", [ReasonCode.HELD_BY_RESERVATION])
    cell.advance(END)

    assert outcome(cell, "endless") == ("placed", [])


def test_only_owners_draw_and_the_reservation_pays() -> None:
    cell = a_cell(a_quota(hard={"cpu_millicores": 8_000}), a_quota(TEAM_B, hard={"cpu_millicores": 0}))
    reserve(cell, start=None, owners=[{"namespace": TEAM_B, "labels": {"app": "train"}}])

    submit(cell, "mine", reservation="res1")
    submit(cell, "theirs", namespace=TEAM_B, reservation="res1", labels={"app": "train", "user": "x"})
    submit(cell, "other", namespace=TEAM_B, reservation="res1", labels={"app": "web"})
    submit(cell, "unknown", reservation="res2")

    assert outcome(cell, "mine") == ("rejected", [ReasonCode.RESERVATION_NOT_OWNED])
    assert outcome(cell, "theirs", namespace=TEAM_B) == ("placed", [])
    assert outcome(cell, "other", namespace=TEAM_B) == ("rejected", [ReasonCode.RESERVATION_NOT_OWNED])
    assert outcome(cell, "unknown") == ("rejected", [ReasonCode.RESERVATION_UNKNOWN])
    assert cell.state.quotas.used_by(TEAM_A).cpu_millicores == 8_000
    assert cell.state.quotas.used_by(TEAM_B).cpu_millicores == 0


def test_what_does_not_fit_in_the_reservation_waits_and_is_rejected_when_it_is_over() -> None:
    cell = a_cell()
    reserve(cell, start=None, count=1, end=time_text(END))
    submit(cell, "first", cpu=3_000, reservation="res1")
    submit(cell, "second", cpu=2_000, reservation="res1")
    assert outcome(cell, "second") == ("queued", [ReasonCode.RESERVATION_FULL])

    cell.advance(END)

    assert outcome(cell, "first") == ("placed", []), "on_expiry keep"
    assert outcome(cell, "second") == ("rejected", [ReasonCode.RESERVATION_ENDED])


def test_what_a_reservation_gives_back_is_used_at_once() -> None:
    cell = a_cell()
    reserve(cell, start=None)
    submit(cell, "waiting", cpu=5_000)
    assert outcome(cell, "waiting") == ("queued", [ReasonCode.HELD_BY_RESERVATION])

    answer = cell.ask(subjects.RESERVE, CancelReservation(reservation="res1"), namespace=TEAM_A, verb="cancel")

    assert answer.reservation["state"] == "released"
    assert outcome(cell, "waiting") == ("placed", [])


def test_a_reservation_that_shrank_a_quota_is_given_back_to_it() -> None:
    cell = a_cell(a_quota(hard={"cpu_millicores": 8_000}))
    reserve(cell, start=None, count=2)
    submit(cell, "waiting", cpu=1_000)
    assert outcome(cell, "waiting")[1][0] is ReasonCode.QUOTA_HARD

    cell.advance(END)

    assert outcome(cell, "waiting") == ("placed", [])

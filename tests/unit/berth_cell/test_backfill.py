"""Promised starts in a cell: the head of the queue has one, backfill respects it, nobody moves it without a cause."""

from typing import Any

from berth.ids import RequestId
from berth.messages.documents import CLUSTER, time_text
from berth.messages.events import MovedBecause, StartPromised
from berth.messages.reasons import ReasonCode
from berth.model.promises import units_to_book
from berth.wire.codec import decode_record
from berth_cell.cell import Cell
from berth_cell.explain import explain
from berth_cell.seed import of_document
from berth_scheduler.limits import Limits
from tests.builders import HOUR, MINUTE, T0, TEAM_A, a_request

KEY = (TEAM_A, RequestId("large"))


def a_cell(nodes: int = 4, **document: Any) -> Cell:
    """Nodes of one core each."""
    rows = [{"id": f"n{number}", "capacity": {"cpu_cores": 1}} for number in range(1, nodes + 1)]
    cluster = CLUSTER.validate_python({"nodes": rows, **document}, strict=False)
    return Cell(at_ms=T0, history=of_document(cluster, at_ms=T0), limits=Limits(sweep_ms=5 * MINUTE))


def submit(cell: Cell, name: str, *, count: int, minutes: int | None, **document: Any) -> str:
    """Its status afterwards."""
    seconds = None if minutes is None else 60 * minutes
    cell.submit([a_request(name, count=count, duration_seconds=seconds, **document)])
    return cell.decisions[TEAM_A, RequestId(name)].status.value


def promises(cell: Cell) -> list[tuple[str, int | None, MovedBecause | None]]:
    """Everything the ledger says about starts: whose, when (minutes after T0), and why it moved."""
    found: list[tuple[str, int | None, MovedBecause | None]] = []
    for payload in cell.ledger:
        for transaction in decode_record(payload).transactions:
            for event in transaction:
                if isinstance(event.data, StartPromised) and event.key is not None:
                    start = None if event.data.start is None else (event.data.start - T0) // MINUTE
                    found.append((event.key[1], start, event.data.cause))
    return found


def started_at(cell: Cell, name: str) -> int | None:
    """Minutes after T0."""
    known = cell.state.queue.requests[TEAM_A, RequestId(name)]
    times = [cell.state.cluster.allocations[TEAM_A, one].placed_at for one in known.allocations]
    return (min(times) - T0) // MINUTE if times else None


def a_cell_with_a_promised_head() -> Cell:
    """Half of the cluster is busy for an hour; `large` wants three quarters of it."""
    cell = a_cell(4)
    assert submit(cell, "running", count=2, minutes=60) == "placed"
    assert submit(cell, "large", count=3, minutes=60) == "queued"
    return cell


def test_the_head_of_the_queue_that_cannot_start_is_promised_a_start() -> None:
    cell = a_cell_with_a_promised_head()

    known = cell.state.queue.requests[KEY]
    assert known.promise is not None and sum(count for _, count in known.promise.nodes) == 3
    assert cell.decisions[KEY].earliest_start == T0 + HOUR
    assert promises(cell) == [("large", 60, None)]


def test_explain_tells_every_start_that_a_request_was_promised() -> None:
    cell = a_cell_with_a_promised_head()

    submit(cell, "later", count=4, minutes=60)
    (made,) = explain(cell.state, KEY, at_ms=cell.state.at)["promises"]
    later = explain(cell.state, (TEAM_A, RequestId("later")), at_ms=cell.state.at)

    assert (made["start"], made["cause"]) == (time_text(T0 + HOUR), None)
    assert made["sequence"] <= cell.state.sequence
    assert (later["queue_position"], later["ahead_because"]) == (2, {"age": 1})
    assert later["ahead"] == [{"namespace": TEAM_A, "id": "large", "because": "age"}]


def test_a_window_is_not_booked_where_a_start_is_promised_to_work_of_no_lower_priority() -> None:
    cell = a_cell_with_a_promised_head()
    promise = cell.state.queue.requests[KEY].promise
    assert promise is not None
    node = cell.state.cluster.nodes[promise.nodes[0][0]]
    unit, within = a_request("unit").charge, {"start": T0 + HOUR, "end": T0 + 2 * HOUR, "at": cell.state.at}

    assert units_to_book(cell.state, node, unit, **within, priority=50) == 0
    assert units_to_book(cell.state, node, unit, **within, priority=51) == 1
    assert units_to_book(cell.state, node, unit, start=T0 + 2 * HOUR, end=T0 + 3 * HOUR, at=T0, priority=50) == 1


def test_r86_work_that_would_delay_the_promised_start_waits_and_work_that_would_not_starts() -> None:
    cell = a_cell_with_a_promised_head()

    assert submit(cell, "long", count=2, minutes=90) == "queued"
    assert submit(cell, "endless", count=2, minutes=None) == "queued"
    assert submit(cell, "beside", count=1, minutes=90) == "placed"
    assert submit(cell, "short", count=1, minutes=60) == "placed"
    codes = [reason.code for reason in cell.decisions[TEAM_A, RequestId("long")].reasons]
    assert ReasonCode.HELD_BY_PROMISE in codes or ReasonCode.SIBLINGS_DO_NOT_FIT in codes
    cell.advance(T0 + 3 * HOUR)
    assert started_at(cell, "large") == 60
    assert all(cause is None for _, _, cause in promises(cell))

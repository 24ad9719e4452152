"""When a reservation that recurs comes next (R91): its cron expression, read in its time zone. Pure.

Cron's own rule holds where clocks change (as in Debian): a start that is skipped in spring comes with the first
moment after the gap, one that is repeated in autumn comes once; `*` in the hour field follows the clock. Windows
last their duration in elapsed time.
"""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from berth.ids import ReservationId
from berth.messages.documents import Recurrence
from berth.messages.reservation_events import ReservationBody
from berth.model.ledger import State

EPOCH = datetime(1970, 1, 1, tzinfo=ZoneInfo("UTC"))


def start_after(recurrence: Recurrence, moment: int) -> int | None:
    """The first start later than `moment` (milliseconds UTC); None: there is none any more."""
    local = (EPOCH + timedelta(milliseconds=moment)).astimezone(ZoneInfo(recurrence.time_zone))
    found = next(CronSim(recurrence.cron, local), None)
    if found is None:
        return None
    start = (found - EPOCH) // timedelta(milliseconds=1)
    return None if recurrence.until is not None and start > recurrence.until else start


def first_start(recurrence: Recurrence, not_before: int) -> int | None:
    """The first start at or after `not_before`."""
    return start_after(recurrence, not_before - 1)


def next_occurrence(state: State, body: ReservationBody, at: int) -> ReservationBody | None:
    """The next window of the body's series that is not over at `at`; None: it does not recur, or no more."""
    if body.recurrence is None:
        return None
    length = body.end - body.start
    start = start_after(body.recurrence, body.start)
    while start is not None and start + length <= at:
        start = start_after(body.recurrence, max(start, at - length))
    if start is None:
        return None
    series = body.series or body.id
    number = body.occurrence + 1
    while (name := ReservationId(f"{series}-{number}")) in state.reservations.reservations:
        number += 1
    changes = {"id": name, "start": start, "end": start + length, "series": series, "occurrence": number}
    return body.model_copy(update=changes)

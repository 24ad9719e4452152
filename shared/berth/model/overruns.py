"""Work that runs longer than it declared and may: when that is said of it. Times are milliseconds UTC."""

from berth.messages.commands import Refusal, RefusalCode
from berth.messages.events import AllocationsOverran, Event
from berth.model.cluster import AllocationState
from berth.model.ledger import State


def refuse_overrun(state: State, event: Event, data: AllocationsOverran, at: int) -> Refusal | None:
    """Why it may not be said: it is not there, not so long yet, ends with what it declared, or it was said already."""
    for name in data.ids:
        allocation = None if event.namespace is None else state.cluster.allocations.get((event.namespace, name))
        if allocation is None or not allocation.is_live or allocation.request_key != event.key:
            return _no(RefusalCode.STALE_VICTIM, f"{name} is not live")
        if allocation.overran or allocation.state is not AllocationState.PLACED:
            return _no(RefusalCode.ALREADY_DONE, f"{name} is known to run too long, or is on its way out")
        if allocation.ends_at is None or allocation.overrun_ms == 0:
            return _no(RefusalCode.INVALID, f"{name} may not run longer than it declared")
        if at < allocation.ends_at:
            return _no(RefusalCode.TOO_EARLY, f"{name} declared to run until {allocation.ends_at}")
    return None if data.ids else _no(RefusalCode.INVALID, "no allocation is named")


def _no(code: RefusalCode, detail: str) -> Refusal:
    return Refusal(code=code, detail=detail)

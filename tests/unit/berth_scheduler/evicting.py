"""Asking who would be evicted: requests that may preempt, and what becomes of them on a state."""

from typing import Any

from berth.messages.commands import EvaluationItem, Grant
from berth.messages.requests import Request
from berth.model.ledger import State
from berth_scheduler.board import Board
from berth_scheduler.placement import Placed
from berth_scheduler.preemption import preempt
from tests.builders import T0, a_request
from tests.unit.berth_scheduler.stage import item

MAY = Grant(preempt=True, max_evictions=100)
URGENT = a_request("urgent", cpu=4_000, priority=90)


def asked(request: Request, grant: Grant = MAY) -> EvaluationItem:
    return item(request).model_copy(update={"grant": grant})


def found(state: State, request: Request, grant: Grant = MAY, at: int = T0) -> Placed | None:
    return preempt(Board(state), asked(request, grant), missing=request.count, at=at, seed="")


def victims(state: State, request: Request, grant: Grant = MAY, at: int = T0) -> list[str]:
    """Who is evicted, in order of their ids; [] also where preemption does not help."""
    answer = found(state, request, grant, at)
    return [] if answer is None else sorted(one.id for one in answer.evicted)


def low(name: str, cpu: int = 4_000, priority: int = 10, **more: Any) -> Request:
    return a_request(name, cpu=cpu, priority=priority, **more)

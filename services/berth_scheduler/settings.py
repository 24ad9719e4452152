"""What an operator may change about a scheduler."""

from typing import Annotated, ClassVar

from pydantic import Field

from berth.runtime.settings import ServiceSettings
from berth_scheduler.limits import USUAL, Limits


class SchedulerSettings(ServiceSettings):
    """Times in milliseconds. What is not here is not meant to be changed: see `limits`."""

    service: ClassVar[str] = "scheduler"

    seed: str = ""
    """Salts the strategy `random`; schedulers of one cluster should agree on it."""
    waiting_max: Annotated[int, Field(ge=1)] = USUAL.waiting_max
    """Requests under evaluation at once; an evaluation beyond it is answered `unavailable` at once."""
    answer_ms: Annotated[int, Field(ge=10)] = USUAL.answer_ms
    """A proposal that the leader has not answered is sent again after this, under the same id."""
    give_up_ms: Annotated[int, Field(ge=100)] = USUAL.give_up_ms
    """An evaluation without an outcome goes back to quota after this."""

    @property
    def limits(self) -> Limits:
        return Limits(waiting_max=self.waiting_max, answer_ms=self.answer_ms, give_up_ms=self.give_up_ms)

"""What an operator may change about a scheduler."""

from typing import Annotated, ClassVar

from pydantic import Field

from berth.runtime.settings import ServiceSettings
from berth_scheduler.limits import Limits

_USUAL = Limits()


class SchedulerSettings(ServiceSettings):
    """Times in milliseconds. What is not here is not meant to be changed: see `limits`."""

    service: ClassVar[str] = "scheduler"

    waiting_max: Annotated[int, Field(ge=1)] = _USUAL.waiting_max
    """Requests under evaluation at once; what is beyond is answered `unavailable` at once."""
    conflicts_max: Annotated[int, Field(ge=1)] = _USUAL.conflicts_max
    """Races that one evaluation may lose before it goes back to quota as `contended`."""
    answer_ms: Annotated[int, Field(ge=50)] = _USUAL.answer_ms
    """A proposal that is not answered is sent again after this, under the same id."""
    give_up_ms: Annotated[int, Field(ge=500)] = _USUAL.give_up_ms
    """An evaluation without an outcome is answered `unavailable` after this."""

    @property
    def limits(self) -> Limits:
        return Limits(
            waiting_max=self.waiting_max,
            conflicts_max=self.conflicts_max,
            answer_ms=self.answer_ms,
            give_up_ms=self.give_up_ms,
        )

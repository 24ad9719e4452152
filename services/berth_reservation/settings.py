"""What an operator may change about a reservation service."""

from typing import Annotated, ClassVar

from pydantic import Field

from berth.runtime.settings import ServiceSettings
from berth_reservation.pace import USUAL, Pace


class ReservationSettings(ServiceSettings):
    """Times in milliseconds. What is not here is not meant to be changed: see `pace`."""

    service: ClassVar[str] = "reservation"

    answer_ms: Annotated[int, Field(ge=100)] = USUAL.answer_ms
    """A proposal that is not answered is made again after this."""
    command_ms: Annotated[int, Field(ge=500)] = USUAL.command_ms
    """A command whose fate is not known by then is answered so."""
    commands_max: Annotated[int, Field(ge=1)] = USUAL.commands_max
    """More commands that wait for their answer are refused as overloaded."""

    @property
    def pace(self) -> Pace:
        return Pace(answer_ms=self.answer_ms, command_ms=self.command_ms, commands_max=self.commands_max)

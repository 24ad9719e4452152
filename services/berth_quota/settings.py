"""What an operator may change about a quota service."""

from typing import Annotated, ClassVar

from pydantic import Field

from berth.runtime.settings import ServiceSettings
from berth_quota.bounds import DAY_MS, USUAL, Bounds


class QuotaSettings(ServiceSettings):
    """Times in milliseconds, but for days. What is not here is not meant to be changed: see `bounds`."""

    service: ClassVar[str] = "quota"

    evaluation_ms: Annotated[int, Field(ge=100)] = USUAL.evaluation_ms
    """A request that no scheduler answered for is sent again after this."""
    proposal_ms: Annotated[int, Field(ge=100)] = USUAL.proposal_ms
    """A proposal that is not answered is made again after this."""
    in_flight_max: Annotated[int, Field(ge=1)] = USUAL.in_flight_max
    """Requests that schedulers work on at one time; what is beyond waits in order."""
    failures_max: Annotated[int, Field(ge=1)] = USUAL.failures_max
    """Wake-ups of one shape of request stop after this many failures in a row."""
    promises_max: Annotated[int, Field(ge=0)] = USUAL.promises_max
    """Queued requests that are promised a start at one time (backfill respects them); 0 promises nothing."""
    retention_days: Annotated[int, Field(ge=1, le=3_650)] = USUAL.retention_ms // DAY_MS
    """Settled requests are known this long; a resubmission after that is a new request."""

    @property
    def bounds(self) -> Bounds:
        return Bounds(
            evaluation_ms=self.evaluation_ms,
            proposal_ms=self.proposal_ms,
            in_flight_max=self.in_flight_max,
            failures_max=self.failures_max,
            promises_max=self.promises_max,
            retention_ms=self.retention_days * DAY_MS,
        )

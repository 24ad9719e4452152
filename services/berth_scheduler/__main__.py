"""`python -m berth_scheduler`: settings → one scheduler, until SIGTERM."""

import sys

from berth.effects import Identity
from berth.runtime import process
from berth_scheduler.service import SchedulerService
from berth_scheduler.settings import SchedulerSettings


def build(settings: SchedulerSettings, identity: Identity) -> SchedulerService:
    return SchedulerService(identity, limits=settings.limits, seed=settings.seed)


if __name__ == "__main__":
    sys.exit(process.main(SchedulerSettings, build))

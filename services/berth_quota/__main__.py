"""`python -m berth_quota`: settings → one quota service, until SIGTERM."""

import sys

from berth.effects import Identity
from berth.runtime import process, telemetry
from berth_quota.service import QuotaService
from berth_quota.settings import QuotaSettings


def build(settings: QuotaSettings, identity: Identity) -> QuotaService:
    service = QuotaService(identity, settings.bounds)
    telemetry.observe("berth.queue.wakeups.missed", lambda: [(service.wakeups_missed, {})])
    return service


if __name__ == "__main__":
    sys.exit(process.main(QuotaSettings, build))

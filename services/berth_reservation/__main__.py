"""`python -m berth_reservation`: settings → one reservation service, until SIGTERM."""

import sys

from berth.effects import Identity
from berth.runtime import process
from berth_reservation.service import ReservationService
from berth_reservation.settings import ReservationSettings


def build(settings: ReservationSettings, identity: Identity) -> ReservationService:
    return ReservationService(identity, settings.pace)


if __name__ == "__main__":
    sys.exit(process.main(ReservationSettings, build))

"""The numbers of the quota service: how long, how many, how often."""

from dataclasses import dataclass

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Everything that an operator may change; the defaults are what we run ourselves."""

    evaluation_ms: int = 2_000
    """An evaluation without an answer is sent again after this long (DESIGN section 2, "In-flight table")."""
    proposal_ms: int = 2_000
    """A proposal without an answer is made again, on the newest state, after this long."""
    turn_ms: int = 200
    """An evaluation without an answer holds up the next one for this long, or four times what the last one took."""
    backoff_ms: int = 50
    """First wait when nobody is there or a refusal is newer than our view; doubled up to `evaluation_ms`."""
    in_flight_max: int = 2_048
    """Requests that schedulers work on at one time; what is beyond waits here, in order."""
    evaluation_items_max: int = 256
    proposal_transactions_max: int = 128
    message_bytes_max: int = 512 * 1024
    """Half of what the server takes: sizes are estimates."""
    gather_ms: int = 100
    """Changes that come while queued requests are being driven are taken together after this long."""
    failed_max: int = 5
    """A request on which schedulers fail so often in a row rests for a while, so that nobody waits for it."""
    rest_ms: int = 30_000
    """That while."""
    drives_queued: bool = True
    """Whether what is queued is ever driven again; a plan decides each request once."""
    rulings_max: int = 2_000
    """Requests that are judged before others of the process have their turn: as many as 50 ms allow."""
    failures_max: int = 16
    """Wake-ups of one shape stop after this many failures in a row."""
    sweep_ms: int = 45_000
    """How often it is looked whether somebody waits who should have been woken."""
    swept_max: int = 64
    """Of how many shapes the first is tried then."""
    window_max: int = 256
    """Queued requests of one shape that are driven at one time, once some of them were placed."""
    promises_max: int = 64
    """Queued requests that are promised a start at one time; those of lower priority than the next are not counted."""
    in_progress_ms: int = 3_000
    """How often a held message is said to be worked on; the consumer waits 10 s."""
    nudge_ms: int = 2_000
    """At most one nudge in this long, and how long a standby lets the active one be late."""
    notice_ms: int = 60_000
    """Decisions of the last of this much record time are published again on take-over."""
    notices_max: int = 1_000
    """Of those, how many at one time."""
    retention_ms: int = 7 * DAY_MS
    """Settled requests are known this long, then forgotten by an event."""
    forgotten_max: int = 200
    """How many at one time."""
    administration_ms: int = 10_000
    """A change of quotas that is not known to be committed after this long is answered `unknown`."""
    waiting_max: int = 256
    """Questions and changes that wait at one time; beyond it they are answered `overloaded`."""
    answer_bytes_max: int = 512 * 1024


USUAL = Bounds()

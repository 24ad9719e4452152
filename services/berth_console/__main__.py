"""`python -m berth_console`: settings → the console service, with its web server beside it, until SIGTERM."""

import sys
from contextlib import AbstractAsyncContextManager

from berth.adapters.system_clock import SystemClock
from berth.effects import Identity
from berth.runtime import process
from berth.runtime.health import WhyNotReady
from berth_console.cluster_view import ClusterView
from berth_console.metrics import MetricStore
from berth_console.receiver import Receiver
from berth_console.service import ConsoleService
from berth_console.settings import ConsoleSettings
from berth_console.traces import TraceLimits, TraceStore
from berth_console.web.server import serving
from berth_console.what_if import explained, moves_proposed, planned, still_there


def build(settings: ConsoleSettings, identity: Identity) -> ConsoleService:
    del identity  # a console asks and proposes nothing, so it needs no ids
    limits = TraceLimits(traces=settings.traces_max, bytes=settings.trace_bytes_max)
    what_if = {"plan": planned, "explain": explained, "defrag": moves_proposed, "drain": still_there}
    return ConsoleService(traces=TraceStore(limits), what_if=what_if)


def pages(
    settings: ConsoleSettings, service: ConsoleService, why_not_ready: WhyNotReady
) -> AbstractAsyncContextManager[object]:
    """The web server over what the service folds, and over the traces that it answers from."""
    clock = SystemClock()
    receiver = Receiver(
        traces=service.traces,
        metrics=MetricStore(),
        monotonic_ms=lambda: clock.monotonic_us() // 1000,
        body_bytes_max=settings.export_bytes_max,
    )
    return serving(settings, receiver, ClusterView(service.state, why_not_ready, settings.usage_labels))


if __name__ == "__main__":
    sys.exit(process.main(ConsoleSettings, build, pages))

"""One service as a process: settings → bus, ledger, work queue → runner; signals, health, `$SRV`, exit code.

    sys.exit(process.main(QuotaSettings, lambda settings, identity: QuotaService(settings, identity)))

A process that ends with another code than 0 is started again by its supervisor, from a snapshot and what the
ledger has after it: all state is in the ledger. SIGTERM and SIGINT drain: take nothing more, finish, end with 0.
What a process offers besides its service (the console's pages) is entered first and left last, in the same loop.
"""

import asyncio
import contextlib
import gc
import logging
import secrets
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from typing import TypeVar

import tenacity
import uvloop

from berth.adapters.jetstream_ledger import JetStreamLedger, LedgerSettings
from berth.adapters.nats_bus import BusSettings, NatsBus
from berth.adapters.request_queue import JetStreamQueue
from berth.adapters.snapshot_files import SnapshotFiles
from berth.adapters.system_clock import SystemClock
from berth.effects import Identity, Service
from berth.errors import BerthError, InvalidSetting, Unreachable
from berth.ports import Bus
from berth.runtime import exporting, health, logs, telemetry
from berth.runtime.runner import Runner, Surroundings
from berth.runtime.service_api import ServiceApi
from berth.runtime.settings import ServiceSettings
from berth.runtime.snapshots import Snapshots
from berth.runtime.telemetry import Spans
from berth.subjects import REQUEST

log = logging.getLogger(__name__)

CONNECT_GIVE_UP_SECONDS = 30.0
_YOUNG, _MIDDLE, _OLD = 10_000, 50, 100
"""Collector thresholds: full collections stop everything for as long as the state is large (RAFT section 2,
Stalls), and the hot path makes no reference cycles."""

Settings = TypeVar("Settings", bound=ServiceSettings)
Built = TypeVar("Built", bound=Service)
Beside = Callable[[health.WhyNotReady], AbstractAsyncContextManager[object]]


def main(
    kind: type[Settings],
    build: Callable[[Settings, Identity], Built],
    beside: Callable[[Settings, Built, health.WhyNotReady], AbstractAsyncContextManager[object]] | None = None,
) -> int:
    """Run the service until it is asked to end; the process's exit code (2: a wrong setting).

    `beside`: what else runs meanwhile, before the bus is there and until telemetry has left.
    """
    if not __debug__:
        raise SystemExit("Berth does not run under python -O: its invariants are asserts")
    try:
        settings = kind.load()
    except InvalidSetting as error:
        sys.stderr.write(f"{service_name(kind.service)}: {error}\n")
        return error.exit_code
    logs.configure(settings.user, style=settings.log_format, level=settings.log_level)
    identity = new_identity(settings.user)
    exported = exporting.start(
        service_name(settings.service), f"{identity.user}-{identity.boot}", endpoint=settings.telemetry_endpoint
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            service = build(settings, identity)
            around = _nothing if beside is None else partial(beside, settings, service)
            return loop.run(_serve(settings, identity, service, exported, around))
    except BerthError as error:
        log.error("process_failed", extra={"code": error.code, "why": str(error)})  # noqa: TRY400 no bug of ours
        return error.exit_code


def _nothing(why_not_ready: health.WhyNotReady) -> AbstractAsyncContextManager[object]:
    del why_not_ready
    return nullcontext()


def service_name(service: str) -> str:
    """As telemetry and `nats micro ls` show it."""
    return f"berth-{service}"


def new_identity(user: str) -> Identity:
    """This start of the process `user`."""
    return Identity(user=user, boot=secrets.token_hex(4))


async def _serve(
    settings: ServiceSettings, identity: Identity, service: Service, exported: exporting.Telemetry, beside: Beside
) -> int:
    stop, lost = asyncio.Event(), list[str]()

    def on_lost(why: str) -> None:
        lost.append(why)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    state = _State()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(beside(state.why_not_ready))
        stack.push_async_callback(asyncio.to_thread, exported.close)
        if settings.health_port is not None:
            server = await health.serve(settings.health_port, state.why_not_ready, is_active=state.is_active)
            stack.callback(server.close)
        bus = await connect(settings, on_lost, stop)
        if bus is None:
            return 0
        stack.push_async_callback(bus.close)
        around = await _surroundings(settings, bus, service, exported.spans, stack)
        runner = state.runner = Runner(service, identity, around)
        _observe(runner)
        async with described(bus, settings.service, identity, runner):
            await runner.run(stop)
    if lost:
        raise Unreachable(lost[0])
    return 0


class _State:
    """What the health port says before there is a runner."""

    runner: Runner | None = None

    def why_not_ready(self) -> str | None:
        return "connecting" if self.runner is None else self.runner.why_not_ready()

    def is_active(self) -> bool | None:
        return None if self.runner is None else self.runner.is_active


async def connect(settings: ServiceSettings, lost: Callable[[str], None], stop: asyncio.Event) -> NatsBus | None:
    """The bus, tried again while no server answers; None when asked to stop before.

    Raises:
        Unreachable: no server within CONNECT_GIVE_UP_SECONDS, or one that refuses the key.
    """
    connecting = asyncio.create_task(_connected(settings, lost))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((connecting, stopping), return_when=asyncio.FIRST_COMPLETED)
        return await connecting if connecting.done() else None
    finally:
        connecting.cancel()
        stopping.cancel()


async def _connected(settings: ServiceSettings, lost: Callable[[str], None]) -> NatsBus:
    wanted = BusSettings(url=settings.nats_url, user=settings.user, seed_file=settings.nkey_file)
    async for attempt in tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(Unreachable),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
        stop=tenacity.stop_after_delay(CONNECT_GIVE_UP_SECONDS),
        reraise=True,
    ):
        with attempt:
            return await NatsBus.connect(wanted, lost=lost)
    raise AssertionError("tenacity returns or raises")


async def _surroundings(
    settings: ServiceSettings, bus: NatsBus, service: Service, spans: Spans, stack: AsyncExitStack
) -> Surroundings:
    ledger = await JetStreamLedger.open(bus, LedgerSettings(consumer=settings.user))
    stack.callback(ledger.close)
    queue = None
    if REQUEST in service.subscriptions:
        queue = await JetStreamQueue.open(bus)
        stack.callback(queue.close)
    gc.disable()  # while the past is folded: everything made then stays
    return Surroundings(
        bus=bus,
        ledger=ledger,
        clock=SystemClock(),
        queue=queue,
        spans=spans,
        inbox_messages=settings.inbox_messages,
        inbox_bytes=settings.inbox_bytes,
        drain_seconds=settings.drain_seconds,
        replayed=_collect_rarely,
        snapshots=kept_snapshots(settings),
    )


def kept_snapshots(settings: ServiceSettings) -> Snapshots | None:
    """What this process starts from and writes; None where it has no place for them."""
    folder = settings.snapshot_folder
    if folder is None:
        return None
    return Snapshots(SnapshotFiles(folder), user=settings.user, every_events=settings.snapshot_every_events)


def _collect_rarely() -> None:
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
    gc.enable()


@asynccontextmanager
async def described(bus: Bus, service: str, identity: Identity, runner: Runner) -> AsyncGenerator[None]:
    """Answer `$SRV` meanwhile."""
    api = ServiceApi(
        bus=bus,
        name=service_name(service),
        identity=identity,
        version=version("berth"),
        description=f"Berth {service} service",
        endpoints=runner.endpoints,
        metadata=runner.metadata,
        started_ms=SystemClock().now_ms(),
    )
    await api.start()
    try:
        yield
    finally:
        with contextlib.suppress(BerthError):  # the connection is gone, and the subscriptions with it
            api.close()


def _observe(runner: Runner) -> None:
    """The gauges that every service has, read from its state."""
    telemetry.observe("berth.ledger.sequence", lambda: [(runner.service.sequence, {})])
    telemetry.observe("berth.ledger.foreign", lambda: [(runner.foreign, {})])
    telemetry.observe("berth.inbox.messages", lambda: [(runner.waiting, {})])
    telemetry.observe("berth.ready", lambda: [(int(runner.why_not_ready() is None), {})])
    telemetry.observe("berth.halted", lambda: [(int(runner.halted is not None), {})])
    if runner.is_active is not None:
        telemetry.observe("berth.quota.active", lambda: [(int(bool(runner.is_active)), {})])

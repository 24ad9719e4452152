"""The web server and the forwarder, in the event loop of the service beside which they run."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import uvicorn

from berth.errors import InvalidSetting
from berth_console.forward import Forwarder, destination, without_own_address
from berth_console.receiver import Receiver
from berth_console.settings import LOOPBACK_HOSTS, ConsoleSettings
from berth_console.web.application import console_application
from berth_console.web.read_models import ReadModels

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 256
"""More at once are answered 503."""
FINISH_SECONDS = 2


@asynccontextmanager
async def serving(settings: ConsoleSettings, receiver: Receiver, models: ReadModels) -> AsyncGenerator[int]:
    """Serve pages and take telemetry while the block runs; gives the port.

    What waits to be passed on at the end is sent for two more seconds.

    Raises:
        InvalidSetting: the address cannot be listened on, or the destination is no web address.
    """
    listening = _bound(settings)
    port: int = listening.getsockname()[1]
    async with AsyncExitStack() as stack:
        stack.callback(listening.close)
        receiver.forwarder = await stack.enter_async_context(_forwarding(settings, port))
        application = console_application(receiver, models, allowed_hosts=settings.hosts)
        server = _Server(
            uvicorn.Config(
                application,
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="off",
                limit_concurrency=CONNECTIONS_MAX,
                timeout_graceful_shutdown=FINISH_SECONDS,
            )
        )
        serve = asyncio.create_task(server.serve(sockets=[listening]), name="web server")
        try:
            log.info("console_listening", extra={"host": settings.host, "port": port})
            yield port
        finally:
            server.should_exit = True
            await serve


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals are the process's own business."""
        yield


def _bound(settings: ConsoleSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
        listening.listen(CONNECTIONS_MAX)
    except OSError as error:
        listening.close()
        raise InvalidSetting(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}",
            hint="choose another port, or 0 for any free one",
        ) from None
    return listening


@asynccontextmanager
async def _forwarding(settings: ConsoleSettings, port: int) -> AsyncGenerator[Forwarder | None]:
    """A forwarder at work, or None where the standard variables name no other endpoint."""
    found = destination(os.environ)
    names = {settings.host, socket.gethostname(), *LOOPBACK_HOSTS}
    to = without_own_address(found, frozenset((name, port) for name in names)) if found is not None else None
    if to is None:
        if found is not None:
            log.warning("telemetry_not_forwarded", extra={"why": "the endpoint is this console itself"})
        yield None
        return
    forwarder = Forwarder(to)
    work = asyncio.create_task(forwarder.run(), name="forwarder")
    try:
        yield forwarder
    finally:
        await forwarder.flush(FINISH_SECONDS)
        work.cancel()

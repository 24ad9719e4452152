"""An agent as a process: settings → bus → one report per node, until asked to end."""

import asyncio
import logging
import secrets
import signal
import sys
from collections.abc import Sequence

import uvloop

from berth.adapters.replies import Replies
from berth.errors import BerthError, InvalidSetting, Unreachable
from berth.messages.documents import NodeDocument
from berth.runtime import health, logs
from berth.runtime.process import connect
from berth.wire import codec
from berth_agent.machine import this_machine
from berth_agent.reporting import NodeReport, leave_all, report_all, surroundings
from berth_agent.settings import AgentSettings
from berth_agent.simulated import simulated_nodes
from berth_agent.workloads import Remembered, Runner, Workloads

log = logging.getLogger(__name__)


def main() -> int:
    """The exit code: 0 when asked to end, 2 for a wrong setting or node, others: start it again."""
    try:
        settings = AgentSettings.load()
        logs.configure(settings.user, style=settings.log_format, level=settings.log_level)
        uvloop.run(serve(settings, nodes_of(settings)))
    except BerthError as error:
        sys.stderr.write(f"berth-agent: {error}\n")
        return error.exit_code
    return 0


def nodes_of(settings: AgentSettings) -> list[NodeDocument]:
    """What this agent offers.

    Raises:
        InvalidSetting: it says both to simulate and which node.
        InvalidCommand: the node's description cannot be.
    """
    if settings.node is not None and settings.simulate is not None:
        raise InvalidSetting("an agent either simulates nodes or offers one", hint="give only one of the two settings")
    if settings.simulate is not None:
        return simulated_nodes(settings.simulate, instances=settings.instances)
    if settings.node is not None:
        return [codec.decode(NodeDocument, settings.node.encode(), root="node")]
    return [this_machine(settings.user.removeprefix("agent-") if settings.user.startswith("agent-") else None)]


async def serve(settings: AgentSettings, nodes: Sequence[NodeDocument]) -> None:
    """Offer `nodes` until SIGTERM or SIGINT.

    Raises:
        Unreachable: no server, or the connection was closed for good.
        RegistrationRefused: one of the nodes cannot be.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    lost: list[str] = []

    def on_lost(why: str) -> None:
        lost.append(why)
        stop.set()

    reports: list[NodeReport] = []
    if settings.health_port is not None:
        await health.serve(settings.health_port, lambda: why_not_ready(reports))
    bus = await connect(settings, on_lost, stop)
    if bus is None:
        return
    try:
        around = surroundings(
            bus,
            await Replies.open(bus, bus.inbox),
            session=secrets.token_hex(8),
            ask_every_ms=settings.ask_every_ms,
        )
        reports += [NodeReport(node, around, _workloads(settings, node)) for node in nodes]
        await _until_stopped(reports, stop)
        if settings.leave and not lost:
            await _leave(reports)
    finally:
        await bus.close()
    if lost:
        raise Unreachable(lost[0])


def _workloads(settings: AgentSettings, node: NodeDocument) -> Workloads:
    return Remembered() if settings.runner is None else Runner(settings.runner, node.id)


async def _until_stopped(reports: list[NodeReport], stop: asyncio.Event) -> None:
    reporting = asyncio.create_task(report_all(reports), name="report")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait((reporting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if reporting.done():
            await reporting
    finally:
        for task in (reporting, stopping):
            task.cancel()
        await asyncio.gather(reporting, stopping, return_exceptions=True)


async def _leave(reports: list[NodeReport]) -> None:
    unconfirmed = await leave_all(reports)
    log.info("nodes_left", extra={"nodes": len(reports), "unconfirmed": unconfirmed})


def why_not_ready(reports: Sequence[NodeReport]) -> str | None:
    """None once every node is registered that nobody has removed since."""
    if not reports:
        return "connecting"
    missing = sum(not report.registered and not report.removed for report in reports)
    return f"{missing} of {len(reports)} nodes are not registered" if missing else None

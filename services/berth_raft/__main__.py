"""`python -m berth_raft`: settings → adapters → one raft node, until SIGTERM."""

import asyncio
import logging
import secrets
import signal
import sys
from importlib.metadata import version

import uvloop

from berth import subjects
from berth.adapters.system_clock import SystemClock
from berth.effects import Identity
from berth.errors import BerthError
from berth.runtime import exporting, health, logs
from berth.runtime.service_api import Endpoint, ServiceApi
from berth_raft.machine import Machine, keep_pauses_short
from berth_raft.process import RaftNode
from berth_raft.settings import RaftNodeSettings

log = logging.getLogger(__name__)

ENDPOINTS = (subjects.COMMIT, subjects.ADMIN_RAFT)


async def serve(settings: RaftNodeSettings) -> int:
    """0 when asked to end, 1 when the process must be started again."""
    telemetry = exporting.start("berth-raft", settings.user, endpoint=settings.otlp_endpoint)
    machine = Machine(settings, lost=lambda why: node.end(why))  # noqa: PLW0108 - the node is made of it
    node = RaftNode(settings, machine, telemetry.spans)
    asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: asked.done() or asked.set_result(None))
    try:
        await node.start()
        api = _api(node, settings)
        await api.start()
        if settings.health_port is not None:
            await health.serve(settings.health_port, lambda: _why_not_ready(node))
        await asyncio.wait((asked, node.ended), return_when=asyncio.FIRST_COMPLETED)
        if node.ended.done():
            log.error("process_ended", extra={"why": node.ended.result()})
        return 0 if asked.done() else 1
    finally:
        await node.stop()
        await machine.close()
        telemetry.close()


def _api(node: RaftNode, settings: RaftNodeSettings) -> ServiceApi:
    def metadata() -> dict[str, str]:
        status = node.status()
        said = {name: str(status[name]) for name in ("role", "term", "mirror_sequence", "ledger_id")}
        return {**said, "leader": str(status["active"]).lower(), "ready": str(_why_not_ready(node) is None).lower()}

    return ServiceApi(
        bus=node.bus,
        name="berth-raft",
        identity=Identity(user=settings.user, boot=secrets.token_hex(4)),
        version=version("berth"),
        description="elects the leader that alone commits decisions",
        endpoints=[Endpoint(subject=one, pattern=one.pattern(), queue=None) for one in ENDPOINTS],
        metadata=metadata,
        started_ms=SystemClock().now_ms(),
    )


def _why_not_ready(node: RaftNode) -> str | None:
    leadership = node.leadership
    if leadership.counts.halted_at is not None:
        return f"halted at {leadership.counts.halted_at}: {leadership.counts.halted_why}"
    if not leadership.is_caught_up:
        return "reading the ledger"
    return None if node.status()["leader"] else "no leader is known"


def main() -> int:
    keep_pauses_short()
    try:
        settings = RaftNodeSettings.load()
        logs.configure(settings.user, style=settings.log_format, level=settings.log_level)
        return uvloop.run(serve(settings))
    except BerthError as error:
        sys.stderr.write(f"berth-raft: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())

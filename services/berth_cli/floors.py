"""What the machine, the server and the client alone can do, measured in the same run as a benchmark."""

import asyncio
import os
import tempfile
import time
from pathlib import Path

from berth import subjects
from berth.adapters import server_config, streams, users
from berth.adapters.jetstream_api import JetStreamApi
from berth.adapters.jetstream_ledger import JetStreamLedger, LedgerSettings
from berth.adapters.nats_bus import BusSettings, NatsBus
from berth.adapters.nats_server import NatsServer
from berth.ids import Sequence
from berth.ports import Appended, Envelope

ROUNDS = 200
RECORD = b"x" * 256


async def measure_floors(rounds: int = ROUNDS) -> dict[str, float]:
    """Milliseconds: a fenced append to a stream that syncs always, a request with its reply, a synced write, and
    a million steps of a plain Python loop (CPU time), which tells how fast this machine is right now.
    """
    with tempfile.TemporaryDirectory(prefix="berth-floors-") as name:
        folder = Path(name)
        written = [_synced_write_ms(folder / "file") for _ in range(rounds)]
        server = _server(folder)
        try:
            appended, answered = await _bus_floors(server.url, folder, rounds)
        finally:
            server.stop()
    return {
        "append_p50_ms": _median(appended),
        "append_p99_ms": sorted(appended)[int(rounds * 0.99)],
        "request_reply_p50_ms": _median(answered),
        "synced_write_p50_ms": _median(written),
        "python_loop_p50_ms": _median([_python_loop_ms() for _ in range(7)]),
    }


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _python_loop_ms() -> float:
    began, total = time.process_time(), 0
    for number in range(1_000_000):
        total += number & 7
    return (time.process_time() - began) * 1000


def _synced_write_ms(path: Path) -> float:
    began = time.perf_counter()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, RECORD)
    os.fdatasync(file)
    os.close(file)
    return (time.perf_counter() - began) * 1000


def _server(folder: Path) -> NatsServer:
    known = users.standard_users(folder / "keys")
    configuration = server_config.write(folder, server_config.ServerSettings(store=folder / "store"), known)
    server = NatsServer(configuration=configuration, folder=folder)
    server.start()
    return server


async def _bus_floors(url: str, folder: Path, rounds: int) -> tuple[list[float], list[float]]:
    init = await NatsBus.connect(_settings(url, folder, "init"), lost=lambda _why: None)
    api = await JetStreamApi.open(init)
    await streams.create_streams(api)
    ledger = await JetStreamLedger.open(init, LedgerSettings(consumer="init"))
    appended: list[float] = []
    for number in range(rounds):
        began = time.perf_counter()
        result = await ledger.append(RECORD, expected=Sequence(number))
        assert isinstance(result, Appended), f"a floor is measured on a quiet server: {result}"
        appended.append((time.perf_counter() - began) * 1000)
    await init.close()
    return appended, await _request_reply(url, folder, rounds)


async def _request_reply(url: str, folder: Path, rounds: int) -> list[float]:
    console = await NatsBus.connect(_settings(url, folder, "console"), lost=lambda _why: None)
    admin = await NatsBus.connect(_settings(url, folder, "admin"), lost=lambda _why: None)
    answered = asyncio.Event()
    subject = subjects.QUERY.of(namespace=subjects.CLUSTER, what="nodes")

    def reply(envelope: Envelope) -> None:
        if envelope.reply is not None:
            console.publish(envelope.reply, b"ok")

    await console.subscribe(subjects.QUERY.pattern(), reply, queue=subjects.QUERY.queue)
    await admin.subscribe(f"{admin.inbox}.*", lambda _envelope: answered.set())
    took: list[float] = []
    for number in range(rounds):
        answered.clear()
        began = time.perf_counter()
        admin.publish(subject, b"", reply=f"{admin.inbox}.{number}")
        await answered.wait()
        took.append((time.perf_counter() - began) * 1000)
    await console.close()
    await admin.close()
    return took


def _settings(url: str, folder: Path, user: str) -> BusSettings:
    return BusSettings(url=url, user=user, seed_file=users.seed_file(folder / "keys", user))

"""Clients that keep a cluster busy, each a process of its own: a benchmark must not measure its own loop.

    python -m berth_cli.flooding URL SEED NAME SECONDS IN_FLIGHT

A client says `ready` when it is connected, begins when it is told to, and prints what it saw as one line of
JSON when everything that it had under way is decided.
"""

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from berth.client import connect
from berth.errors import BerthError
from berth.ids import Namespace, RequestId
from berth.messages.events import RequestStatus
from berth.messages.requests import Amounts, Request

NAMESPACE = Namespace("bench")
GIVE_UP_SECONDS = 60.0


def a_request(name: str) -> Request:
    """Small enough that many fit: 10 millicores, 16 MB."""
    return Request(id=RequestId(name), namespace=NAMESPACE, resources=Amounts(cpu_cores=0.01, ram_mb=16))


@dataclass(frozen=True, slots=True, kw_only=True)
class Flooded:
    """`in_time`: placed within the time that was asked for; `took_ms`: of everything placed, the rest included.

    `lost` came to no decision, `unplaced` to another one. `cpu_us`: of each process, clients and servers alike,
    from the first request to the last decision.
    """

    in_time: int
    took_ms: list[float]
    unplaced: int
    lost: int
    cpu_us: dict[str, float]


def flood(url: str, seed: Path, *, clients: int, in_flight: int, seconds: float, processes: dict[str, int]) -> Flooded:
    """Keep `in_flight` requests of each client under way for `seconds`. `processes`: whose CPU is counted, by name."""
    names = [f"client-{number + 1}" for number in range(clients)]
    started = [_started([url, str(seed), name, str(seconds), str(in_flight)]) for name in names]
    try:
        for client in started:
            _expect_line(client)
        before = _cpu_us(processes)
        for client in started:
            assert client.stdin is not None
            client.stdin.write("go\n")
            client.stdin.flush()
        saw: list[dict[str, Any]] = [json.loads(_expect_line(client)) for client in started]
        after = _cpu_us(processes)
    finally:
        for client in started:
            client.kill()
            client.communicate()
    used = {name: after[name] - before[name] for name in processes if name in before and name in after}
    return Flooded(
        in_time=sum(one["in_time"] for one in saw),
        took_ms=[took for one in saw for took in one["took_ms"]],
        unplaced=sum(one["unplaced"] for one in saw),
        lost=sum(one["lost"] for one in saw),
        cpu_us={**used, **{name: one["cpu_us"] for name, one in zip(names, saw, strict=True)}},
    )


def _started(arguments: list[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "berth_cli.flooding", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _expect_line(client: "subprocess.Popen[str]") -> str:
    assert client.stdout is not None
    line = client.stdout.readline()
    if not line:
        raise BerthError(f"a client of the benchmark ended with {client.wait()}", hint="see above what it said")
    return line


def _cpu_us(processes: dict[str, int]) -> dict[str, float]:
    """Microseconds of user and system time of each process that lives."""
    used: dict[str, float] = {}
    for name, pid in processes.items():
        if psutil.pid_exists(pid):
            times = psutil.Process(pid).cpu_times()
            used[name] = (times.user + times.system) * 1e6
    return used


# --- one client -----------------------------------------------------------------------------------------


async def _client(url: str, seed: Path, name: str, seconds: float, in_flight: int) -> dict[str, Any]:
    async with connect(url, nkey=seed) as cluster:
        await cluster.submit(a_request(f"{name}-warm-up"))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        in_time, took_ms, unplaced, lost = 0, list[float](), 0, 0
        cpu, end = time.process_time(), time.monotonic() + seconds
        requests = _requests(name, until=end)
        async for outcome in cluster.submit_all(requests, in_flight=in_flight, timeout=GIVE_UP_SECONDS):
            if outcome.decision is None:
                lost += 1
            elif outcome.decision.status is RequestStatus.PLACED:
                took_ms.append(outcome.seconds * 1000)
                in_time += time.monotonic() < end
            else:
                unplaced += 1
        cpu_us = (time.process_time() - cpu) * 1e6
    return {"in_time": in_time, "took_ms": took_ms, "unplaced": unplaced, "lost": lost, "cpu_us": cpu_us}


def _requests(name: str, *, until: float) -> Iterator[Request]:
    number = 0
    while time.monotonic() < until:
        yield a_request(f"{name}-{number}")
        number += 1


def main(arguments: list[str]) -> None:
    url, seed, name, seconds, in_flight = arguments
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    saw = asyncio.run(_client(url, Path(seed), name, float(seconds), int(in_flight)))
    sys.stdout.write(json.dumps(saw) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

"""`berth bench latency|pipeline|failover`: measured on a cluster of its own, with floors of the same run.

The machine may be shared and noisy: ratios to the floors count, absolutes are hints. `packing` needs no cluster.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from berth.client import Cluster, connect
from berth.errors import BerthError, TimedOut
from berth.ids import Namespace, RequestId
from berth.messages.decisions import Decision
from berth.messages.requests import Amounts, Request
from berth_cli.context import FOLDER_VARIABLE, Target
from berth_cli.floors import measure_floors
from berth_cli.ledger import audit_cluster
from berth_cli.openb import GpuModel, Trace
from berth_cli.output import note, print_json, print_lines, table

app = typer.Typer()

NAMESPACE = Namespace("bench")
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@contextmanager
def own_cluster(*, nodes: int, schedulers: int = 2) -> Generator[Path]:
    """A cluster in a folder of its own, on free ports, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as name:
        folder = Path(name)
        up = ["up", "--detach", "--dir", name, "--port", "0", "--nodes", str(nodes), "--schedulers", str(schedulers)]
        _berth(up)
        try:
            yield folder
        finally:
            _berth(["down", "--dir", name])


def _berth(words: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != FOLDER_VARIABLE}
    environment.setdefault("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    environment.setdefault("OTEL_TRACES_SAMPLER_ARG", "0.01")
    done = subprocess.run(
        [sys.executable, "-m", "berth_cli.main", *words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BerthError(f"`berth {words[0]}` ended with {done.returncode}: {done.stderr.strip()}")


def _address(folder: Path) -> tuple[str, Path]:
    address = Target(folder=folder).address("client")
    assert address.seed_file is not None, "the folder of a cluster names the client's key"
    return address.url, address.seed_file


def a_request(name: str) -> Request:
    """Small enough that many fit: 10 millicores, 16 MB."""
    return Request(id=RequestId(name), namespace=NAMESPACE, resources=Amounts(cpu_cores=0.01, ram_mb=16))


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def _report(
    name: str,
    parameters: dict[str, Any],
    figures: dict[str, Any],
    floors: dict[str, float],
    *,
    as_json: bool,
    ratios: dict[str, float],
) -> None:
    result = {"benchmark": name, "parameters": parameters, "figures": figures, "floors": floors, "ratios": ratios}
    if as_json:
        print_json(result)
        return
    for title, part in (("figures", figures), ("floors", floors), ("ratios", ratios)):
        print_lines(f"{title}:", *(f"  {key}: {value:g}" for key, value in part.items()))


# --- latency --------------------------------------------------------------------------------------------


@app.command("latency")
def latency(requests: int = 300, nodes: int = 100, as_json: Json = False) -> None:
    """Submit to decision, one request at a time, on an idle cluster."""
    with own_cluster(nodes=nodes) as folder:
        took = asyncio.run(_one_by_one(folder, requests))
    floors = asyncio.run(measure_floors())
    figures = {"p50_ms": percentile(took, 50), "p99_ms": percentile(took, 99), "requests": requests}
    sum_of_floors = 2 * floors["append_p50_ms"] + 2 * floors["request_reply_p50_ms"]
    ratios = {"p50_over_floors": figures["p50_ms"] / sum_of_floors}
    _report("latency", {"requests": requests, "nodes": nodes}, figures, floors, as_json=as_json, ratios=ratios)


async def _one_by_one(folder: Path, count: int) -> list[float]:
    url, seed = _address(folder)
    took: list[float] = []
    async with connect(url, nkey=seed) as cluster:
        await cluster.submit(a_request("warm-up"))
        for number in range(count):
            began = time.perf_counter()
            await cluster.submit(a_request(f"latency-{number}"))
            took.append((time.perf_counter() - began) * 1000)
    return took


# --- pipeline -------------------------------------------------------------------------------------------


@app.command("pipeline")
def pipeline(
    seconds: float = 10.0,
    nodes: int = 500,
    clients: int = 2,
    in_flight: Annotated[int, typer.Option(help="Requests under way at once, per client.")] = 2_000,
    schedulers: int = 2,
    as_json: Json = False,
) -> None:
    """Decisions per second, sustained, with clients on the same machine; audited at the end."""
    with own_cluster(nodes=nodes, schedulers=schedulers) as folder:
        decided, took, elapsed = asyncio.run(_flood(folder, seconds, clients, in_flight))
        audited = asyncio.run(audit_cluster(Target(folder=folder)))
    floors = asyncio.run(measure_floors())
    figures = {
        "decisions_per_second": round(len(took) / elapsed, 1),
        "p50_ms": percentile(took, 50),
        "p99_ms": percentile(took, 99),
        "lost": decided["lost"],
        "doubled": audited["doubled"],
        "violations": len(audited["violations"]),
        "decisions_per_append": round(len(took) / max(1, audited["records"]), 1),
    }
    ratios = {"decisions_per_floor_append": figures["decisions_per_second"] * floors["append_p50_ms"] / 1000}
    parameters = {
        "seconds": seconds,
        "nodes": nodes,
        "clients": clients,
        "in_flight": in_flight,
        "schedulers": schedulers,
    }
    _report("pipeline", parameters, figures, floors, as_json=as_json, ratios=ratios)


async def _flood(
    folder: Path, seconds: float, clients: int, in_flight: int
) -> tuple[dict[str, int], list[float], float]:
    """Keep `in_flight` requests of each client under way for `seconds`; every one is waited for."""
    url, seed = _address(folder)
    took: list[float] = []
    counts = {"lost": 0}
    began = time.perf_counter()

    async def one(cluster: Cluster, name: str) -> None:
        sent = time.perf_counter()
        try:
            await cluster.submit(a_request(name), timeout=60)
            took.append((time.perf_counter() - sent) * 1000)
        except TimedOut:
            counts["lost"] += 1

    async def worker(cluster: Cluster, client: int, number: int) -> None:
        turn = 0
        while time.perf_counter() - began < seconds:
            await one(cluster, f"p{client}-{number}-{turn}")
            turn += 1

    async def client(number: int) -> None:
        async with connect(url, nkey=seed) as cluster:
            await asyncio.gather(*(worker(cluster, number, one) for one in range(in_flight)))

    await asyncio.gather(*(client(number) for number in range(clients)))
    return counts, took, time.perf_counter() - began


# --- failover -------------------------------------------------------------------------------------------


@app.command("failover")
def failover(kills: int = 20, nodes: int = 20, as_json: Json = False) -> None:
    """`kill -9` of the leader: from the kill to the next committed decision that a client sees."""
    with own_cluster(nodes=nodes) as folder:
        took, lost = asyncio.run(_kill_leaders(folder, kills))
        audited = asyncio.run(audit_cluster(Target(folder=folder)))
    floors = asyncio.run(measure_floors())
    figures = {
        "p50_ms": percentile(took, 50),
        "p90_ms": percentile(took, 90),
        "p99_ms": percentile(took, 99),
        "max_ms": max(took),
        "kills": kills,
        "lost": lost,
        "doubled": audited["doubled"],
        "violations": len(audited["violations"]),
    }
    ratios = {"p50_over_election_timeout_min": figures["p50_ms"] / 150}
    _report("failover", {"kills": kills, "nodes": nodes}, figures, floors, as_json=as_json, ratios=ratios)


async def _kill_leaders(folder: Path, kills: int) -> tuple[list[float], int]:
    """A request every 5 ms all the time. A decision counts for a kill when its request was submitted after it."""
    url, seed = _address(folder)
    took: list[float] = []
    async with connect(url, nkey=seed) as cluster:
        await cluster.submit(a_request("warm-up"))
        for number in range(kills):
            leader = await _settled_leader(cluster, folder)
            pid = _pid_of(folder, leader)
            os.kill(pid, signal.SIGKILL)
            killed = time.perf_counter()
            pending = [
                asyncio.create_task(cluster.submit(a_request(f"kill-{number}-{turn}"), timeout=30)) for turn in range(5)
            ]
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            took.append((time.perf_counter() - killed) * 1000)
            outcomes = await asyncio.gather(*pending, return_exceptions=True)
            assert done, "one of them was decided"
            lost = sum(not isinstance(outcome, Decision) for outcome in outcomes)
            if lost:
                note(f"kill {number}: {lost} of {len(outcomes)} requests have no decision")
                return took, lost
    return took, 0


async def _settled_leader(cluster: Cluster, folder: Path) -> str:
    """The leader, once every member follows it again and its process is the one that `berth.json` names."""
    while True:
        members = await cluster.raft.members(enough=3)
        leaders = [one["id"] for one in members if one["role"] == "leader" and one["active"]]
        agreed = len(members) == 3 and len(leaders) == 1 and len({one["term"] for one in members}) == 1
        if agreed and _is_alive(_pid_of(folder, leaders[0])):
            return str(leaders[0])
        await asyncio.sleep(0.05)


def _pid_of(folder: Path, name: str) -> int:
    processes = json.loads((folder / "berth.json").read_text())["processes"]
    return next(int(process["pid"]) for process in processes if process["name"] == name)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- packing --------------------------------------------------------------------------------------------


@app.command("packing")
def packing(
    data: Annotated[Path, typer.Option("--data", help="Where openb_nodes.csv and openb_pods.csv are.")] = Path(
        "../shared/data"
    ),
    gpu: Annotated[
        GpuModel, typer.Option("--gpu", help="whole: a share takes a GPU; milli: thousandths.")
    ] = GpuModel.WHOLE,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of the strategy random.")] = 10,
    requests: Annotated[int | None, typer.Option("--requests", min=50, help="Only the first ones.")] = None,
    as_json: Json = False,
) -> None:
    """GPUs allocated by each strategy when the openb trace is replayed; skipped where the trace is absent."""
    from berth_cli.packing import measure  # the services themselves: only this benchmark needs them

    trace = Trace(data, gpu)
    parameters = {"trace": "openb", "gpu": gpu.value, "seeds": seeds, "requests": requests}
    if (why := trace.missing()) is not None:
        note(f"skipped: {why}")
        _report("packing", {**parameters, "skipped": why}, {}, {}, as_json=as_json, ratios={})
        return
    figures = measure(trace, seeds=seeds, limit=requests)
    allocated = figures["gpu_allocation_percent"]
    ratios = {f"{name}_over_random": round(allocated[name] / allocated["random"], 4) for name in allocated}
    if as_json:
        _report("packing", parameters, figures, {}, as_json=True, ratios=ratios)
        return
    columns = ("gpu_allocation_percent", "unplaced", "seconds")
    print_lines(
        *table(("strategy", *columns), [(name, *(figures[one][name] for one in columns)) for name in allocated])
    )

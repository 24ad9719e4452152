"""`berth bench latency|pipeline|failover`: measured on a cluster of its own, with floors of the same run.

The machine may be shared and noisy: ratios to the floors count, absolutes are hints. `packing` and `replay` need no
cluster.
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
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from berth import subjects
from berth.client import Cluster, connect
from berth.errors import BerthError
from berth.messages.decisions import Decision
from berth_cli import replaying
from berth_cli.context import FOLDER_VARIABLE, Target
from berth_cli.flooding import a_request, flood
from berth_cli.floors import measure_floors
from berth_cli.ledger import audit_cluster
from berth_cli.openb import GpuModel, Trace
from berth_cli.output import note, print_json, print_lines, table

app = typer.Typer()

INSTANCES = 1_000_000
"""On each node of a sustained benchmark: it measures placing, not what happens when a cluster is full."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@contextmanager
def own_cluster(*, nodes: int, schedulers: int = 2, settings: tuple[str, ...] = ()) -> Generator[Path]:
    """A cluster in a folder of its own, on free ports, gone afterwards. `settings`: as `berth up --set` takes them."""
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as name:
        folder = Path(name)
        up = ["up", "--detach", "--dir", name, "--port", "0", "--nodes", str(nodes), "--schedulers", str(schedulers)]
        _berth([*up, *(word for setting in settings for word in ("--set", setting))])
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
        print_lines(f"{title}:", *(f"  {key}: {_shown(value)}" for key, value in part.items()))


def _shown(value: float | dict[str, float]) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one:g}" for name, one in value.items())
    return f"{value:g}"


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
    clients: Annotated[int, typer.Option(help="Processes that submit.")] = 2,
    in_flight: Annotated[int, typer.Option(help="Requests under way at once, per client.")] = 1_000,
    schedulers: int = 2,
    as_json: Json = False,
) -> None:
    """Decisions per second, sustained, with clients on the same machine; audited at the end."""
    with own_cluster(nodes=nodes, schedulers=schedulers, settings=(f"agent.instances={INSTANCES}",)) as folder:
        url, seed = _address(folder)
        flooded = flood(
            url, seed, clients=clients, in_flight=in_flight, seconds=seconds, processes=_processes_of(folder)
        )
        audited = asyncio.run(audit_cluster(Target(folder=folder)))
    floors = asyncio.run(measure_floors())
    placed = max(1, len(flooded.took_ms))
    cpu = {name: round(used / placed, 1) for name, used in flooded.cpu_us.items()}
    per_second = round(flooded.in_time / seconds, 1)
    figures: dict[str, Any] = {
        "decisions_per_second": per_second,
        "p50_ms": percentile(flooded.took_ms, 50),
        "p99_ms": percentile(flooded.took_ms, 99),
        "lost": flooded.lost,
        "unplaced": flooded.unplaced,
        "doubled": audited["doubled"],
        "violations": len(audited["violations"]),
        "decisions_per_append": round(placed / max(1, audited["records"]), 1),
        "cpu_us_per_decision": round(sum(cpu.values()), 1),
        "cpu_us_by_process": cpu,
    }
    ratios = {
        "decisions_per_floor_append": per_second * floors["append_p50_ms"] / 1000,
        "cores_busy": round(sum(cpu.values()) * per_second / 1e6, 2),
    }
    parameters = {
        "seconds": seconds,
        "nodes": nodes,
        "clients": clients,
        "in_flight": in_flight,
        "schedulers": schedulers,
    }
    _report("pipeline", parameters, figures, floors, as_json=as_json, ratios=ratios)


# --- replay ---------------------------------------------------------------------------------------------


@app.command("replay")
def replay(
    events: Annotated[int, typer.Option(min=10_000, help="In the ledger, which is made in the same run.")] = 1_000_000,
    days: Annotated[float, typer.Option(help="Of domain time that the ledger covers.")] = 30.0,
    retention_days: Annotated[float, typer.Option(help="How long settled requests are known.")] = 7.0,
    as_json: Json = False,
) -> None:
    """A whole ledger folded, hashes checked; and a start from its snapshot instead. In memory, without a server."""
    measured = replaying.measure(events, days=days, retention_days=retention_days)
    floors = asyncio.run(measure_floors())
    ratios = {
        "restart_over_replay": round(measured.restart_s * measured.events_per_second / measured.events, 4),
        "events_per_floor_loop": round(measured.events_per_second * floors["python_loop_p50_ms"] / 1000, 1),
    }
    parameters = {"events": events, "days": days, "retention_days": retention_days}
    _report("replay", parameters, asdict(measured), floors, as_json=as_json, ratios=ratios)


# --- failover -------------------------------------------------------------------------------------------


class Killed(StrEnum):
    """Whose processes a failover is measured of."""

    RAFT = "raft"
    QUOTA = "quota"


_FLOOR_OF = {
    Killed.RAFT: ("election_timeout_min", 150),
    Killed.QUOTA: ("pin_timeout", subjects.PIN_TIMEOUT_SECONDS * 1000),
}


@app.command("failover")
def failover(
    kills: int = 20,
    nodes: int = 20,
    of: Annotated[
        Killed, typer.Option("--of", help="raft: the leader; quota: the active quota service.")
    ] = Killed.RAFT,
    as_json: Json = False,
) -> None:
    """`kill -9` of the one that does the work: from the kill to the next committed decision that a client sees."""
    with own_cluster(nodes=nodes) as folder:
        took, lost = asyncio.run(_kill_one_after_another(folder, kills, of))
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
    over, floor_ms = _FLOOR_OF[of]
    ratios = {f"p50_over_{over}": figures["p50_ms"] / floor_ms}
    parameters = {"kills": kills, "nodes": nodes, "of": of.value}
    _report("failover", parameters, figures, floors, as_json=as_json, ratios=ratios)


async def _kill_one_after_another(folder: Path, kills: int, of: Killed) -> tuple[list[float], int]:
    """Five requests right after each kill: the first decision about one of them ends the count."""
    url, seed = _address(folder)
    took: list[float] = []
    async with connect(url, nkey=seed) as cluster:
        await cluster.submit(a_request("warm-up"))
        for number in range(kills):
            settled = _settled_leader if of is Killed.RAFT else _settled_quota
            pid = _pid_of(folder, await settled(cluster, folder))
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


async def _settled_quota(cluster: Cluster, folder: Path) -> str:
    """The active quota service, once another one is ready to take over from it."""
    while True:
        answers = await cluster.gather("$SRV.PING.berth-quota", b"", seconds=0.5, enough=2)
        found = [json.loads(answer)["metadata"] for answer in answers]
        active = [one["user"] for one in found if one["active"] == "true"]
        ready = len(found) == 2 and all(one["ready"] == "true" for one in found)
        if ready and len(active) == 1 and _is_alive(_pid_of(folder, active[0])):
            return str(active[0])
        await asyncio.sleep(0.05)


def _pid_of(folder: Path, name: str) -> int:
    return _processes_of(folder)[name]


def _processes_of(folder: Path) -> dict[str, int]:
    """Process ids by name, as they are now."""
    processes = json.loads((folder / "berth.json").read_text())["processes"]
    return {str(process["name"]): int(process["pid"]) for process in processes}


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


# --- backfill -------------------------------------------------------------------------------------------


@app.command("backfill")
def backfill(
    data: Annotated[Path, typer.Option("--data", help="Where lublin_256.swf is.")] = Path("../shared/data"),
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Only the first ones.")] = None,
    as_json: Json = False,
) -> None:
    """Strict FIFO beside conservative backfill on the Lublin trace, in virtual time; skipped where it is absent."""
    from berth_cli.backfill import measure  # the services themselves: only this benchmark needs them
    from berth_cli.lublin import jobs as jobs_of
    from berth_cli.lublin import missing

    parameters: dict[str, Any] = {"trace": "lublin_256", "jobs": jobs}
    if (why := missing(data)) is not None:
        note(f"skipped: {why}")
        _report("backfill", {**parameters, "skipped": why}, {}, {}, as_json=as_json, ratios={})
        return
    figures = measure(jobs_of(data, jobs))
    ratios = {
        f"{name}_fifo_over_backfill": round(figures[name]["fifo"] / max(1.0, figures[name]["backfill"]), 2)
        for name in ("mean_wait_s", "mean_bounded_slowdown", "makespan_s")
    }
    if as_json:
        _report("backfill", parameters, figures, {}, as_json=True, ratios=ratios)
        return
    columns = [name for name, by_policy in figures.items() if not isinstance(by_policy["fifo"], dict)]
    policies = list(figures["mean_wait_s"])
    print_lines(*table(("policy", *columns), [(one, *(figures[name][one] for name in columns)) for one in policies]))

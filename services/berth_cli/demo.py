"""A sample workload, so that there is something to look at: `berth up` submits it, `berth demo` by hand.

All of it is in namespaces that begin with `demo-` and carries the label `sample: berth`. It may be submitted
again: the same ids with the same bodies are the same requests.
"""

import asyncio
from typing import Any

import orjson
import typer
from pydantic import TypeAdapter

from berth.client import Cluster
from berth.messages.decisions import Decision
from berth.messages.documents import QuotaDocument
from berth.messages.requests import REQUEST_LIST, Request
from berth.messages.validation import parse
from berth_cli.connection import on
from berth_cli.context import Target, on_cluster
from berth_cli.output import print_json, print_lines, table

app = typer.Typer()

DECIDED_WITHIN_SECONDS = 15.0

QUOTAS: list[dict[str, Any]] = [
    {"namespace": "demo-shop", "hard": {"cpu_cores": 64, "ram_mb": 262_144}},
    {"namespace": "demo-research", "hard": {"cpu_cores": 40, "ram_mb": 163_840, "extended": {"gpu": 4}}},
]

REQUESTS: list[dict[str, Any]] = [
    {
        "id": "web",
        "namespace": "demo-shop",
        "count": 3,
        "resources": {"cpu_cores": 2, "ram_mb": 4_096},
        "strategy": "spread",
        "constraints": [{"key": "region", "operator": "in", "values": ["us-east-1"], "mode": "required"}],
        "spread": [{"topology_key": "zone", "max_skew": 1, "match_labels": {"app": "web"}}],
        "labels": {"app": "web"},
        "priority": 70,
    },
    {
        "id": "database",
        "namespace": "demo-shop",
        "resources": {"cpu_cores": 4, "ram_mb": 16_384, "disk_mb": 100_000},
        "constraints": [{"key": "disk", "operator": "equals", "values": ["ssd"], "mode": "required"}],
        "labels": {"app": "database"},
        "priority": 80,
    },
    {
        "id": "cache",
        "namespace": "demo-shop",
        "count": 2,
        "resources": {"cpu_cores": 1, "ram_mb": 8_192},
        "affinity": [
            {"match_labels": {"app": "database"}, "topology_key": "region", "mode": "preferred", "weight": 20}
        ],
        "anti_affinity": [{"match_labels": {"app": "cache"}, "topology_key": "node"}],
        "labels": {"app": "cache"},
    },
    {
        "id": "training",
        "namespace": "demo-research",
        "resources": {"cpu_cores": 8, "ram_mb": 32_768, "extended": {"gpu": 2}},
        "tolerations": [{"key": "dedicated", "operator": "equals", "value": "gpu", "effect": "no_schedule"}],
        "labels": {"app": "training"},
    },
    {
        "id": "simulation",
        "namespace": "demo-research",
        "count": 4,
        "resources": {"cpu_cores": 6, "ram_mb": 8_192},
        "constraints": [
            {"key": "kind", "operator": "equals", "values": ["compute"], "mode": "preferred", "weight": 50}
        ],
        "labels": {"app": "simulation"},
    },
    {
        "id": "evaluation",
        "namespace": "demo-research",
        "resources": {"cpu_cores": 12, "ram_mb": 16_384},
        "labels": {"app": "evaluation", "why": "waits-for-quota"},
    },
    {
        "id": "archive",
        "namespace": "demo-batch",
        "resources": {"cpu_cores": 2, "ram_mb": 4_096, "disk_mb": 1_000_000},
        "constraints": [{"key": "disk", "operator": "equals", "values": ["hdd"], "mode": "required"}],
        "labels": {"app": "archive"},
        "priority": 20,
    },
    {
        "id": "mainframe",
        "namespace": "demo-batch",
        "resources": {"cpu_cores": 500, "ram_mb": 4_096},
        "labels": {"app": "mainframe", "why": "fits-no-node"},
    },
]
"""Most are placed; one waits for quota and one fits no node, to show how Berth says so."""


def requests() -> list[Request]:
    """The sample as requests."""
    documents = [{**document, "labels": {**document["labels"], "sample": "berth"}} for document in REQUESTS]
    return parse(REQUEST_LIST, orjson.dumps(documents), root="requests")


def quotas() -> list[QuotaDocument]:
    """The limits of the sample's namespaces."""
    return parse(TypeAdapter(list[QuotaDocument]), orjson.dumps(QUOTAS), root="quotas")


async def submit_sample(cluster: Cluster) -> None:
    """Store the sample; returns before it is decided. Quotas that are there already are left alone."""
    there = {row["namespace"] for row in await cluster.query("quotas")}
    missing = [quota for quota in quotas() if quota.namespace not in there]
    if missing:
        await cluster.apply_quotas(missing)
    for request in requests():
        await cluster.publish(request)


@app.command("demo")
@on_cluster
def demo(target: Target) -> None:
    """Submit the sample workload."""

    async def act(cluster: Cluster) -> list[Decision]:
        await submit_sample(cluster)
        decided = [cluster.submit(request, timeout=DECIDED_WITHIN_SECONDS) for request in requests()]
        return list(await asyncio.gather(*decided))

    decisions = on(target, act, role="admin")
    if target.as_json:
        print_json({"version": 1, "decisions": [decision.as_mapping() for decision in decisions]})
        return
    rows = [
        (f"{decision.namespace}/{decision.request}", decision.status, ", ".join(sorted(_nodes(decision))) or None)
        for decision in decisions
    ]
    print_lines(*table(("request", "status", "nodes"), rows), "Next: `berth explain demo-research/evaluation`")


def _nodes(decision: Decision) -> set[str]:
    return {allocation.node for allocation in decision.allocations}

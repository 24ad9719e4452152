"""The openb trace as documents: nodes and requests of a production GPU cluster, in order of arrival.

Two CSV files of the artefact of "Beware of Fragmentation" (Weng et al., USENIX ATC 2023). The project has no
copy; a benchmark is told where they are.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

from berth.messages.documents import CLUSTER, ClusterDocument
from berth.messages.requests import REQUEST_LIST, Request, Strategy

NODES = "openb_nodes.csv"
REQUESTS = "openb_pods.csv"
INSTANCES = 10_000
"""The trace knows no bound on instances; more than it has requests is none."""


class GpuModel(StrEnum):
    """How a GPU is counted. WHOLE: a share of one takes all of it. MILLI: thousandths, of any devices of the node."""

    WHOLE = "whole"
    MILLI = "milli"

    @property
    def resource(self) -> str:
        return "gpu" if self is GpuModel.WHOLE else "gpu-milli"

    def capacity(self, gpus: int) -> int:
        return gpus if self is GpuModel.WHOLE else 1_000 * gpus

    def demand(self, gpus: int, milli: int) -> int:
        return gpus if self is GpuModel.WHOLE else milli * gpus


@dataclass(frozen=True, slots=True)
class Trace:
    """`folder` holds both files."""

    folder: Path
    gpu: GpuModel

    def missing(self) -> str | None:
        """Why it cannot be replayed, or None."""
        absent = [name for name in (NODES, REQUESTS) if not (self.folder / name).is_file()]
        return f"{self.folder} has no {' and no '.join(absent)}" if absent else None

    def cluster(self) -> ClusterDocument:
        return CLUSTER.validate_python(
            {"nodes": [self._node(row) for row in rows_of(self.folder / NODES)]}, strict=False
        )

    def requests(self, strategy: Strategy, limit: int | None = None) -> list[Request]:
        """The first `limit` requests, or all, oldest first as the file has them."""
        rows = islice(rows_of(self.folder / REQUESTS), limit)
        written = [self._request(row, strategy) for row in rows]
        return REQUEST_LIST.validate_python(written, strict=False)

    def _node(self, row: dict[str, str]) -> dict[str, Any]:
        gpus = self.gpu.capacity(whole(row["gpu"]))
        return {
            "id": row["sn"],
            "capacity": {**self._amounts(row, gpus), "instances": INSTANCES},
            "labels": {"model": row["model"]} if row["model"] else {},
        }

    def _request(self, row: dict[str, str], strategy: Strategy) -> dict[str, Any]:
        models = [model for model in row["gpu_spec"].split("|") if model]
        gpus = self.gpu.demand(whole(row["num_gpu"]), whole(row["gpu_milli"]))
        return {
            "id": row["name"],
            "namespace": "openb",
            "resources": self._amounts(row, gpus),
            "strategy": strategy,
            "constraints": [{"key": "model", "operator": "in", "values": models}] if models else [],
        }

    def _amounts(self, row: dict[str, str], gpus: int) -> dict[str, Any]:
        return {
            "cpu_cores": whole(row["cpu_milli"]) / 1000,
            "ram_mb": whole(row["memory_mib"]),
            "extended": {self.gpu.resource: gpus} if gpus else {},
        }


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as file:
        yield from csv.DictReader(file)


def whole(text: str) -> int:
    return int(text or 0)

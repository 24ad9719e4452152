"""Random placement of the openb trace as the paper's simulator counts GPUs: each device by itself. No part of Berth.

It tells how far the figures of docs/packing.md are from the paper's for that reason alone: every request goes to a
node drawn from all that can take it, a share to a device drawn from those with room, a whole GPU to an idle device.

python -m docs.packing_devices ../shared/data
"""

import random
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from berth_cli.openb import NODES, REQUESTS, rows_of, whole

SEEDS = range(1, 11)
WHOLE = 1_000
"""Thousandths of one device."""


@dataclass(slots=True)
class Node:
    """What is free: `devices` has the thousandths of each GPU."""

    model: str
    cpu: int
    ram: int
    devices: list[int]

    def takes(self, cpu: int, ram: int, share: int, devices: int, models: list[str]) -> bool:
        if self.cpu < cpu or self.ram < ram or (models and self.model not in models):
            return False
        return not devices or sum(free >= share for free in self.devices) >= devices


def allocated(folder: Path, seed: int) -> float:
    """Percent of the GPUs that are allocated when every request has come."""
    chance = random.Random(seed)
    nodes = [
        Node(row["model"], whole(row["cpu_milli"]), whole(row["memory_mib"]), [WHOLE] * whole(row["gpu"]))
        for row in rows_of(folder / NODES)
    ]
    there_are = sum(len(node.devices) for node in nodes)
    given = 0
    for row in rows_of(folder / REQUESTS):
        cpu, ram, share = (whole(row[name]) for name in ("cpu_milli", "memory_mib", "gpu_milli"))
        devices = whole(row["num_gpu"])
        models = [model for model in row["gpu_spec"].split("|") if model]
        possible = [node for node in nodes if node.takes(cpu, ram, share, devices, models)]
        if not possible:
            continue
        node = chance.choice(possible)
        node.cpu -= cpu
        node.ram -= ram
        fitting = [device for device, free in enumerate(node.devices) if free >= share]
        for device in chance.sample(fitting, devices):
            node.devices[device] -= share
        given += devices * share
    return 100 * given / (WHOLE * there_are)


if __name__ == "__main__":
    found = [allocated(Path(sys.argv[1]), seed) for seed in SEEDS]
    sys.stdout.write(f"{mean(found):.2f} % ({min(found):.2f} to {max(found):.2f} over {len(found)} seeds)\n")

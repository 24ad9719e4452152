"""A varied demo cluster: regions (us-east-1 always among them), zones, disks, processors, GPUs behind a taint. Pure."""

from dataclasses import dataclass

from berth.ids import NodeId
from berth.messages.documents import NodeDocument
from berth.messages.requests import Capacity, Effect, Taint

REGIONS = ("us-east-1", "eu-west-1", "us-west-2")
ZONES = ("a", "b", "c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What one kind of machine has; RAM and disk in MB."""

    kind: str
    cores: int
    ram_mb: int
    disk_mb: int
    disk: str
    architecture: str = "amd64"
    gpus: int = 0


SHAPES = (
    Shape(kind="general", cores=16, ram_mb=65_536, disk_mb=500_000, disk="ssd"),
    Shape(kind="compute", cores=32, ram_mb=65_536, disk_mb=250_000, disk="ssd"),
    Shape(kind="memory", cores=16, ram_mb=131_072, disk_mb=500_000, disk="ssd", architecture="arm64"),
    Shape(kind="storage", cores=8, ram_mb=32_768, disk_mb=4_000_000, disk="hdd"),
    Shape(kind="gpu", cores=32, ram_mb=131_072, disk_mb=1_000_000, disk="ssd", gpus=4),
)


def simulated_nodes(count: int, *, instances: int | None = None) -> list[NodeDocument]:
    """The first `count` nodes of the demo cluster; a larger one begins with the same nodes.

    Regions, zones and shapes take turns at different lengths, so that every combination comes in time.
    The first node is a general one in us-east-1. `instances`: what each holds, where it should say so.
    """
    return [_node(number, instances) for number in range(count)]


def _node(number: int, instances: int | None) -> NodeDocument:
    shape = SHAPES[number % len(SHAPES)]
    region = REGIONS[number % len(REGIONS)]
    labels = {
        "region": region,
        "zone": ZONES[number // len(REGIONS) % len(ZONES)],
        "kind": shape.kind,
        "disk": shape.disk,
        "arch": shape.architecture,
        "os": "linux",
        "generation": str(3 + number % 3),
    }
    if shape.gpus:
        labels["gpu"] = "a100" if number % 2 == 0 else "l4"
    return NodeDocument(
        id=NodeId(f"node-{number + 1:03}"),
        capacity=Capacity.model_validate(
            {
                "cpu_cores": shape.cores,
                "ram_mb": shape.ram_mb,
                "disk_mb": shape.disk_mb,
                "extended": {"gpu": shape.gpus} if shape.gpus else {},
                **({} if instances is None else {"instances": instances}),
            }
        ),
        labels=labels,
        taints=(Taint(key="dedicated", value="gpu", effect=Effect.NO_SCHEDULE),) if shape.gpus else (),
    )

"""The machine that this process runs on, as a node."""

import platform
import re
import socket

import psutil

from berth.ids import NodeId
from berth.messages.documents import NodeDocument
from berth.messages.requests import Capacity

_MB = 1024 * 1024
_NAME_MAX = 63
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def this_machine(name: str | None = None) -> NodeDocument:
    """Cores, RAM and the disk of `/` as they are; `name`: of the node, else made from the host's."""
    cores = psutil.cpu_count(logical=True)
    assert cores is not None, "a machine that runs this has a core"
    return NodeDocument(
        id=NodeId(name or node_name(socket.gethostname())),
        capacity=Capacity.model_validate(
            {
                "cpu_cores": cores,
                "ram_mb": psutil.virtual_memory().total // _MB,
                "disk_mb": psutil.disk_usage("/").total // _MB,
            }
        ),
        labels={
            "os": platform.system().lower(),
            "arch": _ARCHITECTURES.get(platform.machine(), label_value(platform.machine())),
            "hostname": label_value(socket.gethostname()),
        },
    )


def node_name(host: str) -> str:
    """A host's name as a node may have it: lower case, everything else a dash; `node` where nothing is left."""
    return re.sub(r"[^a-z0-9]+", "-", host.lower()).strip("-")[:_NAME_MAX].strip("-") or "node"


def label_value(text: str) -> str:
    """Some text of the machine as the value of a label may be."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:_NAME_MAX].strip("._-")

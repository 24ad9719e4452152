"""One connection for one command: signed in as the target says, its spans sent once at its end."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from berth.client import Cluster, connect
from berth.runtime import exporting
from berth_cli.context import ClusterAddress, Role, Target

T = TypeVar("T")

SPANS_WITHIN_SECONDS = 0.5


@asynccontextmanager
async def cluster_of(address: ClusterAddress) -> AsyncGenerator[Cluster]:
    """The cluster at `address`. Raises Unreachable."""
    telemetry = exporting.start(
        "berth-cli",
        address.user,
        endpoint=address.console_url,
        close_seconds=SPANS_WITHIN_SECONDS,
        with_metrics=False,
    )
    try:
        async with connect(address.url, nkey=address.seed_file, user=address.user, spans=telemetry.spans) as cluster:
            yield cluster
    finally:
        telemetry.close()


def on(target: Target, act: Callable[[Cluster], Awaitable[T]], *, role: Role = "client") -> T:
    """What `act` answers on the target's cluster."""

    async def run() -> T:
        async with cluster_of(target.address(role)) as cluster:
            return await act(cluster)

    return asyncio.run(run())


def split_id(text: str) -> tuple[str | None, str]:
    """`namespace/id`, or a bare id whose namespace is to be found."""
    namespace, slash, name = text.partition("/")
    return (namespace, name) if slash else (None, text)

"""The client for scripts without asyncio: the same calls, each waiting for its answer.

with berth.blocking.connect("nats://127.0.0.1:4222", nkey="keys/client.nk") as cluster:
    decision = cluster.submit(berth.Request(id="web-1", namespace="team-a", resources=…))
"""

import asyncio
from collections.abc import Coroutine, Generator, Iterable
from collections.abc import Sequence as Listing
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from berth import client
from berth.messages.commands import AdminAnswer, ReservationAnswer
from berth.messages.decisions import Decision
from berth.messages.documents import ReservationDocument
from berth.messages.requests import Request

T = TypeVar("T")


@contextmanager
def connect(
    url: str = "nats://127.0.0.1:4222", *, nkey: str | Path | None = None, user: str | None = None, timeout: float = 5.0
) -> "Generator[Cluster]":
    """As `berth.client.connect`. Not to be called inside a running event loop."""
    with asyncio.Runner() as runner:
        connection = client.connect(url, nkey=nkey, user=user, timeout=timeout)
        cluster = runner.run(connection.__aenter__())
        try:
            yield Cluster(cluster, runner)
        finally:
            runner.run(connection.__aexit__(None, None, None))


class Cluster:
    """One connection; each call blocks. For what is not here: `run(lambda cluster: cluster.query(…))`."""

    def __init__(self, cluster: client.Cluster, runner: asyncio.Runner) -> None:
        self._cluster = cluster
        self._runner = runner

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Any call of `asynchronous`, waited for."""
        return self._runner.run(coroutine)

    @property
    def asynchronous(self) -> client.Cluster:
        """The asynchronous client beneath."""
        return self._cluster

    def submit(self, request: Request, *, until: Iterable[str] | None = None, timeout: float = 30.0) -> Decision:
        return self.run(self._cluster.submit(request, until=until, timeout=timeout))

    def submit_all(
        self, requests: Iterable[Request], *, until: Iterable[str] | None = None, timeout: float = 30.0
    ) -> list[Decision]:
        """Many at once: they travel together. Raises as `submit`, for the first that has no decision."""
        wanted = None if until is None else list(until)

        async def together() -> list[Decision]:
            return await asyncio.gather(
                *(self._cluster.submit(request, until=wanted, timeout=timeout) for request in requests)
            )

        return self.run(together())

    def publish(self, request: Request) -> None:
        self.run(self._cluster.publish(request))

    def release(self, namespace: str, request: str) -> None:
        self.run(self._cluster.release(namespace, request))

    def decision(self, namespace: str, request: str) -> Decision:
        return self.run(self._cluster.decision(namespace, request))

    def query(self, what: str, **query: Any) -> list[dict[str, Any]]:
        return self.run(self._cluster.query(what, **query))

    def plan(self, requests: Listing[Request] = (), **options: Any) -> dict[str, Any]:
        return self.run(self._cluster.plan(requests, **options))

    def explain(self, namespace: str, request: str) -> dict[str, Any]:
        return self.run(self._cluster.explain(namespace, request))

    def reserve(self, reservation: ReservationDocument) -> ReservationAnswer:
        return self.run(self._cluster.reserve(reservation))

    def cancel_reservation(self, namespace: str, reservation: str, *, evict: bool = False) -> ReservationAnswer:
        return self.run(self._cluster.cancel_reservation(namespace, reservation, evict=evict))

    def extend_reservation(
        self, namespace: str, reservation: str, *, end: datetime | None = None, count: int | None = None
    ) -> ReservationAnswer:
        return self.run(self._cluster.extend_reservation(namespace, reservation, end=end, count=count))

    def shrink_reservation(
        self, namespace: str, reservation: str, *, end: datetime | None = None, count: int | None = None
    ) -> ReservationAnswer:
        return self.run(self._cluster.shrink_reservation(namespace, reservation, end=end, count=count))

    def skip_reservation(self, namespace: str, reservation: str) -> ReservationAnswer:
        return self.run(self._cluster.skip_reservation(namespace, reservation))

    def node(self, node: str) -> dict[str, Any]:
        return self.run(self._cluster.nodes.show(node))

    def cordon(self, node: str) -> AdminAnswer:
        return self.run(self._cluster.nodes.cordon(node))

    def uncordon(self, node: str) -> AdminAnswer:
        return self.run(self._cluster.nodes.uncordon(node))

    def drain(self, node: str, *, deadline_seconds: int | None = None) -> AdminAnswer:
        return self.run(self._cluster.nodes.drain(node, deadline_seconds=deadline_seconds))

    def drained(self, node: str, *, timeout: float | None = None) -> dict[str, Any]:
        return self.run(self._cluster.nodes.drained(node, timeout=timeout))

    def remove_node(self, node: str, *, force: bool = False) -> AdminAnswer:
        return self.run(self._cluster.nodes.remove(node, force=force))

    def leader(self) -> str | None:
        return self.run(self._cluster.raft.leader())

    def is_leader(self, node: str) -> bool:
        return self.run(self._cluster.raft.is_leader(node))

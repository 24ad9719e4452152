"""A real nats-server with Berth's own configuration and users, on free ports, in the test's own folder.

Use it with `pytest_plugins = ["tests.nats_fixture"]` in a conftest at the root, or import the fixture in
a folder's conftest: `from tests.nats_fixture import real_server`.
"""

import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from berth.adapters import server_config, streams, users
from berth.adapters.jetstream_api import JetStreamApi
from berth.adapters.jetstream_ledger import JetStreamLedger, LedgerSettings
from berth.adapters.nats_bus import BusSettings, NatsBus
from berth.adapters.nats_server import NatsServer
from berth.adapters.users import User

ROOT = "root"
"""A user that only tests have: it may do everything, as an operator with the server's own tools may."""


@dataclass
class RealServer:
    """One server and the connections that a test made to it; the fixture closes them."""

    folder: Path
    users: list[User]
    server: NatsServer
    buses: list[NatsBus] = field(default_factory=list[NatsBus])
    lost: list[str] = field(default_factory=list[str])
    """Reasons of connections that ended for good."""

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    async def connect(self, user: str, *, keeps_while_disconnected: bool = True, inbox: str | None = None) -> NatsBus:
        """A connection of `user`, which must be one of the server's users."""
        settings = BusSettings(
            url=self.server.url,
            user=inbox or user,
            seed_file=users.seed_file(self.keys, user),
            keeps_while_disconnected=keeps_while_disconnected,
        )
        bus = await NatsBus.connect(settings, lost=self.lost.append)
        self.buses.append(bus)
        return bus

    async def api(self, user: str = ROOT) -> JetStreamApi:
        return await JetStreamApi.open(await self.connect(user))

    async def ledger(self, user: str, *, append_within_seconds: float = 5.0) -> JetStreamLedger:
        """The ledger as the process `user` has it: on a connection of its own that keeps nothing."""
        bus = await self.connect(user, keeps_while_disconnected=False)
        settings = LedgerSettings(consumer=user, append_within_seconds=append_within_seconds, heartbeat_seconds=0.2)
        return await JetStreamLedger.open(bus, settings)

    async def bootstrap(self, *, ack_wait_seconds: float = 10.0) -> None:
        """What `berth init` does to the server: streams and the pinned consumer."""
        api = await self.api("init")
        await streams.create_streams(api, ack_wait_seconds=ack_wait_seconds)

    def restart(self) -> None:
        """kill -9, and again on the same ports and disk."""
        self.server.kill()
        self.server.start()

    def freeze(self) -> None:
        """SIGSTOP; returns when every thread of the server stands still."""
        self.server.signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self.server.pid}/task")
        while any(" T " not in (thread / "stat").read_text() for thread in threads.iterdir()):
            time.sleep(0.001)

    def thaw(self) -> None:
        """SIGCONT."""
        self.server.signal(signal.SIGCONT)

    async def close(self) -> None:
        for bus in self.buses:
            await bus.close()
        self.server.kill()


def configure(folder: Path, more_users: list[User] | None = None) -> list[User]:
    """Write the configuration of a server with the standard users, a few for nodes and namespaces, and `root`."""
    keys = folder / "keys"
    known = [
        *users.standard_users(keys),
        users.create_user(keys, name="client-team-a", role="client", namespaces=["team-a"]),
        users.create_user(keys, name="agent-n1", role="agent", node="n1"),
        *(more_users or []),
    ]
    server_config.write(folder, server_config.ServerSettings(store=folder / "jetstream"), known)
    root = users.create_user(keys, name=ROOT, role="admin")
    path = folder / server_config.USERS_FILE
    path.write_text(path.read_text().replace("users: [", f"users: [\n      {{ nkey: {root.public_key} }}", 1))
    return known


@pytest.fixture
async def real_server(tmp_path: Path) -> AsyncIterator[RealServer]:
    """A running server without streams; `bootstrap` makes them."""
    known = configure(tmp_path)
    server = NatsServer(configuration=tmp_path / server_config.CONFIG_FILE, folder=tmp_path)
    server.start()
    real = RealServer(folder=tmp_path, users=known, server=server)
    yield real
    await real.close()

"""What the JetStream adapters need of a connection: a Bus that knows whether it is up and has inboxes of its own.

Two worlds offer it, `nats_bus` and `berth.sim.network`, so the adapters themselves run in both.
"""

from collections.abc import Callable
from typing import Protocol

from berth.ports import Bus

INBOX = "_INBOX_"
PAYLOAD_BYTES_MAX = 1024 * 1024
_HEADER_FRAME = len(b"NATS/1.0\r\n\r\n")


class Connection(Bus, Protocol):
    """One process's connection to the server; it seeks the server again whenever it is lost."""

    @property
    def inbox(self) -> str:
        """Prefix for reply subjects of this connection alone: `<inbox>.<token>`, under the user's `_INBOX_<user>`."""
        ...

    def new_inbox(self) -> str:
        """Another such prefix that nobody used before."""
        ...

    @property
    def connected(self) -> bool: ...

    @property
    def server_version(self) -> str:
        """Of the server connected to, such as 2.15.1."""
        ...

    @property
    def payload_max(self) -> int:
        """Bytes of payload and headers that the server takes in one message."""
        ...

    def on_connection(
        self, *, lost: Callable[[], None] | None = None, regained: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        """Call these when the connection breaks and when it is back; the result ends that."""
        ...

    async def until_connected(self) -> None:
        """Return at once while connected, else when the connection is back."""
        ...

    async def flush(self) -> None:
        """Return when the server has read everything published before.

        Raises:
            Unreachable: it did not say so in time.
        """
        ...


def headers_size(headers: dict[str, str]) -> int:
    """Bytes of `headers` as they are sent."""
    return _HEADER_FRAME + sum(len(name) + len(value.encode()) + 4 for name, value in headers.items())

"""The bus on a real NATS server: one connection of nats-py behind the Bus port.

The client's defects that NATS section 4 lists end here: sizes are checked with headers, a closed
connection is fatal and says so, nothing is published through `publish_async`, subscriptions are callbacks
only so that a drain never waits for a reader.
"""

import asyncio
import contextlib
import itertools
import logging
import re
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nats.aio.client
import nats.errors
from nats.aio.msg import Msg

from berth.adapters.connection import INBOX, headers_size
from berth.adapters.nats_server import is_new_enough, parse_version
from berth.adapters.outbox import Outbox, Outgoing
from berth.adapters.users import public_key
from berth.errors import BerthError, InvalidCommand, Problem, Unreachable
from berth.ports import Envelope

log = logging.getLogger(__name__)

ACKNOWLEDGEMENT = "$JS.ACK."
"""What a message that a stream delivers names as its reply."""

_DRAIN_SECONDS = 5
_CONNECT_SECONDS = 2
_CLOSE_WAIT_SECONDS = 0.3
_PERMISSION = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)


class NotPermitted(BerthError):
    """This user may not do that (RAFT section 6)."""

    code = "not_permitted"


@dataclass(frozen=True, slots=True, kw_only=True)
class BusSettings:
    """One connection. `user` is the process's name; `seed_file` its nkey, read again at each reconnect.

    `connect_within_seconds`: for the first connection; None waits for ever. Later ones are sought for ever.
    `keeps_while_disconnected`: what is published in the meantime waits for the next connection; a Raft
    peer or a ledger must not speak late, so theirs is dropped.
    """

    url: str
    user: str
    seed_file: Path | None = None
    tls: ssl.SSLContext | None = None
    connect_within_seconds: float | None = 5.0
    reconnect_wait_seconds: float = 0.05
    ping_interval_seconds: int = 3
    outbound_bytes_max: int = 16 * 1024 * 1024
    keeps_while_disconnected: bool = True


class NatsBus:
    """One connection. Made by `connect`; `lost` is called with the reason when it ends for good, which is fatal:
    the process exits and its supervisor starts it again.
    """

    def __init__(self, settings: BusSettings, lost: Callable[[str], None]) -> None:
        self._settings = settings
        self._lost = lost
        self._connection = nats.aio.client.Client()
        self._up = asyncio.Event()
        self._outbox = Outbox(
            self._connection,
            up=self._up,
            keeps=settings.keeps_while_disconnected,
            bytes_max=settings.outbound_bytes_max,
        )
        self._sender: asyncio.Task[None] | None = None
        self._listeners: list[tuple[Callable[[], None] | None, Callable[[], None] | None]] = []
        self._deaf: dict[str, str] = {}
        self._refusal: asyncio.Future[str] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._closing = False
        self._inboxes = itertools.count(1)
        self.inbox = f"{INBOX}{settings.user}.{secrets.token_hex(6)}"
        """Prefix for reply subjects of this connection alone: `<inbox>.<token>`."""

    # --- connection -------------------------------------------------------------------------------

    @classmethod
    async def connect(cls, settings: BusSettings, *, lost: Callable[[str], None]) -> "NatsBus":
        """Connect and sign in.

        Raises:
            Unreachable: no server within the time, one that does not know the key, or one too old.
            InvalidSetting: the seed file holds no seed.
        """
        bus = cls(settings, lost)
        if settings.seed_file is not None:
            public_key(settings.seed_file)  # says clearly what is wrong with it
        try:
            async with asyncio.timeout(settings.connect_within_seconds):
                await bus._sign_in()
        except TimeoutError:
            await bus.close()
            raise Unreachable(
                f"no NATS server answers at {settings.url}", hint="is the cluster running? (`berth status`)"
            ) from None
        except BaseException:
            await bus.close()
            raise
        bus._up.set()
        bus._sender = asyncio.create_task(bus._outbox.run(), name=f"bus sender of {settings.user}")
        bus._sender.add_done_callback(bus._on_sender_ended)
        return bus

    async def _sign_in(self) -> None:
        """Connect; a server that refuses the key ends it at once (the client alone would try for ever)."""
        refusal = self._refusal = asyncio.get_running_loop().create_future()
        attempt = asyncio.create_task(self._open())
        try:
            await asyncio.wait((attempt, refusal), return_when=asyncio.FIRST_COMPLETED)
            if refusal.done():
                raise Unreachable(
                    f"{self._settings.url} refuses user {self._settings.user}: {refusal.result()}",
                    hint="is this the key of this cluster?",
                )
            await attempt
        finally:
            self._refusal = None
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)
        version = parse_version(self.server_version)
        if version is None or not is_new_enough(version):
            raise Unreachable(
                f"{self._settings.url} is a NATS server of version {self.server_version}",
                hint="needed is 2.14.0 or newer, or 2.12.7 or newer of 2.12",
            )

    async def _open(self) -> None:
        settings = self._settings
        await self._connection.connect(
            servers=[settings.url],
            name=settings.user,
            nkeys_seed=str(settings.seed_file) if settings.seed_file else None,
            inbox_prefix=f"{INBOX}{settings.user}",
            tls=settings.tls,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=settings.reconnect_wait_seconds,  # pyright: ignore[reportArgumentType] seconds, fractions too
            ping_interval=settings.ping_interval_seconds,
            max_outstanding_pings=2,
            connect_timeout=_CONNECT_SECONDS,
            drain_timeout=_DRAIN_SECONDS,
            # Nothing is left in the client's buffer over a reconnect: what waits, waits here (RAFT section 2, step 1).
            pending_size=2 * 1024 * 1024 if settings.keeps_while_disconnected else -1,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
            lame_duck_mode_cb=self._on_lame_duck,
        )

    @property
    def connected(self) -> bool:
        return self._connection.is_connected

    @property
    def server_version(self) -> str:
        """Of the server connected to, such as 2.15.1."""
        version = self._connection.connected_server_version
        return f"{version.major}.{version.minor}.{version.patch}"

    def new_inbox(self) -> str:
        """Another prefix like `inbox` that nobody used before."""
        return f"{self.inbox}-{next(self._inboxes)}"

    def on_connection(
        self, *, lost: Callable[[], None] | None = None, regained: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        """Call these when the connection breaks and when it is back; the result ends that."""
        listener = (lost, regained)
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    async def until_connected(self) -> None:
        """Return at once while connected, else when the connection is back."""
        await self._up.wait()

    async def flush(self) -> None:
        """Return when the server has read everything published before.

        Raises:
            Unreachable: it did not say so within 10 s.
        """
        try:
            await self._outbox.written()
            # The client's flush writes its PING past what is still in its buffer, so the first round trip
            # proves nothing; during it the buffer is written, so the second one does.
            await self._connection.flush()
            await self._connection.flush()
        except nats.errors.Error as error:
            raise Unreachable(f"the bus took too long: {error!r}") from None

    async def close(self) -> None:
        """Send what is queued, as far as that is possible at once, and close. `lost` is not called."""
        self._closing = True
        if self._sender is not None and not self._sender.done():
            if self._connection.is_reconnecting:  # cancelled in the middle, the client would leave a socket open
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSE_WAIT_SECONDS):
                        await self._up.wait()
            if self.connected:
                with contextlib.suppress(TimeoutError, Unreachable):  # then it stays unsent: at most once
                    async with asyncio.timeout(_DRAIN_SECONDS):
                        await self.flush()
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        if self._ending is not None:
            await self._ending
        await self._connection.close()

    # --- publish ----------------------------------------------------------------------------------

    def publish(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None, reply: str | None = None
    ) -> None:
        """Queue for sending; returns at once.

        Raises:
            Overloaded: the outbound queue is full; nothing was queued.
            InvalidCommand: payload and headers together exceed what the server takes (such a message
                would close the connection for good: NATS section 4, defect 1).
        """
        size = len(payload) + (headers_size(headers) if headers else 0)
        if size > self.payload_max:
            raise InvalidCommand(
                [Problem(path=subject, expected=f"at most {self.payload_max} bytes with headers, these are {size}")]
            )
        self._outbox.put(
            Outgoing(subject=subject, payload=payload, headers=headers or None, reply=reply or "", size=size)
        )

    @property
    def payload_max(self) -> int:
        """Bytes of payload and headers that the server takes in one message."""
        return self._connection.max_payload

    def _on_sender_ended(self, sender: asyncio.Task[None]) -> None:
        if not sender.cancelled() and (error := sender.exception()) is not None:
            self._lost(f"nothing can be sent any more: {error!r}")

    # --- subscribe --------------------------------------------------------------------------------

    async def subscribe(
        self, pattern: str, receive: Callable[[Envelope], None], *, queue: str | None = None
    ) -> Callable[[], None]:
        """Call `receive` for every message, one after another; the result ends the subscription at once.

        When this returns the server knows of it. `receive` must be quick: it holds up this connection's others.

        Raises:
            NotPermitted: this user may not listen there.
        """
        live = True

        takes_any_reply = pattern.startswith(INBOX)  # what a stream delivers is acknowledged where it says

        async def deliver(message: Msg) -> None:
            if live:
                receive(envelope(message, takes_any_reply=takes_any_reply))

        self._deaf.pop(pattern.lower(), None)
        subscription = await self._connection.subscribe(pattern, queue or "", deliver)  # pyright: ignore[reportUnknownMemberType]
        if self.connected:
            await self.flush()
        if refused := self._deaf.pop(pattern.lower(), None):
            raise NotPermitted(f"{self._settings.user} may not subscribe to {pattern}: {refused}")

        def end() -> None:
            nonlocal live
            if live:
                live = False
                self._outbox.end(subscription)

        return end

    # --- what the client reports ------------------------------------------------------------------

    async def _on_error(self, error: Exception) -> None:
        text = str(error)
        if found := _PERMISSION.search(text):
            verb, subject = found[1].lower(), found[2].lower()
            if verb == "subscription":
                self._deaf[subject] = text
            log.error("permission_refused", extra={"user": self._settings.user, "verb": verb, "subject": subject})
        elif isinstance(error, nats.errors.Error) and "authorization" in text.lower():
            self._on_refused_key(text)
        elif isinstance(error, OSError | nats.errors.UnexpectedEOF):
            log.debug("connection_failed", extra={"user": self._settings.user, "why": repr(error)})
        else:
            log.warning("bus_error_reported", extra={"user": self._settings.user, "why": repr(error)})

    def _on_refused_key(self, why: str) -> None:
        """The server does not know the key, or not any more: trying again for ever would only leave sockets behind."""
        if self._refusal is None:
            if self._ending is None:
                self._ending = asyncio.create_task(self._connection.close())
        elif not self._refusal.done():
            self._refusal.set_result(why)

    async def _on_disconnected(self) -> None:
        if not self._up.is_set():
            return
        self._up.clear()
        if not self._closing:
            log.warning("connection_lost", extra={"user": self._settings.user, "url": self._settings.url})
        for lost, _ in tuple(self._listeners):
            if lost is not None:
                lost()

    async def _on_reconnected(self) -> None:
        log.info("connection_regained", extra={"user": self._settings.user, "url": self._settings.url})
        self._up.set()
        for _, regained in tuple(self._listeners):
            if regained is not None:
                regained()

    async def _on_closed(self) -> None:
        if not self._closing:
            why = repr(self._connection.last_error)
            log.error("connection_closed", extra={"user": self._settings.user, "why": why})
            self._lost(f"the connection to {self._settings.url} was closed for good: {why}")

    async def _on_lame_duck(self) -> None:
        log.info("server_leaving", extra={"user": self._settings.user, "url": self._settings.url})


def envelope(message: Msg, *, takes_any_reply: bool = True) -> Envelope:
    """The client's message as the port's. A server status such as 503 comes without payload, and nobody stored it.

    Whoever asks names an inbox: with another subject there, the answer of a service would be published where
    only that service may publish (`allow_responses` lets it), such as into the ledger.
    """
    headers = message.headers or {}
    is_stored = message.reply.startswith(ACKNOWLEDGEMENT)
    status = headers.get("Status") if headers and not message.data and not is_stored else None
    reply = message.reply if takes_any_reply or message.reply.startswith(INBOX) else None
    if status is not None and status.isdigit():
        plain = {str(getattr(name, "value", name)): value for name, value in headers.items()}
        return Envelope(
            subject=message.subject,
            payload=b"",
            headers=plain,
            reply=reply or None,
            status=int(status),
        )
    return Envelope(subject=message.subject, payload=message.data, headers=headers, reply=reply or None)

"""A NATS server that is not there: subscriptions, queue groups, 503, delays and losses, decided by a seed.

Contract tests hold it to what the real server does. Everything happens on the running loop, so on a
virtual-time loop it takes no time, and one seed is one history.
"""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from berth.adapters.connection import INBOX, PAYLOAD_BYTES_MAX, headers_size
from berth.errors import InvalidCommand, Overloaded, Problem, Unreachable
from berth.ports import Envelope
from berth.sim.faults import NO_FAULTS, NetworkFaults
from berth.sim.matching import matches

NO_RESPONDERS = 503
OUTBOUND_BYTES_MAX = 16 * 1024 * 1024
RECONNECT_SECONDS = 0.05
FLUSH_SECONDS = 10.0
_AFTER_SECONDS = 1e-7
"""Between two messages of one connection, so that timers cannot change their order."""


@dataclass(eq=False, slots=True, kw_only=True)
class _Subscription:
    pattern: tuple[str, ...]
    queue: str | None
    receive: Callable[[Envelope], None]
    owner: "SimulatedBus | None"
    live: bool = True


@dataclass(eq=False, slots=True)
class _Hop:
    """The way in one direction between the server and one connection, with the loop's time at which its last
    message arrives.
    """

    busy_until: float = -1.0


class SimulatedNetwork:
    """The server and everybody's connections to it."""

    def __init__(self, random: Random, *, faults: NetworkFaults = NO_FAULTS, version: str = "2.15.1") -> None:
        self.faults = faults
        self.version = version
        self.running = True
        self._frozen: list[Callable[[], None]] | None = None
        self._random = random
        self._subscriptions: list[_Subscription] = []
        self._matching: dict[str, list[_Subscription]] = {}
        self._connections: list[SimulatedBus] = []
        self._numbers = itertools.count(1)
        self.on_stop: list[Callable[[], None]] = []
        self.on_disconnect: list[Callable[[str], None]] = []
        """Called with the user of each connection that ends while the server runs, as it tells its system account."""

    def bus(self, user: str, *, keeps_while_disconnected: bool = True) -> "SimulatedBus":
        """A new connection of `user`, up at once when the server runs."""
        inbox = f"{INBOX}{user}.sim{next(self._numbers)}"
        connection = SimulatedBus(self, user, inbox, keeps_while_disconnected=keeps_while_disconnected)
        self._connections.append(connection)
        return connection

    # --- faults that somebody orders --------------------------------------------------------------

    def stop(self) -> None:
        """The server dies: every connection is lost, messages under way too, what is not on disk is forgotten."""
        self.running = False
        self._frozen = None
        for connection in tuple(self._connections):
            connection.lose()
        for stopped in self.on_stop:
            stopped()

    def start(self) -> None:
        """The server is back; every connection that still lives finds it."""
        self.running = True
        for connection in tuple(self._connections):
            connection.regain()

    def freeze(self) -> None:
        """The server stands still (SIGSTOP): connections stay, what is sent to it waits."""
        self._frozen = []

    def thaw(self) -> None:
        """It goes on with what has been waiting."""
        waiting, self._frozen = self._frozen or [], None
        for arrive in waiting:
            arrive()

    # --- the server's part ------------------------------------------------------------------------

    def serve(self, pattern: str, receive: Callable[[Envelope], None]) -> Callable[[], None]:
        """A listener inside the server, such as a stream: no connection, no fault between. The result ends it."""
        return self.add(pattern, None, receive, None)

    def add(
        self, pattern: str, queue: str | None, receive: Callable[[Envelope], None], owner: "SimulatedBus | None"
    ) -> Callable[[], None]:
        subscription = _Subscription(pattern=tuple(pattern.split(".")), queue=queue, receive=receive, owner=owner)
        self._subscriptions.append(subscription)
        self._matching.clear()

        def end() -> None:
            subscription.live = False
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
                self._matching.clear()

        return end

    def listeners_changed(self) -> None:
        """A connection came or went, so other listeners match."""
        self._matching.clear()

    def disconnected(self, user: str) -> None:
        """Tell who watches; after the server has dropped the connection's subscriptions."""
        if self.running and self._frozen is None:
            for told in self.on_disconnect:
                asyncio.get_running_loop().call_soon(told, user)

    def forget(self, connection: "SimulatedBus") -> None:
        """A process is gone, and its subscriptions with it."""
        self._connections = [other for other in self._connections if other is not connection]
        self._subscriptions = [each for each in self._subscriptions if each.owner is not connection]
        self.listeners_changed()

    def anybody_hears(self, subject: str) -> bool:
        """Whether a message on `subject` would reach somebody now."""
        return bool(self._heard_by(subject))

    def arrive(self, envelope: Envelope, sender: "SimulatedBus | None") -> None:
        """A message has reached the server: to whom it goes, or 503 back when it asks and nobody is there."""
        if not self.running:
            return
        if self._frozen is not None:
            self._frozen.append(lambda: self.arrive(envelope, sender))
            return
        chosen = self._chosen(envelope.subject)
        for subscription in chosen:
            self._deliver(subscription, envelope)
        if not chosen and envelope.reply is not None and sender is not None:
            self._refuse(envelope.reply, sender)

    def send(self, envelope: Envelope) -> None:
        """The server itself publishes, such as the acknowledgement of a stream."""
        for subscription in self._chosen(envelope.subject):
            self._deliver(subscription, envelope)

    def deliver_as(self, inbox: str, envelope: Envelope) -> bool:
        """Hand a stream's message to whoever listens on `inbox`, under its own subject; never dropped: False when
        nobody listens.
        """
        chosen = self._chosen(inbox)
        for subscription in chosen:
            self._deliver(subscription, envelope, sure=True)
        return bool(chosen)

    def _refuse(self, reply: str, sender: "SimulatedBus") -> None:
        status = Envelope(subject=reply, payload=b"", headers={"Status": str(NO_RESPONDERS)}, status=NO_RESPONDERS)
        for subscription in self._chosen(reply):
            if subscription.owner is sender:
                self._deliver(subscription, status)

    def _heard_by(self, subject: str) -> list[_Subscription]:
        if (found := self._matching.get(subject)) is None:
            tokens = tuple(subject.split("."))
            found = [
                subscription
                for subscription in self._subscriptions
                if (subscription.owner is None or subscription.owner.connected)
                and matches(subscription.pattern, tokens)
            ]
            if len(self._matching) > 10_000:
                self._matching.clear()
            self._matching[subject] = found
        return found

    def _chosen(self, subject: str) -> list[_Subscription]:
        """Every plain listener, and one of each queue group."""
        heard = self._heard_by(subject)
        groups: dict[str, list[_Subscription]] = {}
        for subscription in heard:
            if subscription.queue is not None:
                groups.setdefault(subscription.queue, []).append(subscription)
        if not groups:
            return heard
        chosen = [subscription for subscription in heard if subscription.queue is None]
        return chosen + [self._random.choice(members) for members in groups.values()]

    def _deliver(self, subscription: _Subscription, envelope: Envelope, *, sure: bool = False) -> None:
        owner = subscription.owner
        if owner is None:
            subscription.receive(envelope)
            return

        def receive() -> None:
            if subscription.live:
                subscription.receive(envelope)

        self.travel(owner.inward, receive, via=owner, sure=sure)

    def travel(self, hop: _Hop, arrive: Callable[[], None], *, via: "SimulatedBus", sure: bool = False) -> None:
        """Let `arrive` happen after this hop's delay, once, twice or never (`sure`: once and in order); not at all
        when the connection was lost in the meantime. Only what comes in may be doubled.
        """
        faults, random, number = self.faults, self._random, via.number
        overtakes = faults.reordered and not sure
        copies = 1
        if not sure and faults.dropped_permille and random.randrange(1000) < faults.dropped_permille:
            copies = 0
        elif (
            not sure
            and hop is via.inward
            and faults.doubled_permille
            and random.randrange(1000) < faults.doubled_permille
        ):
            copies = 2

        def landed() -> None:
            if via.number == number:
                arrive()

        loop = asyncio.get_running_loop()
        for _ in range(copies):
            least, most = faults.delay_us
            delay = random.randint(least, most) / 1e6 if most else 0.0
            if delay == 0.0 and (overtakes or hop.busy_until < loop.time()):
                loop.call_soon(landed)
                continue
            when = loop.time() + delay
            if not overtakes:
                when = hop.busy_until = max(when, hop.busy_until + _AFTER_SECONDS)
            loop.call_at(when, landed)


class SimulatedBus:
    """One process's connection, behind the same port as `berth.adapters.nats_bus.NatsBus`."""

    def __init__(self, network: SimulatedNetwork, user: str, inbox: str, *, keeps_while_disconnected: bool) -> None:
        self._network = network
        self._user = user
        self._keeps = keeps_while_disconnected
        self._inbox = inbox
        self._inboxes = itertools.count(1)
        self._kept: deque[Envelope] = deque()
        self._kept_bytes = 0
        self._listeners: list[tuple[Callable[[], None] | None, Callable[[], None] | None]] = []
        self._up = asyncio.Event()
        self._is_cut = False
        self._is_gone = False
        self.outward = _Hop()
        self.inward = _Hop()
        self.number = 0
        """Which connection this is, counted from the first: what was under way on an older one is lost."""
        if network.running:
            self._up.set()

    # --- what happens to it -----------------------------------------------------------------------

    def cut(self) -> None:
        """The way to the server is interrupted, until `mend`."""
        self._is_cut = True
        self.lose()

    def mend(self) -> None:
        self._is_cut = False
        self.regain()

    def crash(self) -> None:
        """The process is killed: nothing it had queued leaves, nobody hears it any more, no callback is called."""
        self._is_gone = True
        self._listeners.clear()
        self.lose()
        self._network.forget(self)

    def lose(self) -> None:
        """The connection breaks; whoever wants to know is told."""
        if not self._up.is_set():
            return
        self._up.clear()
        self.number += 1
        self._network.listeners_changed()
        self._network.disconnected(self._user)
        for lost, _ in tuple(self._listeners):
            if lost is not None:
                lost()

    def regain(self) -> None:
        """Seek the server again; it is found after the client's pause, if it can be reached then."""
        if not self._is_gone:
            asyncio.get_running_loop().call_later(RECONNECT_SECONDS, self._found)

    def _found(self) -> None:
        if self._is_gone or self._is_cut or self._up.is_set() or not self._network.running:
            return
        self._up.set()
        self._network.listeners_changed()
        for _, regained in tuple(self._listeners):
            if regained is not None:
                regained()
        while self._kept:
            self._leave(self._kept.popleft())
        self._kept_bytes = 0

    # --- Connection -------------------------------------------------------------------------------

    @property
    def inbox(self) -> str:
        return self._inbox

    def new_inbox(self) -> str:
        return f"{self._inbox}-{next(self._inboxes)}"

    @property
    def connected(self) -> bool:
        return self._up.is_set()

    @property
    def server_version(self) -> str:
        return self._network.version

    @property
    def payload_max(self) -> int:
        return PAYLOAD_BYTES_MAX

    def on_connection(
        self, *, lost: Callable[[], None] | None = None, regained: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        listener = (lost, regained)
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    async def until_connected(self) -> None:
        await self._up.wait()

    def publish(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None, reply: str | None = None
    ) -> None:
        """Queue for sending; returns at once. Raises as the port says."""
        size = len(payload) + (headers_size(headers) if headers else 0)
        if size > self.payload_max:
            raise InvalidCommand(
                [Problem(path=subject, expected=f"at most {self.payload_max} bytes with headers, these are {size}")]
            )
        if self._is_gone:
            return
        envelope = Envelope(subject=subject, payload=payload, headers=dict(headers or {}), reply=reply)
        if self.connected:
            self._leave(envelope)
        elif self._keeps:
            if self._kept_bytes + size > OUTBOUND_BYTES_MAX:
                raise Overloaded(f"{self._kept_bytes} bytes wait to be sent")
            self._kept_bytes += size
            self._kept.append(envelope)

    async def subscribe(
        self, pattern: str, receive: Callable[[Envelope], None], *, queue: str | None = None
    ) -> Callable[[], None]:
        """Call `receive` for every message; the result ends the subscription at once."""
        return self._network.add(pattern, queue, receive, self)

    async def flush(self) -> None:
        """Return when the server has read everything published before.

        Raises:
            Unreachable: it did not say so within FLUSH_SECONDS.
        """
        reached = asyncio.Event()
        self._network.travel(self.outward, reached.set, via=self, sure=True)
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await reached.wait()
        except TimeoutError:
            raise Unreachable("the connection was lost before everything was sent") from None

    async def close(self) -> None:
        """Send what is queued, as far as that is possible, and go."""
        if self.connected:
            with contextlib.suppress(Unreachable):
                await self.flush()
        self.crash()

    def _leave(self, envelope: Envelope) -> None:
        self._network.travel(self.outward, lambda: self._network.arrive(envelope, self), via=self)

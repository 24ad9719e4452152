"""A JetStream pull consumer that is not there: requests that wait, deliveries, acknowledgements, the pin.

What is modelled is what Berth uses: `ack none` and `ack explicit`, one priority group with a pinned client
(ADR-42), idle heartbeats, statuses 100, 408, 409 and 423.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from berth.ports import Envelope
from berth.sim.network import SimulatedNetwork
from berth.sim.stream import SimulatedStream, Stored


@dataclass(eq=False, slots=True, kw_only=True)
class _PullRequest:
    reply: str
    left: int
    bytes_left: int | None
    pin: str | None
    heartbeat: float | None
    timers: list[asyncio.TimerHandle]


@dataclass(eq=False, slots=True, kw_only=True)
class _Unacknowledged:
    count: int
    timer: asyncio.TimerHandle


class SimulatedConsumer:
    """One consumer of one stream. `ended` is called when it has been inactive for its threshold."""

    def __init__(
        self,
        network: SimulatedNetwork,
        stream: SimulatedStream,
        configuration: dict[str, Any],
        ended: Callable[[], None],
    ) -> None:
        self.configuration = configuration
        self._network = network
        self._stream = stream
        self._ended = ended
        self._next = max(1, configuration.get("opt_start_seq", 1))
        self._explicit = configuration.get("ack_policy") == "explicit"
        self._pins = configuration.get("priority_policy") == "pinned_client"
        self._pin: str | None = None
        self._pin_numbers = itertools.count(1)
        self._pin_timer: asyncio.TimerHandle | None = None
        self._requests: list[_PullRequest] = []
        self._unacknowledged: dict[int, _Unacknowledged] = {}
        self._again: list[int] = []
        self._counts: dict[int, int] = {}
        self._sent = 0
        self._last_sent = 0
        self._idle: asyncio.TimerHandle | None = None
        base = f"{stream.name}.{self.name}"
        self._forget = [
            network.serve(f"$JS.API.CONSUMER.MSG.NEXT.{base}", self._requested),
            network.serve(f"$JS.ACK.{base}.>", self._acknowledged),
        ]
        stream.on_stored.append(self._deliver)
        self._rest()

    @property
    def name(self) -> str:
        return self.configuration["name"]

    @property
    def pending(self) -> int:
        """Messages of the stream that were not delivered yet; removed ones count, as the ledger has none."""
        return self._stream.last_sequence - self._next + 1

    def close(self) -> None:
        """It is deleted, or the server dies; whoever waits is not told."""
        for forget in self._forget:
            forget()
        self._stream.on_stored.remove(self._deliver)
        for request in self._requests:
            _cancel(request.timers)
        self._requests.clear()
        _cancel([waiting.timer for waiting in self._unacknowledged.values()])
        _cancel([timer for timer in (self._pin_timer, self._idle) if timer is not None])

    def restarted(self) -> None:
        """The server is back: a durable consumer knows what was acknowledged, but no request and no pin."""
        for request in self._requests:
            _cancel(request.timers)
        self._requests.clear()
        self._pin = None

    # --- requests ---------------------------------------------------------------------------------

    def _requested(self, envelope: Envelope) -> None:
        if envelope.reply is None:
            return
        self._rest()
        body = orjson.loads(envelope.payload)
        request = _PullRequest(
            reply=envelope.reply,
            left=body["batch"],
            bytes_left=body.get("max_bytes"),
            pin=body.get("id"),
            heartbeat=body["idle_heartbeat"] / 1e9 if "idle_heartbeat" in body else None,
            timers=[],
        )
        loop = asyncio.get_running_loop()
        request.timers.append(loop.call_later(body["expires"] / 1e9, self._expired, request))
        self._beat_later(request)
        self._requests.append(request)
        if self._pins and request.pin is not None and request.pin == self._pin:
            self._hold_pin()
        self._deliver()

    def _expired(self, request: _PullRequest) -> None:
        self._finish(request, 408, "Request Timeout")

    def _finish(self, request: _PullRequest, status: int, description: str) -> None:
        _cancel(request.timers)
        self._requests.remove(request)
        self._tell(request, status, description, {"Nats-Pending-Messages": str(request.left)})

    def _tell(self, request: _PullRequest, status: int, description: str, more: dict[str, str]) -> None:
        headers = {"Status": str(status), "Description": description, **more}
        told = Envelope(subject=request.reply, payload=b"", headers=headers, status=status)
        self._network.deliver_as(request.reply, told)

    def _beat_later(self, request: _PullRequest) -> None:
        if request.heartbeat is not None:
            _cancel(request.timers[1:])
            beat = asyncio.get_running_loop().call_later(request.heartbeat, self._beat, request)
            request.timers[1:] = [beat]

    def _beat(self, request: _PullRequest) -> None:
        more = {"Nats-Last-Consumer": str(self._sent), "Nats-Last-Stream": str(self._last_sent)}
        self._tell(request, 100, "Idle Heartbeat", more)
        self._beat_later(request)

    # --- deliveries -------------------------------------------------------------------------------

    def _deliver(self) -> None:
        while (message := self._next_message()) is not None:
            request = self._served_request()
            if request is None:
                return
            size = len(message.payload) + len(message.subject)
            if request.bytes_left is not None and size > request.bytes_left:
                self._finish(request, 409, "Message Size Exceeds MaxBytes")
                continue
            self._hand_over(request, message, size)

    def _next_message(self) -> Stored | None:
        while self._again:
            if (found := self._stream.messages.get(self._again[0])) is not None:
                return found
            self._again.pop(0)
        if self._explicit and len(self._unacknowledged) >= self.configuration.get("max_ack_pending", 1_000):
            return None
        while self._next <= self._stream.last_sequence:
            if (found := self._stream.messages.get(self._next)) is not None:
                return found
            self._next += 1
        return None

    def _served_request(self) -> _PullRequest | None:
        """The oldest that may be served; requests nobody listens for any more and those with a stale pin go."""
        for request in tuple(self._requests):
            if not self._network.anybody_hears(request.reply):
                _cancel(request.timers)
                self._requests.remove(request)
            elif self._pins and request.pin is not None and request.pin != self._pin:
                self._finish(request, 423, "Nats-Wrong-Pin-Id")
            elif not self._pins or request.pin == self._pin:
                if self._pins and self._pin is None:
                    self._pin = f"pin{next(self._pin_numbers)}"
                    request.pin = self._pin
                return request
        return None

    def _hand_over(self, request: _PullRequest, message: Stored, size: int) -> None:
        if self._again and self._again[0] == message.sequence:
            self._again.pop(0)
        else:
            self._next = message.sequence + 1
        count = self._counts[message.sequence] = self._counts.get(message.sequence, 0) + 1
        self._sent += 1
        self._last_sent = message.sequence
        request.left -= 1
        if request.bytes_left is not None:
            request.bytes_left -= size
        headers = dict(message.headers)
        if self._pins:
            assert self._pin is not None, "served only with a pin"
            headers["Nats-Pin-Id"] = self._pin
            self._hold_pin()
        handle = f"$JS.ACK.{self._stream.name}.{self.name}.{count}.{message.sequence}.{self._sent}.0.{self.pending}"
        if self._explicit:
            self._await_acknowledgement(message.sequence, count)
        self._beat_later(request)
        if request.left == 0:
            _cancel(request.timers)
            self._requests.remove(request)
        self._network.deliver_as(
            request.reply,
            Envelope(subject=message.subject, payload=message.payload, headers=headers, reply=handle),
        )

    # --- acknowledgements -------------------------------------------------------------------------

    def _await_acknowledgement(self, sequence: int, count: int) -> None:
        wait = self.configuration["ack_wait"] / 1e9
        timer = asyncio.get_running_loop().call_later(wait, self._not_acknowledged, sequence)
        self._unacknowledged[sequence] = _Unacknowledged(count=count, timer=timer)

    def _not_acknowledged(self, sequence: int) -> None:
        self._unacknowledged.pop(sequence, None)
        self._again.append(sequence)
        self._deliver()

    def _acknowledged(self, envelope: Envelope) -> None:
        sequence = int(envelope.subject.split(".")[5])
        waiting = self._unacknowledged.get(sequence)
        if envelope.payload == b"+WPI":
            if waiting is not None:
                waiting.timer.cancel()
                self._await_acknowledgement(sequence, waiting.count)
            return
        if waiting is not None:
            waiting.timer.cancel()
            del self._unacknowledged[sequence]
        self._counts.pop(sequence, None)
        if self._stream.configuration["retention"] == "workqueue":
            self._stream.remove(sequence)
        self._deliver()

    # --- the pin, and being forgotten -------------------------------------------------------------

    def _hold_pin(self) -> None:
        if self._pin_timer is not None:
            self._pin_timer.cancel()
        timeout = self.configuration["priority_timeout"] / 1e9
        self._pin_timer = asyncio.get_running_loop().call_later(timeout, self.unpin)

    def unpin(self) -> None:
        """The pin is free: its holder asked for nothing in time, or an operator took it away."""
        self._pin = None
        self._deliver()

    def _rest(self) -> None:
        """An ephemeral consumer ends when nobody asks for its threshold."""
        if self._idle is not None:
            self._idle.cancel()
        if threshold := self.configuration.get("inactive_threshold", 0):
            self._idle = asyncio.get_running_loop().call_later(threshold / 1e9, self._ended)


def _cancel(timers: list[asyncio.TimerHandle]) -> None:
    for timer in timers:
        timer.cancel()

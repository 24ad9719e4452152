"""JetStream that is not there: the part of its interface that Berth uses, on a simulated network.

The adapters of `berth.adapters` (ledger, queue, streams) run on it unchanged, so a simulation covers
their code too. Streams and durable consumers outlive a restart of the server, other consumers do not.
"""

import base64
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from random import Random
from typing import Any

import orjson

from berth.messages.documents import time_text
from berth.ports import Envelope
from berth.sim.consumer import SimulatedConsumer
from berth.sim.network import SimulatedNetwork
from berth.sim.stream import SimulatedStream, api_error
from berth.sim.virtual_time import SimulatedClock

STREAM_EXISTS_OTHERWISE = 10058
STREAM_NOT_FOUND = 10059
MESSAGE_NOT_FOUND = 10037
CONSUMER_NOT_FOUND = 10014
CONSUMER_EXISTS = 10148
STORE_FAILED = 10077
DUPLICATE_IN_FLIGHT = 10158


class Mishap(Enum):
    """What may go wrong with one message to a stream (RAFT section 2, step 6: the ambiguous ones)."""

    MESSAGE_LOST = auto()
    """Not stored, and nobody is told."""
    ANSWER_LOST = auto()
    """Stored, and nobody is told."""
    STORED_UNCLEAR = auto()
    """Stored, and answered with an error that leaves doubt (10077)."""
    UNCLEAR = auto()
    """Not stored, and answered with an error that leaves doubt (10158)."""


class SimulatedJetStream:
    """The streams and consumers of one server. `mishap_permille`: of messages to streams, drawn from `random`."""

    def __init__(self, network: SimulatedNetwork, random: Random, *, mishap_permille: int = 0) -> None:
        self.streams: dict[str, SimulatedStream] = {}
        self.mishap_permille = mishap_permille
        self.clock = SimulatedClock()
        """The server's own; its skew may be set."""
        self.mishaps: deque[Mishap] = deque()
        """Ordered ones: each befalls one of the next messages, in order, before any is drawn."""
        self._network = network
        self._random = random
        self._consumers: dict[tuple[str, str], SimulatedConsumer] = {}
        self._unserve: dict[str, list[Callable[[], None]]] = {}
        network.on_stop.append(self._server_stopped)
        for verb, answer in {
            "STREAM.CREATE.*": self._create_stream,
            "STREAM.INFO.*": self._stream_info,
            "STREAM.MSG.GET.*": self._get_message,
            "CONSUMER.CREATE.*.>": self._create_consumer,
            "CONSUMER.DELETE.*.*": self._delete_consumer,
        }.items():
            self._answer(verb, answer)

    # --- faults that somebody orders --------------------------------------------------------------

    def take_away(self, stream: str) -> None:
        """The stream has no leader: publishing meets 503 until `give_back`."""
        for end in self._unserve.pop(stream, []):
            end()

    def give_back(self, stream: str) -> None:
        """The stream takes messages again."""
        self.take_away(stream)
        found = self.streams[stream]

        def publish(envelope: Envelope) -> None:
            self._published(found, envelope)

        self._unserve[stream] = [self._network.serve(pattern, publish) for pattern in found.configuration["subjects"]]

    def delete_consumer(self, stream: str, consumer: str) -> None:
        """The consumer is gone, as after its server was lost; its reader is not told."""
        self._consumers.pop((stream, consumer)).close()

    def has_consumer(self, stream: str, consumer: str) -> bool:
        return (stream, consumer) in self._consumers

    def unpin(self, stream: str, consumer: str) -> None:
        """An operator takes the pin from whoever holds it."""
        self._consumers[(stream, consumer)].unpin()

    # --- messages ---------------------------------------------------------------------------------

    def _published(self, stream: SimulatedStream, envelope: Envelope) -> None:
        mishap = self._mishap()
        if mishap is Mishap.MESSAGE_LOST:
            return
        if mishap is Mishap.UNCLEAR:
            answer = api_error(DUPLICATE_IN_FLIGHT, 409, "duplicate message id is in process")
        else:
            answer = stream.store(envelope.subject, envelope.payload, envelope.headers)
        if mishap is Mishap.STORED_UNCLEAR:
            answer = api_error(STORE_FAILED, 503, "error storing message")
        if envelope.reply is not None and mishap is not Mishap.ANSWER_LOST:
            self._send(envelope.reply, answer)

    def _mishap(self) -> Mishap | None:
        if self.mishaps:
            return self.mishaps.popleft()
        if self.mishap_permille and self._random.randrange(1000) < self.mishap_permille:
            return self._random.choice(list(Mishap))
        return None

    # --- interface --------------------------------------------------------------------------------

    def _answer(self, verb: str, answer: Callable[[list[str], Any], dict[str, Any]]) -> None:
        def called(envelope: Envelope) -> None:
            body = orjson.loads(envelope.payload) if envelope.payload else None
            tokens = envelope.subject.split(".")[2 + verb.split(".").index("*") :]
            found = answer(tokens, body)
            if envelope.reply is not None:
                self._send(envelope.reply, found)

        self._network.serve(f"$JS.API.{verb}", called)

    def _send(self, reply: str, answer: dict[str, Any]) -> None:
        self._network.send(Envelope(subject=reply, payload=orjson.dumps(answer), headers={}))

    def _create_stream(self, tokens: list[str], body: Any) -> dict[str, Any]:
        name = tokens[0]
        if (found := self.streams.get(name)) is None:
            self.streams[name] = SimulatedStream(dict(body))
            self.give_back(name)
        elif found.configuration != body:
            return api_error(STREAM_EXISTS_OTHERWISE, 400, "stream name already in use with a different configuration")
        return self._stream_info(tokens, None)

    def _stream_info(self, tokens: list[str], _body: Any) -> dict[str, Any]:
        if (found := self.streams.get(tokens[0])) is None:
            return api_error(STREAM_NOT_FOUND, 404, "stream not found")
        return {"config": found.configuration, "state": found.state(), "ts": time_text(self.clock.now_ms())}

    def _get_message(self, tokens: list[str], body: Any) -> dict[str, Any]:
        if (found := self.streams.get(tokens[0])) is None:
            return api_error(STREAM_NOT_FOUND, 404, "stream not found")
        if (message := found.messages.get(body["seq"])) is None:
            return api_error(MESSAGE_NOT_FOUND, 404, "no message found")
        data = base64.b64encode(message.payload).decode()
        return {"message": {"subject": message.subject, "seq": message.sequence, "data": data}}

    def _create_consumer(self, tokens: list[str], body: Any) -> dict[str, Any]:
        key = (tokens[0], tokens[1])
        if (stream := self.streams.get(key[0])) is None:
            return api_error(STREAM_NOT_FOUND, 404, "stream not found")
        found = self._consumers.get(key)
        if found is not None and found.configuration != body["config"]:
            return api_error(CONSUMER_EXISTS, 400, "consumer already exists")
        if found is None:
            found = SimulatedConsumer(self._network, stream, body["config"], lambda: self.delete_consumer(*key))
            self._consumers[key] = found
        return {"stream_name": key[0], "name": key[1], "config": found.configuration, "num_pending": found.pending}

    def _delete_consumer(self, tokens: list[str], _body: Any) -> dict[str, Any]:
        key = (tokens[0], tokens[1])
        if key not in self._consumers:
            return api_error(CONSUMER_NOT_FOUND, 404, "consumer not found")
        self.delete_consumer(*key)
        return {"success": True}

    def _server_stopped(self) -> None:
        for key, consumer in tuple(self._consumers.items()):
            if "durable_name" in consumer.configuration:
                consumer.restarted()
            else:
                self.delete_consumer(*key)

"""Waits until a cluster is ready: a leader that may commit, every service caught up, every demo node registered."""

import asyncio
import time
from collections.abc import Callable, Collection
from pathlib import Path

from berth import subjects
from berth.adapters.nats_bus import BusSettings, NatsBus
from berth.adapters.replies import Replies
from berth.errors import TimedOut, Unreachable
from berth.messages.commands import Query, QueryAnswer
from berth.messages.documents import NodeState
from berth.wire import codec
from berth_cli.service_states import ServiceState, service_states

_AGAIN_SECONDS = 0.05
_TELL_EVERY_SECONDS = 1.0
_PAGE = 1_000


async def until_ready(
    url: str, seed: Path, *, names: Collection[str], nodes: int, within_seconds: float, tell: Callable[[str], None]
) -> str:
    """The leader's name, once all of `names` are ready and `nodes` nodes are registered.

    Raises:
        TimedOut: they are not within the time; says what is missing.
    """
    deadline = time.monotonic() + within_seconds
    bus = await NatsBus.connect(BusSettings(url=url, user=subjects.ADMIN, seed_file=seed), lost=lambda _: None)
    try:
        replies = await Replies.open(bus, bus.new_inbox())
        told, tell_next = "", time.monotonic() + _TELL_EVERY_SECONDS
        while True:
            states = await service_states(bus, wanted=len(names))
            missing = not_ready(states, names)
            if not missing and nodes and (there := await _nodes_ready(replies)) < nodes:
                missing = f"waiting for {nodes - there} of {nodes} nodes"
            if not missing:
                return next(state.user for state in states.values() if state.leads)
            if missing != told and time.monotonic() > tell_next:
                told, tell_next = missing, time.monotonic() + _TELL_EVERY_SECONDS
                tell(missing)
            if time.monotonic() > deadline:
                raise TimedOut(f"not ready within {within_seconds:g} s: {missing}", hint="look into the logs")
            await asyncio.sleep(_AGAIN_SECONDS)
    finally:
        await bus.close()


def not_ready(states: dict[str, ServiceState], names: Collection[str]) -> str:
    """What is missing, for people; empty when nothing is."""
    silent = [name for name in names if name not in states]
    if silent:
        return f"waiting for an answer of {', '.join(silent)}"
    busy = [name for name in names if not states[name].ready]
    if busy:
        return f"waiting until {', '.join(busy)} have read the ledger"
    return "" if any(states[name].leads for name in names) else "waiting for a leader"


async def _nodes_ready(replies: Replies) -> int:
    """How many nodes are ready, as the console sees it; 0 while it does not answer."""
    subject = subjects.QUERY.of(namespace=subjects.CLUSTER, what="nodes")
    ready, after = 0, None
    while True:
        query = Query(limit=_PAGE, after=after)
        try:
            reply = await replies.ask(subject, codec.encode(query), within_seconds=1)
        except (Unreachable, TimedOut):
            return 0
        answer = codec.decode(QueryAnswer, reply.payload, root="answer")
        ready += sum(item["state"] == NodeState.READY for item in answer.items)
        if answer.next is None:
            return ready
        after = answer.next

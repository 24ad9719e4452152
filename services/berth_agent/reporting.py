"""One node's conversation with the cluster: register, beat, ask what should run, start and stop, confirm what stopped.

The schedulers answer. A node that was lost meanwhile comes back by registering again, empty: what ran here may
run elsewhere by now, so it is stopped before. A node that was removed stays away until its agent starts anew.
"""

import asyncio
import logging
import math
import random
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import tenacity
from pydantic import BaseModel

from berth import subjects
from berth.adapters.replies import Replies
from berth.errors import BerthError, Overloaded, TimedOut, Unreachable
from berth.ids import Sequence
from berth.messages.commands import (
    Heartbeat,
    NodeAllocationsWanted,
    NodeAnswer,
    NodeLeave,
    NodeRegister,
    NodeStopped,
    Refusal,
    RefusalCode,
)
from berth.messages.documents import NodeDocument
from berth.model.cluster import AllocationState
from berth.model.heartbeats import INTERVAL_MIN_MS
from berth.ports import Bus
from berth.subjects import Subject
from berth.wire import codec
from berth_agent.workloads import Remembered, Workloads

log = logging.getLogger(__name__)

ANSWER_WITHIN_SECONDS = 3.0
"""A registration is answered when it is committed, so this covers an election."""
LEAVE_WITHIN_SECONDS = 5.0
TICK_MS = 100
"""What the nodes of one process send within that time leaves together."""
_AGAIN_SECONDS_MAX = 0.25
_REGISTERING_AT_ONCE = 256


class RegistrationRefused(BerthError):
    """The cluster does not take this node as it describes itself."""

    code = "registration_refused"
    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the nodes of one agent share. `session` is new at every start; `dice` spreads them over time."""

    bus: Bus
    replies: Replies
    session: str
    ask_every_ms: int
    dice: random.Random
    registering: asyncio.Semaphore


def surroundings(bus: Bus, replies: Replies, *, session: str, ask_every_ms: int) -> Surroundings:
    """Of one agent that starts now."""
    return Surroundings(
        bus=bus,
        replies=replies,
        session=session,
        ask_every_ms=ask_every_ms,
        dice=random.Random(session),
        registering=asyncio.Semaphore(_REGISTERING_AT_ONCE),
    )


class NodeReport:
    """One node of an agent. `removed`: an operator has taken it out of the cluster."""

    def __init__(self, document: NodeDocument, around: Surroundings, workloads: Workloads | None = None) -> None:
        self.registered = False
        self.removed = False
        self._document = document
        self._around = around
        self._workloads = workloads or Remembered()
        self._interval_ms = INTERVAL_MIN_MS
        self._registered_at = Sequence(0)
        self._seen = Sequence(0)

    @property
    def node(self) -> str:
        return self._document.id

    async def run(self) -> None:
        """Be a node of the cluster until cancelled, or until somebody has removed it; then nothing runs here any more.

        Raises:
            RegistrationRefused: what describes the node cannot be.
        """
        while not self.removed:
            await self._be_empty_or_known()
            await self._register()
            self.registered = True
            beats = asyncio.create_task(self._beat(), name=f"beats of {self.node}")
            try:
                await self._serve()
            finally:
                self.registered = False
                beats.cancel()
            log.warning("node_removed" if self.removed else "node_unknown", extra={"node": self.node})
        await self._until_stopped({})

    async def leave(self) -> None:
        """Stop what runs and go for good. Raises Unreachable or TimedOut: nobody has confirmed it."""
        await self._stop_others({})
        await self._ask(subjects.NODE_LEAVE, NodeLeave(node=self._document.id), within_seconds=LEAVE_WITHIN_SECONDS)

    # --- registration -------------------------------------------------------------------------------

    async def _be_empty_or_known(self) -> None:
        """Stop what runs here, unless the cluster still counts on it: only an agent was away, not its node."""
        if await self._workloads.running() == []:
            return
        async for attempt in self._for_ever():
            with attempt:
                answer = await self._wanted()
                wanted = {} if answer.refusal is not None else {one["id"]: one for one in answer.allocations}
                await self._until_stopped(wanted)

    async def _until_stopped(self, wanted: Mapping[str, Any]) -> None:
        """Return when nothing but `wanted` runs here."""
        while not await self._stop_others(wanted):  # noqa: ASYNC110 nobody tells
            await asyncio.sleep(_AGAIN_SECONDS_MAX)

    async def _stop_others(self, wanted: Mapping[str, Any]) -> bool:
        """Whether nothing but `wanted` runs here any more."""
        running = await self._workloads.running()
        if running is None:
            return False
        stopped = [await self._workloads.stop(one) for one in running if one not in wanted]
        if stopped:
            log.info("allocations_stopped", extra={"node": self.node, "allocations": len(stopped)})
        return all(stopped)

    async def _register(self) -> None:
        async with self._around.registering:
            async for attempt in self._for_ever():
                with attempt:
                    await self._offer()

    async def _offer(self) -> None:
        command = NodeRegister(node=self._document, session=self._around.session)
        answer = await self._ask(subjects.NODE_REGISTER, command, within_seconds=ANSWER_WITHIN_SECONDS)
        if (refusal := answer.refusal) is not None:
            said = f"{self.node}: {refusal.code}: {refusal.detail}"
            if refusal.code in (RefusalCode.INVALID, RefusalCode.TOO_LARGE):
                raise RegistrationRefused(said, hint="correct the node's description")
            raise Unreachable(said)  # as good as no answer: ask again
        self._take_interval(answer)
        self._registered_at = self._seen = answer.sequence
        log.info("node_registered", extra={"node": self.node, "heartbeat_ms": self._interval_ms})

    def _for_ever(self) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type((Unreachable, TimedOut, Overloaded)),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=_AGAIN_SECONDS_MAX),
        )

    # --- liveness -----------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Beats at the assigned interval; the first one comes somewhere in it, so that nodes do not beat in step."""
        subject = subjects.NODE_HEARTBEAT.of(node=self.node)
        payload = codec.encode(Heartbeat(node=self._document.id, session=self._around.session))
        await _rest(self._around.dice.random() * self._interval_ms)
        while True:
            try:
                self._around.bus.publish(subject, payload)
            except Overloaded:
                log.warning("heartbeat_dropped", extra={"node": self.node})
            await _rest(self._interval_ms)

    # --- allocations --------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Ask what should run, start and stop, until the node must register again or has been removed."""
        pause = self._around.dice.random()
        while True:
            await _rest(pause * self._ask_every_ms)
            pause = 1.0
            try:
                answer = await self._wanted()
                if answer.refusal is not None:
                    self.removed = self._is_removed(answer, answer.refusal)
                    return
                self._take_interval(answer)
                before, self._seen = self._seen, answer.sequence
                if answer.sequence >= before:  # else of a scheduler that has not seen yet what another one has
                    await self._do(answer)
            except (Unreachable, TimedOut, Overloaded) as error:
                log.debug("allocations_unknown", extra={"node": self.node, "why": error.message})

    def _is_removed(self, answer: NodeAnswer, refusal: Refusal) -> bool:
        """Whether a ledger that has the registration knows no such node; one that was lost it would know as that."""
        return refusal.code is RefusalCode.NOT_FOUND and answer.sequence >= self._registered_at

    async def _wanted(self) -> NodeAnswer:
        return await self._ask(subjects.NODE_ALLOCATIONS, NodeAllocationsWanted(node=self._document.id))

    async def _do(self, answer: NodeAnswer) -> None:
        """What is to run runs, nothing else does, and what was to stop and has is confirmed."""
        wanted = {one["id"]: one for one in answer.allocations if one["state"] != AllocationState.RELEASING}
        await self._stop_others(wanted)
        running = await self._workloads.running()
        if running is None:
            return
        for name, allocation in wanted.items():
            if name not in running:
                await self._workloads.start(allocation)
        releasing = (one["id"] for one in answer.allocations if one["state"] == AllocationState.RELEASING)
        stopped = tuple(name for name in releasing if name not in running)
        if stopped:
            await self._ask(subjects.NODE_STOPPED, NodeStopped(node=self._document.id, allocations=stopped))

    @property
    def _ask_every_ms(self) -> int:
        return max(self._around.ask_every_ms, 2 * self._interval_ms)

    # --- question and answer ------------------------------------------------------------------------

    def _take_interval(self, answer: NodeAnswer) -> None:
        if answer.heartbeat_ms is not None:
            self._interval_ms = max(INTERVAL_MIN_MS, answer.heartbeat_ms)

    async def _ask(
        self, subject: Subject, body: BaseModel, *, within_seconds: float = ANSWER_WITHIN_SECONDS
    ) -> NodeAnswer:
        found = await self._around.replies.ask(
            subject.of(node=self.node), codec.encode(body), within_seconds=within_seconds
        )
        return codec.decode(NodeAnswer, found.payload, root="answer")


async def _rest(milliseconds: float) -> None:
    """Sleep at least that long, until the next tick: what many nodes of one process send then leaves as one write,
    and wakes each of its readers once.
    """
    now_ms = asyncio.get_running_loop().time() * 1000
    due_ms = math.ceil((now_ms + milliseconds) / TICK_MS) * TICK_MS
    await asyncio.sleep((due_ms - now_ms) / 1000)


async def report_all(reports: list[NodeReport]) -> None:
    """Run every node until cancelled. Raises RegistrationRefused for the first one that cannot be."""
    try:
        async with asyncio.TaskGroup() as nodes:
            for report in reports:
                nodes.create_task(report.run(), name=f"node {report.node}")
    except* RegistrationRefused as refused:
        raise refused.exceptions[0] from None


async def leave_all(reports: list[NodeReport]) -> int:
    """Let every node go for good; how many have not been confirmed."""
    leaving: list[Coroutine[None, None, None]] = [report.leave() for report in reports]
    outcomes = await asyncio.gather(*leaving, return_exceptions=True)
    return sum(isinstance(outcome, BaseException) for outcome in outcomes)

"""Many submissions at once, from one task: a stream of requests in, each with its outcome out."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass

from berth.errors import BerthError, TimedOut
from berth.messages.decisions import Decision
from berth.messages.requests import Request
from berth.submitting import Pending, Submissions


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request after `seconds`: a decision, or why there is none (it may still be decided)."""

    request: Request
    decision: Decision | None
    error: BerthError | None
    seconds: float


class Flow:
    """Keeps `in_flight` requests under way and hands out outcomes as they come."""

    def __init__(
        self, submissions: Submissions, requests: Iterable[Request], *, in_flight: int, timeout: float
    ) -> None:
        self._submissions = submissions
        self._source: Iterator[Request] = iter(requests)
        self._in_flight = in_flight
        self._timeout = timeout
        self._open: dict[Pending, float] = {}
        self._ready: deque[Outcome] = deque()
        self._came = asyncio.Event()
        self._now = asyncio.get_running_loop().time

    async def outcomes(self) -> AsyncGenerator[Outcome]:
        try:
            self._fill()
            while self._open or self._ready:
                while self._ready:
                    yield self._ready.popleft()
                self._fill()
                await self._something()
        finally:
            for pending in self._open:
                self._submissions.end(pending)

    def _fill(self) -> None:
        while len(self._open) < self._in_flight and (request := next(self._source, None)) is not None:
            self._begin(request)

    def _begin(self, request: Request) -> None:
        began = self._now()

        def told(decision: Decision) -> None:
            self._over(pending, decision, None)

        def failed(error: BerthError) -> None:
            self._over(pending, None, error)

        pending = self._submissions.begin(request, told, failed)
        self._open[pending] = began

    def _over(self, pending: Pending, decision: Decision | None, error: BerthError | None) -> None:
        began = self._open.pop(pending, None)
        if began is not None:
            self._submissions.end(pending)
            self._ready.append(Outcome(pending.request, decision, error, self._now() - began))
            self._came.set()

    async def _something(self) -> None:
        """Until an outcome is there; the oldest request is given up when its time is over."""
        while self._open and not self._ready:
            pending, began = next(iter(self._open.items()))
            self._came.clear()
            with contextlib.suppress(TimeoutError):  # then that one is over
                async with asyncio.timeout_at(began + self._timeout):
                    await self._came.wait()
            if self._now() >= began + self._timeout:
                self._over(pending, None, TimedOut(f"no decision after {self._timeout:g} s"))

"""Passes what the console received on to another OTLP endpoint, byte for byte, and never waits for it.

Only the standard variables say where (`OTEL_EXPORTER_OTLP_ENDPOINT` and its kin). The queue is bounded;
what does not fit, or is not taken after a few attempts, is dropped and counted.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import tenacity

from berth.errors import BerthError, InvalidSetting

log = logging.getLogger(__name__)

SIGNALS = ("traces", "metrics", "logs")

FORWARDED_HEADER = "x-berth-forwarded"
"""Marks what a console has passed on; a console takes it in but does not pass it on again, so no circle forms."""

QUEUE_BYTES_MAX = 16 * 1024 * 1024
QUEUE_LENGTH_MAX = 1_000
SEND_TIMEOUT_SECONDS = 2.0
ATTEMPTS = 3
RETRYABLE = frozenset({429, 502, 503, 504})
UNKNOWN_THERE = frozenset({404, 405, 501})
"""Answers of an endpoint that has no place for a signal: Jaeger takes traces and nothing else."""
ASK_AGAIN_SECONDS = 300.0
WARNING_INTERVAL_SECONDS = 60.0

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class NotTaken(BerthError):
    """The endpoint could not be reached or said no. `status`: its HTTP status, None where nobody answered."""

    code = "not_forwarded"

    def __init__(self, message: str, *, status: int | None) -> None:
        super().__init__(message)
        self.retryable = status is None or status in RETRYABLE
        self.is_unknown_there = status in UNKNOWN_THERE


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One request as it came in: the body still encoded as its headers say."""

    signal: str
    body: bytes
    content_type: str
    content_encoding: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where each signal goes (absent: nowhere) and the headers that the endpoint wants."""

    urls: dict[str, str]
    headers: dict[str, str] = field(default_factory=dict[str, str])


def destination(environment: Mapping[str, str]) -> Destination | None:
    """What the standard variables name; None when they name nothing.

    Raises:
        InvalidSetting: an endpoint that is no http or https address, or headers that HTTP cannot carry.
    """
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    urls: dict[str, str] = {}
    for signal in SIGNALS:
        variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
        # A signal's own endpoint is used as it stands; the path is appended to the common one only.
        url = environment.get(variable, "").strip() or (f"{base.rstrip('/')}/v1/{signal}" if base else "")
        if url:
            _check(url, variable if environment.get(variable) else "OTEL_EXPORTER_OTLP_ENDPOINT")
            urls[signal] = url
    if not urls:
        return None
    return Destination(urls=urls, headers=_headers(environment.get("OTEL_EXPORTER_OTLP_HEADERS", "")))


def _check(url: str, variable: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidSetting(
            f"{variable} is {url!r}, expected an address such as http://localhost:4318",
            hint="Berth speaks OTLP over HTTP only",
        )


def _headers(written: str) -> dict[str, str]:
    """`key=value,key2=value2`, values percent-encoded, as OpenTelemetry writes them."""
    pairs = (pair.partition("=") for pair in written.split(",") if "=" in pair)
    headers = {name.strip(): unquote(value.strip()) for name, _, value in pairs}
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise InvalidSetting(
                f"OTEL_EXPORTER_OTLP_HEADERS holds {name!r}, expected HTTP headers such as api-key=secret"
            )
    return headers


def without_own_address(found: Destination, addresses: frozenset[tuple[str, int]]) -> Destination | None:
    """`found` without what would come straight back to this console; None when nothing is left."""
    urls = {signal: url for signal, url in found.urls.items() if _address(url) not in addresses}
    return Destination(urls=urls, headers=found.headers) if urls else None


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


class Forwarder:
    """One export in flight at a time, in its own task; `offer` returns at once."""

    def __init__(self, to: Destination) -> None:
        self.to = to
        self.sent = 0
        self.dropped = 0
        self._queue: asyncio.Queue[Export] = asyncio.Queue(QUEUE_LENGTH_MAX)
        self._queued_bytes = 0
        self._warned_at: float | None = None
        self._not_before: dict[str, float] = {}

    def offer(self, export: Export) -> bool:
        """Queue the export for sending; False when it has nowhere to go or the queue is full (then it is counted)."""
        if export.signal not in self.to.urls or self._now() < self._not_before.get(export.signal, 0):
            return False
        if self._queue.full() or self._queued_bytes + len(export.body) > QUEUE_BYTES_MAX:
            self.dropped += 1
            self._warn("the queue is full")
            return False
        self._queue.put_nowait(export)
        self._queued_bytes += len(export.body)
        return True

    async def run(self) -> None:
        """Send what is offered, until cancelled."""
        while True:
            export = await self._queue.get()
            try:
                await self._send(export)
            finally:
                self._queued_bytes -= len(export.body)
                self._queue.task_done()

    async def flush(self, timeout_seconds: float) -> None:
        """Wait until everything offered was sent or dropped, at most so long."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._queue.join()
        except TimeoutError:
            log.warning("telemetry_not_flushed", extra={"exports_left": self._queue.qsize()})

    async def _send(self, export: Export) -> None:
        attempts = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=2),
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, NotTaken) and error.retryable),
            reraise=True,
        )
        try:
            await attempts(asyncio.to_thread, _post, self._request(export))
            self.sent += 1
        except NotTaken as refused:
            self.dropped += 1
            if refused.is_unknown_there:
                self._not_before[export.signal] = self._now() + ASK_AGAIN_SECONDS
            self._warn(refused.message)

    def _request(self, export: Export) -> Request:
        headers = {**self.to.headers, "content-type": export.content_type, FORWARDED_HEADER: "1"}
        if export.content_encoding:
            headers["content-encoding"] = export.content_encoding
        # The scheme was checked to be http or https when the setting was read.
        return Request(self.to.urls[export.signal], data=export.body, headers=headers, method="POST")  # noqa: S310

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _warn(self, why: str) -> None:
        """At most one line a minute: an endpoint that is down stays down for a while."""
        now = self._now()
        if self._warned_at is None or now - self._warned_at >= WARNING_INTERVAL_SECONDS:
            self._warned_at = now
            log.warning("telemetry_not_forwarded", extra={"why": why, "exports_dropped": self.dropped})


def _post(request: Request) -> None:
    """Raises:
    NotTaken: no answer, or not a good one.
    """
    try:
        with urlopen(request, timeout=SEND_TIMEOUT_SECONDS) as answer:  # noqa: S310 checked as above
            answer.read()
    except HTTPError as error:
        error.close()
        raise NotTaken(f"{request.full_url} answered {error.code}", status=error.code) from None
    except (OSError, HTTPException) as error:
        raise NotTaken(f"{request.full_url} does not answer: {error}", status=None) from None

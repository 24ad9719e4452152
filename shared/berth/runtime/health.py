"""Liveness and readiness over HTTP on loopback: `/livez` and `/readyz`; and the check that asks for them.

Alive: the event loop answers. Ready: the process does its work (or could take over at once); one that
halted is alive and not ready, so nobody restarts it in a loop (DESIGN section 2, "Poison").

`python -m berth.runtime.health URL` ends with 0 when the answer is 200; compose files use it.
"""

import asyncio
import http.client
import json
import sys
import urllib.parse
from collections.abc import Callable

ANSWER_WITHIN_SECONDS = 2.0
_HEAD_MAX = 8 * 1024
_REASONS = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}

WhyNotReady = Callable[[], str | None]
"""None when ready, else what is missing, for people."""
IsActive = Callable[[], bool | None]
"""Whether the process does the work, or stands by and is as ready; None where nobody stands by for anybody."""


def _nobody_stands_by() -> None:
    return None


async def serve(
    port: int, why_not_ready: WhyNotReady, *, is_active: IsActive = _nobody_stands_by, host: str = "127.0.0.1"
) -> asyncio.Server:
    """Listen on `port` (0: any free one, see the server's sockets)."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(response(head.split(b"\r\n", 1)[0], why_not_ready(), active=is_active()))
                await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # whoever asked went away, or asked nothing that has an answer
        finally:
            writer.close()

    return await asyncio.start_server(answer, host, port, limit=_HEAD_MAX)


def response(request_line: bytes, missing: str | None, *, active: bool | None = None) -> bytes:
    """The whole HTTP answer to a request that begins with `request_line`."""
    parts = request_line.split()
    path = parts[1] if len(parts) >= 2 and parts[0] in (b"GET", b"HEAD") else b""
    if path == b"/livez":
        status, found = 200, {"alive": True}
    elif path == b"/readyz":
        status, found = (200, {"ready": True}) if missing is None else (503, {"ready": False, "why": missing})
        found |= {} if active is None else {"active": active}
    else:
        status, found = 404, {"paths": ["/livez", "/readyz"]}
    body = json.dumps(found).encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if parts[:1] == [b"HEAD"] else body)


def check(url: str) -> str | None:
    """None when `url` answers 200 in time, else what it said instead."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_WITHIN_SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        body = answer.read(_HEAD_MAX).decode(errors="replace")
        return None if answer.status == 200 else f"{url}: {answer.status} {body}"
    except (OSError, http.client.HTTPException) as error:
        return f"{url}: {error!r}"
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(check(sys.argv[1]) if len(sys.argv) == 2 else "usage: python -m berth.runtime.health URL")

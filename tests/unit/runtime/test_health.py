"""What the health port answers, as bytes; over a socket: tests/integration/test_process.py."""

import json
from typing import Any

import pytest

from berth.runtime import health


def answered(request: bytes, missing: str | None = None) -> tuple[int, Any]:
    head, _, body = health.response(request, missing).partition(b"\r\n\r\n")
    assert b"Content-Length: " in head
    return int(head.split()[1]), json.loads(body) if body else None


def test_a_process_that_answers_is_alive_even_when_it_is_not_ready() -> None:
    assert answered(b"GET /livez HTTP/1.1", "stopped at sequence 7") == (200, {"alive": True})


def test_a_process_is_ready_when_nothing_is_missing() -> None:
    assert answered(b"GET /readyz HTTP/1.1") == (200, {"ready": True})


def test_a_process_that_is_not_ready_says_what_is_missing() -> None:
    assert answered(b"GET /readyz HTTP/1.1", "connecting") == (503, {"ready": False, "why": "connecting"})


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1", b"POST /livez HTTP/1.1", b"nonsense", b""])
def test_anything_else_is_not_there(request_line: bytes) -> None:
    assert answered(request_line)[0] == 404


def test_a_head_has_no_body() -> None:
    assert answered(b"HEAD /livez HTTP/1.1") == (200, None)


def test_a_check_of_nobody_says_so() -> None:
    assert "ConnectionRefusedError" in (health.check("http://127.0.0.1:9/readyz") or "")

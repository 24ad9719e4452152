"""Log lines: an event with fields, for machines or for people."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from berth.runtime import logs

CONTEXT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    """pytest's own handlers come back after each test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def written(style: str, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    logs.configure("quota-1", style=style, level=level, stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_the_event_and_its_fields() -> None:
    stream = written("json")

    logging.getLogger("berth.test").info("plan_proposed", extra={"node": "n1", "view_sequence": 7})

    (line,) = lines(stream)
    assert line.pop("at").endswith("Z")
    assert line == {
        "level": "info",
        "process": "quota-1",
        "logger": "berth.test",
        "event": "plan_proposed",
        "node": "n1",
        "view_sequence": 7,
    }


def test_a_traceparent_is_written_as_trace_and_span() -> None:
    stream = written("json")

    logging.getLogger("berth.test").info("plan_proposed", extra={"traceparent": CONTEXT})

    (line,) = lines(stream)
    assert (line["trace_id"], line["span_id"]) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert "traceparent" not in line


def test_fields_with_names_that_logging_uses_itself_arrive_too() -> None:
    stream = written("json")

    logging.getLogger("berth.test").info("node_lost", extra={"fields": {"name": "n1", "message": "gone"}})

    assert (lines(stream)[0]["name"], lines(stream)[0]["message"]) == ("n1", "gone")


def test_people_get_the_process_in_front_and_the_fields_behind() -> None:
    stream = written("text")

    logging.getLogger("berth.test").warning("pin_lost", extra={"stream": "REQUESTS"})

    assert stream.getvalue().startswith("quota-1       ")
    assert stream.getvalue().rstrip().endswith("warning pin_lost stream=REQUESTS")


def test_an_exception_stands_in_the_line_it_belongs_to() -> None:
    stream = written("json")

    try:
        raise ValueError("a bug")
    except ValueError:
        logging.getLogger("berth.test").exception("handler_raised")

    (line,) = lines(stream)
    assert "ValueError: a bug" in line["exception"]


def test_a_dead_receiver_of_telemetry_is_news_once_a_minute() -> None:
    stream = written("json")

    for _ in range(5):
        logging.getLogger("opentelemetry.exporter.otlp").warning("connection refused")
    logging.getLogger("berth.test").warning("ours")

    assert [line["event"] for line in lines(stream)] == ["connection refused", "ours"]


def test_below_the_level_nothing_is_written() -> None:
    stream = written("json", "warning")

    logging.getLogger("berth.test").info("plan_proposed")

    assert stream.getvalue() == ""

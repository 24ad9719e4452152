"""The W3C string: what is accepted of it, and what is computed from it."""

import pytest

from berth.runtime import traceparent

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        CLIENT + "\n",
        "ff" + CLIENT[2:],
    ],
)
def test_a_wrong_header_counts_as_none(text: str | None) -> None:
    assert traceparent.accepted(text) is None


def test_headers_are_found_whatever_their_case() -> None:
    assert traceparent.of_headers({"TraceParent": CLIENT}) == CLIENT
    assert traceparent.of_headers({}) is None


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True)])
def test_the_lowest_bit_says_whether_spans_are_wanted(flags: str, sampled: bool) -> None:
    assert traceparent.is_sampled(CLIENT[:-2] + flags) is sampled


def test_the_span_of_an_append_is_computed_from_event_and_sequence() -> None:
    first, second = traceparent.appended(CLIENT, 7), traceparent.appended(CLIENT, 8)

    assert first == traceparent.appended(CLIENT, 7)
    assert first != second
    assert traceparent.accepted(first) == first
    assert traceparent.trace_id(first) == traceparent.trace_id(CLIENT)

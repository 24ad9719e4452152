"""The W3C string: what is accepted of it, and what is computed from it."""

import pytest

from berth.ids import Namespace, RequestId, RequestKey
from berth.runtime import traceparent

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-1bf7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"
UNSAMPLED = CLIENT[:-1] + "0"
ARRIVED_NS, NOW_NS = 5, 9
WEB: RequestKey = (Namespace("team-a"), RequestId("web"))

PROCESS_REQUEST = "process berth.v1.request.{namespace}"
PROCESS_EVALUATE = "process berth.v1.evaluate"
PROCESS_ANSWER = "process berth.v1.evaluate (answer)"
PROCESS_LEDGER = "process berth.v1.ledger"
PUBLISH_DECISION = "publish berth.v1.decision.{namespace}.{request}"


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

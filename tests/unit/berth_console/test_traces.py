"""The bounded store: what is found, what leaves, and that the counters say so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth_console.spans import Link
from berth_console.traces import TraceLimits, TraceSearch, TraceStore
from tests.unit.berth_console.spans_sent import START_US, a_span, exported, span_id, trace_id

A_WALK = [
    a_span(1, name="publish berth.v1.request.{namespace}", lasts_us=9_000, berth__request="team-a/web-1"),
    a_span(2, parent=1, name="process berth.v1.request.{namespace}", after_us=1_000, lasts_us=7_000),
]


def ids_found(store: TraceStore, wanted: TraceSearch) -> list[str]:
    return [summary.trace_id for summary in store.search(wanted)]


def test_a_span_has_exactly_the_members_that_scripts_rely_on() -> None:
    store = TraceStore()
    store.receive(
        exported(
            [a_span(2, parent=1, name="process", after_us=5, lasts_us=7, links=[(9, 8)], berth__nodes=3)],
            service="scheduler",
            instance="scheduler-2",
        )
    )

    [span] = store.trace(trace_id(1))

    assert span.as_mapping() == {
        "trace_id": trace_id(1),
        "span_id": span_id(2),
        "parent": span_id(1),
        "links": [{"trace_id": trace_id(9), "span_id": span_id(8)}],
        "service": "scheduler",
        "name": "process",
        "start_us": START_US + 5,
        "duration_us": 7,
        "attributes": {"berth.nodes": 3, "service.instance.id": "scheduler-2"},
    }


def test_a_trace_is_put_together_from_the_exports_of_several_services() -> None:
    store = TraceStore()
    store.receive(exported(A_WALK[:1], service="client"))
    store.receive(exported(A_WALK[1:], service="quota"))

    [summary] = store.search(TraceSearch())

    assert [span.service for span in store.trace(trace_id(1))] == ["client", "quota"]
    assert summary.name == "publish berth.v1.request.{namespace}"
    assert summary.services == ("client", "quota")
    assert (summary.start_us, summary.duration_us, summary.spans) == (START_US, 9_000, 2)
    assert summary.complete


def test_a_trace_without_its_root_says_so_and_is_named_after_its_earliest_span() -> None:
    store = TraceStore()
    store.receive(exported(A_WALK[1:]))

    [summary] = store.search(TraceSearch())

    assert not summary.complete
    assert summary.name == "process berth.v1.request.{namespace}"


def test_a_request_finds_its_traces_oldest_first() -> None:
    store = TraceStore()
    store.receive(exported([a_span(1, trace=7, after_us=900, berth__request="team-a/web-1", links=[(1, 1)])]))
    store.receive(exported(A_WALK))
    store.receive(exported([a_span(1, trace=3, berth__request="team-b/web-1")]))

    assert store.of_request("team-a/web-1") == [trace_id(1), trace_id(7)]
    assert store.of_request("team-a/web-2") == []
    assert store.trace(trace_id(7))[0].links == (Link(trace_id=trace_id(1), span_id=span_id(1)),)


def test_a_bare_id_finds_the_requests_of_every_namespace() -> None:
    store = TraceStore()
    store.receive(exported(A_WALK))
    store.receive(exported([a_span(1, trace=3, after_us=1, berth__request="team-b/web-1")]))

    assert store.of_request("web-1") == [trace_id(1), trace_id(3)]
    assert store.of_request("eb-1") == []


def test_a_span_about_a_batch_is_found_by_each_of_its_requests() -> None:
    store = TraceStore()
    store.receive(exported([a_span(1, berth__request=["team-a/a", "team-a/b"])]))

    assert store.of_request("team-a/a") == store.of_request("team-a/b") == [trace_id(1)]


@pytest.mark.parametrize(
    "wanted, found",
    [
        (TraceSearch(), [3, 2, 1]),
        (TraceSearch(namespace="team-a"), [1]),
        (TraceSearch(namespace="team-b"), [2]),
        (TraceSearch(service="raft"), [3]),
        (TraceSearch(min_duration_us=5_000), [2]),
        (TraceSearch(min_duration_us=5_001), []),
        (TraceSearch(error=True), [3]),
        (TraceSearch(request="team-a/a", error=True), []),
        (TraceSearch(limit=2), [3, 2]),
        (TraceSearch(before_us=START_US + 20), [1]),
    ],
)
def test_a_search_finds_what_all_its_fields_say_newest_first(wanted: TraceSearch, found: list[int]) -> None:
    store = TraceStore()
    store.receive(exported([a_span(1, trace=1, after_us=10, berth__request="team-a/a")]))
    store.receive(exported([a_span(1, trace=2, after_us=20, lasts_us=5_000, berth__namespace="team-b")]))
    store.receive(exported([a_span(1, trace=3, after_us=30, error="refused")], service="raft"))

    assert ids_found(store, wanted) == [trace_id(number) for number in found]


def test_the_trace_written_to_longest_ago_leaves_first_and_as_a_whole() -> None:
    store = TraceStore(TraceLimits(traces=2))
    store.receive(exported([a_span(1, trace=1, berth__request="team-a/a"), a_span(2, trace=1, parent=1)]))
    store.receive(exported([a_span(1, trace=2)]))
    store.receive(exported([a_span(3, trace=1, parent=1)]))  # 1 is younger than 2 again
    store.receive(exported([a_span(1, trace=3)]))

    assert store.trace(trace_id(2)) == []
    assert len(store.trace(trace_id(1))) == 3
    assert (store.counters.evicted_traces, store.counters.evicted_spans) == (1, 1)

    store.receive(exported([a_span(1, trace=4)]))
    store.receive(exported([a_span(1, trace=5)]))

    assert store.of_request("team-a/a") == []
    assert (store.counters.evicted_traces, store.counters.evicted_spans) == (3, 5)


def test_the_same_span_sent_twice_is_held_once() -> None:
    store = TraceStore()
    store.receive(exported(A_WALK))
    store.receive(exported(A_WALK))

    assert store.spans == len(store.trace(trace_id(1))) == 2
    assert (store.counters.taken, store.counters.replaced) == (4, 2)


def test_one_endless_trace_does_not_push_out_the_others() -> None:
    store = TraceStore(TraceLimits(traces=10, bytes=100_000, spans_per_trace=50, bytes_per_trace=20_000))
    store.receive(exported([a_span(1, trace=1)]))

    received = store.receive(exported([a_span(number, trace=2) for number in range(1, 200)]))

    assert len(store) == 2
    assert received.rejected == 199 - len(store.trace(trace_id(2)))
    assert "a trace has at most" in received.why


@pytest.mark.parametrize(
    "ids, why",
    [
        ({"trace_id": b""}, "trace id"),
        ({"trace_id": bytes(16)}, "trace id"),
        ({"span_id": b"123"}, "span id"),
        ({"span_id": bytes(8)}, "span id"),
        ({"name": "x" * 70_000}, "65536 bytes"),
    ],
)
def test_a_span_that_cannot_be_stored_is_rejected_alone_and_named(ids: dict[str, object], why: str) -> None:
    store = TraceStore()
    bad = a_span(1)
    for name, value in ids.items():
        setattr(bad, name, value)

    received = store.receive(exported([bad, a_span(2)]))

    assert (received.taken, received.rejected, store.spans) == (1, 1, 1)
    assert why in received.why


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(0, 3_000)),
        max_size=60,
    )
)
def test_whatever_arrives_the_bounds_hold_and_the_counters_add_up(arrivals: list[tuple[int, int, int]]) -> None:
    limits = TraceLimits(traces=3, bytes=6_000, spans_per_trace=4, bytes_per_trace=4_000)
    store = TraceStore(limits)
    for trace, number, length in arrivals:
        store.receive(exported([a_span(number, trace=trace, name="x" * length, berth__request=f"team-a/{number}")]))

    counters = store.counters
    held = [store.trace(trace_id(trace)) for trace in range(1, 7)]
    assert len(store) <= limits.traces
    assert 0 <= store.bytes <= limits.bytes
    assert store.spans == sum(map(len, held))
    assert counters.taken == store.spans + counters.replaced + counters.evicted_spans
    assert counters.taken + counters.rejected == len(arrivals)
    indexed = {trace for number in range(1, 6) for trace in store.of_request(f"team-a/{number}")}
    assert indexed == {spans[0].trace_id for spans in held if spans}

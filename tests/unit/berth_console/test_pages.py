"""The pages over real HTTP: what people read and what scripts get."""

import re
from collections.abc import Iterator

import pytest

from tests.unit.berth_console.spans_sent import START_US, a_span, exported, key_values, span_id, trace_id
from tests.unit.berth_console.web_server import RunningConsole, running_console

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def running() -> Iterator[RunningConsole]:
    with running_console() as console:
        yield console


@pytest.fixture
def console(running: RunningConsole) -> RunningConsole:
    running.forget()
    return running


def receive_a_walk(console: RunningConsole) -> None:
    """Request team-a/web-1 through three services; a later wake-up of it is a trace of its own."""
    traces = console.receiver.traces
    traces.receive(
        exported([a_span(1, name="publish request", lasts_us=9_000, berth__request="team-a/web-1")], service="client")
    )
    traces.receive(exported([a_span(2, parent=1, name="process request", after_us=1_000, lasts_us=7_000)]))
    traces.receive(
        exported([a_span(3, parent=2, name="append ledger", after_us=2_000, error="lost the race")], service="raft")
    )
    wake_up = a_span(1, trace=2, name="wake", after_us=60_000_000, links=[(1, 2)], berth__request="team-a/web-1")
    traces.receive(exported([wake_up]))


def test_the_overview_says_who_leads_and_what_there_is(console: RunningConsole) -> None:
    page = console.get("/")

    assert page.status == 200
    for text in ("raft-2", ">7<", ">1234<", "ready", "queued", "2023-11-14T22:13:20Z", "the-ledger"):
        assert text in page.text
    assert "Not ready" not in page.text


def test_the_trace_page_has_the_span_ids_and_parents_of_the_json(console: RunningConsole) -> None:
    receive_a_walk(console)

    page = console.get(f"/traces/{trace_id(1)}").text
    spans = console.get(f"/api/traces/{trace_id(1)}").json()["spans"]

    shown = re.findall(r'data-span-id="(\w+)" data-parent-id="(\w*)"', page)
    assert shown == [(span["span_id"], span["parent"] or "") for span in spans]
    assert shown == [(span_id(1), ""), (span_id(2), span_id(1)), (span_id(3), span_id(2))]


def test_the_trace_page_shows_bars_services_failures_and_the_other_traces_of_the_request(
    console: RunningConsole,
) -> None:
    receive_a_walk(console)

    page = console.get(f"/traces/{trace_id(1)}").text

    assert '<rect x="11.111%" width="77.778%"' in page
    assert "begins after 1.00 ms, takes 7.00 ms" in page
    assert re.search(r'class="span service-3 failed"\s+data-span-id="0{15}3"', page)
    assert "lost the race" in page
    assert '<a href="/traces?request=team-a/web-1">team-a/web-1</a>' in page
    assert f'<a href="/traces/{trace_id(2)}">' in page


def test_a_link_leads_to_the_span_that_it_names(console: RunningConsole) -> None:
    receive_a_walk(console)

    assert f'href="/traces/{trace_id(1)}#span-{span_id(2)}"' in console.get(f"/traces/{trace_id(2)}").text


def test_an_id_in_capitals_finds_the_same_trace(console: RunningConsole) -> None:
    id = "abcdef" + trace_id(1)[6:]
    span = a_span(1)
    span.trace_id = bytes.fromhex(id)
    console.receiver.traces.receive(exported([span]))

    assert console.get(f"/traces/{id.upper()}").status == 200


def test_the_list_searches_by_what_its_address_says(console: RunningConsole) -> None:
    receive_a_walk(console)

    def ids(query: str) -> list[str]:
        return re.findall(r'data-trace-id="0*(\d+)"', console.get(f"/traces?{query}").text)

    assert ids("") == ["2", "1"]
    assert ids("request=team-a/web-1&error=1") == ["1"]
    assert ids("min_duration=9ms&service=client&namespace=team-a") == ["1"]
    assert ids("request=nobody/knows") == []
    assert ids(f"before={START_US + 1}") == ["1"]
    assert ids("limit=1") == ["2"]


def test_the_list_shows_the_search_again_and_leads_to_older_traces(console: RunningConsole) -> None:
    receive_a_walk(console)

    page = console.get("/traces?request=team-a/web-1&limit=1").text

    assert 'name="request" value="team-a/web-1"' in page
    [older] = re.findall(r'href="([^"]+)" rel="next"', page)
    assert f'data-trace-id="{trace_id(1)}"' in console.get(older.replace("&amp;", "&")).text


@pytest.mark.parametrize(
    "query, says",
    [
        ("min_duration=soon", "min_duration: expected a duration such as 250us, 5ms or 1.5s"),
        ("limit=0", "limit: expected a whole number from 1 to 500"),
        ("limit=" + "9" * 5_000, "limit: expected"),
        ("before=-1", "before: expected"),
    ],
)
def test_a_search_that_cannot_be_read_says_what_was_expected(console: RunningConsole, query: str, says: str) -> None:
    page, api = console.get(f"/traces?{query}"), console.get(f"/api/traces?{query}")

    assert page.status == api.status == 400
    assert says in page.text
    assert says in api.json()["error"]["message"]


def test_the_json_list_pages_through_all_traces(console: RunningConsole) -> None:
    receive_a_walk(console)

    first = console.get("/api/traces?limit=1").json()
    second = console.get(first["next"]).json()

    assert [one["trace_id"] for page in (first, second) for one in page["traces"]] == [trace_id(2), trace_id(1)]
    assert console.get(second["next"]).json() == {"version": 1, "traces": [], "next": None}
    assert first["traces"][0] | {"start_us": 0} == {
        "trace_id": trace_id(2),
        "name": "wake",
        "services": ["quota"],
        "requests": ["team-a/web-1"],
        "namespaces": [],
        "start_us": 0,
        "duration_us": 1_000,
        "spans": 1,
        "errors": 0,
        "complete": True,
    }


@pytest.mark.parametrize("path", ["/traces/unknown", f"/traces/{trace_id(99)}", "/nothing/here", "/static/none.js"])
def test_a_page_that_is_not_there_says_what_to_do(console: RunningConsole, path: str) -> None:
    page = console.get(path)

    assert page.status == 404
    assert 'href="/traces"' in page.text


def test_an_unknown_trace_is_also_404_as_json(console: RunningConsole) -> None:
    assert console.get("/api/traces/unknown").status == 404
    assert console.get("/api/unknown").json()["error"]["hint"] == "try /api/traces"


def test_what_a_sender_writes_is_text_and_never_markup(console: RunningConsole) -> None:
    span = a_span(1, name=HOSTILE, error=HOSTILE, links=[(2, 2)], berth__request=HOSTILE)
    span.attributes.extend(key_values({HOSTILE: HOSTILE}))
    span.events.add(name=HOSTILE, time_unix_nano=2**64 - 1)
    console.receiver.traces.receive(exported([span], service=HOSTILE))

    for path in ("/", "/traces", f"/traces/{trace_id(1)}", "/traces/%3Cscript%3E", f"/traces?service={'%3Cscript%3E'}"):
        page = console.get(path).text
        assert "<script>" not in page
        assert "<img" not in page


def test_every_answer_forbids_what_the_pages_do_not_need(console: RunningConsole) -> None:
    receive_a_walk(console)

    for path in ("/", f"/traces/{trace_id(1)}", "/api/traces", "/static/console.css", "/nothing", "/healthz"):
        headers = console.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_no_page_asks_for_anything_from_elsewhere_or_holds_code_or_style_of_its_own(console: RunningConsole) -> None:
    receive_a_walk(console)

    for path in ("/", "/traces", f"/traces/{trace_id(1)}", "/nothing"):
        page = console.get(path).text
        assert not re.findall(r'(?:src|href|action)="(?!/|#)', page)
        assert " style=" not in page
        assert not re.findall(r"<script(?![^>]* src=)", page)
        assert not re.findall(r"\son[a-z]+=", page)


def test_a_name_that_is_not_this_machine_is_not_answered(console: RunningConsole) -> None:
    assert console.get("/", host="evil.example").status == 400
    assert console.get("/", host=f"localhost:{console.port}").status == 200
    assert console.get("/", host=f"[::1]:{console.port}").status == 200


def test_probes_tell_alive_from_ready(console: RunningConsole) -> None:
    assert (console.get("/healthz").status, console.get("/readyz").status) == (200, 200)

    console.cluster.not_ready = "folding, at sequence 10"

    assert console.get("/healthz").status == 200
    assert console.get("/readyz").status == 503
    assert console.get("/readyz").json() == {"status": "not_ready", "why": "folding, at sequence 10"}
    assert "folding, at sequence 10" in console.get("/").text


def test_metrics_are_computed_from_state(console: RunningConsole) -> None:
    receive_a_walk(console)

    answer = console.get("/metrics")

    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    for line in (
        "berth_console_traces_held 2",
        "berth_console_spans_held 4",
        'berth_console_spans_total{outcome="taken"} 4',
        'berth_nodes{state="ready"} 3',
        'berth_requests{namespace="team-a",status="queued"} 2',
        'berth_node_used{dimension="ram_mb",node="n1"} 512',
        "# HELP berth_node_used Used part of a node's capacity, by dimension.",
    ):
        assert line in lines


def test_a_very_large_trace_is_shown_in_part_and_says_so(console: RunningConsole) -> None:
    spans = [a_span(number, parent=number - 1 or None, note="x" * 5_000) for number in range(1, 601)]
    console.receiver.traces.receive(exported(spans))
    more = [a_span(number, parent=1) for number in range(601, 1_101)]
    console.receiver.traces.receive(exported(more))

    page = console.get(f"/traces/{trace_id(1)}").text

    assert page.count("data-span-id=") == 1_000
    assert "100 more spans are not shown" in page
    assert "(5000 characters; the JSON has all)" in page

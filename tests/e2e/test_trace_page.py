"""The trace pages in a real browser: read, searched and unfolded, with and without scripts."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.unit.berth_console.spans_sent import a_span, exported, span_id, trace_id
from tests.unit.berth_console.web_server import RunningConsole, running_console

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def console() -> Iterator[RunningConsole]:
    """A request through five services, one of whose spans failed, and its later wake-up."""
    with running_console() as running:
        traces = running.receiver.traces
        walk = [
            ("client", a_span(1, name="publish request", lasts_us=14_000, berth__request="team-a/web-1")),
            ("quota", a_span(2, parent=1, name="process request", after_us=1_000, lasts_us=12_000)),
            ("scheduler", a_span(3, parent=2, name="process evaluate", after_us=3_000, lasts_us=9_000, nodes=120)),
            ("raft", a_span(4, parent=3, name="commit", after_us=5_000, lasts_us=6_000)),
            ("raft", a_span(5, parent=4, name="append ledger", after_us=6_000, lasts_us=4_000, error="lost the race")),
        ]
        for service, span in walk:
            traces.receive(exported([span], service=f"berth-{service}"))
        wake_up = a_span(1, trace=2, name="wake", after_us=60_000_000, links=[(1, 2)], berth__request="team-a/web-1")
        traces.receive(exported([wake_up], service="berth-quota"))
        yield running


@pytest.fixture
def page(browser: Browser, console: RunningConsole) -> Iterator[Page]:
    """A page that fails the test when it logs an error or asks anybody else for anything."""
    context = browser.new_context(base_url=console.url)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith(console.url) else None)
    yield page
    assert complaints == []
    context.close()


def test_the_waterfall_shows_the_same_spans_and_parents_as_the_json(page: Page, console: RunningConsole) -> None:
    page.goto(f"/traces/{trace_id(1)}")

    shown = page.locator("[data-span-id]").evaluate_all(
        "spans => spans.map(s => [s.dataset.spanId, s.dataset.parentId])"
    )
    spans = console.get(f"/api/traces/{trace_id(1)}").json()["spans"]

    assert shown == [[span["span_id"], span["parent"] or ""] for span in spans]
    assert len(shown) == 5


def test_bars_lie_where_their_spans_are_in_time(page: Page) -> None:
    page.goto(f"/traces/{trace_id(1)}")

    boxes = [bar.bounding_box() for bar in page.locator("li .bar rect").all()]
    lefts = [box["x"] for box in boxes if box is not None]
    rights = [box["x"] + box["width"] for box in boxes if box is not None]

    assert lefts == sorted(lefts)
    assert rights == sorted(rights, reverse=True)
    assert len(set(lefts)) == 5


def test_a_span_unfolds_to_its_attributes(page: Page) -> None:
    page.goto(f"/traces/{trace_id(1)}")
    span = page.locator(f'[data-span-id="{span_id(3)}"]')
    expect(span.locator("td", has_text="120")).to_be_hidden()

    span.locator("summary").click()

    expect(span.locator("td", has_text="120")).to_be_visible()
    page.get_by_role("button", name="Open all").click()
    expect(page.get_by_text("lost the race")).to_be_visible()
    page.get_by_role("button", name="Close all").click()
    expect(page.get_by_text("lost the race")).to_be_hidden()


def test_from_a_request_to_its_wake_up_and_back_to_the_span_that_it_links(page: Page) -> None:
    page.goto("/traces")
    page.get_by_label("Request").fill("team-a/web-1")
    page.get_by_role("button", name="Search").click()
    expect(page).to_have_url("/traces?request=team-a%2Fweb-1&namespace=&service=&min_duration=")
    page.get_by_role("link", name="wake").click()
    page.get_by_role("button", name="Open all").click()

    page.locator("[data-link-span-id]").click()

    expect(page).to_have_url(f"/traces/{trace_id(1)}#span-{span_id(2)}")
    expect(page.locator(f"#span-{span_id(2)} details")).to_have_attribute("open", "")


def test_a_search_is_a_permalink(page: Page) -> None:
    page.goto("/traces?service=berth-raft&min_duration=10ms&error=1")

    assert page.get_by_label("Service").input_value() == "berth-raft"
    assert page.get_by_label("failed only").is_checked()
    assert page.locator("[data-trace-id]").count() == 1


def test_the_list_follows_what_arrives_when_it_is_live(page: Page, console: RunningConsole) -> None:
    page.goto("/traces")
    page.get_by_label("live").check()

    console.receiver.traces.receive(exported([a_span(1, trace=3, name="just now", after_us=90_000_000)]))

    expect(page.get_by_role("link", name="just now")).to_be_visible()


def test_everything_reads_without_scripts(browser: Browser, console: RunningConsole) -> None:
    context = browser.new_context(base_url=console.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/")
    page.get_by_role("link", name="Traces", exact=True).click()
    page.get_by_label("Request").fill("team-a/web-1")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="publish request").click()

    page.locator("summary", has_text="append ledger").click()

    assert page.get_by_text("lost the race").is_visible()
    assert page.get_by_role("button", name="Open all").count() == 0
    context.close()


@pytest.mark.parametrize("scheme, brightness", [("light", 255), ("dark", 0)])
def test_colours_follow_what_the_reader_prefers(
    browser: Browser, console: RunningConsole, scheme: str, brightness: int
) -> None:
    context = browser.new_context(base_url=console.url, color_scheme="dark" if scheme == "dark" else "light")
    page = context.new_page()
    page.goto(f"/traces/{trace_id(1)}")

    channels = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")

    assert all(abs(channel - brightness) < 40 for channel in channels)
    context.close()


def test_an_unknown_trace_says_what_to_do(page: Page) -> None:
    answer = page.request.get(f"/traces/{trace_id(77)}")

    assert answer.status == 404
    assert "berth trace namespace/id" in answer.text()

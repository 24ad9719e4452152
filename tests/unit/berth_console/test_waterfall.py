"""The order of the waterfall, and the waterfall as text."""

from hypothesis import given
from hypothesis import strategies as st

from berth_console.spans import Link, Span
from berth_console.waterfall import bar, duration_text, extent_us, text_waterfall, ticks_us, trace_tree


def a_span(
    id: str, parent: str | None = None, *, start: int = 0, lasts: int = 10, name: str = "", service: str = "quota"
) -> Span:
    return Span(
        trace_id="1", span_id=id, parent=parent, service=service, name=name or id, start_us=start, duration_us=lasts
    )


def shown(spans: list[Span]) -> list[tuple[str, int]]:
    return [(row.span.span_id, row.depth) for row in trace_tree(spans)]


def test_parents_come_before_their_children_and_siblings_by_start() -> None:
    spans = [
        a_span("append", "commit", start=40),
        a_span("late", "root", start=50),
        a_span("commit", "root", start=30),
        a_span("root", start=0, lasts=100),
    ]

    assert shown(spans) == [("root", 0), ("commit", 1), ("append", 2), ("late", 1)]


def test_a_span_whose_parent_is_missing_starts_a_tree_of_its_own_and_says_so() -> None:
    rows = trace_tree([a_span("b", "gone", start=5), a_span("a", start=0), a_span("c", "b", start=6)])

    assert [(row.span.span_id, row.depth, row.orphan) for row in rows] == [
        ("a", 0, False),
        ("b", 0, True),
        ("c", 1, False),
    ]


def test_spans_that_name_each_other_as_parents_are_shown_once_each() -> None:
    assert shown([a_span("a", "b"), a_span("b", "a", start=1), a_span("self", "self", start=2)]) == [
        ("a", 0),
        ("b", 1),
        ("self", 0),
    ]


def test_offsets_count_from_the_earliest_span_even_when_a_child_is_earlier_than_its_parent() -> None:
    rows = trace_tree([a_span("root", start=100), a_span("early", "root", start=90)])

    assert [(row.span.span_id, row.offset_us) for row in rows] == [("root", 10), ("early", 0)]


@given(st.lists(st.tuples(st.integers(0, 8), st.none() | st.integers(0, 9), st.integers(0, 50)), max_size=12))
def test_every_span_is_shown_exactly_once_whatever_the_parents_say(
    given_spans: list[tuple[int, int | None, int]],
) -> None:
    spans = [a_span(str(id), None if parent is None else str(parent), start=start) for id, parent, start in given_spans]

    rows = trace_tree(spans)

    assert sorted(row.span.span_id for row in rows) == sorted({span.span_id for span in spans})
    assert all(row.offset_us >= 0 for row in rows)
    assert len(text_waterfall(spans)) == len(rows)


def test_a_very_deep_trace_is_no_problem() -> None:
    chain = [a_span(str(number), str(number - 1) if number else None, start=number) for number in range(3_000)]

    assert shown(chain)[-1] == ("2999", 2_999)


def test_the_text_shows_bar_offset_duration_service_and_indented_name() -> None:
    spans = [
        a_span("1", start=0, lasts=10_000, name="publish request", service="client"),
        a_span("2", "1", start=2_500, lasts=5_000, name="process request", service="scheduler"),
    ]

    assert text_waterfall(spans, width=80) == [
        "███████████████       +0 µs     10.0 ms client    publish request",
        "   ███████▌        +2.50 ms     5.00 ms scheduler   process request",
    ]


def test_a_failed_span_its_links_and_its_missing_parent_are_named() -> None:
    span = Span(
        trace_id="1",
        span_id="2",
        parent="1",
        service="raft",
        name="commit",
        start_us=0,
        duration_us=1,
        status="error",
        status_message="stale victim",
        links=(Link(trace_id="9", span_id="9"),),
    )

    [line] = text_waterfall([span], width=200)

    assert line.endswith("commit ✗ stale victim (parent not seen) (1 linked)")


def test_nothing_a_sender_writes_steers_the_terminal() -> None:
    lines = text_waterfall([a_span("1", name="\x1b[2Jgone\nnext", service="\x07bell")])

    assert len(lines) == 1
    assert all(character.isprintable() for character in lines[0])


def test_lines_keep_to_the_width_where_there_is_room() -> None:
    spans = [a_span("1", name="x" * 500), a_span("2", "1", name="y" * 500, service="z" * 100)]

    for width in (80, 120, 200):
        assert all(len(line) <= width for line in text_waterfall(spans, width=width))
        assert all(line.endswith("…") for line in text_waterfall(spans, width=width))


def test_a_trace_without_spans_has_no_lines() -> None:
    assert text_waterfall([]) == []
    assert extent_us([]) == 0


def test_even_the_shortest_span_has_a_sliver() -> None:
    assert bar(0, 0, 1_000_000, width=10) == "▏".ljust(10)
    assert bar(1_000_000, 0, 1_000_000, width=10) == "▏".rjust(10)
    assert bar(0, 1_000_000, 1_000_000, width=10) == "█" * 10


def test_durations_have_three_digits_and_the_unit_that_fits() -> None:
    written = {
        us: duration_text(us)
        for us in (0, 999, 1_000, 14_234, 999_499, 999_500, 59_900_000, 125_000_000, 7_300_000_000)
    }

    assert list(written.values()) == [
        "0 µs",
        "999 µs",
        "1.00 ms",
        "14.2 ms",
        "999 ms",
        "1.00 s",
        "59.9 s",
        "2 min 5 s",
        "2 h 1 min",
    ]


@given(st.integers(0, 10**13))
def test_the_axis_has_a_few_round_ticks(extent: int) -> None:
    ticks = ticks_us(extent)

    assert ticks[0] == 0
    assert ticks[-1] <= extent
    assert 1 <= len(ticks) <= 6
    assert len(ticks) >= 3 or extent < 3

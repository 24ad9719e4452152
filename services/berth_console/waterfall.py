"""The order and depth in which the spans of a trace are shown, and the waterfall as text for a terminal.

Pure and of the standard library only: the trace page and `berth trace` both use it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from berth_console.spans import Span

INDENT_MAX = 24
"""Deeper spans are shown at this depth: a waterfall that leaves the page helps nobody."""

_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One span in the waterfall. `offset_us`: after the start of the earliest span.

    `orphan`: it names a parent that is not among the spans (not exported yet, not sampled, or dropped).
    """

    span: Span
    depth: int
    offset_us: int
    orphan: bool = False


def trace_tree(spans: Iterable[Span]) -> list[Row]:
    """Every span once, parents before their children, siblings by start.

    Whatever the spans say, each appears: one whose parent is missing starts a tree of its own, and so does
    the earliest of those that name each other as parents.
    """
    by_id = {span.span_id: span for span in spans}
    ordered = sorted(by_id.values(), key=_by_start)
    if not ordered:
        return []
    children: dict[str, list[Span]] = {}
    for span in ordered:
        if span.parent in by_id:
            children.setdefault(span.parent, []).append(span)
    origin = ordered[0].start_us
    rows: list[Row] = []
    shown: set[str] = set()
    heads = [span for span in ordered if span.parent not in by_id]
    for head in [*heads, *ordered]:  # the second round finds what only a circle of parents leads to
        for span, depth in _descend(head, children, shown):
            orphan = span.parent is not None and span.parent not in by_id
            rows.append(Row(span=span, depth=depth, offset_us=span.start_us - origin, orphan=orphan))
    assert len(rows) == len(by_id), "each span is shown once"
    return rows


def _descend(head: Span, children: dict[str, list[Span]], shown: set[str]) -> Iterable[tuple[Span, int]]:
    waiting = [(head, 0)]
    while waiting:
        span, depth = waiting.pop()
        if span.span_id in shown:
            continue
        shown.add(span.span_id)
        yield span, depth
        waiting.extend((child, depth + 1) for child in reversed(children.get(span.span_id, [])))


def _by_start(span: Span) -> tuple[int, int, str]:
    return (span.start_us, -span.duration_us, span.span_id)


def extent_us(spans: Iterable[Span]) -> int:
    """From the earliest start to the latest end; 0 where there is nothing."""
    starts_and_ends = [(span.start_us, span.end_us) for span in spans]
    if not starts_and_ends:
        return 0
    return max(end for _, end in starts_and_ends) - min(start for start, _ in starts_and_ends)


def duration_text(microseconds: int) -> str:
    """A duration for people, three digits: `870 µs`, `14.2 ms`, `1.50 s`, `2 min 5 s`."""
    assert microseconds >= 0
    if microseconds < 1_000:
        return f"{microseconds} µs"
    if microseconds < 999_500:
        return f"{_three_digits(microseconds / 1_000)} ms"
    if microseconds < 59_950_000:
        return f"{_three_digits(microseconds / 1_000_000)} s"
    minutes, seconds = divmod(round(microseconds / 1_000_000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def ticks_us(extent: int, wanted: int = 5) -> list[int]:
    """Round offsets for a time axis, from 0 on, about `wanted` of them."""
    assert extent >= 0
    assert wanted >= 1
    step = 1
    while extent // step > wanted:
        # 1, 2, 5, 10, 20, 50, …
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return list(range(0, extent + 1, step))


def text_waterfall(spans: Sequence[Span], *, width: int = 120) -> list[str]:
    """One line a span: a bar over the trace's time, offset, duration, service, and the name indented by depth.

    `width`: columns of the terminal, which a line keeps to where the fixed columns leave room.
    """
    rows = trace_tree(spans)
    extent = max(1, extent_us(spans))
    services = [printable(row.span.service) for row in rows]
    service_width = min(24, max((len(service) for service in services), default=0))
    fixed = 2 * 11 + service_width + 4
    bar_width = max(10, min(40, (width - fixed) // 3))
    name_width = max(16, width - fixed - bar_width - 1)
    return [
        " ".join(
            (
                bar(row.offset_us, row.span.duration_us, extent, width=bar_width),
                f"{'+' + duration_text(row.offset_us):>11}",
                f"{duration_text(row.span.duration_us):>11}",
                f"{_cut(service, service_width):<{service_width}}",
                _cut("  " * min(row.depth, INDENT_MAX) + _title(row), name_width),
            )
        ).rstrip()
        for row, service in zip(rows, services, strict=True)
    ]


def bar(offset_us: int, duration_us: int, extent_us: int, *, width: int) -> str:
    """Where in the trace a span lies: `width` columns, at least a sliver even for the shortest span."""
    assert width >= 1
    start = min(width - 1, offset_us * width // extent_us)
    eighths = max(1, min((width - start) * 8, -(-duration_us * width * 8 // extent_us)))
    whole, rest = divmod(eighths, 8)
    drawn = "█" * whole + (_EIGHTHS[rest] if rest else "")
    return (" " * start + drawn).ljust(width)


def _title(row: Row) -> str:
    title = printable(row.span.name)
    if row.span.failed:
        title += " ✗ " + printable(row.span.status_message or "failed")
    if row.orphan:
        title += " (parent not seen)"
    if row.span.links:
        title += f" ({len(row.span.links)} linked)"
    return title


def printable(text: str) -> str:
    """The text without what would steer a terminal: whoever sends a span chooses its name."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"

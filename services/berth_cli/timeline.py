"""Reservations against time, as text: one bar each on a common scale."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

WIDTH = 56
FILLS = {"pending": "?", "held": "-", "active": "="}
NOW = "|"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One reservation that is not over."""

    name: str
    state: str
    start: datetime
    end: datetime


def timeline(bars: Iterable[Bar], now: datetime) -> list[str]:
    """Lines for people: `-` held, `=` active, `?` waits for room, `|` now. Empty without bars."""
    shown = sorted(bars, key=lambda bar: (bar.start, bar.name))
    if not shown:
        return []
    first, last = min(now, shown[0].start), max(bar.end for bar in shown)
    scale = (last - first) / WIDTH

    def column(moment: datetime) -> int:
        return min(WIDTH - 1, max(0, int((moment - first) / scale)))

    margin = max(len(bar.name) for bar in shown)
    left, right = _text(first), _text(last)
    lines = [f"{'':{margin}}  {left}{'':{max(1, WIDTH - len(left) - len(right))}}{right}"]
    for bar in shown:
        begins, ends = column(bar.start), column(bar.end)
        cells = [" "] * WIDTH
        cells[begins : ends + 1] = FILLS[bar.state] * (ends + 1 - begins)
        cells[column(now)] = NOW
        lines.append(f"{bar.name:{margin}}  {''.join(cells).rstrip()}")
    return lines


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ")

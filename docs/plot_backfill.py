"""Draws docs/backfill.svg from the JSON of `berth bench backfill`, and prints the rows of docs/backfill.md.

berth bench backfill --json > backfill.json
python -m docs.plot_backfill backfill.json
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 400, 64, 48
COLOURS = {"fifo": "#888888", "backfill": "#1f77b4"}
LEAST, MOST = 2, 6
"""Powers of ten of the axis of waits, in seconds."""


def drawn(result: dict[str, Any]) -> str:
    """Mean wait (up, logarithmic) by the processors that a job wants (right)."""
    waits: dict[str, dict[str, float]] = result["figures"]["mean_wait_by_size_s"]
    sizes = list(next(iter(waits.values())))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for power in range(LEAST, MOST + 1):
        y = _y(10**power)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - 16}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10**power:,}</text>')
    step = (WIDTH - LEFT - 16) / len(sizes)
    for place, size in enumerate(sizes):
        middle = LEFT + step * (place + 0.5)
        parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{size}</text>')
        for number, (policy, by_size) in enumerate(waits.items()):
            top = _y(by_size[size])
            x, height = middle + (number - 1) * step * 0.35, HEIGHT - BOTTOM - top
            parts.append(
                f'<rect x="{x:.1f}" y="{top:.1f}" width="{step * 0.33:.1f}" height="{height:.1f}"'
                f' fill="{COLOURS[policy]}"/>'
            )
    for place, policy in enumerate(waits):
        mean = result["figures"]["mean_wait_s"][policy]
        text = f"{policy}: {mean:,.0f} s on average"
        parts.append(
            f'<text x="{WIDTH - 24}" y="{28 + 18 * place}" text-anchor="end" fill="{COLOURS[policy]}">{text}</text>'
        )
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">processors of the job</text>')
    parts.append(f'<text transform="translate(14 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">mean wait, s</text>')
    return "\n".join([*parts, "</svg>", ""])


def _y(seconds: float) -> float:
    power = min(MOST, max(LEAST, math.log10(max(1.0, seconds))))
    return HEIGHT - BOTTOM - (power - LEAST) / (MOST - LEAST) * (HEIGHT - BOTTOM - 16)


def rows(result: dict[str, Any]) -> list[str]:
    """A row a policy."""
    figures = result["figures"]
    return [
        f"| {policy} | {figures['mean_wait_s'][policy]:,.0f} s | {figures['longest_wait_s'][policy]:,.0f} s |"
        f" {figures['mean_bounded_slowdown'][policy]:,.0f} | {figures['makespan_s'][policy]:,.0f} s |"
        f" {figures['promises'][policy]} | {figures['promises_broken'][policy]} |"
        f" {figures['promises_moved_later'][policy]} |"
        for policy in figures["mean_wait_s"]
    ]


def main(path: str) -> int:
    result = json.loads(Path(path).read_text())
    (FOLDER / "backfill.svg").write_text(drawn(result))
    print("\n".join(rows(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""Draws docs/packing-<gpu>.svg from the JSON of `berth bench packing`, and prints the rows of docs/packing.md.

berth bench packing --gpu whole --json > whole.json
python -m docs.plot_packing whole.json …
"""

import json
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 400, 56, 48
COLOURS = {"random": "#888888", "binpack": "#1f77b4", "fragmentation": "#d62728"}


def drawn(result: dict[str, Any]) -> str:
    """Percent of the GPUs allocated (up) over percent of the requests that have arrived (right)."""
    curves: dict[str, list[float]] = result["figures"]["curve"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for tick in range(0, 101, 20):
        y, x = _y(tick), _x(tick)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - 16}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">requests arrived, %</text>')
    parts.append(
        f'<text transform="translate(14 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">GPUs allocated, %</text>'
    )
    for place, (name, curve) in enumerate(curves.items()):
        points = [(0.0, 0.0), *((100 * step / len(curve), value) for step, value in enumerate(curve, start=1))]
        line = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
        final = result["figures"]["gpu_allocation_percent"][name]
        parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[name]}" stroke-width="1.5"/>')
        parts.append(f'<text x="{LEFT + 16}" y="{32 + 18 * place}" fill="{COLOURS[name]}">{name}: {final} %</text>')
    return "\n".join([*parts, "</svg>", ""])


def _x(percent: float) -> float:
    return LEFT + percent / 100 * (WIDTH - LEFT - 16)


def _y(percent: float) -> float:
    return HEIGHT - BOTTOM - percent / 100 * (HEIGHT - BOTTOM - 16)


def rows(result: dict[str, Any]) -> list[str]:
    """A row a strategy: GPUs allocated in the end, requests without a place."""
    figures, gpu = result["figures"], result["parameters"]["gpu"]
    seeds = figures["random_by_seed"]
    spread = {"random": f" ({min(seeds)} to {max(seeds)} over {len(seeds)} seeds)"}
    return [
        f"| {gpu} | {name} | {percent} %{spread.get(name, '')} | {figures['unplaced'][name]:g} |"
        for name, percent in figures["gpu_allocation_percent"].items()
    ]


def main(paths: list[str]) -> int:
    for path in paths:
        result = json.loads(Path(path).read_text())
        (FOLDER / f"packing-{result['parameters']['gpu']}.svg").write_text(drawn(result))
        print("\n".join(rows(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

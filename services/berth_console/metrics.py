"""The latest value of every metric that services export, printed for Prometheus.

Kept small: gauges, cumulative sums and cumulative histograms with explicit buckets; everything else is
counted as dropped. A series that has not been exported for five minutes is forgotten (its process is gone).
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)

from berth_console.otlp import Origin, attributes_of, origin_of

SERIES_MAX = 5_000
SERIES_AGE_MS_MAX = 5 * 60_000
TEXT_CHARACTERS_MAX = 200
BUCKETS_MAX = 200

Labels = tuple[tuple[str, str], ...]

_UNITS = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "By": "bytes",
    "MiBy": "mebibytes",
    "%": "percent",
}
_FORBIDDEN = re.compile(r"[^a-zA-Z0-9_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What a `# TYPE` line says of a name."""

    name: str
    kind: str
    help: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value now. `suffix`: `_bucket`, `_sum` or `_count` of a histogram."""

    labels: Labels
    value: float
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class _Series:
    samples: tuple[Sample, ...]
    seen_ms: int


class MetricStore:
    """`now_ms` is monotonic everywhere here."""

    def __init__(self) -> None:
        self.points_taken = 0
        self.points_dropped = 0
        self._families: dict[str, Family] = {}
        self._series: dict[str, dict[Labels, _Series]] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many series are held."""
        return self._count

    def receive(self, request: ExportMetricsServiceRequest, now_ms: int) -> int:
        """Take in what one exporter sent; returns how many of its points could not be kept."""
        dropped_before = self.points_dropped
        self._forget_old(now_ms)
        for resource in request.resource_metrics:
            origin = origin_of(resource.resource)
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self._receive(metric, origin, now_ms)
        return self.points_dropped - dropped_before

    def families(self, now_ms: int) -> Iterator[tuple[Family, list[Sample]]]:
        """Every family with its samples, by name."""
        self._forget_old(now_ms)
        for name in sorted(self._families):
            series = self._series[name]
            yield self._families[name], [sample for labels in sorted(series) for sample in series[labels].samples]

    def _receive(self, metric: Metric, origin: Origin, now_ms: int) -> None:
        kind, points = _cumulative_points(metric)
        if kind is None:
            self.points_dropped += max(1, len(points))
            return
        family = Family(
            name=prometheus_name(metric.name[:TEXT_CHARACTERS_MAX], metric.unit, kind),
            kind=kind,
            help=metric.description[:TEXT_CHARACTERS_MAX],
        )
        if self._families.get(family.name, family).kind != kind:
            self.points_dropped += len(points)  # two services disagree about what this name is
            return
        for point in points:
            if isinstance(point, HistogramDataPoint) and len(point.bucket_counts) > BUCKETS_MAX:
                self.points_dropped += 1
                continue
            self._keep(family, labels_of(point, origin), point, now_ms)

    def _keep(self, family: Family, labels: Labels, point: NumberDataPoint | HistogramDataPoint, now_ms: int) -> None:
        series = self._series.get(family.name, {})
        if labels not in series:
            if self._count >= SERIES_MAX:
                self.points_dropped += 1
                return
            self._count += 1
        self.points_taken += 1
        self._families[family.name] = family
        series[labels] = _Series(tuple(_samples(labels, point)), now_ms)
        self._series[family.name] = series

    def _forget_old(self, now_ms: int) -> None:
        for name in list(self._series):
            series = self._series[name]
            for labels in [labels for labels, held in series.items() if now_ms - held.seen_ms > SERIES_AGE_MS_MAX]:
                del series[labels]
                self._count -= 1
            if not series:
                del self._series[name], self._families[name]


def _cumulative_points(metric: Metric) -> tuple[str | None, list[NumberDataPoint] | list[HistogramDataPoint]]:
    """Prometheus' kind and the points; kind None where Prometheus has no word for it."""
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    match metric.WhichOneof("data"):
        case "gauge":
            return "gauge", list(metric.gauge.data_points)
        case "sum":
            kind = "counter" if metric.sum.is_monotonic else "gauge"
            return (
                kind if metric.sum.aggregation_temporality == cumulative else None,
                list(metric.sum.data_points),
            )
        case "histogram":
            return (
                "histogram" if metric.histogram.aggregation_temporality == cumulative else None,
                list(metric.histogram.data_points),
            )
        case _:
            return None, []


def _samples(labels: Labels, point: NumberDataPoint | HistogramDataPoint) -> Iterator[Sample]:
    if isinstance(point, NumberDataPoint):
        value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
        yield Sample(labels=labels, value=value)
        return
    below = 0
    for bound, count in zip((*point.explicit_bounds, math.inf), point.bucket_counts, strict=False):
        below += count
        yield Sample(labels=(*labels, ("le", number_text(bound))), value=below, suffix="_bucket")
    yield Sample(labels=labels, value=point.sum, suffix="_sum")
    yield Sample(labels=labels, value=point.count, suffix="_count")


def labels_of(point: NumberDataPoint | HistogramDataPoint, origin: Origin) -> Labels:
    """The point's attributes; the service as `job` and its instance as `instance`, as Prometheus has it."""
    named = {
        _FORBIDDEN.sub("_", name): str(value)[:TEXT_CHARACTERS_MAX]
        for name, value in attributes_of(point.attributes).items()
    }
    named["job"] = origin.service
    if origin.instance is not None:
        named["instance"] = origin.instance
    return tuple(sorted((_not_a_digit_first(name), value) for name, value in named.items()))


def prometheus_name(name: str, unit: str, kind: str) -> str:
    """`berth.decision.duration` in `s` is `berth_decision_duration_seconds`; counters end in `_total`."""
    written = _not_a_digit_first(_FORBIDDEN.sub("_", name).strip("_") or "unnamed")
    suffix = _UNITS.get(unit)
    if suffix and not written.endswith(f"_{suffix}"):
        written = f"{written}_{suffix}"
    return f"{written}_total" if kind == "counter" and not written.endswith("_total") else written


def _not_a_digit_first(name: str) -> str:
    return f"_{name}" if name[:1].isdigit() or not name else name


def prometheus_text(families: Iterable[tuple[Family, list[Sample]]]) -> str:
    """Text format 0.0.4."""
    lines: list[str] = []
    for family, samples in families:
        if family.help:
            lines.append(f"# HELP {family.name} {_escaped(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines.extend(f"{family.name}{one.suffix}{_label_text(one.labels)} {number_text(one.value)}" for one in samples)
    return "\n".join([*lines, ""])


def number_text(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if abs(value) < 2**53 and value == int(value) else repr(value)


def _label_text(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value, quote=True)}"' for name, value in labels) + "}"


def _escaped(text: str, *, quote: bool = False) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quote else escaped

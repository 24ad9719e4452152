"""Received metrics as Prometheus reads them."""

from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from berth_console.metrics import SERIES_AGE_MS_MAX, SERIES_MAX, MetricStore, prometheus_text
from tests.unit.berth_console.spans_sent import key_values

CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


def exported(*metrics: Metric, service: str = "quota", instance: str = "quota-1") -> ExportMetricsServiceRequest:
    resource = Resource(attributes=key_values({"service.name": service, "service.instance.id": instance}))
    return ExportMetricsServiceRequest(
        resource_metrics=[ResourceMetrics(resource=resource, scope_metrics=[ScopeMetrics(metrics=metrics)])]
    )


def a_number(value: float, **attributes: Any) -> NumberDataPoint:
    return NumberDataPoint(as_double=value, attributes=key_values(attributes))


def a_counter(value: int, *, name: str = "berth.decisions", temporality: Any = CUMULATIVE, **attributes: Any) -> Metric:
    point = NumberDataPoint(as_int=value, attributes=key_values(attributes))
    return Metric(
        name=name,
        unit="{decision}",
        description="Decisions.",
        sum=Sum(data_points=[point], is_monotonic=True, aggregation_temporality=temporality),
    )


def text(store: MetricStore, now_ms: int = 0) -> str:
    return prometheus_text(store.families(now_ms))


def test_a_counter_is_printed_with_its_latest_value() -> None:
    store = MetricStore()
    store.receive(exported(a_counter(3, outcome="placed")), now_ms=0)
    store.receive(exported(a_counter(5, outcome="placed")), now_ms=1)

    assert text(store) == (
        "# HELP berth_decisions_total Decisions.\n"
        "# TYPE berth_decisions_total counter\n"
        'berth_decisions_total{instance="quota-1",job="quota",outcome="placed"} 5\n'
    )


def test_a_histogram_is_printed_with_cumulative_buckets_and_its_unit() -> None:
    point = HistogramDataPoint(count=6, sum=1.5, explicit_bounds=[0.1, 1], bucket_counts=[1, 3, 2])
    histogram = Histogram(data_points=[point], aggregation_temporality=CUMULATIVE)
    store = MetricStore()
    store.receive(exported(Metric(name="berth.decision.duration", unit="s", histogram=histogram)), now_ms=0)

    assert text(store).splitlines() == [
        "# TYPE berth_decision_duration_seconds histogram",
        'berth_decision_duration_seconds_bucket{instance="quota-1",job="quota",le="0.1"} 1',
        'berth_decision_duration_seconds_bucket{instance="quota-1",job="quota",le="1"} 4',
        'berth_decision_duration_seconds_bucket{instance="quota-1",job="quota",le="+Inf"} 6',
        'berth_decision_duration_seconds_sum{instance="quota-1",job="quota"} 1.5',
        'berth_decision_duration_seconds_count{instance="quota-1",job="quota"} 6',
    ]


def test_two_replicas_are_two_series() -> None:
    store = MetricStore()
    for number in (1, 2):
        store.receive(exported(a_counter(number), service="scheduler", instance=f"scheduler-{number}"), now_ms=0)

    assert len(store) == 2


def test_names_and_values_that_prometheus_cannot_write_are_made_fit() -> None:
    metric = Metric(
        name="3 strange/näme", gauge=Gauge(data_points=[a_number(float("inf"), **{'quo"te.d': 'a "b"\\\nc'})])
    )
    store = MetricStore()
    store.receive(exported(metric), now_ms=0)

    assert (
        text(store).splitlines()[1]
        == '_3_strange_n_me{instance="quota-1",job="quota",quo_te_d="a \\"b\\"\\\\\\nc"} +Inf'
    )


def test_what_is_not_kept_is_counted() -> None:
    store = MetricStore()

    assert store.receive(exported(a_counter(1, temporality=DELTA)), now_ms=0) == 1
    assert store.receive(exported(Metric(name="nothing")), now_ms=0) == 1
    store.receive(exported(a_counter(1, name="berth.x")), now_ms=0)
    assert store.receive(exported(Metric(name="berth.x_total", gauge=Gauge(data_points=[a_number(1)]))), now_ms=0) == 1
    assert (store.points_taken, store.points_dropped) == (1, 3)


def test_a_process_that_is_gone_leaves_the_page() -> None:
    store = MetricStore()
    store.receive(exported(a_counter(1), instance="old"), now_ms=0)
    store.receive(exported(a_counter(1), instance="new"), now_ms=SERIES_AGE_MS_MAX)

    assert 'instance="old"' not in text(store, SERIES_AGE_MS_MAX + 1)
    assert 'instance="new"' in text(store, SERIES_AGE_MS_MAX + 1)
    assert text(store, 2 * SERIES_AGE_MS_MAX + 1) == ""


def test_series_are_bounded() -> None:
    points = [a_number(1, id=number) for number in range(SERIES_MAX + 7)]
    store = MetricStore()

    assert store.receive(exported(Metric(name="ids", gauge=Gauge(data_points=points))), now_ms=0) == 7
    assert len(store) == SERIES_MAX

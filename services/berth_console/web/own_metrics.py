"""What the console itself counts, and the cluster's gauges computed from the folded state."""

from collections.abc import Iterator, Mapping
from itertools import groupby

from berth.runtime.telemetry import GAUGES
from berth_console.metrics import Family, Labels, Sample, prometheus_name
from berth_console.receiver import Receiver
from berth_console.web.read_models import ReadModels


def own_families(receiver: Receiver, models: ReadModels) -> Iterator[tuple[Family, list[Sample]]]:
    """Counters of the receiver, gauges of the store, gauges of the cluster."""
    traces, exports = receiver.traces, receiver.counters
    yield _counter("berth_console_exports", "OTLP requests by outcome.", "outcome", _outcomes(receiver))
    yield _counter(
        "berth_console_spans",
        "Spans by what became of them; taken = held now + replaced + evicted.",
        "outcome",
        {
            "taken": traces.counters.taken,
            "replaced": traces.counters.replaced,
            "rejected": traces.counters.rejected,
            "evicted": traces.counters.evicted_spans,
        },
    )
    yield _counter("berth_console_log_records", "Log records received and not kept.", "", {"": exports.log_records})
    yield _counter(
        "berth_console_metric_points",
        "Metric points by what became of them.",
        "outcome",
        {"taken": receiver.metrics.points_taken, "dropped": receiver.metrics.points_dropped},
    )
    yield _gauge("berth_console_traces_held", "Traces in the store.", "", {"": len(traces)})
    yield _gauge("berth_console_spans_held", "Spans in the store.", "", {"": traces.spans})
    yield _gauge("berth_console_trace_store_bytes", "Bytes in the trace store.", "", {"": traces.bytes})
    overview = models.overview()
    yield _gauge("berth_nodes", "Nodes by state.", "state", overview.nodes)
    yield _gauge("berth_allocations", "Allocations by state.", "state", overview.allocations)
    yield _gauge("berth_reservations", "Reservations by state.", "state", overview.reservations)
    for name, group in groupby(models.gauges(), key=lambda gauge: gauge.name):
        unit, about = GAUGES[name]
        family = Family(name=prometheus_name(name, unit, "gauge"), kind="gauge", help=about)
        yield family, [Sample(labels=gauge.labels, value=gauge.value) for gauge in group]


def _outcomes(receiver: Receiver) -> dict[str, int]:
    outcomes = {"taken": receiver.counters.taken, "refused": receiver.counters.refused}
    if receiver.forwarder is not None:
        outcomes |= {"forwarded": receiver.forwarder.sent, "not_forwarded": receiver.forwarder.dropped}
    return outcomes


def _counter(name: str, about: str, label: str, values: Mapping[str, int]) -> tuple[Family, list[Sample]]:
    return Family(name=f"{name}_total", kind="counter", help=about), _samples(label, values)


def _gauge(name: str, about: str, label: str, values: Mapping[str, int]) -> tuple[Family, list[Sample]]:
    return Family(name=name, kind="gauge", help=about), _samples(label, values)


def _samples(label: str, values: Mapping[str, int]) -> list[Sample]:
    samples: list[Sample] = []
    for name in sorted(values):
        labels: Labels = ((label, name),) if label else ()
        samples.append(Sample(labels=labels, value=values[name]))
    return samples

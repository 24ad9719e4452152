"""The cluster in numbers, computed from the folded state: for the overview page and for Prometheus."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from berth.ids import NodeId, Sequence, Term
from berth.model.charging import usage_drift
from berth.model.fragmentation import Usage, group_of, grouped, total, usage_by_node
from berth.model.ledger import State
from berth.model.reservation import ReservationState
from berth.resources import Resources
from berth_console.queue_gauges import queue_gauges, quota_gauges
from berth_console.web.read_models import Gauge, Overview


class ClusterView:
    """Offers the pages what they want to know. `why_not_ready` is the runner's to say.

    `grouped_by`: node labels by which utilisation and fragmentation are told, beside each node and the cluster.
    """

    def __init__(self, state: State, why_not_ready: Callable[[], str | None], grouped_by: Iterable[str] = ()) -> None:
        self.why_not_ready = why_not_ready
        self._grouped_by = tuple(grouped_by)
        self._state = state
        self._overview: Overview | None = None

    def overview(self) -> Overview:
        """As of the last folded record; counted once a record, however often it is asked for."""
        if self._overview is None or self._overview.sequence != self._state.sequence:
            self._overview = overview(self._state)
        return self._overview

    def gauges(self) -> Iterator[Gauge]:
        return gauges(self._state, self._grouped_by)


def overview(state: State) -> Overview:
    tip = state.tip
    return Overview(
        ledger_id=state.ledger_id,
        leader=tip.leader if tip else "",
        term=tip.term if tip else Term(0),
        sequence=tip.sequence if tip else Sequence(0),
        at=state.at,
        nodes=_counted(node.state.value for node in state.cluster.nodes.values()),
        requests=_counted(known.status.value for known in state.queue.requests.values()),
        allocations=_counted(one.state.value for one in state.cluster.allocations.values()),
        reservations=_counted(one.state.value for one in state.reservations.reservations.values()),
    )


def gauges(state: State, grouped_by: Iterable[str] = ()) -> Iterator[Gauge]:
    """The gauges of `berth.runtime.telemetry.GAUGES` that describe the cluster and not a process.

    Those of one name stand together: Prometheus takes a name once.
    """
    counted = Counter((known.request.namespace, known.status.value) for known in state.queue.requests.values())
    for (namespace, status), count in sorted(counted.items()):
        yield Gauge("berth.requests", (("namespace", namespace), ("status", status)), count)
    nodes = sorted(state.cluster.nodes.items())
    for name, node in nodes:
        yield from _by_dimension("berth.node.capacity", "node", name, node.capacity)
    for name, _ in nodes:
        yield from _by_dimension("berth.node.used", "node", name, state.cluster.used_on(name))
    yield from _drain_gauges(state)
    usages = usage_by_node(state)
    yield from _usage_gauges(usages)
    yield from _group_gauges(state, usages, tuple(grouped_by))
    yield from _reservation_gauges(state)
    for namespace in sorted(state.quotas.used):
        yield from _by_dimension("berth.quota.used", "namespace", namespace, state.quotas.used_by(namespace))
    yield Gauge("berth.quota.drift", (), sum(usage_drift(state).values()))
    yield from quota_gauges(state)
    yield from queue_gauges(state)


def _reservation_gauges(state: State) -> Iterator[Gauge]:
    """Broken promises with their cause, and the use of what is active."""
    known = [state.reservations.reservations[name] for name in sorted(state.reservations.open)]
    for one in known:
        if one.missing:
            cause = one.because.cause.value if one.because else "no_room"
            labels = (("cause", cause), ("namespace", one.namespace), ("reservation", one.id))
            yield Gauge("berth.reservation.missing", labels, one.missing)
    active = [one for one in known if one.state is ReservationState.ACTIVE]
    for one in active:
        yield from _by_dimension("berth.reservation.used", "reservation", one.id, state.reservations.drawn_in_all(one))
    for one in active:
        yield from _by_dimension("berth.reservation.free", "reservation", one.id, state.reservations.undrawn(one))


def _drain_gauges(state: State) -> Iterator[Gauge]:
    """How far each drain has come."""
    draining = [(name, node.drain) for name, node in sorted(state.cluster.nodes.items()) if node.drain is not None]
    for name, drain in draining:
        yield Gauge("berth.node.drain.moved", (("node", name),), drain.moved)
    for name, drain in draining:
        yield Gauge("berth.node.drain.evicted", (("node", name),), drain.departed - drain.moved)
    for name, _ in draining:
        yield Gauge("berth.node.drain.left", (("node", name),), len(state.cluster.on_node(name)))
    for name, drain in draining:
        if drain.until is not None:
            yield Gauge("berth.node.drain.deadline", (("node", name),), drain.until / 1000)


def _usage_gauges(usages: Mapping[NodeId, Usage]) -> Iterator[Gauge]:
    """What is free, and what of that no recent shape can use; both also as parts of the whole cluster's."""
    for name, one in usages.items():
        yield from _by_dimension("berth.node.free", "node", name, one.free)
    for name, one in usages.items():
        yield from _by_dimension("berth.node.stranded", "node", name, one.stranded)
    cluster = total(usages.values())
    for dimension, part in cluster.utilization().items():
        yield Gauge("berth.cluster.utilization", (("dimension", dimension),), part)
    for dimension, part in cluster.fragmentation().items():
        yield Gauge("berth.cluster.fragmentation", (("dimension", dimension),), part)


def _group_gauges(state: State, usages: Mapping[NodeId, Usage], labels: tuple[str, ...]) -> Iterator[Gauge]:
    """Both parts for each value of each label; nodes without the label are one group, whose value is empty."""
    nodes = state.cluster.nodes
    groups = [
        ((("label", label), ("value", value)), one)
        for label in labels
        for value, one in grouped(
            (group_of(nodes[name].labels, name, label), usage) for name, usage in usages.items()
        ).items()
    ]
    for whose, one in groups:
        for dimension, part in one.utilization().items():
            yield Gauge("berth.group.utilization", (("dimension", dimension), *whose), part)
    for whose, one in groups:
        for dimension, part in one.fragmentation().items():
            yield Gauge("berth.group.fragmentation", (("dimension", dimension), *whose), part)


def _by_dimension(name: str, label: str, whose: str, amounts: Resources) -> Iterator[Gauge]:
    for dimension, amount in amounts.dimensions():
        yield Gauge(name, (("dimension", dimension), (label, whose)), amount)


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))

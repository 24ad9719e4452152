"""What the pages want to know of the cluster; `berth_console.cluster_view` offers it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from berth.ids import Sequence, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The cluster in numbers. `leader` empty: none was elected yet. `at`: milliseconds UTC of the last record."""

    ledger_id: str
    leader: str
    term: Term
    sequence: Sequence
    at: int
    nodes: dict[str, int] = field(default_factory=dict[str, int])
    requests: dict[str, int] = field(default_factory=dict[str, int])
    allocations: dict[str, int] = field(default_factory=dict[str, int])
    reservations: dict[str, int] = field(default_factory=dict[str, int])


class Gauge(NamedTuple):
    """One value now; `name` as OpenTelemetry writes it."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class ReadModels(Protocol):
    """Belongs to the event loop that serves the pages; nothing here waits."""

    def overview(self) -> Overview:
        """As of the last folded record."""
        ...

    def gauges(self) -> Iterator[Gauge]:
        """As of the last folded record; those of one name one after the other."""
        ...

    def why_not_ready(self) -> str | None:
        """None when the fold has caught up; else what it waits for, or why it halted."""
        ...

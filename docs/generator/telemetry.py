"""The page of spans and metrics, from `berth.runtime.telemetry` and from what the console counts of itself."""

import ast
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from berth import submitting
from berth.runtime import telemetry, tracing
from berth.runtime.telemetry import GAUGES, Operation
from berth_console.metrics import prometheus_name
from berth_raft import observing
from docs.generator.markdown import one_line, page, table

INTRODUCTION = """\
What Berth tells about itself through OpenTelemetry. Services export to the console over OTLP/HTTP; the console
keeps a bounded store of traces, serves metrics at `/metrics`, and passes the bytes on where
`OTEL_EXPORTER_OTLP_ENDPOINT` names a receiver."""

WHO_MAKES_SPANS: tuple[ModuleType, ...] = (submitting, tracing, observing)
KINDS_OF_INSTRUMENTS = {"create_counter": "counter", "create_histogram": "histogram"}


def telemetry_page() -> str:
    return page(
        "Traces and metrics",
        INTRODUCTION,
        [
            "## One request, one trace",
            "",
            *_explained(),
            "",
            "## Spans",
            "",
            "A message on any other subject that brings a sampled context gets a span `process <subject>`.",
            "",
            *table(("span", "kind", "service"), *_spans()),
            "",
            "## Attributes",
            "",
            "Beside `messaging.*` as OpenTelemetry names them. What a service notes of a request is on its spans as",
            "`berth.<field>`.",
            "",
            *table(("attribute", "what"), *ATTRIBUTES),
            "",
            "## Metrics",
            "",
            *table(("metric", "at `/metrics`", "kind", "unit", "what"), *_metrics()),
            "",
            "The console computes the gauges of nodes, requests and quotas from the folded state when they are read,",
            "and counts what it takes in itself (`berth_console_*`).",
        ],
    )


def _explained() -> Iterator[str]:
    """The module's own words, but for its heading and its bold lead-ins."""
    text = inspect.cleandoc(telemetry.__doc__ or "")
    for paragraph in text.split("\n\n")[1:]:
        if all(line.startswith("    ") for line in paragraph.splitlines()):
            yield from ("```text", inspect.cleandoc(paragraph), "```", "")
        else:
            yield from (one_line(paragraph).removesuffix(":") + (":" if paragraph.endswith(":") else ""), "")


ATTRIBUTES = (
    (f"`{telemetry.NAMESPACE}`", "the namespace that the span is about"),
    (f"`{telemetry.REQUEST_ID}`", "the request: `<namespace>/<id>`"),
    (f"`{telemetry.OUTCOME}`", "what became of it: the status of a decision"),
    (f"`{telemetry.SUBMIT_TRACE}`", "on the first span of a wake-up: the trace in which the request was submitted"),
    (f"`{telemetry.SEQUENCE}`", "where the record lies in the ledger"),
    (f"`{telemetry.STREAM}`", "the stream of the subject"),
    (f"`{telemetry.BATCH_COUNT}`", "how many travelled together"),
    ("`berth.raft.term`, `berth.raft.leader`", "who committed, on `commit`"),
)


def _spans() -> Iterator[tuple[str, ...]]:
    seen: set[str] = set()
    for module in WHO_MAKES_SPANS:
        service = {submitting: "who submits", tracing: "any service", observing: "berth-raft"}[module]
        for value in vars(module).values():
            if isinstance(value, Operation) and value.name not in seen:
                seen.add(value.name)
                yield (f"`{value.name}`", value.kind.name.lower(), service)


def _metrics() -> Iterator[tuple[str, ...]]:
    for name, kind, unit, what in _instruments():
        yield (f"`{name}`", f"`{prometheus_name(name, unit, kind)}`", kind, unit, what)
    for name, (unit, what) in GAUGES.items():
        yield (f"`{name}`", f"`{prometheus_name(name, unit, 'gauge')}`", "gauge", unit, what)


def _instruments() -> Iterator[tuple[str, str, str, str]]:
    """Name, kind, unit and description of what is counted and measured: OpenTelemetry does not tell them again."""
    for node in ast.walk(ast.parse(inspect.getsource(telemetry))):
        match node:
            case ast.Call(func=ast.Attribute(attr=made), args=[ast.Constant(value=str(name))]) if (
                made in KINDS_OF_INSTRUMENTS
            ):
                said: dict[str, Any] = {one.arg or "": ast.literal_eval(one.value) for one in node.keywords}
                yield name, KINDS_OF_INSTRUMENTS[made], said["unit"], said["description"]
            case _:
                pass

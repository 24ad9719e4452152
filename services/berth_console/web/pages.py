"""The pages for people and the same as JSON for scripts: overview, list of traces, one trace."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from berth.errors import InvalidCommand
from berth_console.metrics import prometheus_text
from berth_console.receiver import Receiver
from berth_console.spans import Span
from berth_console.traces import TraceStore, TraceSummary
from berth_console.waterfall import INDENT_MAX, Row, extent_us, ticks_us, trace_tree
from berth_console.web.own_metrics import own_families
from berth_console.web.read_models import ReadModels
from berth_console.web.search_form import SearchForm, form_from

RECENT_TRACES = 10
ROWS_MAX = 1_000
"""A page shows so many spans; the JSON of the same trace has all."""

PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Where a span lies on the page's time axis, in percent of its width."""

    left: str
    width: str


class Pages:
    def __init__(self, *, templates: Jinja2Templates, receiver: Receiver, models: ReadModels) -> None:
        self._templates = templates
        self._receiver = receiver
        self._models = models

    def routes(self) -> list[Route]:
        return [
            Route("/", self.overview),
            Route("/traces", self.traces),
            Route("/traces/{trace_id}", self.trace),
            Route("/api/traces", self.api_traces),
            Route("/api/traces/{trace_id}", self.api_trace),
            Route("/metrics", self.metrics),
            Route("/healthz", self.healthz),
            Route("/livez", self.healthz),
            Route("/readyz", self.readyz),
        ]

    async def overview(self, request: Request) -> Response:
        recent = self._store.search(SearchForm(limit=str(RECENT_TRACES)).search())
        return self._page(
            request,
            "overview.html",
            {
                "overview": self._models.overview(),
                "not_ready": self._models.why_not_ready(),
                "recent": recent,
                **self._holding(),
            },
        )

    async def traces(self, request: Request) -> Response:
        form = form_from(request.query_params)
        problem, found, older = self._found(form)
        services = self._store.services()
        return self._page(
            request,
            "traces.html",
            {
                "form": form,
                "problem": problem,
                "found": found,
                "older": older,
                "services": services,
                **self._holding(),
            },
            status=400 if problem else 200,
        )

    async def trace(self, request: Request) -> Response:
        trace_id = request.path_params["trace_id"].lower()
        spans = self._store.trace(trace_id)
        if not spans:
            wanted = request.path_params["trace_id"]
            return self._page(request, "no_trace.html", {"trace_id": wanted, **self._holding()}, status=404)
        rows = trace_tree(spans)
        extent = max(1, extent_us(spans))
        shown = rows[:ROWS_MAX]
        return self._page(
            request,
            "trace.html",
            {
                "trace_id": trace_id,
                "title": rows[0].span.name,
                "start_us": min(span.start_us for span in spans),
                "extent": extent,
                "rows": [(row, min(row.depth, INDENT_MAX), _bar(row, extent)) for row in shown],
                "hidden": len(rows) - len(shown),
                "ticks": [(tick, _percent(tick, extent)) for tick in ticks_us(extent)],
                "services": _busy_services(spans),
                "errors": sum(span.failed for span in spans),
                "requests": self._related(trace_id),
            },
        )

    async def api_traces(self, request: Request) -> Response:
        form = form_from(request.query_params)
        problem, found, older = self._found(form)
        if problem is not None:
            return _json_error(400, "invalid", problem, "see /traces for the fields of a search")
        body = {"version": 1, "traces": [one.as_mapping() for one in found], "next": older and f"/api{older}"}
        return _json(body)

    async def api_trace(self, request: Request) -> Response:
        spans = self._store.trace(request.path_params["trace_id"].lower())
        if not spans:
            return _json_error(
                404, "not_found", "this console holds no such trace", "GET /api/traces lists those that it holds"
            )
        return _json({"version": 1, "trace_id": spans[0].trace_id, "spans": [span.as_full_mapping() for span in spans]})

    async def metrics(self, request: Request) -> Response:
        del request
        own = list(own_families(self._receiver, self._models))
        taken = {family.name for family, _ in own}  # a name stands once on the page: what the console says itself
        received = self._receiver.metrics.families(self._receiver.monotonic_ms())
        families = [*own, *((family, samples) for family, samples in received if family.name not in taken)]
        return Response(prometheus_text(families), headers={"content-type": PROMETHEUS_TYPE})

    async def healthz(self, request: Request) -> Response:
        """The process answers: nothing more is promised."""
        del request
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """The read models are as new as the ledger was a moment ago."""
        del request
        why = self._models.why_not_ready()
        if why is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not_ready", "why": why}, 503)

    async def not_found(self, request: Request, error: Exception) -> Response:
        """Any other address: say what there is."""
        del error
        if request.url.path.startswith("/api/"):
            return _json_error(404, "not_found", "there is nothing here", "try /api/traces")
        return self._page(request, "not_found.html", {"path": request.url.path}, status=404)

    @property
    def _store(self) -> TraceStore:
        return self._receiver.traces

    def _holding(self) -> dict[str, Any]:
        return {"store": self._store, "exports": self._receiver.counters}

    def _found(self, form: SearchForm) -> tuple[str | None, list[TraceSummary], str | None]:
        """A problem with the form, or what was found and where the older ones are."""
        try:
            wanted = form.search()
        except InvalidCommand as error:
            return str(error), [], None
        found = self._store.search(wanted)
        older = form.permalink(before=str(found[-1].start_us)) if len(found) == wanted.limit else None
        return None, found, older

    def _related(self, trace_id: str) -> list[tuple[str, list[str]]]:
        """The requests that this trace is about, each with the other traces about it (a later wake-up, say)."""
        summary = self._store.summary(trace_id)
        requests = summary.requests if summary is not None else ()
        return [
            (request, [other for other in self._store.of_request(request) if other != trace_id][-10:])
            for request in requests[:20]
        ]

    def _page(self, request: Request, name: str, context: dict[str, Any], *, status: int = 200) -> Response:
        return self._templates.TemplateResponse(request, name, context, status_code=status)


def _busy_services(spans: Sequence[Span]) -> list[tuple[str, int]]:
    """The services of a trace in the order in which they appear, with their numbers of spans."""
    counted: dict[str, int] = {}
    for span in spans:
        counted[span.service] = counted.get(span.service, 0) + 1
    return list(counted.items())


def _bar(row: Row, extent: int) -> Bar:
    left = min(99.7, 100 * row.offset_us / extent)
    width = min(100 - left, max(0.3, 100 * row.span.duration_us / extent))
    return Bar(left=f"{left:.3f}%", width=f"{width:.3f}%")


def _percent(offset_us: int, extent: int) -> str:
    return f"{100 * offset_us / extent:.3f}%"


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")


def _json_error(status: int, code: str, message: str, hint: str) -> Response:
    return _json({"error": {"code": code, "message": message, "hint": hint}}, status)

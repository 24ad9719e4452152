"""The OTLP/HTTP endpoints: what every service exports arrives here.

Nothing a sender does raises: a body that cannot be read is answered with 400, one that is too large with 413,
one that does not arrive in time with 408. Only OTLP's two content types are taken, so a web page that a
user visits cannot post spans (a browser would have to ask first, and is never allowed).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from berth_console.forward import FORWARDED_HEADER, Export, Forwarder
from berth_console.metrics import MetricStore
from berth_console.otlp import (
    JSON,
    PROTOBUF,
    MalformedBody,
    OversizeBody,
    encoded_answer,
    encoded_error,
    parse_into,
    unpacked,
)
from berth_console.traces import TraceStore

BODY_BYTES_MAX = 4 * 1024 * 1024
BODY_TIMEOUT_SECONDS = 10.0


@dataclass(slots=True, kw_only=True)
class ExportCounters:
    """Export requests since the process started. `refused`: answered with 400 or above."""

    taken: int = 0
    refused: int = 0
    log_records: int = 0


class Receiver:
    """Hands what arrives to the stores, and its bytes to the forwarder where there is one."""

    def __init__(
        self,
        *,
        traces: TraceStore,
        metrics: MetricStore,
        monotonic_ms: Callable[[], int],
        forwarder: Forwarder | None = None,
        body_bytes_max: int = BODY_BYTES_MAX,
    ) -> None:
        self.traces = traces
        self.metrics = metrics
        self.counters = ExportCounters()
        self.forwarder = forwarder
        self.monotonic_ms = monotonic_ms
        self._body_bytes_max = body_bytes_max
        self._takers: dict[str, Callable[[bytes, str], Message]] = {
            "traces": self._take_traces,
            "metrics": self._take_metrics,
            "logs": self._take_logs,
        }

    def routes(self) -> list[Route]:
        return [Route("/v1/{signal:str}", self.export, methods=["POST"])]

    async def export(self, request: Request) -> Response:
        """POST /v1/traces, /v1/metrics or /v1/logs."""
        taker = self._takers.get(request.path_params["signal"])
        if taker is None:
            return PlainTextResponse("not found; OTLP is taken at /v1/traces, /v1/metrics and /v1/logs\n", 404)
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type not in (PROTOBUF, JSON):
            self.counters.refused += 1
            return PlainTextResponse(f"expected content-type {PROTOBUF} or {JSON}, found {content_type!r}\n", 415)
        try:
            body = await self._body(request)
            encoding = request.headers.get("content-encoding", "").strip().lower()
            answer = taker(unpacked(body, encoding, bytes_max=self._body_bytes_max), content_type)
        except OversizeBody as error:
            return self._refused(413, str(error), content_type)
        except MalformedBody as error:
            return self._refused(400, str(error), content_type)
        except TimeoutError:
            return self._refused(408, f"the body did not arrive within {BODY_TIMEOUT_SECONDS:g} s", content_type)
        except ClientDisconnect:
            return self._refused(400, "the sender went away", content_type)
        self.counters.taken += 1
        self._forward(request, body, content_type, encoding)
        return Response(encoded_answer(answer, content_type), media_type=content_type)

    async def _body(self, request: Request) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > self._body_bytes_max:
                    raise OversizeBody(
                        f"the body has more than {self._body_bytes_max} bytes", hint="export smaller batches"
                    )
                chunks.append(chunk)
        return b"".join(chunks)

    def _refused(self, status: int, text: str, content_type: str) -> Response:
        self.counters.refused += 1
        return Response(encoded_error(text, content_type), status, media_type=content_type)

    def _forward(self, request: Request, body: bytes, content_type: str, encoding: str) -> None:
        if self.forwarder is not None and FORWARDED_HEADER not in request.headers:
            signal = request.path_params["signal"]
            self.forwarder.offer(Export(signal=signal, body=body, content_type=content_type, content_encoding=encoding))

    def _take_traces(self, body: bytes, content_type: str) -> Message:
        exported = ExportTraceServiceRequest()
        parse_into(exported, body, content_type=content_type)
        received = self.traces.receive(exported)
        if not received.rejected:
            return ExportTraceServiceResponse()
        rejection = ExportTracePartialSuccess(rejected_spans=received.rejected, error_message=received.why)
        return ExportTraceServiceResponse(partial_success=rejection)

    def _take_metrics(self, body: bytes, content_type: str) -> Message:
        exported = ExportMetricsServiceRequest()
        parse_into(exported, body, content_type=content_type)
        dropped = self.metrics.receive(exported, self.monotonic_ms())
        if not dropped:
            return ExportMetricsServiceResponse()
        why = "kept are gauges, and cumulative sums and histograms, up to a bound"
        rejection = ExportMetricsPartialSuccess(rejected_data_points=dropped, error_message=why)
        return ExportMetricsServiceResponse(partial_success=rejection)

    def _take_logs(self, body: bytes, content_type: str) -> Message:
        exported = ExportLogsServiceRequest()
        parse_into(exported, body, content_type=content_type)
        self.counters.log_records += sum(
            len(scope.log_records) for resource in exported.resource_logs for scope in resource.scope_logs
        )
        return ExportLogsServiceResponse()

"""What each question is answered from: rows of the state, recent events, the trace store, or a Cell.

Pure but for the what-if functions, which are handed in. A question asked in a namespace is answered with what
belongs to that namespace (nodes belong to all); only `_` sees the whole cluster.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from berth.ids import Namespace, RequestId
from berth.messages.commands import Query, QueryAnswer, Refusal, RefusalCode
from berth.model.answers import trace_id_of
from berth.model.ledger import State
from berth.model.read_models import Row, page
from berth.subjects import CLUSTER
from berth_console import views
from berth_console.recent_events import RecentEvents
from berth_console.spans import Span
from berth_console.traces import TraceStore
from berth_console.views import Rows, Selection

WhatIf = Callable[[State, str, Query, int], Row]
"""Answers what is asked in a namespace on (a copy of) the state, at a time in milliseconds UTC.

Raises:
    InvalidCommand: a document that cannot be answered. NotFound: an id that nobody knows.
"""

_TABLES: dict[str, Callable[[State, Selection], Rows]] = {
    "requests": views.requests,
    "allocations": views.allocations,
    "nodes": views.nodes,
    "quotas": views.quotas,
    "quota_explain": views.quota_explanations,
    "reservations": views.reservations,
    "usage": views.usage,
}

_TRACE_ID = re.compile(r"[0-9a-fA-F]{32}")
_PLACE = re.compile(r"[0-9]{1,9}")
_EVENT_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What answers are made from. `what_if`: plan, explain, by the name under which they are asked for."""

    state: State
    events: RecentEvents
    traces: TraceStore
    what_if: Mapping[str, WhatIf]

    @property
    def names(self) -> list[str]:
        """Everything that can be asked for."""
        return sorted({*_TABLES, *self.what_if, "events", "trace"})


def answer(sources: Sources, what: str, namespace: str, query: Query, now_ms: int) -> QueryAnswer:
    """The answer but for its sequence and term. A question that cannot be answered gets a refusal.

    Raises:
        InvalidCommand, NotFound: a what-if question that has no answer.
    """
    if (table := _TABLES.get(what)) is not None:
        wanted = Selection(
            namespace=namespace,
            ids=frozenset(query.ids),
            everything=query.everything,
            decisions=query.decisions,
            after=query.after,
        )
        return _paged(table(sources.state, wanted), query)
    if what == "events":
        return _events(sources, namespace, query)
    if what == "trace":
        return _trace(sources, namespace, query)
    if (what_if := sources.what_if.get(what)) is not None:
        return QueryAnswer(items=(what_if(sources.state, namespace, query, now_ms),))
    return _refused(RefusalCode.NOT_FOUND, f"there is no {what}; there are {', '.join(sources.names)}")


def _events(sources: Sources, namespace: str, query: Query) -> QueryAnswer:
    """Events from a sequence on, in ledger order. What has left the index has to be read from the ledger."""
    cursor = _EVENT_CURSOR.fullmatch(query.after) if query.after is not None else None
    if query.after is not None and cursor is None:
        return _refused(RefusalCode.INVALID, f"after: expected a cursor such as 12.0, found {query.after[:40]!r}")
    after = (int(cursor[1]), int(cursor[2])) if cursor else (query.from_sequence, -1)
    oldest = sources.events.from_sequence
    if oldest > max(1, after[0]):
        return _refused(
            RefusalCode.NOT_FOUND,
            f"events before {oldest} are not held here any more; start there, or read the ledger with an admin key",
        )
    rows = sources.events.rows(after)
    if namespace != CLUSTER:
        rows = ((cursor, row) for cursor, row in rows if row.get("namespace") == namespace)
    return _paged(rows, query)


def _trace(sources: Sources, namespace: str, query: Query) -> QueryAnswer:
    """The spans of the traces that the ids name: trace ids, or requests (then the submission's trace comes first).

    None may be held: spans arrive a moment after the work that they describe, and old ones leave.
    """
    traces = dict.fromkeys(trace for id in query.ids for trace in _traces_of(sources, namespace, id))
    spans = [span for trace in traces for span in sources.traces.trace(trace)]
    if query.after is not None and not _PLACE.fullmatch(query.after):
        return _refused(RefusalCode.INVALID, f"after: expected a cursor such as 499, found {query.after[:40]!r}")
    return _paged(_span_rows(spans, -1 if query.after is None else int(query.after)), query)


def _traces_of(sources: Sources, namespace: str, id: str) -> list[str]:
    if _TRACE_ID.fullmatch(id):
        summary = sources.traces.summary(id.lower())
        return [id.lower()] if summary is not None and summary.is_about(namespace) else []
    owner, _, request = id.rpartition("/")
    if namespace not in (CLUSTER, owner or namespace):
        return []
    owner = owner or ("" if namespace == CLUSTER else namespace)
    known = sources.state.queue.requests.get((Namespace(owner), RequestId(request)))
    submitted = trace_id_of(known.traceparent) if known is not None else None
    about = sources.traces.of_request(f"{owner}/{request}" if owner else request)
    return [submitted, *about] if submitted is not None else about


def _span_rows(spans: list[Span], after: int) -> Rows:
    for place, span in enumerate(spans):
        if place > after:
            yield str(place), span.as_mapping()


def _paged(rows: Rows, query: Query) -> QueryAnswer:
    found = page(rows, limit=query.limit)
    return QueryAnswer(items=found.rows, next=found.next)


def _refused(code: RefusalCode, detail: str) -> QueryAnswer:
    return QueryAnswer(refusal=Refusal(code=code, detail=detail))

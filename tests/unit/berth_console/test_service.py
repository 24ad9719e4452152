"""The console service: questions in, pages out, and waiting for the state that a question names."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from berth.effects import Effect, Message, Reply
from berth.errors import InvalidCommand, NotFound, Problem
from berth.ids import Sequence
from berth.messages.commands import Query, QueryAnswer
from berth.model.ledger import State
from berth.model.read_models import PAGE_BYTES_MAX, Row, page
from berth.subjects import COMMITTED, QUERY
from berth_console.recent_events import RecentEvents
from berth_console.service import WAIT_MS, WAITING_MAX, ConsoleService
from berth_console.spans import span_from
from berth_console.traces import TraceStore
from berth_console.waterfall import text_waterfall
from tests.builders import T0, TEAM_A, TEAM_B, a_node, a_record, a_request, placed
from tests.unit.berth_console.spans_sent import a_span, exported, trace_id


def a_plan(state: State, namespace: str, query: Query, now_ms: int) -> Row:
    """Stands for what a Cell answers."""
    if query.document is None:
        raise InvalidCommand([Problem(path="document", expected="expected requests")])
    if query.ids:
        raise NotFound("no such request")
    return {"sequence": state.sequence, "namespace": namespace, "at": now_ms, "asked": query.document}


class Console:
    """A service that was fed, and asked as a client asks."""

    def __init__(self, events: RecentEvents | None = None) -> None:
        self.traces = TraceStore()
        self.service = ConsoleService(traces=self.traces, what_if={"plan": a_plan}, events=events)
        self.service.replay(a_record(1, a_node()))
        self.service.started(T0)

    def asked(self, what: str, *, namespace: str = "_", now_ms: int = T0, **query: Any) -> list[Effect]:
        tokens = {"namespace": namespace, "what": what}
        message = Message(subject=QUERY, body=Query(**query), tokens=tokens, reply_to="inbox")
        return self.service.handle(message, now_ms)

    def answer(self, what: str, **query: Any) -> QueryAnswer:
        [effect] = self.asked(what, **query)
        return body_of(effect)

    def all_rows(self, what: str, **query: Any) -> list[Mapping[str, Any]]:
        """As a client reads them, page after page."""
        rows: list[Mapping[str, Any]] = []
        after: str | None = None
        while True:
            answer = self.answer(what, after=after, **query)
            assert answer.refusal is None
            rows += answer.items
            if answer.next is None:
                return rows
            after = answer.next


def body_of(effect: Effect) -> QueryAnswer:
    assert isinstance(effect, Reply)
    assert isinstance(effect.body, QueryAnswer)
    return effect.body


def refused(answer: QueryAnswer) -> tuple[str, str]:
    assert answer.refusal is not None
    return answer.refusal.code.value, answer.refusal.detail


@pytest.fixture
def console() -> Console:
    return Console()


def test_an_answer_says_how_new_it_is(console: Console) -> None:
    answer = console.answer("nodes")

    assert [row["id"] for row in answer.items] == ["n1"]
    assert (answer.sequence, answer.term, answer.next, answer.refusal) == (1, 1, None, None)


def test_a_question_waits_for_the_sequence_that_it_names(console: Console) -> None:
    assert console.asked("requests", min_sequence=2) == []
    assert console.service.deadline() == T0 + WAIT_MS

    [effect] = console.service.fold(a_record(2, placed(a_request("web"), "n1")), T0 + 10)

    assert [row["id"] for row in body_of(effect).items] == ["web"]
    assert body_of(effect).sequence == 2
    assert console.service.deadline() is None


def test_a_question_whose_sequence_does_not_come_is_refused_at_its_deadline(console: Console) -> None:
    console.asked("requests", min_sequence=2)

    assert console.service.settle(T0 + WAIT_MS - 1) == []
    [effect] = console.service.settle(T0 + WAIT_MS)

    code, detail = refused(body_of(effect))
    assert code == "unknown"
    assert "sequence 2 was asked for" in detail
    assert console.service.settle(T0 + WAIT_MS) == []


def test_no_more_questions_wait_than_the_bound(console: Console) -> None:
    for _ in range(WAITING_MAX):
        assert console.asked("requests", min_sequence=9) == []

    [effect] = console.asked("requests", min_sequence=9)

    assert refused(body_of(effect))[0] == "overloaded"
    assert len(console.service.settle(T0 + WAIT_MS)) == WAITING_MAX


def test_what_the_raft_nodes_answer_is_left_to_them(console: Console) -> None:
    assert console.asked("raft") == []


def test_a_message_without_a_reply_or_of_another_kind_is_left_alone(console: Console) -> None:
    tokens = {"namespace": "_", "what": "nodes"}

    assert console.service.handle(Message(subject=QUERY, body=Query(), tokens=tokens), T0) == []
    assert console.service.handle(Message(subject=COMMITTED, body=None, tokens={}, reply_to="inbox"), T0) == []


def test_an_unknown_question_is_told_what_there_is(console: Console) -> None:
    code, detail = refused(console.answer("weather"))

    assert code == "not_found"
    listed = "allocations, events, nodes, plan, quota_explain, quotas, requests, reservations, trace, usage"
    assert detail == f"there is no weather; there are {listed}"


def test_pages_lead_through_all_rows_each_once(console: Console) -> None:
    requests = [a_request(f"r{number}") for number in range(7)]
    console.service.fold(a_record(2, *(placed(request, "n1") for request in requests)), T0)

    assert len(console.answer("requests", limit=3).items) == 3
    assert [row["id"] for row in console.all_rows("requests", limit=3)] == [request.id for request in requests]


def test_a_page_is_bounded_in_bytes_and_holds_at_least_one_row() -> None:
    large = {"text": "x" * (PAGE_BYTES_MAX // 2)}
    larger = {"text": "x" * (PAGE_BYTES_MAX * 2)}

    first = page(iter([("1", large), ("2", large), ("3", large)]), limit=500)
    alone = page(iter([("1", larger), ("2", larger)]), limit=500)

    assert (len(first.rows), first.next) == (1, "1")
    assert (len(alone.rows), alone.next) == (1, "1")


def test_events_read_as_a_story_with_whom_they_concern(console: Console) -> None:
    console.service.fold(a_record(2, placed(a_request("web"), "n1"), at=T0 + 5), T0)

    rows = console.all_rows("events", limit=1)

    assert [(row["sequence"], row["index"], row["type"]) for row in rows] == [
        (1, 0, "NodeRegistered"),
        (2, 0, "RequestSubmitted"),
        (2, 1, "RequestPlaced"),
    ]
    assert rows[2] == {
        "sequence": 2,
        "index": 1,
        "tx": 0,
        "term": 1,
        "at": T0 + 5,
        "type": "RequestPlaced",
        "version": 1,
        "namespace": "team-a",
        "request": "web",
        "attempt": 1,
        "data": {"allocations": [{"id": "web.0", "node": "n1", "charge": {"cpu_millicores": 1_000, "instances": 1}}]},
    }


def test_events_begin_where_they_are_asked_from_and_stay_in_their_namespace(console: Console) -> None:
    console.service.fold(a_record(2, placed(a_request("a"), "n1")), T0)
    console.service.fold(a_record(3, placed(a_request("b", namespace=TEAM_B), "n1")), T0)

    assert [row["sequence"] for row in console.all_rows("events", from_sequence=3)] == [3, 3]
    assert {row["request"] for row in console.all_rows("events", namespace=TEAM_B)} == {"b"}


def test_events_that_have_left_the_index_are_said_to_be_gone() -> None:
    console = Console(events=RecentEvents(events_max=8))
    for sequence in range(2, 20):
        console.service.fold(a_record(sequence, a_node(f"n{sequence}")), T0)

    code, detail = refused(console.answer("events"))

    assert code == "not_found"
    [oldest] = re.findall(r"events before (\d+) are not held here", detail)
    assert int(oldest) > 10
    assert len(console.all_rows("events", from_sequence=int(oldest))) == 20 - int(oldest)


@pytest.mark.parametrize("what", ["events", "trace"])
def test_a_cursor_that_nobody_gave_out_is_refused(console: Console, what: str) -> None:
    assert refused(console.answer(what, after="x'; --"))[0] == "invalid"


def test_the_trace_of_a_request_is_that_of_its_submission_and_then_of_its_wake_ups(console: Console) -> None:
    console.traces.receive(exported([a_span(1, trace=2, after_us=9, links=[(1, 1)], berth__request="team-a/web")]))
    console.traces.receive(exported([a_span(1, trace=1, berth__request="team-a/web"), a_span(2, trace=1, parent=1)]))

    rows = console.all_rows("trace", namespace=TEAM_A, ids=("web",), limit=1)

    assert [(row["trace_id"], row["parent"]) for row in rows] == [
        (trace_id(1), None),
        (trace_id(1), rows[0]["span_id"]),
        (trace_id(2), None),
    ]
    assert len(text_waterfall([span_from(row) for row in rows[:2]])) == 2
    assert console.all_rows("trace", ids=("team-a/web",)) == rows
    assert console.all_rows("trace", ids=("web",)) == rows


def test_a_trace_is_found_by_its_id_and_by_what_the_ledger_says(console: Console) -> None:
    """A sampled submission whose spans do not name it is still found: its event carries the context."""
    console.traces.receive(exported([a_span(1, trace=1)]))
    request = a_request("web")
    opened, put = placed(request, "n1")
    context = f"00-{trace_id(1)}-b7ad6b7169203331-01"
    carried = type(opened)(opened.data, opened.namespace, opened.request, opened.attempt, context)
    console.service.fold(a_record(2, (carried, put)), T0)

    assert len(console.all_rows("trace", namespace=TEAM_A, ids=("web",))) == 1
    assert len(console.all_rows("trace", ids=(trace_id(1).upper(),))) == 1


def test_a_trace_that_is_not_here_yet_is_an_empty_list(console: Console) -> None:
    assert console.all_rows("trace", ids=("team-a/web", trace_id(5), "web")) == []


def test_a_namespace_does_not_see_the_traces_of_another(console: Console) -> None:
    console.traces.receive(exported([a_span(1, trace=1, berth__request="team-a/web")]))

    for id in ("team-a/web", "web", trace_id(1)):
        assert console.all_rows("trace", namespace=TEAM_B, ids=(id,)) == []


def test_what_if_questions_are_answered_by_what_was_handed_in(console: Console) -> None:
    answer = console.answer("plan", namespace=TEAM_A, document={"requests": []}, now_ms=T0 + 3)

    assert answer.items == ({"sequence": 1, "namespace": TEAM_A, "at": T0 + 3, "asked": {"requests": []}},)


def test_a_what_if_question_that_has_no_answer_is_refused_with_the_reason(console: Console) -> None:
    assert refused(console.answer("plan")) == ("invalid", "document: expected requests")
    assert refused(console.answer("plan", document={}, ids=("x",))) == ("not_found", "no such request")


def test_a_service_without_a_record_answers_with_nothing() -> None:
    service = ConsoleService(traces=TraceStore(), what_if={})
    message = Message(subject=QUERY, body=Query(), tokens={"namespace": "_", "what": "nodes"}, reply_to="inbox")

    [effect] = service.handle(message, T0)

    assert body_of(effect) == QueryAnswer(sequence=Sequence(0))

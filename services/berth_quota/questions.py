"""What quota is asked: `requests`, by clients that wait for an outcome. Times are milliseconds UTC."""

from collections import deque
from dataclasses import dataclass

from berth.effects import Effect, Message, Reply
from berth.ids import Namespace, Sequence
from berth.messages.commands import Query, QueryAnswer, Refusal, RefusalCode
from berth.model.ledger import State
from berth.model.ordering import NOBODY_WAITS, Line
from berth.model.read_models import page, request_keys, request_rows
from berth.subjects import CLUSTER
from berth_quota.bounds import Bounds

REQUESTS = "requests"


@dataclass(frozen=True, slots=True)
class _Asked:
    message: Message
    query: Query
    give_up_at: int


class Questions:
    """Answers from the state; what asks for a newer state than there is waits for it, a little."""

    def __init__(self, state: State, bounds: Bounds) -> None:
        self._state = state
        self._bounds = bounds
        self._waiting: deque[_Asked] = deque()
        self._line = NOBODY_WAITS
        self._line_at = Sequence(0)

    def asked(self, message: Message, now_ms: int) -> list[Effect]:
        query = message.body
        if not isinstance(query, Query) or message.tokens.get("what") != REQUESTS or message.reply_to is None:
            return []
        if query.min_sequence <= self._state.sequence:
            return [self._answer(message, query)]
        if len(self._waiting) >= self._bounds.waiting_max:
            return [_refuse(message, RefusalCode.OVERLOADED, f"{len(self._waiting)} questions wait; ask again later")]
        self._waiting.append(_Asked(message, query, now_ms + self._bounds.proposal_ms))
        return []

    def answered(self, now_ms: int) -> list[Effect]:
        """Those that can be answered now, or waited long enough."""
        effects: list[Effect] = []
        for _ in range(len(self._waiting)):
            asked = self._waiting.popleft()
            if asked.query.min_sequence <= self._state.sequence:
                effects.append(self._answer(asked.message, asked.query))
            elif asked.give_up_at <= now_ms:
                detail = f"this service is at {self._state.sequence}, {asked.query.min_sequence} was asked for"
                effects.append(_refuse(asked.message, RefusalCode.UNKNOWN, detail))
            else:
                self._waiting.append(asked)
        return effects

    def deadline(self) -> int | None:
        return self._waiting[0].give_up_at if self._waiting else None

    def _answer(self, message: Message, query: Query) -> Reply:
        state = self._state
        owner = message.tokens["namespace"]
        namespace = None if owner == CLUSTER else Namespace(owner)
        keys = request_keys(state, namespace, query.ids, after=query.after)
        line = self._as_it_stands() if any(key in state.queue.waiting for key in keys) else NOBODY_WAITS
        rows = request_rows(state, keys, line, owner=namespace, with_decisions=query.decisions)
        found = page(rows, limit=query.limit)
        term = state.tip.term if state.tip else 0
        answer = QueryAnswer.model_validate(
            {"items": found.rows, "sequence": state.sequence, "term": term, "next": found.next}
        )
        assert message.reply_to is not None, "only what wants an answer is answered"
        return Reply(to=message.reply_to, body=answer, traceparent=message.traceparent)

    def _as_it_stands(self) -> Line:
        """Computed once for each state that is asked about."""
        if self._line_at != self._state.sequence:
            self._line, self._line_at = Line(self._state), self._state.sequence
        return self._line


def _refuse(message: Message, code: RefusalCode, detail: str) -> Reply:
    assert message.reply_to is not None, "only what wants an answer is answered"
    return Reply(to=message.reply_to, body=QueryAnswer(refusal=Refusal(code=code, detail=detail)))

"""The console service: folds every record, decides nothing, and answers questions about what it folded.

It takes part in no step of the walk. `berth.v1.query.<namespace>.<what>`: what can be asked for stands in
`queries`. What is asked about the raft nodes (`raft`) they answer themselves, so that is left alone here.
"""

from dataclasses import dataclass

from berth.effects import Effect, Message, Reply
from berth.errors import InvalidCommand, NotFound
from berth.ids import Sequence, Term
from berth.messages.commands import Query, QueryAnswer, Refusal, RefusalCode
from berth.messages.envelope import Record
from berth.model.ledger import State
from berth.subjects import CONSOLE, QUERY, Subject
from berth_console.queries import Sources, WhatIf, answer
from berth_console.recent_events import RecentEvents
from berth_console.traces import TraceStore

WAIT_MS = 2_000
"""How long a question waits for the state that it asks for (`min_sequence`)."""

WAITING_MAX = 1_000
ANSWERED_BY_RAFT = "raft"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question and where its answer goes. `until`: when it is given up, milliseconds UTC."""

    query: Query
    namespace: str
    what: str
    reply_to: str
    traceparent: str | None
    until: int


class ConsoleService:
    """`what_if`: plan and explain, which run a Cell; handed in, so that this file needs no other service."""

    role = CONSOLE
    subscriptions: tuple[Subject, ...] = (QUERY,)

    def __init__(self, *, traces: TraceStore, what_if: dict[str, WhatIf], events: RecentEvents | None = None) -> None:
        self.state = State()
        self.traces = traces
        self._events = events or RecentEvents()
        self._sources = Sources(state=self.state, events=self._events, traces=traces, what_if=what_if)
        self._waiting: list[Asked] = []

    @property
    def sequence(self) -> Sequence:
        return self.state.sequence

    def replay(self, record: Record) -> None:
        self.state.fold(record)
        self._events.add(record)

    def started(self, now_ms: int) -> list[Effect]:
        del now_ms
        return []

    def fold(self, record: Record, now_ms: int) -> list[Effect]:
        self.replay(record)
        if not self._waiting:
            return []
        ready = [asked for asked in self._waiting if asked.query.min_sequence <= self.sequence]
        self._waiting = [asked for asked in self._waiting if asked.query.min_sequence > self.sequence]
        return [self._reply(asked, now_ms) for asked in ready]

    def handle(self, message: Message, now_ms: int) -> list[Effect]:
        what = message.tokens.get("what", "")
        if not isinstance(message.body, Query) or message.reply_to is None or what == ANSWERED_BY_RAFT:
            return []
        asked = Asked(
            query=message.body,
            namespace=message.tokens["namespace"],
            what=what,
            reply_to=message.reply_to,
            traceparent=message.traceparent,
            until=now_ms + WAIT_MS,
        )
        if asked.query.min_sequence <= self.sequence:
            return [self._reply(asked, now_ms)]
        if len(self._waiting) >= WAITING_MAX:
            return [self._refusal(asked, RefusalCode.OVERLOADED, f"{WAITING_MAX} questions wait already")]
        self._waiting.append(asked)
        return []

    def settle(self, now_ms: int) -> list[Effect]:
        late = [asked for asked in self._waiting if asked.until <= now_ms]
        self._waiting = [asked for asked in self._waiting if asked.until > now_ms]
        return [
            self._refusal(
                asked,
                RefusalCode.UNKNOWN,
                f"sequence {asked.query.min_sequence} was asked for; after {WAIT_MS} ms {self.sequence} is folded",
            )
            for asked in late
        ]

    def deadline(self) -> int | None:
        return min((asked.until for asked in self._waiting), default=None)

    def _reply(self, asked: Asked, now_ms: int) -> Effect:
        try:
            found = answer(self._sources, asked.what, asked.namespace, asked.query, now_ms)
        except InvalidCommand as error:
            return self._refusal(asked, RefusalCode.INVALID, str(error))
        except NotFound as error:
            return self._refusal(asked, RefusalCode.NOT_FOUND, str(error))
        return self._sent(asked, found)

    def _refusal(self, asked: Asked, code: RefusalCode, detail: str) -> Effect:
        return self._sent(asked, QueryAnswer(refusal=Refusal(code=code, detail=detail)))

    def _sent(self, asked: Asked, found: QueryAnswer) -> Effect:
        term = self.state.tip.term if self.state.tip else Term(0)
        body = found.model_copy(update={"sequence": self.sequence, "term": term})
        return Reply(to=asked.reply_to, body=body, traceparent=asked.traceparent)

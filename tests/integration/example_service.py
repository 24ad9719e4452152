"""A service that answers and decides nothing, run as a process by `test_process`."""

import sys
from typing import ClassVar

from berth import subjects
from berth.effects import Effect, Identity, Message, Note, Reply
from berth.ids import Sequence
from berth.messages.commands import AdminAnswer
from berth.messages.envelope import Record
from berth.model.ledger import State
from berth.runtime import process
from berth.runtime.settings import ServiceSettings


class ExampleSettings(ServiceSettings):
    service: ClassVar[str] = "quota"


class Example:
    """Says who it is to every command."""

    role = subjects.QUOTA
    subscriptions = (subjects.ADMIN_QUOTA, subjects.REQUEST)

    def __init__(self, identity: Identity) -> None:
        self.state = State()
        self.sequence = Sequence(0)
        self._identity = identity

    def replay(self, record: Record) -> None:
        self.sequence = record.sequence

    def started(self, now_ms: int) -> list[Effect]:
        del now_ms
        return [Note(name="example_started", fields={"boot": self._identity.boot})]

    def fold(self, record: Record, now_ms: int) -> list[Effect]:
        del now_ms
        self.sequence = record.sequence
        return []

    def handle(self, message: Message, now_ms: int) -> list[Effect]:
        del now_ms
        if message.reply_to is None:
            return []
        body = AdminAnswer(detail=self._identity.token(1))
        return [Reply(to=message.reply_to, body=body, traceparent=message.traceparent)]

    def settle(self, now_ms: int) -> list[Effect]:
        del now_ms
        return []

    def deadline(self) -> int | None:
        return None


if __name__ == "__main__":
    sys.exit(process.main(ExampleSettings, lambda _, identity: Example(identity)))

"""Effects on their way out, and the one rule of I3: nothing leaves before the hard state that it depends on.

The rule is kept in its simplest form: while a `Persist` is under way, every message waits for it.
"""

from collections.abc import Iterable

from berth_raft.core.effects import Effect, HardState, Persist, Send
from berth_raft.core.messages import Message

HELD_MESSAGES_MAX = 64
"""More than anybody asks during one slow fsync. With a disk that hangs the oldest go: they are repeated anyway."""


class Outbox:
    """Collects effects until `drain`; holds messages back until their `Persist` is durable."""

    def __init__(self) -> None:
        self._ready: list[Effect] = []
        self._to_persist: list[Effect] = []
        self._held: list[tuple[int, Send]] = []
        self._issued = 0
        self._synced = 0
        self._failed = False

    @property
    def durable(self) -> bool:
        """Whether everything promised so far is on disk."""
        return self._synced == self._issued

    @property
    def failed(self) -> bool:
        """Whether the newest `Persist` is known to have failed; nothing is on its way to the disk then."""
        return self._failed

    @property
    def holds_messages(self) -> bool:
        return bool(self._held)

    def persist(self, hard_state: HardState) -> None:
        """The last of several in one step is written; it contains the others."""
        self._issued += 1
        self._failed = False
        self._to_persist = [Persist(token=self._issued, hard_state=hard_state)]

    def send(self, to: str, message: Message) -> None:
        send = Send(to=to, message=message)
        if self.durable:
            self._ready.append(send)
            return
        self._held.append((self._issued, send))
        del self._held[:-HELD_MESSAGES_MAX]

    def broadcast(self, names: Iterable[str], message: Message) -> None:
        for name in names:
            self.send(name, message)

    def synced(self, token: int) -> None:
        """`token` is durable, and with it every earlier one."""
        assert token <= self._issued, "nobody can sync what was never handed out"
        self._synced = max(self._synced, token)
        self._ready += [send for needs, send in self._held if needs <= self._synced]
        self._held = [(needs, send) for needs, send in self._held if needs > self._synced]

    def persist_failed(self, token: int) -> None:
        """A failure of an older token says nothing: the newer one, still under way, covers it."""
        if token == self._issued and not self.durable:
            self._failed = True
            self._held.clear()

    def drain(self) -> list[Effect]:
        effects = self._to_persist + self._ready
        self._to_persist, self._ready = [], []
        return effects

"""What schedulers work on: (request, attempt) with a deadline, counted as used until it is settled.

An entry goes when the ledger shows its attempt done, or a scheduler says that it will not happen; never
because a scheduler said `accepted` (DESIGN section 2, "In-flight table"). Times are milliseconds UTC.
"""

import heapq
from dataclasses import dataclass

from berth.ids import RequestKey, Sequence
from berth.messages.commands import Grant
from berth.model.entitlement import Assumed
from berth.resources import NOTHING, Resources
from berth_quota.admission import NO_GRANT
from berth_quota.lanes import Lane, Waiting


@dataclass(slots=True, eq=False, kw_only=True)
class Sent:
    """One entry. `seen`: the sequence that it was admitted on; `grant`: what may be evicted for it.

    `asked`: the id of the newest evaluation that it was sent in.
    `is_accepted`: a scheduler says that it is committed; the ledger has not shown it yet.
    """

    lane: Lane
    waiting: Waiting
    amount: Resources
    seen: Sequence
    grant: Grant = NO_GRANT
    asked: str = ""
    is_accepted: bool = False

    @property
    def key(self) -> RequestKey:
        return self.waiting.key


class InFlight:
    """The table. `assumed` is what its entries would use."""

    def __init__(self) -> None:
        self.assumed = Assumed()
        self._table: dict[RequestKey, Sent] = {}
        self._asked: dict[str, list[RequestKey]] = {}
        self._again: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._table)

    def find(self, key: RequestKey) -> Sent | None:
        return self._table.get(key)

    def add(self, sent: Sent) -> None:
        assert sent.key not in self._table, f"I8: {sent.key} is in flight twice"
        self._table[sent.key] = sent
        if sent.amount != NOTHING:
            self.assumed.add(sent.key[0], sent.amount)

    def drop(self, sent: Sent) -> None:
        del self._table[sent.key]
        if sent.amount != NOTHING:
            self.assumed.take(sent.key[0], sent.amount)

    def asked(self, evaluation: str, entries: list[Sent], *, again_at: int) -> None:
        """`entries` were sent in `evaluation`; what is unanswered at `again_at` is sent again."""
        self._asked[evaluation] = [sent.key for sent in entries]
        for sent in entries:
            sent.asked = evaluation
        heapq.heappush(self._again, (again_at, evaluation))

    def is_asked(self, evaluation: str) -> bool:
        """Whether answers to `evaluation` are expected."""
        return evaluation in self._asked

    def expire(self, evaluation: str, *, at: int) -> None:
        """Nobody was there for `evaluation`: its time is up at `at` already."""
        heapq.heappush(self._again, (at, evaluation))

    def overdue(self, now_ms: int) -> list[Sent]:
        """The entries whose newest evaluation ran out of time, in the order in which they were sent."""
        found: list[Sent] = []
        while self._again and self._again[0][0] <= now_ms:
            _, evaluation = heapq.heappop(self._again)
            for key in self._asked.pop(evaluation, ()):
                sent = self._table.get(key)
                if sent is not None and sent.asked == evaluation:
                    found.append(sent)
        return found

    def deadline(self) -> int | None:
        """When the next evaluation runs out of time."""
        while self._again and not self._is_open(self._again[0][1]):
            self._asked.pop(heapq.heappop(self._again)[1], None)
        return self._again[0][0] if self._again else None

    def _is_open(self, evaluation: str) -> bool:
        """Whether anything of it is unanswered; what was answered is dropped from it on the way."""
        keys = self._asked.get(evaluation)
        while keys:
            sent = self._table.get(keys[-1])
            if sent is not None and sent.asked == evaluation:
                return True
            keys.pop()
        return False

    def clear(self) -> None:
        """This process is not the active one any more."""
        for sent in list(self._table.values()):
            self.drop(sent)
        self._asked.clear()
        self._again.clear()

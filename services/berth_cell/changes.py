"""A change that might let a request be placed, and whether it would: tried on the state, which is left as it was.

What is answered has been placed: the services' own judgement said so on the changed state.
"""

from dataclasses import dataclass
from itertools import count
from typing import Any

from berth.ids import Attempt, RequestId
from berth.messages.commands import EvaluationItem
from berth.messages.decisions import NodeVerdict
from berth.messages.events import Transaction
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Request
from berth.model.cluster import Node
from berth.model.ledger import State
from berth.wire.codec import request_digest
from berth_quota.admission import Admit, judge
from berth_scheduler.board import Board
from berth_scheduler.placement import Placed, place
from berth_scheduler.preemption import preempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """`said`: what is to be done, as JSON. Tried as `request` on the state after `happening`, at `at`."""

    kind: str
    said: dict[str, Any]
    sentence: str
    request: Request
    at: int
    happening: tuple[Transaction, ...] = ()

    def as_mapping(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.said, "sentence": self.sentence}


@dataclass(slots=True, kw_only=True)
class Situation:
    """A request that waits, on a state in which changes may be tried."""

    state: State
    request: Request
    nodes: tuple[NodeVerdict, ...]
    at: int
    salt: str
    board: Board

    def tried(self, change: Change) -> Placed | None:
        """Where the request would go after the change; None: still nowhere."""
        state, request = self.state, self._under_another_name(change.request)
        with state.journal.trial():
            for transaction in change.happening:
                state.fold_transaction(transaction, at=change.at, sequence=state.sequence)
            ruling = judge(state, request, request.count, {})
            if not isinstance(ruling, Admit):
                return None
            found = None
            if not ruling.grant.quota_short:
                found = place(state, request, missing=request.count, at=change.at, seed=self.salt, board=self.board)
            if isinstance(found, Placed):
                return found
            digest, grant = request_digest(request), ruling.grant
            item = EvaluationItem(
                request=request, digest=digest, attempt=Attempt(1), missing=request.count, grant=grant
            )
            return preempt(self.board, item, missing=request.count, at=change.at, seed=self.salt)

    def _under_another_name(self, request: Request) -> Request:
        """The ledger knows the request with the body that it has: with another one it is another request."""
        known = self.state.queue.requests
        number = next(number for number in count() if (request.namespace, f"what-if-{number}") not in known)
        return request.model_copy(update={"id": RequestId(f"what-if-{number}")})

    def change(
        self,
        kind: str,
        said: dict[str, Any],
        sentence: str,
        *,
        request: Request | None = None,
        at: int | None = None,
        happening: tuple[Transaction, ...] = (),
    ) -> Change:
        """What is not said stays as it is."""
        return Change(
            kind=kind,
            said=said,
            sentence=sentence,
            request=request or self.request,
            at=self.at if at is None else at,
            happening=happening,
        )

    def asking(self, **fields: Any) -> Request:
        """The request with other fields, as documents have them."""
        return Request.model_validate({**self.request.document(), **fields}, strict=False)

    def kept_off_only_by(self, codes: frozenset[ReasonCode]) -> list[Node]:
        """The nodes all of whose reasons are among `codes`, those first that have the fewest."""
        found = [one for one in self.nodes if one.reasons and all(reason.code in codes for reason in one.reasons)]
        return [self.state.cluster.nodes[one.node] for one in sorted(found, key=lambda one: len(one.reasons))]

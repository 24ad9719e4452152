"""What clients are told of a request: the outcome that stands in the ledger, or a conflict, which stands nowhere."""

from berth import subjects
from berth.effects import Publish
from berth.ids import RequestKey
from berth.messages.decisions import Decision
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth.model.answers import decision_of, rejection
from berth.model.ledger import State


def outcome(state: State, key: RequestKey, traceparent: str | None) -> Publish:
    """The outcome of a request that the ledger names."""
    decision = decision_of(state, key)
    assert decision is not None, f"{key} is named by the ledger and unknown"
    return _published(decision, traceparent)


def conflict(request: Request, digest: str, traceparent: str | None) -> Publish:
    """R106: the id is taken by another body, or its `if_sequence` holds no more; nothing is changed by saying so."""
    if request.if_sequence is None:
        reason = Reason(code=ReasonCode.CONFLICT)
    else:
        reason = Reason(code=ReasonCode.CONFLICT, detail=f"or the state has moved on from {request.if_sequence}")
    return _published(rejection(request, digest, reason), traceparent)


def _published(decision: Decision, traceparent: str | None) -> Publish:
    tokens: dict[str, str] = {"namespace": decision.namespace, "request": decision.request}
    return Publish(subject=subjects.DECISION, body=decision, tokens=tokens, traceparent=traceparent)

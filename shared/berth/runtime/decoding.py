"""From a message's bytes to what services match on, by subject; and what is said to bytes that are nothing.

Everything that comes from outside is validated here, once. What a subject's tokens say about the sender
(namespace, node, verb) must agree with the body, because only the subject is enforced by the server.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError

from berth import subjects
from berth.effects import Publish
from berth.errors import InvalidCommand, Problem
from berth.ids import Namespace, RequestId, Term, is_name
from berth.messages.commands import (
    ADMIN_QUOTA,
    AdminAnswer,
    CancelReservation,
    Committed,
    CreateReservation,
    Evaluation,
    EvaluationAnswer,
    EvaluationOutcome,
    ExtendReservation,
    Heartbeat,
    NodeAllocationsWanted,
    NodeAnswer,
    NodeLeave,
    NodeRegister,
    NodeStopped,
    ProposalAnswer,
    Query,
    QueryAnswer,
    RaftCommand,
    Refusal,
    ReleaseBatch,
    RequestBatch,
    ReservationAnswer,
    ReservationCommand,
    ShrinkReservation,
    SkipReservation,
    Verdict,
)
from berth.messages.decisions import Decision
from berth.messages.events import RequestStatus
from berth.messages.node_commands import ADMIN_NODE
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import REQUEST_BYTES_MAX, REQUESTS_PER_BATCH
from berth.messages.validation import problems
from berth.subjects import Subject
from berth.wire import codec

Tokens = dict[str, str]
Decoder = Callable[[bytes, Tokens], Any]

_IDS: TypeAdapter[list[str]] = TypeAdapter(list[str])
OfNode = TypeVar("OfNode", NodeLeave, NodeStopped, NodeAllocationsWanted, Heartbeat)


def decode(subject: Subject, payload: bytes, tokens: Tokens) -> Any:
    """The body of a message on `subject`; None is the nudge that makes a quota service active.

    Raises:
        InvalidCommand: the bytes are no such message, or contradict their subject.
    """
    return _DECODERS[subject.name](payload, tokens)


def decode_answer(asked: Subject, payload: bytes) -> BaseModel:
    """An answer to what was asked on `asked`.

    Raises:
        InvalidCommand: the bytes are no such answer.
    """
    return codec.decode(_ANSWERS[asked.name], payload, root="answer")


def refused(subject: Subject, payload: bytes, refusal: Refusal) -> BaseModel | None:
    """The typed no to a command on `subject` that was not handled; None where nobody waits for one."""
    kind = _ANSWERS.get(subject.name)
    if kind is None:
        return None
    if kind is ProposalAnswer:
        return _refused_proposal(payload, refusal)
    if kind is EvaluationAnswer:
        return _refused_evaluation(payload, refusal)
    return kind.model_validate({"refusal": refusal})


def too_large(answer: BaseModel, refusal: Refusal) -> BaseModel | None:
    """The typed no that goes out instead of `answer`; None where its type has none."""
    return type(answer).model_validate({"refusal": refusal}) if "refusal" in type(answer).model_fields else None


def invalid_decisions(payload: bytes, namespace: str, found: InvalidCommand) -> list[Publish]:
    """A `rejected` decision, without an event, for each id that can be read in a refused list of requests.

    They answer in the subject's namespace, which is the sender's. Digest empty, sequence 0 (DESIGN section 4).
    """
    if not is_name(namespace):
        return []
    decisions: list[Publish] = []
    for index, request in _readable_ids(payload):
        own = [str(problem) for problem in found.problems if problem.path.startswith(f"requests[{index}]")]
        detail = "; ".join(own) or "another request of the same message is not valid: nothing of it was taken"
        decision = Decision(
            namespace=Namespace(namespace),
            request=request,
            status=RequestStatus.REJECTED,
            reasons=(Reason(code=ReasonCode.INVALID, detail=detail),),
        )
        tokens = {"namespace": namespace, "request": request}
        decisions.append(Publish(subject=subjects.DECISION, body=decision, tokens=tokens))
    return decisions


def _readable_ids(payload: bytes) -> list[tuple[int, RequestId]]:
    try:
        listed: Any = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return []
    if not isinstance(listed, list):
        return []
    ids: list[tuple[int, RequestId]] = []
    for index, document in enumerate(listed[:REQUESTS_PER_BATCH]):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] parsed JSON
        name: Any = document.get("id") if isinstance(document, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] parsed JSON
        if isinstance(name, str) and is_name(name):
            ids.append((index, RequestId(name)))
    return ids


# --- commands ---------------------------------------------------------------------------------------


def _request(payload: bytes, tokens: Tokens) -> RequestBatch | None:
    if tokens["namespace"] == subjects.CLUSTER:
        _expect(not payload, "requests", "the nudge has no body; requests go to their namespace")
        return None
    requests = codec.decode_requests(payload)
    _expect(0 < len(requests) <= REQUESTS_PER_BATCH, "requests", f"expected 1 to {REQUESTS_PER_BATCH} requests")
    wrong = [
        Problem(path=f"requests[{index}].namespace", expected=f"expected {tokens['namespace']}, as the subject says")
        for index, request in enumerate(requests)
        if request.namespace != tokens["namespace"]
    ]
    if wrong:
        raise InvalidCommand(wrong)
    _expect_small(payload)
    return RequestBatch(namespace=Namespace(tokens["namespace"]), requests=tuple(requests))


def _expect_small(payload: bytes) -> None:
    if len(payload) <= REQUEST_BYTES_MAX:
        return
    for index, document in enumerate(orjson.loads(payload)):
        size = len(orjson.dumps(document))
        _expect(size <= REQUEST_BYTES_MAX, f"requests[{index}]", f"at most {REQUEST_BYTES_MAX} bytes, these are {size}")


def _release(payload: bytes, tokens: Tokens) -> ReleaseBatch:
    try:
        ids = _IDS.validate_json(payload)
        return ReleaseBatch.model_validate({"namespace": tokens["namespace"], "requests": ids})
    except ValidationError as error:
        raise InvalidCommand(problems(error, root="")) from None


def _query(payload: bytes, tokens: Tokens) -> Query:
    del tokens
    return codec.decode(Query, payload, root="query") if payload else Query()


_RESERVATION_VERBS: dict[str, type[ReservationCommand]] = {
    "create": CreateReservation,
    "cancel": CancelReservation,
    "extend": ExtendReservation,
    "shrink": ShrinkReservation,
    "skip": SkipReservation,
}


def _reservation(payload: bytes, tokens: Tokens) -> ReservationCommand:
    verb = _RESERVATION_VERBS.get(tokens["verb"])
    if verb is None:
        known = ", ".join(_RESERVATION_VERBS)
        raise InvalidCommand([Problem(path="verb", expected=f"expected one of {known}, found {tokens['verb']!r}")])
    command = codec.decode(verb, payload)
    if isinstance(command, CreateReservation):
        expected = tokens["namespace"]
        _expect(
            command.reservation.namespace == expected,
            "reservation.namespace",
            f"expected {expected}, as the subject says",
        )
    return command


def _one_of(commands: TypeAdapter[Any]) -> Decoder:
    """One of several commands; `command` says which."""

    def decoder(payload: bytes, _tokens: Tokens) -> Any:
        try:
            return commands.validate_json(payload)
        except ValidationError as error:
            raise InvalidCommand(problems(error, root="")) from None

    return decoder


def _register(payload: bytes, tokens: Tokens) -> NodeRegister:
    command = codec.decode(NodeRegister, payload)
    _expect_node(command.node.id, tokens)
    return command


def _of_node(kind: type[OfNode]) -> Decoder:
    def decoder(payload: bytes, tokens: Tokens) -> OfNode:
        command = codec.decode(kind, payload)
        _expect_node(command.node, tokens)
        return command

    return decoder


def _plain(kind: type[BaseModel]) -> Decoder:
    return lambda payload, _: codec.decode(kind, payload)


def _expect_node(node: str, tokens: Tokens) -> None:
    _expect(node == tokens["node"], "node", f"expected {tokens['node']}, as the subject says")


def _expect(holds: bool, path: str, expected: str) -> None:  # noqa: FBT001 reads as a sentence
    if not holds:
        raise InvalidCommand([Problem(path=path, expected=expected)])


_DECODERS: dict[str, Decoder] = {
    subjects.REQUEST.name: _request,
    subjects.RELEASE.name: _release,
    subjects.EVALUATE.name: _plain(Evaluation),
    subjects.COMMIT.name: lambda payload, _: codec.decode_proposal(payload),
    subjects.COMMITTED.name: _plain(Committed),
    subjects.DECISION.name: _plain(Decision),
    subjects.QUERY.name: _query,
    subjects.ADMIN_QUOTA.name: _one_of(ADMIN_QUOTA),
    subjects.ADMIN_NODE.name: _one_of(ADMIN_NODE),
    subjects.ADMIN_RAFT.name: _plain(RaftCommand),
    subjects.RESERVE.name: _reservation,
    subjects.NODE_REGISTER.name: _register,
    subjects.NODE_LEAVE.name: _of_node(NodeLeave),
    subjects.NODE_STOPPED.name: _of_node(NodeStopped),
    subjects.NODE_ALLOCATIONS.name: _of_node(NodeAllocationsWanted),
    subjects.NODE_HEARTBEAT.name: _of_node(Heartbeat),
}

# --- answers ----------------------------------------------------------------------------------------

_ANSWERS: dict[str, type[BaseModel]] = {
    subjects.EVALUATE.name: EvaluationAnswer,
    subjects.COMMIT.name: ProposalAnswer,
    subjects.QUERY.name: QueryAnswer,
    subjects.ADMIN_QUOTA.name: AdminAnswer,
    subjects.ADMIN_NODE.name: AdminAnswer,
    subjects.ADMIN_RAFT.name: AdminAnswer,
    subjects.RESERVE.name: ReservationAnswer,
    subjects.NODE_REGISTER.name: NodeAnswer,
    subjects.NODE_LEAVE.name: NodeAnswer,
    subjects.NODE_STOPPED.name: NodeAnswer,
    subjects.NODE_ALLOCATIONS.name: NodeAnswer,
}


def _refused_proposal(payload: bytes, refusal: Refusal) -> ProposalAnswer | None:
    try:
        offered = codec.decode_proposal(payload)
    except InvalidCommand:
        return None
    return ProposalAnswer(id=offered.id, term=Term(0), outcomes=(refusal,) * len(offered.transactions))


def _refused_evaluation(payload: bytes, refusal: Refusal) -> EvaluationAnswer | None:
    """Unavailable: quota sends each of them again, as at its deadline, only sooner."""
    try:
        evaluation = codec.decode(Evaluation, payload)
    except InvalidCommand:
        return None
    outcomes = tuple(
        EvaluationOutcome(
            namespace=item.request.namespace,
            request=item.request.id,
            attempt=item.attempt,
            verdict=Verdict.UNAVAILABLE,
            refusal=refusal,
        )
        for item in evaluation.items
    )
    return EvaluationAnswer(id=evaluation.id, outcomes=outcomes)

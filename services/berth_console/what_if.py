"""What would be decided on the running state, and why not otherwise (`berth plan --live`, `berth explain`)."""

from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from berth.errors import InvalidCommand, NotFound, Problem
from berth.ids import Namespace, NodeId, RequestId
from berth.messages.commands import Query
from berth.messages.requests import Document, LabelKey, Request
from berth.messages.validation import problems
from berth.messages.what_if import WhatIfDocument
from berth.model.ledger import State
from berth.model.read_models import Row
from berth.subjects import CLUSTER
from berth_cell.defrag import propose
from berth_cell.explain import explain
from berth_cell.plan import plan
from berth_cell.staying import staying
from berth_cell.what_if import difference

REQUESTS_MAX = 256
"""A Cell decides while the console waits; more belong into `berth plan --cluster`, offline."""


MOVES_MAX = 64
"""A defragmentation tries every move that it proposes, and many more, while the console waits."""


class PlanDocument(Document):
    """`seed` varies the strategy random. `by`: `usage` is told for each value of this node label, `node` for each node.

    `what_if`: what would be different; then `requests` may be empty.
    """

    requests: tuple[Request, ...] = ()
    explain: bool = False
    seed: str = ""
    by: LabelKey | None = None
    what_if: WhatIfDocument | None = None


_PLAN: TypeAdapter[PlanDocument] = TypeAdapter(PlanDocument)


def planned(state: State, namespace: str, query: Query, now_ms: int) -> Row:
    """The plan result for the requests of the query's document, decided in order on a copy of `state`.

    Raises:
        InvalidCommand: no such document, or requests of another namespace than the question's.
    """
    try:
        document = _PLAN.validate_python(query.document or {}, strict=False)
    except ValidationError as error:
        raise InvalidCommand(problems(error, root="")) from None
    least = 0 if document.what_if is not None else 1
    if not least <= len(document.requests) <= REQUESTS_MAX:
        raise InvalidCommand([Problem(path="requests", expected=f"expected {least} to {REQUESTS_MAX} requests")])
    if document.what_if is not None and namespace != CLUSTER:
        raise InvalidCommand([Problem(path="what_if", expected="expected none: it concerns the whole cluster")])
    foreign = [
        Problem(path=f"requests[{place}].namespace", expected=f"expected {namespace}, as the question's subject says")
        for place, request in enumerate(document.requests)
        if namespace not in (CLUSTER, request.namespace)
    ]
    if foreign:
        raise InvalidCommand(foreign)
    other = difference(state, document.what_if or NOTHING_ELSE, at_ms=now_ms)
    if len(other.displaced) > REQUESTS_MAX:
        expected = f"expected to displace at most {REQUESTS_MAX} requests, not {len(other.displaced)}"
        raise InvalidCommand([Problem(path="what_if", expected=expected)])
    result = plan(
        state,
        document.requests,
        at_ms=now_ms,
        changes=other.changes,
        displaced=other.displaced,
        explain=document.explain,
        salt=document.seed,
        by=document.by,
    )
    return result.as_mapping()


NOTHING_ELSE = WhatIfDocument()


class DefragDocument(Document):
    """`moves`: how many at most."""

    moves: Annotated[int, Field(ge=1, le=MOVES_MAX)] = 16


_DEFRAG: TypeAdapter[DefragDocument] = TypeAdapter(DefragDocument)


def moves_proposed(state: State, namespace: str, query: Query, now_ms: int) -> Row:
    """Which moves would let more of the recent request shapes fit; nothing is moved.

    Raises:
        InvalidCommand: no such document, or the question of one namespace: moves concern all of them.
    """
    try:
        document = _DEFRAG.validate_python(query.document or {}, strict=False)
    except ValidationError as error:
        raise InvalidCommand(problems(error, root="")) from None
    if namespace != CLUSTER:
        raise InvalidCommand([Problem(path="namespace", expected="expected none: moves concern the whole cluster")])
    return propose(state, at_ms=now_ms, moves=document.moves)


def still_there(state: State, namespace: str, query: Query, now_ms: int) -> Row:
    """What the drain of the one node that the query names has still to take from it, and what that waits for.

    One namespace sees what is its own.

    Raises:
        InvalidCommand: not exactly one id. NotFound: no such node.
    """
    if len(query.ids) != 1:
        raise InvalidCommand([Problem(path="ids", expected="expected exactly one")])
    found = staying(state, NodeId(query.ids[0]), at_ms=now_ms)
    waiting = [row for row in found if namespace in (CLUSTER, row["namespace"])]
    return {"id": query.ids[0], "waiting": waiting}


def explained(state: State, namespace: str, query: Query, now_ms: int) -> Row:
    """Why the one request that the query names stands where it stands.

    Raises:
        InvalidCommand: not exactly one id. NotFound: no such request.
    """
    if len(query.ids) != 1:
        raise InvalidCommand([Problem(path="ids", expected="expected exactly one")])
    owner, _, request = query.ids[0].rpartition("/")
    owner = owner or namespace
    if namespace not in (CLUSTER, owner):
        raise NotFound(f"{namespace} has no request {query.ids[0]}")
    reader = None if namespace == CLUSTER else Namespace(namespace)
    return explain(state, (Namespace(owner), RequestId(request)), at_ms=now_ms, owner=reader)

"""What would be decided: the same services on a copy of a state, offline or live (DESIGN section 5, `berth plan`)."""

from collections.abc import Sequence as Listing
from typing import Any

from berth.errors import InvalidCommand, Problem
from berth.ids import RequestKey, Sequence, Term
from berth.messages.commands import ApplyQuotas
from berth.messages.decisions import Decision, NodeVerdict, PlanResult
from berth.messages.documents import ClusterDocument
from berth.messages.events import RequestStatus, Transaction
from berth.messages.requests import Request
from berth.messages.what_if import WhatIfDocument
from berth.model.fragmentation import spoken, total, usage_by, usage_by_node, usage_row
from berth.model.ledger import State
from berth_cell import seed
from berth_cell.cell import Cell
from berth_cell.what_if import difference
from berth_quota.administration import problems_of
from berth_scheduler.placement import node_verdicts


def plan(
    state: State,
    requests: Listing[Request],
    *,
    at_ms: int,
    changes: Listing[Transaction] = (),
    displaced: Listing[RequestKey] = (),
    explain: bool = False,
    salt: str = "",
    by: str | None = None,
) -> PlanResult:
    """Decide `requests` in order on a copy of `state` at `at_ms` (milliseconds UTC), after `changes`.

    `displaced`: who lost its place by these, decided before the others and told apart. `by`: the node label by which
    `usage` is told, or EACH_NODE; None: not at all. `salt` varies the strategy `random`.

    The result is stamped with the sequence of `state`: `if_sequence` of a request that is to hold to it. What waits
    goes on waiting, unless it stands in `requests`: then it is decided as if it came now. `state` is left as it was.
    """
    with state.journal.trial():
        for transaction in changes:
            state.fold_transaction(transaction, at=at_ms, sequence=state.sequence)
        homeless = [state.queue.requests[key].request for key in displaced]
        asked = {request.key for request in requests}
        anew = frozenset(request.key for request in (*homeless, *requests) if _waits(state, request.key))
        history = seed.of_state(state, without=anew)
    cell = Cell(at_ms=at_ms, seed=salt, history=history, drives_queued=False)
    for copied in (cell.state, cell.scheduler.state):  # what was asked for and is settled since is no part of `seed`
        copied.demand.resume(state.demand)
    told = [_decision(cell, request, explain=explain) for request in homeless if request.key not in asked]
    result = _decide(cell, requests, explain=explain, by=by)
    more = {"sequence": state.sequence, "displaced": tuple(told) if changes else None}
    return result.model_copy(update=more)


def _waits(state: State, key: RequestKey) -> bool:
    known = state.queue.requests.get(key)
    return known is not None and known.status is RequestStatus.QUEUED and not known.live


def plan_document(
    cluster: ClusterDocument,
    requests: Listing[Request],
    *,
    at_ms: int,
    explain: bool = False,
    salt: str = "",
    by: str | None = None,
    what_if: WhatIfDocument | None = None,
) -> PlanResult:
    """Decide `requests` in order on the cluster that a document describes, changed as `what_if` says.

    Raises:
        InvalidCommand: a request stands twice, quotas and cohorts contradict each other, or `what_if` the cluster.
    """
    _refuse_doubles(requests)
    _refuse_contradictions(cluster)
    now = at_ms if cluster.now is None else cluster.now
    history = seed.of_document(cluster, at_ms=now)
    cell = Cell(at_ms=now, seed=salt, history=history, drives_queued=False)
    if what_if is None:
        return _decide(cell, requests, explain=explain, by=by)
    other = difference(cell.state, what_if, at_ms=now)
    found = plan(
        cell.state,
        requests,
        at_ms=now,
        changes=other.changes,
        displaced=other.displaced,
        explain=explain,
        salt=salt,
        by=by,
    )
    return found.model_copy(update={"sequence": Sequence(0)})


def _refuse_doubles(requests: Listing[Request]) -> None:
    seen: dict[object, int] = {}
    for place, request in enumerate(requests):
        if request.key in seen:
            earlier = seen[request.key]
            problem = Problem(path=f"requests[{place}].id", expected=f"expected each once, requests[{earlier}] has it")
            raise InvalidCommand([problem])
        seen[request.key] = place


def _refuse_contradictions(cluster: ClusterDocument) -> None:
    found = problems_of(State(), ApplyQuotas(quotas=cluster.quotas, cohorts=cluster.cohorts))
    if found:
        raise InvalidCommand([Problem(path=f"cluster.{one.path}", expected=one.expected) for one in found])


def _decide(cell: Cell, requests: Listing[Request], *, explain: bool, by: str | None) -> PlanResult:
    decisions = tuple(_decision(cell, request, explain=explain) for request in requests)
    usage = total(usage_by_node(cell.state).values())
    return PlanResult(
        decisions=decisions,
        utilization=spoken(usage.utilization()),
        fragmentation=spoken(usage.fragmentation()),
        usage=None if by is None else _grouped(cell.state, by),
    )


def _decision(cell: Cell, request: Request, *, explain: bool) -> Decision:
    """What the services decide about one more request. It is in no ledger, so it has no sequence and no term."""
    request = request.model_copy(update={"if_sequence": None})
    nodes: tuple[NodeVerdict, ...] | None = None
    if explain:
        nodes = node_verdicts(cell.scheduler.state, request, at=cell.now_ms, seed=cell.scheduler.seed)
    cell.submit([request])
    decision = cell.decisions[request.key]
    return decision.model_copy(update={"nodes": nodes, "sequence": Sequence(0), "term": Term(0)})


def _grouped(state: State, by: str) -> dict[str, Any]:
    return {"by": by, "groups": [usage_row(name, one) for name, one in usage_by(state, by).items()]}

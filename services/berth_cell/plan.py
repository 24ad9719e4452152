"""What would be decided: the same services on a copy of a state, offline or live (DESIGN section 5, `berth plan`)."""

from collections.abc import Sequence as Listing

from berth.errors import InvalidCommand, Problem
from berth.ids import RequestKey, Sequence, Term
from berth.messages.commands import ApplyQuotas
from berth.messages.decisions import Decision, NodeVerdict, PlanResult
from berth.messages.documents import ClusterDocument
from berth.messages.events import RequestStatus, Transaction
from berth.messages.requests import Request
from berth.model.fragmentation import spoken, total, usage_by_node
from berth.model.ledger import State
from berth_cell import seed
from berth_cell.cell import Cell
from berth_quota.administration import problems_of
from berth_scheduler.placement import node_verdicts


def plan(
    state: State,
    requests: Listing[Request],
    *,
    at_ms: int,
    changes: Listing[Transaction] = (),
    explain: bool = False,
    salt: str = "",
) -> PlanResult:
    """Decide `requests` in order on a copy of `state` at `at_ms` (milliseconds UTC), after `changes`.

    The result is stamped with the sequence of `state`: `if_sequence` of a request that is to hold to it. What waits in
    `state` goes on waiting, unless it stands in `requests`: then it is decided as if it came now.
    `salt` varies the strategy `random`. `state` itself is not touched.
    """
    anew = frozenset(request.key for request in requests if _waits(state, request.key))
    history = [*seed.of_state(state, without=anew), *((at_ms, transaction) for transaction in changes)]
    cell = Cell(at_ms=at_ms, seed=salt, history=history, drives_queued=False)
    for copied in (cell.state, cell.scheduler.state):  # what was asked for and is settled since is no part of `seed`
        copied.demand.resume(state.demand)
    return _decide(cell, requests, explain=explain).model_copy(update={"sequence": state.sequence})


def _waits(state: State, key: RequestKey) -> bool:
    known = state.queue.requests.get(key)
    return known is not None and known.status is RequestStatus.QUEUED and not known.live


def plan_document(
    cluster: ClusterDocument, requests: Listing[Request], *, at_ms: int, explain: bool = False, salt: str = ""
) -> PlanResult:
    """Decide `requests` in order on the cluster that a document describes.

    Raises:
        InvalidCommand: a request stands twice, or quotas and cohorts contradict each other.
    """
    _refuse_doubles(requests)
    _refuse_contradictions(cluster)
    now = at_ms if cluster.now is None else cluster.now
    history = seed.of_document(cluster, at_ms=now)
    cell = Cell(at_ms=now, seed=salt, history=history, drives_queued=False)
    return _decide(cell, requests, explain=explain)


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


def _decide(cell: Cell, requests: Listing[Request], *, explain: bool) -> PlanResult:
    decisions: list[Decision] = []
    for request in (one.model_copy(update={"if_sequence": None}) for one in requests):
        nodes: tuple[NodeVerdict, ...] | None = None
        if explain:
            nodes = node_verdicts(cell.scheduler.state, request, at=cell.now_ms, seed=cell.scheduler.seed)
        cell.submit([request])
        decision = cell.decisions[request.key]
        planned = {"nodes": nodes, "sequence": Sequence(0), "term": Term(0)}  # nothing is in any ledger
        decisions.append(decision.model_copy(update=planned))
    usage = total(usage_by_node(cell.state).values())
    return PlanResult(
        decisions=tuple(decisions),
        utilization=spoken(usage.utilization()),
        fragmentation=spoken(usage.fragmentation()),
    )

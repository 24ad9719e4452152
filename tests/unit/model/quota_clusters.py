"""What tests of quotas begin with: namespaces with limits, cohorts, and one node that never runs short."""

from typing import Any

from berth.ids import CohortName, Namespace
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Request
from berth.model import entitlement
from berth.model.ledger import State
from tests.builders import a_node, a_request, a_state, happened, placed

CPU = "cpu_millicores"
RESEARCH = CohortName("research")


def cores(count: int) -> dict[str, int]:
    return {CPU: count * 1_000}


def a_cluster(*transactions: Any) -> State:
    """Quotas, and one node that never runs short."""
    return a_state(a_node(cpu=10**9, ram=10**9, extended={"gpu": 10**6}), *transactions)


def asks(*, cpu: int = 0, **document: Any) -> Request:
    """A request for the dimensions named, and no others."""
    return a_request(cpu=cpu, **document)


def uses(state: State, namespace: str, count: int) -> Request:
    """Something of `namespace` runs on `count` cores."""
    request = a_request(f"used-{len(state.queue.requests)}", namespace=namespace, cpu=count * 1_000)
    happened(state, placed(request, "n1"))
    return request


def available(state: State, namespace: str) -> int | None:
    """Whole cores that `namespace` could be charged now."""
    millicores = entitlement.available(state, Namespace(namespace))[CPU]
    assert millicores is None or millicores % 1_000 == 0
    return None if millicores is None else millicores // 1_000


def codes(state: State, request: Request, assumed: entitlement.Assumption = entitlement.NOBODY) -> list[ReasonCode]:
    return [reason.code for reason in entitlement.shortfall(state, request, request.total, assumed)]

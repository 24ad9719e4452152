"""Who first? One order for new and queued work: what repairs a gang that runs, then not borrowing before
borrowing, then priority, then the namespace's dominant share, then age (R72). Pure.
"""

from berth.messages.requests import Request
from berth.model.entitlement import Assumption, borrows, share
from berth.model.ledger import State

Age = tuple[int, int]
"""Sequence of submission, then the order within it; what is not yet in the ledger is younger than all of it."""

YOUNG = 2**62
Rank = tuple[bool, bool, int, tuple[int, int], Age]
"""Smaller comes first."""

NO_SHARE = (0, 0)


def rank(state: State, request: Request, age: Age, assumed: Assumption, *, is_repair: bool = False) -> Rank:
    """Where the request stands now, counting what is in flight as used."""
    quota = state.quotas.quotas.get(request.namespace)
    if quota is None:
        return (not is_repair, False, -request.priority, NO_SHARE, age)
    borrowing = borrows(state, request, request.total, assumed)
    dominant = share(state, request.namespace, request.total, assumed).rank if borrowing else NO_SHARE
    return (not is_repair, borrowing, -request.priority, dominant, age)

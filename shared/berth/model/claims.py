"""What a request may claim from the others of its cohort tree: its share of what they use above theirs (R62–R64).

Policies, and the walk up the tree that says over whom there is advantage (SEMANTICS, "Reclaim and preemption under
quotas, step by step"). Whose work it then is, `victims` says.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from berth.ids import CohortName, Namespace
from berth.messages.documents import Reclaim
from berth.messages.requests import Request, RequestPreemption
from berth.model.entitlement import NOBODY, Assumption, lending
from berth.model.ledger import State
from berth.model.lending import Member, ancestors
from berth.resources import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What `namespace` may take back for one request, as things stood before anything was taken.

    `path`: its cohorts from the own one to the root. `fits_at`: the first node on the way up, the namespace
    itself being 0, whose subtree quota covers the request (beyond the root: none does).
    `wanted`: what the request asks for, in the dimensions that the quota governs.
    """

    namespace: Namespace
    policy: Reclaim
    priority: int
    path: tuple[CohortName, ...]
    fits_at: int
    wanted: Mapping[str, int]

    def is_favoured(self, level: int) -> bool:
        """Whether it has advantage over whom it first shares `path[level - 1]` with."""
        return self.fits_at < level


def may_reclaim(state: State, request: Request) -> bool:
    """Whether `request` may take anything back from others of its cohort tree, as far as policies go (R62)."""
    quota = state.quotas.quotas.get(request.namespace)
    if quota is None or quota.cohort is None or quota.reclaim is Reclaim.NEVER:
        return False
    return request.preemption is not RequestPreemption.NEVER and request.reservation is None


def claim_of(state: State, request: Request, amount: Resources, assumed: Assumption = NOBODY) -> Claim | None:
    """What it may take back to be charged `amount` more; None where policies allow nothing."""
    if not may_reclaim(state, request):
        return None
    quota = state.quotas.quotas[request.namespace]
    assert quota.cohort is not None, "else it could reclaim nothing"
    member = lending(state.quotas, assumed).namespaces[request.namespace]
    wanted = {dimension: more for dimension, more in amount.dimensions() if dimension in member.nominal}
    if not wanted:
        return None
    return Claim(
        namespace=request.namespace,
        policy=quota.reclaim,
        priority=request.priority,
        path=(quota.cohort, *ancestors(quota.cohort, state.quotas.cohorts)),
        fits_at=_fits_at(member, wanted),
        wanted=wanted,
    )


def _fits_at(member: Member, wanted: Mapping[str, int]) -> int:
    """The walk up: what the unused local quota of each node covers is not asked of the next."""
    level, rest = 0, dict(wanted)
    node: Member | None = member
    while node is not None:
        if all(node.used.get(dimension, 0) + more <= node.nominal[dimension] for dimension, more in rest.items()):
            return level
        rest = {dimension: max(0, more - _unused(node, dimension)) for dimension, more in rest.items()}
        node, level = node.parent, level + 1
    return level


def _unused(node: Member, dimension: str) -> int:
    """What is left of the quota that it never lends."""
    return max(0, node.local.get(dimension, 0) - node.used.get(dimension, 0))


def has_debtors(state: State, claim: Claim) -> bool:
    """Whether anybody in the tree uses more than its soft quota of what is asked for."""
    members = lending(state.quotas).namespaces
    return any(
        name != claim.namespace and exceeds(member, claim.wanted) and level_of(claim, member) is not None
        for name, member in members.items()
    )


def level_of(claim: Claim, member: Member) -> int | None:
    """At which node of the claim's way up `member` is met, 1 being the own cohort; None: in another tree."""
    above = member.parent
    while above is not None:
        if above.name in claim.path:
            return claim.path.index(CohortName(above.name)) + 1
        above = above.parent
    return None


def exceeds(member: Member, dimensions: Iterable[str]) -> bool:
    """Whether it uses more than its subtree quota of any of these."""
    return any(
        member.used.get(dimension, 0) > member.nominal[dimension]
        for dimension in dimensions
        if dimension in member.nominal
    )

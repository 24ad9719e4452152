"""Rows of the folded state that more than one service answers with (DESIGN section 5, "Other shapes").

Pure: state in, rows out. Amounts are whole numbers by dimension, as in events.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from berth.ids import CohortName, Namespace, RequestId, RequestKey
from berth.messages.documents import Queueing, Reclaim, StopPolicy, time_text
from berth.model import entitlement
from berth.model.answers import decision_of, trace_id_of
from berth.model.ledger import State
from berth.model.lending import Member, Share, ancestors
from berth.model.loans import Loan, loans
from berth.model.ordering import Line, Place
from berth.model.queue import RequestState
from berth.model.quota import Quota
from berth.resources import BUILT_IN

PAGE_BYTES_MAX = 500 * 1024
"""Of the rows; with the rest of the answer a page stays within 512 KiB."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`next`: the cursor after which the next page begins; None at the end."""

    rows: tuple[Row, ...]
    next: str | None


def page(rows: Iterable[tuple[str, Row]], *, limit: int) -> Page:
    """The first page of `rows` (cursor and row, in order); only as many are taken from it as it needs.

    A page holds at least one row, so following `next` always comes to an end.
    """
    assert limit >= 1
    taken: list[Row] = []
    size = 0
    last: str | None = None
    for cursor, row in rows:
        size += len(orjson.dumps(row)) + 1
        if taken and (len(taken) == limit or size > PAGE_BYTES_MAX):
            return Page(rows=tuple(taken), next=last)
        taken.append(row)
        last = cursor
    return Page(rows=tuple(taken), next=None)


# --- requests -------------------------------------------------------------------------------------------


def request_row(known: RequestState, place: Place | None, owner: Namespace | None = None) -> Row:
    """`attempt`: the one its last decision was made for. `queue_position`: from 1, null where it does not wait.

    `ahead`: the nearest of those that come before it, nearest last, and why; an `owner` is not shown who else waits,
    only how many (`ahead_because`). `earliest_start`: milliseconds UTC, where durations say it.
    """
    return {
        "id": known.request.id,
        "namespace": known.request.namespace,
        "status": known.status.value,
        "attempt": known.attempt - 1,
        "sequence": known.decided,
        "trace_id": trace_id_of(known.traceparent),
        "reasons": [reason.as_mapping() for reason in known.reasons],
        "queue_position": None if place is None else place.position,
        "ahead": [] if place is None else _ahead(place, owner),
        "ahead_because": {} if place is None else {because.value: count for because, count in place.because},
        "earliest_start": known.promised_start,
    }


def _ahead(place: Place, owner: Namespace | None) -> list[Row]:
    return [
        {"namespace": key[0], "id": key[1], "because": because.value}
        for key, because in place.next
        if owner is None or key[0] == owner
    ]


def request_rows(
    state: State, keys: Iterable[RequestKey], line: Line, *, owner: Namespace | None = None, with_decisions: bool
) -> Iterator[tuple[str, Row]]:
    """Cursor and row of each of `keys`, which are known; `with_decisions`: what the decision message says, too."""
    for key in keys:
        place = line.place(key) if key in line else None
        row = request_row(state.queue.requests[key], place, owner)
        if with_decisions:
            decision = decision_of(state, key)
            assert decision is not None, "a request that has a row is known"
            row["decision"] = decision.as_mapping()
        yield f"{key[0]}/{key[1]}", row


def request_keys(
    state: State, namespace: Namespace | None, ids: Iterable[str] = (), *, after: str | None = None
) -> list[RequestKey]:
    """The known requests that are asked for, sorted, behind the cursor `after` (`namespace/id`).

    `namespace` None: of all. `ids`: bare or `namespace/id`; none: every request.
    """
    table = state.queue.requests
    wanted = list(ids)
    keys: Iterable[RequestKey] = table
    if wanted:
        named = dict.fromkeys(key for one in wanted for key in _named(state, namespace, one))
        keys = [key for key in named if key in table]
    if namespace is not None:
        keys = (key for key in keys if key[0] == namespace)
    if after is not None:
        owner, _, request = after.partition("/")
        keys = (key for key in keys if key > (owner, request))
    return sorted(keys)


def _named(state: State, namespace: Namespace | None, written: str) -> list[RequestKey]:
    owner, slash, request = written.rpartition("/")
    if slash:
        return [(Namespace(owner), RequestId(request))]
    if namespace is not None:
        return [(namespace, RequestId(written))]
    return [key for key in state.queue.requests if key[1] == written]


# --- quotas ------------------------------------------------------------------------------------------------


def quota_row(state: State, namespace: Namespace) -> Row:
    """Amounts by dimension. `hard`, `soft`: what the quota says; `available`: null without limit."""
    quota = state.quotas.quotas.get(namespace)
    used = state.quotas.used_by(namespace)
    classed = entitlement.classes(state, namespace)
    return {
        "namespace": namespace,
        "hard": dict(quota.hard) if quota else {},
        "soft": dict(quota.soft) if quota else {},
        "used": dict.fromkeys(BUILT_IN, 0) | dict(used.dimensions()),
        "guaranteed": classed.guaranteed,
        "borrowed": classed.borrowed,
        "burst": classed.burst,
        "available": entitlement.available(state, namespace),
        "queueing": (quota.queueing if quota else Queueing.BEST_EFFORT_FIFO).value,
        "stop_policy": (quota.stop_policy if quota else StopPolicy.NONE).value,
    }


def quota_explanation(state: State, namespace: Namespace) -> Row:
    """The row with the formula in numbers, from whom and to whom is lent, the dominant share (R71), every cohort from
    the own one to the root, and when a grace above soft ends (R85).
    """
    quota = state.quotas.quotas.get(namespace)
    made = loans(state)
    return {
        **quota_row(state, namespace),
        "cohort": quota.cohort if quota is not None else None,
        "burst_percent": quota.burst_percent if quota is not None else 0,
        "reclaim": (quota.reclaim if quota is not None else Reclaim.ANY).value,
        "borrowed_from": _by_other([(loan.lender, loan) for loan in made if loan.borrower == namespace]),
        "lent_to": _by_other(
            [(loan.borrower, loan) for loan in made if loan.lender == namespace and not loan.is_cohort]
        ),
        "grace_ends": _graces(state, namespace),
        "formula": _formula(state, quota) if quota is not None else {},
        "share": _share_row(entitlement.share(state, namespace)),
        "levels": _levels(state, quota) if quota is not None else [],
    }


def _by_other(made: Iterable[tuple[str, Loan]]) -> Row:
    """Amounts by dimension for each of the others."""
    found: dict[str, dict[str, int]] = {}
    for other, loan in made:
        amounts = found.setdefault(other, {})
        amounts[loan.dimension] = amounts.get(loan.dimension, 0) + loan.amount
    return found


def _graces(state: State, namespace: Namespace) -> dict[str, str]:
    ends = {name[1]: state.quotas.grace_ends(*name) for name in sorted(state.quotas.above) if name[0] == namespace}
    return {dimension: time_text(at) for dimension, at in ends.items() if at is not None}


def _formula(state: State, quota: Quota) -> dict[str, str]:
    """By dimension: ceiling = min(hard, soft + borrowable + soft × burst_percent // 100), in numbers."""
    member = entitlement.lending(state.quotas).namespaces.get(quota.namespace)
    used = state.quotas.used_by(quota.namespace)
    formula: dict[str, str] = {}
    for dimension in entitlement.governed(quota):
        soft = quota.soft.get(dimension, quota.hard.get(dimension, 0))
        borrowable = 0 if member is None else used.amount(dimension) + member.room(dimension) - soft
        burst = soft * quota.burst_percent // 100
        ceiling = soft + borrowable + burst
        hard = quota.hard.get(dimension)
        sum_of = f"{soft} + {borrowable} + {burst}"
        formula[dimension] = (
            f"ceiling {ceiling} = {sum_of} (soft + borrowable + burst)"
            if hard is None
            else f"ceiling {min(hard, ceiling)} = min({hard}, {sum_of}) (hard, soft + borrowable + burst)"
        )
    return formula


def _levels(state: State, quota: Quota) -> list[Row]:
    if quota.cohort is None:
        return []
    members = entitlement.lending(state.quotas).cohorts
    names = [quota.cohort, *ancestors(quota.cohort, state.quotas.cohorts)]
    return [_level(name, members[name]) for name in names]


def _level(name: CohortName, member: Member) -> Row:
    dimensions = sorted(member.nominal)
    return {
        "cohort": name,
        "share": _share_row(member.share()),
        "used": {dimension: member.used.get(dimension, 0) for dimension in dimensions},
        "available": {dimension: member.available(dimension) for dimension in dimensions},
    }


def _share_row(share: Share) -> Row:
    return {"permille": share.permille, "dimension": share.dimension}

"""The queue as it stands: places, and why others are ahead (R72)."""

import random
from itertools import pairwise

from berth.ids import Attempt
from berth.messages.events import RequestQueued, Wake, WakeOn, about
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth.model.ledger import State
from berth.model.ordering import Because, Line, is_strict, rank
from tests.builders import TEAM_A, TEAM_B, a_node, a_quota, a_request, a_state, happened, submitted

SHORT = Reason(code=ReasonCode.INSUFFICIENT_CPU, nodes=1)


def queued(state: State, request: Request) -> None:
    waits = RequestQueued(reasons=(SHORT,), wake=(Wake(on=WakeOn.CAPACITY),), evaluated_at=state.sequence)
    happened(state, (submitted(request), about(request.key, waits, attempt=Attempt(1))))


def cores(count: int) -> dict[str, int]:
    return {"cpu_millicores": count * 1_000}


def test_r72_each_place_says_who_is_ahead_and_why() -> None:
    state = a_state(
        a_node(),
        a_quota(TEAM_A, soft=cores(1), cohort="research"),
        a_quota(TEAM_B, soft=cores(1), cohort="research", weight_permille=500),
        a_quota("lender", soft=cores(9), cohort="research"),
    )
    queued(state, a_request("borrows-more", cpu=3_000, namespace=TEAM_B))
    queued(state, a_request("borrows", cpu=3_000))
    queued(state, a_request("young"))
    queued(state, a_request("urgent", priority=90))

    line = Line(state)

    places = {id: line.place((owner, id)) for owner, id in state.queue.waiting}
    assert {str(id): place.position for id, place in places.items()} == {
        "urgent": 1,
        "young": 2,
        "borrows": 3,
        "borrows-more": 4,
    }
    last = places[a_request("borrows-more").id]
    assert last.because == ((Because.NOT_BORROWING, 2), (Because.SHARE, 1))
    assert [(str(key[1]), because) for key, because in last.next] == [
        ("urgent", Because.NOT_BORROWING),
        ("young", Because.NOT_BORROWING),
        ("borrows", Because.SHARE),
    ]


def test_what_is_counted_ahead_is_all_that_is_ahead(seed: int) -> None:
    chance = random.Random(seed)
    state = a_state(
        a_node(),
        *[
            a_quota(
                team,
                soft=cores(chance.randint(0, 3)),
                cohort="research",
                queueing=chance.choice(("strict_fifo", "best_effort_fifo")),
            )
            for team in ("t1", "t2", "t3")
        ],
    )
    for number in range(30):
        team, size = chance.choice(("t1", "t2", "t3", "free")), chance.randint(1, 4) * 1_000
        queued(state, a_request(f"r{number}", namespace=team, cpu=size, priority=chance.choice((10, 50, 90))))

    line = Line(state)

    places = {key: line.place(key) for key in state.queue.waiting}
    assert sorted(place.position for place in places.values()) == list(range(1, 31))
    for place in places.values():
        assert sum(count for _, count in place.because) == place.position - 1
    first = sorted(places, key=lambda key: places[key].position)
    for ahead, behind in pairwise(first):
        one, other = (state.queue.requests[key].request for key in (ahead, behind))
        if one.namespace == other.namespace and is_strict(state, one.namespace):
            assert one.priority >= other.priority, "R73: nobody overtakes"
        elif not is_strict(state, one.namespace) and not is_strict(state, other.namespace):
            orders = [state.queue.requests[key].order for key in (ahead, behind)]
            assert rank(state, one, (orders[0], 0)) < rank(state, other, (orders[1], 0))

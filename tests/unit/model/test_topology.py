"""Neighbours: affinity, anti-affinity with symmetry, the first of its kind, spread (R29–R37)."""

from typing import Any

import pytest

from berth.ids import NodeId
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Request
from berth.model.feasibility import admits, required_reasons, surroundings_of
from berth.model.ledger import State
from tests.builders import TEAM_B, a_node, a_request, a_state, ended, happened, placed

DB = {"match_labels": {"app": "db"}, "topology_key": "zone"}
WEB = {"match_labels": {"app": "web"}, "topology_key": "zone"}
WEB_LABELS = {"app": "web"}


def zones(**nodes: str | None) -> State:
    """One node a keyword, in the zone that it names; None: a node without the label."""
    return a_state(*(a_node(name, labels={} if zone is None else {"zone": zone}) for name, zone in nodes.items()))


def run(state: State, name: str, *nodes: str, **document: Any) -> Request:
    """A request that runs on `nodes`."""
    request = a_request(name, count=len(nodes), cpu=100, **document)
    happened(state, placed(request, *nodes))
    return request


def why(state: State, request: Request) -> dict[str, list[str]]:
    """By node, the codes that keep the request off; nodes that may take it are left out."""
    around = surroundings_of(state, request)
    found: dict[str, list[str]] = {}
    for node in state.cluster.nodes.values():
        reasons = required_reasons(state, node, request)
        quick = admits(node, request) and (around is None or around.allows(node))
        assert quick == (not reasons), f"the quick answer for {node.id} is another one"
        if reasons:
            found[node.id] = [reason.code.value for reason in reasons]
    return found


# ---------------------------------------------------------------- affinity


def test_r29_an_affinity_term_holds_in_the_domain_of_what_it_wants() -> None:
    state = zones(n1="a", n2="a", n3="b")
    run(state, "db", "n1", labels={"app": "db"})

    assert why(state, a_request(affinity=[DB])) == {"n3": ["affinity_not_met"]}


def test_r29_all_terms_must_hold() -> None:
    state = zones(n1="a", n2="b", n3="b")
    run(state, "db", "n1", "n2", labels={"app": "db"})
    run(state, "cache", "n3", labels={"app": "cache"})

    cache = {"match_labels": {"app": "cache"}, "topology_key": "zone"}
    assert list(why(state, a_request(affinity=[DB, cache]))) == ["n1"]


def test_r30_without_the_key_affinity_fails_and_anti_affinity_passes() -> None:
    state = zones(n1="a", n2=None)
    run(state, "db", "n1", labels={"app": "db"})

    assert why(state, a_request(affinity=[DB])) == {"n2": ["topology_key_missing"]}
    assert why(state, a_request(anti_affinity=[DB])) == {"n1": ["anti_affinity_conflict"]}


def test_r32_the_first_of_those_that_want_to_be_together_may_be_anywhere_with_the_key() -> None:
    state = zones(n1="a", n2="b", n3=None)
    request = a_request(affinity=[WEB], labels=WEB_LABELS)

    assert why(state, request) == {"n3": ["topology_key_missing"]}
    run(state, "first", "n1", labels=WEB_LABELS)
    assert why(state, request) == {"n2": ["affinity_not_met"], "n3": ["topology_key_missing"]}


def test_r32_who_does_not_match_its_own_term_is_no_first() -> None:
    state = zones(n1="a")

    assert why(state, a_request(affinity=[DB], labels=WEB_LABELS)) == {"n1": ["affinity_not_met"]}


def test_r33_namespaces_are_the_own_unless_named() -> None:
    state = zones(n1="a")
    run(state, "db", "n1", labels={"app": "db"}, namespace=TEAM_B)

    assert why(state, a_request(affinity=[DB])) == {"n1": ["affinity_not_met"]}
    assert why(state, a_request(affinity=[{**DB, "namespaces": [TEAM_B]}])) == {}
    assert why(state, a_request(anti_affinity=[DB])) == {}
    assert why(state, a_request(anti_affinity=[{**DB, "namespaces": [TEAM_B]}])) != {}


def test_r6_an_empty_selector_matches_every_allocation() -> None:
    state = zones(n1="a", n2="b")
    run(state, "any", "n1")
    everybody: dict[str, Any] = {"match_labels": {}, "topology_key": "zone"}

    assert list(why(state, a_request(affinity=[everybody]))) == ["n2"]
    assert list(why(state, a_request(anti_affinity=[everybody]))) == ["n1"]


def test_what_has_ended_is_no_neighbour() -> None:
    state = zones(n1="a", n2="b")
    request = run(state, "db", "n1", labels={"app": "db"})
    happened(state, ended(state, request.key))

    assert why(state, a_request(anti_affinity=[DB])) == {}


# ---------------------------------------------------------------- anti-affinity


def test_r29_violating_any_anti_affinity_term_refuses() -> None:
    state = zones(n1="a", n2="b", n3="c")
    run(state, "db", "n1", labels={"app": "db"})
    run(state, "web", "n2", labels=WEB_LABELS)

    found = why(state, a_request(anti_affinity=[DB, WEB]))

    assert found == {"n1": ["anti_affinity_conflict"], "n2": ["anti_affinity_conflict"]}


def test_r31_what_runs_keeps_away_whom_it_cannot_stand() -> None:
    state = zones(n1="a", n2="a", n3="b")
    run(state, "lonely", "n1", anti_affinity=[WEB])

    assert list(why(state, a_request(labels=WEB_LABELS))) == ["n1", "n2"]
    assert why(state, a_request(labels={"app": "other"})) == {}
    assert why(state, a_request(labels=WEB_LABELS, namespace=TEAM_B)) == {}, "R33: its own namespace"
    (reason, *_) = required_reasons(state, state.cluster.nodes[NodeId("n2")], a_request(labels=WEB_LABELS))
    assert (reason.code, reason.detail) == (ReasonCode.ANTI_AFFINITY_CONFLICT, "of team-a/lonely.0")


def test_r31_symmetry_ends_with_the_allocation_and_a_preference_is_not_symmetric() -> None:
    state = zones(n1="a")
    run(state, "polite", "n1", anti_affinity=[{**WEB, "mode": "preferred"}])
    assert why(state, a_request(labels=WEB_LABELS)) == {}

    lonely = run(state, "lonely", "n1", anti_affinity=[WEB])
    assert why(state, a_request(labels=WEB_LABELS)) != {}

    happened(state, ended(state, lonely.key))
    assert why(state, a_request(labels=WEB_LABELS)) == {}


def test_required_affinity_is_not_symmetric() -> None:
    state = zones(n1="a", n2="b")
    run(state, "clingy", "n1", labels={"app": "x"}, affinity=[{**WEB, "match_labels": {"app": "x"}}])

    assert why(state, a_request(labels={"app": "x"})) == {}


def test_the_key_node_is_the_node_itself() -> None:
    state = zones(n1=None, n2=None)
    run(state, "web", "n1", labels=WEB_LABELS)

    apart = [{"match_labels": WEB_LABELS, "topology_key": "node"}]
    assert list(why(state, a_request(anti_affinity=apart))) == ["n1"]


# ---------------------------------------------------------------- spread

EVEN = {"topology_key": "zone", "match_labels": WEB_LABELS}


def spreading(**term: Any) -> Request:
    return a_request("web", labels=WEB_LABELS, spread=[{**EVEN, **term}])


@pytest.mark.parametrize(
    ("counts", "max_skew", "refused"),
    [
        ({"n1": 0, "n2": 0, "n3": 0}, 1, []),
        ({"n1": 1, "n2": 0, "n3": 0}, 1, ["n1"]),
        ({"n1": 1, "n2": 1, "n3": 1}, 1, []),
        ({"n1": 2, "n2": 1, "n3": 0}, 1, ["n1", "n2"]),
        ({"n1": 2, "n2": 1, "n3": 0}, 2, ["n1"]),
        ({"n1": 2, "n2": 1, "n3": 0}, 3, []),
    ],
)
def test_r34_the_skew_after_placing_stays_within_bounds(
    counts: dict[str, int], max_skew: int, refused: list[str]
) -> None:
    state = zones(n1="a", n2="b", n3="c")
    for node, count in counts.items():
        for number in range(count):
            run(state, f"{node}-{number}", node, labels=WEB_LABELS)

    assert list(why(state, spreading(max_skew=max_skew))) == refused


def test_r34_who_does_not_match_its_own_selector_adds_nothing() -> None:
    state = zones(n1="a", n2="b")
    run(state, "web-1", "n1", labels=WEB_LABELS)

    assert why(state, a_request(spread=[EVEN])) == {}, "1 + 0 - 0 <= 1"
    assert list(why(state, spreading())) == ["n1"], "1 + 1 - 0 > 1"


def test_r35_too_few_domains_make_the_minimum_zero() -> None:
    state = zones(n1="a", n2="b")
    run(state, "web-1", "n1", "n2", labels=WEB_LABELS)

    assert why(state, spreading(min_domains=2)) == {}
    assert list(why(state, spreading(min_domains=3))) == ["n1", "n2"]


def test_r36_a_node_without_the_key_is_refused_and_its_domain_does_not_count() -> None:
    state = zones(n1="a", n2=None)
    run(state, "web-1", "n1", labels=WEB_LABELS)
    run(state, "web-2", "n2", labels=WEB_LABELS)

    assert why(state, spreading()) == {"n2": ["topology_key_missing"]}


def test_r36_domains_are_those_of_ready_nodes_that_satisfy_the_constraints_whatever_their_taints() -> None:
    def of(**more: Any) -> State:
        state = a_state(a_node("n1", labels={"zone": "a", "disk": "ssd"}), a_node("n2", labels={"zone": "b"}, **more))
        run(state, "web-1", "n1", labels=WEB_LABELS)
        return state

    on_ssd = a_request("web", labels=WEB_LABELS, spread=[EVEN], constraints=[{"key": "disk", "operator": "exists"}])
    by_alternative = a_request(
        "web", labels=WEB_LABELS, spread=[EVEN], any_of=[[{"key": "disk", "operator": "exists"}]]
    )
    taint = ({"key": "x", "effect": "no_schedule"},)

    assert list(why(of(), spreading())) == ["n1"], "b is an empty domain"
    assert list(why(of(), on_ssd)) == ["n2"], "b is no domain: a may have two"
    assert list(why(of(), by_alternative)) == ["n2"]
    assert list(why(of(taints=taint), spreading())) == ["n1", "n2"], "b counts although it takes nothing"


def test_r37_only_the_own_namespace_counts_and_an_empty_selector_counts_nothing() -> None:
    state = zones(n1="a", n2="b")
    run(state, "web-1", "n1", labels=WEB_LABELS, namespace=TEAM_B)

    assert why(state, spreading()) == {}
    run(state, "web-2", "n1", labels=WEB_LABELS)
    assert list(why(state, spreading())) == ["n1"]
    assert why(state, spreading(match_labels={})) == {}


def test_r37_several_terms_must_all_hold_and_a_preferred_one_never_refuses() -> None:
    state = a_state(
        a_node("n1", labels={"zone": "a", "rack": "1"}),
        a_node("n2", labels={"zone": "a", "rack": "2"}),
        a_node("n3", labels={"zone": "b", "rack": "3"}),
    )
    run(state, "web-1", "n1", labels=WEB_LABELS)
    rack = {**EVEN, "topology_key": "rack"}

    assert list(why(state, a_request("web", labels=WEB_LABELS, spread=[EVEN, rack]))) == ["n1", "n2"]
    assert list(why(state, a_request("web", labels=WEB_LABELS, spread=[rack]))) == ["n1"]
    assert why(state, a_request("web", labels=WEB_LABELS, spread=[{**EVEN, "mode": "preferred"}])) == {}


# ---------------------------------------------------------------- counting once


def test_taking_and_giving_back_an_instance_leaves_the_counts_as_they_were() -> None:
    state = zones(n1="a", n2="b")
    request = a_request(
        "web", labels=WEB_LABELS, spread=[EVEN], affinity=[WEB], anti_affinity=[{**WEB, "topology_key": "node"}]
    )
    around = surroundings_of(state, request)
    assert around is not None
    n1, n2 = (state.cluster.nodes[NodeId(name)] for name in ("n1", "n2"))

    around.count(n1, 1)
    assert (around.allows(n1), around.allows(n2)) == (False, False), "n1 is taken, b is far from the first"
    around.count(n1, -1)

    assert (around.allows(n1), around.allows(n2)) == (True, True)


def test_where_nobody_minds_neighbours_nobody_counts_them() -> None:
    state = zones(n1="a")
    run(state, "web", "n1", labels=WEB_LABELS, anti_affinity=[{**DB, "mode": "preferred"}])

    assert surroundings_of(state, a_request()) is None

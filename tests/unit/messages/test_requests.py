"""The request document: strict at the edge, every problem with its path, a digest that only meaning changes."""

import contextlib
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.errors import InvalidCommand
from berth.messages.documents import RESERVATION
from berth.messages.requests import Request
from berth.messages.stored import StoredRequest, read_stored
from berth.messages.validation import parse
from berth.wire.codec import decode_requests, encode_requests, request_digest
from tests.builders import a_request

WEB: dict[str, Any] = {"id": "web-1", "namespace": "team-a", "resources": {"cpu_cores": 4.0, "ram_mb": 8192}}


def decoded(**changes: Any) -> Request:
    return decode_requests(json.dumps([{**WEB, **changes}]).encode())[0]


def problems_of(**changes: Any) -> list[str]:
    with pytest.raises(InvalidCommand) as refused:
        decoded(**changes)
    return [problem.path for problem in refused.value.problems]


def test_only_id_namespace_and_resources_are_required() -> None:
    request = decoded()

    assert (request.count, request.priority, request.strategy.value) == (1, 50, "binpack")
    assert request.vector.cpu_millicores == 4_000
    assert request.charge.instances == 1, "every instance also uses one of `instances`"


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"colour": "red"}, "requests[0].colour"),
        ({"namespace": "team.a"}, "requests[0].namespace"),
        ({"id": "Web-1"}, "requests[0].id"),
        ({"id": "a" * 64}, "requests[0].id"),
        ({"id": "web-1\n"}, "requests[0].id"),
        ({"resources": {"cpu_cores": -1}}, "requests[0].resources.cpu_cores"),
        ({"resources": {"cpu_cores": 0.0005}}, "requests[0].resources.cpu_cores"),
        ({"resources": {"cpu_cores": "4"}}, "requests[0].resources.cpu_cores"),
        ({"resources": {"cpu_millicores": 4}}, "requests[0].resources.cpu_millicores"),
        ({"resources": {"ram_mb": -8}}, "requests[0].resources.ram_mb"),
        ({"resources": {"ram_mb": True}}, "requests[0].resources.ram_mb"),
        ({"resources": {"ram_mb": 1.5}}, "requests[0].resources.ram_mb"),
        ({"count": 0}, "requests[0].count"),
        ({"count": 1001}, "requests[0].count"),
        ({"priority": 101}, "requests[0].priority"),
        ({"strategy": "tetris"}, "requests[0].strategy"),
        ({"labels": {"app": 7}}, "requests[0].labels.app"),
    ],
)
def test_what_cannot_be_is_refused_with_its_path(changes: dict[str, Any], path: str) -> None:
    assert path in problems_of(**changes)


@pytest.mark.parametrize(
    ("constraint", "path"),
    [
        ({"key": "region", "operator": "in"}, "values"),
        ({"key": "region", "operator": "equals", "values": ["a", "b"]}, "values"),
        ({"key": "region", "operator": "exists", "values": ["a"]}, "values"),
        ({"key": "size", "operator": "gt", "values": ["big"]}, "values"),
        ({"key": "size", "operator": "gt", "values": ["9223372036854775808"]}, "values"),
        ({"key": "region", "operator": "like", "values": ["a"]}, "operator"),
        ({"key": "not a key", "operator": "exists"}, "key"),
    ],
)
def test_r5_an_invalid_expression_is_refused_never_silently_no_match(constraint: dict[str, Any], path: str) -> None:
    assert problems_of(constraints=[constraint]) == [f"requests[0].constraints[0].{path}"]


def test_a_problem_inside_an_alternative_names_both_places() -> None:
    wrong = {"key": "zone", "operator": "exists", "values": ["a"]}

    assert problems_of(any_of=[[], [], [wrong]]) == ["requests[0].any_of[2][0].values"]


def test_r19_a_toleration_without_key_needs_exists() -> None:
    assert problems_of(tolerations=[{"operator": "equals", "value": "gpu"}]) == ["requests[0].tolerations[0].key"]
    assert decoded(tolerations=[{"operator": "exists"}]).tolerations[0].key is None


def test_every_problem_of_a_document_is_told_at_once() -> None:
    with pytest.raises(InvalidCommand) as refused:
        decode_requests(json.dumps([{**WEB, "count": 0}, {**WEB, "priority": -1}]).encode())

    assert [problem.path for problem in refused.value.problems] == ["requests[0].count", "requests[1].priority"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[{]",
        b'[{"id":"a","id":"b","namespace":"n","resources":{}}]',
        b'[{"id":"a","namespace":"n","resources":{"ram_mb":NaN}}]',
        b'[{"id":"a","namespace":"n","resources":{"ram_mb":1e999}}]',
        b"[" * 2000,
        b'[{"id":"\\ud800","namespace":"n","resources":{}}]',
        b"\xff\xfe",
        b'[{"id":"a","namespace":"n","resources":{"ram_mb":' + b"9" * 5000 + b"}}]",
    ],
)
def test_bytes_that_are_no_requests_are_one_clear_error(body: bytes) -> None:
    with pytest.raises(InvalidCommand):
        decode_requests(body)


@given(st.binary(max_size=200))
def test_any_bytes_end_in_requests_or_one_typed_error(body: bytes) -> None:
    with contextlib.suppress(InvalidCommand):
        assert isinstance(decode_requests(body), list)


def test_a_request_survives_the_bus_and_the_ledger_unchanged() -> None:
    request = decoded(
        constraints=[{"key": "disk", "operator": "equals", "values": ["ssd"], "mode": "preferred", "weight": 0}],
        any_of=[[{"key": "zone", "operator": "in", "values": ["a"]}]],
        tolerations=[{"key": "dedicated", "operator": "exists", "effect": "no_schedule", "seconds": 60}],
        labels={"app": "web"},
    )

    over_the_bus = decode_requests(encode_requests([request]))[0]
    from_the_ledger = StoredRequest.model_validate(request.body, extra="ignore")

    assert over_the_bus == request
    assert from_the_ledger.body == request.body
    assert request_digest(from_the_ledger) == request_digest(request)


def test_requests_that_differ_in_their_id_alone_share_what_follows_from_their_shape() -> None:
    first, second = ({**decoded(labels={"app": "web"}).document(), "id": name} for name in ("alike-1", "alike-2"))

    decode_requests(orjson.dumps([first]))
    (again,) = decode_requests(orjson.dumps([second]))
    (other,) = decode_requests(orjson.dumps([{**second, "count": 2}]))

    assert again.document() == second
    assert other.count == 2
    assert again.total == again.charge != other.total
    assert read_stored(again.body) == read_stored({**again.body}) != read_stored({**again.body, "id": "alike-3"})
    assert read_stored({**again.body, "id": "alike-3"}).body == {**again.body, "id": "alike-3"}


@pytest.mark.parametrize(
    "broken", [{"id": "No Name"}, {"id": 7}, {"resources": {"ram_mb": 16.0}}, {"count": True}, {"count": 1.0}]
)
def test_a_shape_that_is_known_excuses_nothing(broken: dict[str, Any]) -> None:
    known = {"id": "strict-1", "namespace": "team-a", "resources": {"ram_mb": 16}, "count": 1}
    decode_requests(orjson.dumps([known]))

    with pytest.raises(InvalidCommand):
        decode_requests(orjson.dumps([{**known, **broken}]))


def test_a_default_that_is_written_out_does_not_change_the_digest() -> None:
    assert request_digest(decoded(count=1, priority=50, labels={})) == request_digest(decoded())
    assert request_digest(decoded(count=2)) != request_digest(decoded())


def test_the_order_of_labels_does_not_change_the_digest() -> None:
    assert request_digest(decoded(labels={"a": "1", "b": "2"})) == request_digest(decoded(labels={"b": "2", "a": "1"}))


@pytest.mark.parametrize("end", ["9999-12-31T23:59:59-23:59", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59"])
def test_a_time_that_cannot_be_written_back_is_refused(end: str) -> None:
    document: dict[str, Any] = {"id": "r", "namespace": "n", "resources": {}, "end": end}

    with pytest.raises(InvalidCommand) as refused:
        parse(RESERVATION, json.dumps(document), root="reservation")
    assert [problem.path for problem in refused.value.problems] == ["reservation.end"]


def test_a_copy_with_other_fields_has_another_body_whatever_was_derived_before() -> None:
    request = a_request("web", count=2)
    assert request.body["id"] == "web" and request.total.cpu_millicores == 2_000

    other = request.model_copy(update={"id": "other", "count": 3, "if_sequence": 7})

    assert (other.body["id"], other.body["if_sequence"], other.total.cpu_millicores) == ("other", 7, 3_000)

"""What comes from outside is validated once, and must agree with its subject."""

from typing import Any

import orjson
import pytest

from berth import subjects
from berth.errors import InvalidCommand
from berth.ids import Namespace, Sequence
from berth.messages.commands import (
    ApplyQuotas,
    CancelReservation,
    CreateReservation,
    NodeLeave,
    Proposal,
    ProposalAnswer,
    Query,
    QueryAnswer,
    Refusal,
    RefusalCode,
    ReleaseBatch,
    RemoveQuota,
    RequestBatch,
)
from berth.messages.events import Event, QuotaRemoved
from berth.runtime import decoding
from berth.subjects import Subject
from berth.wire import codec
from tests.builders import a_request

REFUSAL = Refusal(code=RefusalCode.OVERLOADED, detail="full")
RESERVATION = {
    "id": "r1",
    "namespace": "team-a",
    "start": "2026-01-01T09:00:00Z",
    "end": "2026-01-01T11:00:00Z",
    "resources": {"cpu_cores": 1},
}


def why_not(subject: Subject, payload: bytes, **tokens: str) -> str:
    with pytest.raises(InvalidCommand) as refused:
        decoding.decode(subject, payload, tokens)
    return str(refused.value)


def test_requests_come_as_a_batch_of_the_subject_s_namespace() -> None:
    payload = codec.encode_requests([a_request("web"), a_request("db")])

    batch = decoding.decode(subjects.REQUEST, payload, {"namespace": "team-a"})

    assert isinstance(batch, RequestBatch)
    assert [request.id for request in batch.requests] == ["web", "db"]


def test_the_nudge_is_nothing() -> None:
    assert decoding.decode(subjects.REQUEST, b"", {"namespace": "_"}) is None


@pytest.mark.parametrize(
    ("payload", "namespace", "said"),
    [
        (b"not json", "team-a", "requests: is not JSON"),
        (b"[]", "team-a", "expected 1 to 256 requests"),
        (b'[{"id":"a","id":"b"}]', "team-a", "a member stands twice"),
        (codec.encode_requests([a_request(f"r{number}") for number in range(257)]), "team-a", "1 to 256"),
        (codec.encode_requests([a_request("web")]), "team-b", "requests[0].namespace: expected team-b"),
        (codec.encode_requests([a_request("web")]), "_", "the nudge has no body"),
        (
            codec.encode_requests([a_request("web", labels={f"key-{number}": "x" * 60 for number in range(1_000)})]),
            "team-a",
            "at most 65536 bytes",
        ),
    ],
)
def test_a_message_that_is_no_list_of_requests_says_what_is_wrong(payload: bytes, namespace: str, said: str) -> None:
    assert said in why_not(subjects.REQUEST, payload, namespace=namespace)


def test_releases_are_a_list_of_ids() -> None:
    batch = decoding.decode(subjects.RELEASE, b'["web","db"]', {"namespace": "team-a"})

    assert batch == ReleaseBatch.model_validate({"namespace": "team-a", "requests": ["web", "db"]})
    assert "expected a list" in why_not(subjects.RELEASE, b'{"id":"web"}', namespace="team-a")
    assert "expected a name" in why_not(subjects.RELEASE, b'["NO"]', namespace="team-a")


def test_a_question_without_a_body_asks_for_everything_by_default() -> None:
    assert decoding.decode(subjects.QUERY, b"", {"namespace": "_", "what": "nodes"}) == Query()


def test_what_a_command_is_its_tag_says() -> None:
    applied = decoding.decode(subjects.ADMIN_QUOTA, b'{"command":"apply"}', {})
    removed = decoding.decode(subjects.ADMIN_QUOTA, b'{"command":"remove","namespace":"team-a"}', {})

    assert isinstance(applied, ApplyQuotas)
    assert isinstance(removed, RemoveQuota)


def test_a_reservation_s_verb_and_namespace_are_those_of_the_subject() -> None:
    create = orjson.dumps({"reservation": RESERVATION})

    created = decoding.decode(subjects.RESERVE, create, {"namespace": "team-a", "verb": "create"})
    cancelled = decoding.decode(subjects.RESERVE, b'{"reservation":"r1"}', {"namespace": "team-a", "verb": "cancel"})

    assert isinstance(created, CreateReservation)
    assert isinstance(cancelled, CancelReservation)
    assert "expected team-b" in why_not(subjects.RESERVE, create, namespace="team-b", verb="create")
    assert "expected one of create, cancel" in why_not(subjects.RESERVE, create, namespace="team-a", verb="move")


def test_a_node_speaks_for_itself_alone() -> None:
    payload = b'{"node":"n1"}'

    assert decoding.decode(subjects.NODE_LEAVE, payload, {"node": "n1"}) == NodeLeave.model_validate({"node": "n1"})
    assert "expected n2, as the subject says" in why_not(subjects.NODE_LEAVE, payload, node="n2")


def test_a_proposal_is_refused_one_transaction_at_a_time() -> None:
    transaction = (Event(QuotaRemoved(), Namespace("team-a")),)
    proposal = Proposal(id="p1", transactions=(transaction, transaction), view_sequence=Sequence(1))

    answer = decoding.refused(subjects.COMMIT, codec.encode_proposal(proposal), REFUSAL)

    assert isinstance(answer, ProposalAnswer)
    assert (answer.id, answer.outcomes) == ("p1", (REFUSAL, REFUSAL))


@pytest.mark.parametrize(
    "subject", [subject for subject in subjects.SUBJECTS if subject.reply and subject.own != "role"]
)
def test_every_command_that_is_answered_can_be_refused(subject: Subject) -> None:
    if subject is subjects.EVALUATE:
        return  # its refusal names its items: tested with the runner
    answer: Any = decoding.refused(subject, b"", REFUSAL)

    assert type(answer).__name__ == subject.reply
    assert answer.refusal == REFUSAL


@pytest.mark.parametrize("subject", [subject for subject in subjects.SUBJECTS if not subject.reply])
def test_what_is_not_answered_is_not_refused(subject: Subject) -> None:
    assert decoding.refused(subject, b"", REFUSAL) is None


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b"[1]", b'[{"id":1}]', b'[{"id":"NO"}]', b'{"id":"web"}', b"[[]]", b"null"]
)
def test_where_no_id_can_be_read_nobody_is_told(payload: bytes) -> None:
    with pytest.raises(InvalidCommand) as refused:
        decoding.decode(subjects.REQUEST, payload, {"namespace": "team-a"})

    assert decoding.invalid_decisions(payload, "team-a", refused.value) == []


def test_only_answers_that_can_say_no_are_replaced() -> None:
    refusal = Refusal(code=RefusalCode.TOO_LARGE)

    assert decoding.too_large(QueryAnswer(items=({"id": "web"},)), refusal) == QueryAnswer(refusal=refusal)

"""`berth audit` judges a ledger again: what a lawful one shows, and that it sees what is wrong."""

from berth.ids import Sequence
from berth.messages.envelope import why_not_valid
from berth.ports import StoredMessage
from berth.wire.codec import decode_record
from berth_cell.cell import Cell
from berth_cell.seed import Dated
from berth_cli.ledger import Auditor
from tests.builders import T0, a_node, a_quota, a_request, placed


def audited(*payloads: bytes) -> Auditor:
    auditor = Auditor()
    for sequence, payload in enumerate(payloads, start=1):
        auditor.take(StoredMessage(sequence=Sequence(sequence), payload=payload))
    return auditor


def a_ledger(*history: Dated) -> list[bytes]:
    return Cell(at_ms=T0, history=history).ledger


def test_a_lawful_ledger_has_no_violation_and_one_digest() -> None:
    ledger = a_ledger((T0, a_node()), (T0, placed(a_request("a"), "n1")))

    report = audited(*ledger).report()

    assert (report["violations"], report["records"], report["doubled"]) == ([], len(ledger), 0)
    assert report["digest"] == audited(*ledger).report()["digest"]


def test_what_was_never_lawful_is_a_violation_with_its_sequence() -> None:
    ledger = a_ledger((T0, a_node(cpu=1_000)), (T0, placed(a_request("a", cpu=2_000), "n1")))

    (violation,) = audited(*ledger).report()["violations"]

    assert violation["sequence"] == 4
    assert violation["what"].startswith("capacity")


def test_a_hard_quota_that_was_exceeded_is_seen() -> None:
    quota = a_quota(hard={"cpu_millicores": 500})
    ledger = a_ledger((T0, a_node()), (T0, quota), (T0, placed(a_request("a", cpu=1_000), "n1")))

    assert [one["what"].split(":")[0] for one in audited(*ledger).report()["violations"]] == ["quota"]


def test_foreign_messages_are_counted_and_change_nothing() -> None:
    ledger = a_ledger((T0, a_node()))

    auditor = audited(*ledger, b"junk", ledger[-1])

    assert (auditor.foreign, auditor.records) == (2, len(ledger))


def test_missing_digests_are_seen() -> None:
    history = [(T0, a_node(f"n{number}")) for number in range(1_000)]
    ledger = a_ledger(*history)
    assert why_not_valid(None, decode_record(ledger[0]), 1) is None

    violations = audited(*ledger).report()["violations"]

    assert violations[0] == {"sequence": 1_000, "what": "I11: digests are missing, or stand where they do not belong"}

"""The ledger of `berth bench replay` is one that every process would fold, and its snapshot gives the same state."""

from berth_cli.replaying import TAIL_RECORDS, measure


def test_a_ledger_is_made_folded_and_begun_again_from_its_snapshot() -> None:
    measured = measure(30_000, days=30, retention_days=2)

    assert measured.records > TAIL_RECORDS
    assert measured.events_per_second > 0
    assert 10_000 < measured.rows < 2 * 7_500, "some requests ended and were forgotten"
    assert measured.snapshot_bytes > 1_000_000

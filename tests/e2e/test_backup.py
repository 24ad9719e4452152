"""`berth backup` while a cluster runs, `berth restore` into another folder, and that one goes on by itself."""

import json
from pathlib import Path

import pytest

from tests.e2e.up_cluster import UpCluster

pytestmark = pytest.mark.e2e

WEB = "- {id: web, namespace: team-a, count: 2, resources: {cpu_cores: 1}}\n"


def test_a_restored_ledger_says_the_same_under_another_id_and_goes_on(tmp_path: Path) -> None:
    old, new = UpCluster(tmp_path / "old"), UpCluster(tmp_path / "new")
    request, more = tmp_path / "web.yaml", tmp_path / "more.yaml"
    request.write_text(WEB)
    more.write_text(WEB.replace("web", "more"))
    file = tmp_path / "ledger.backup"
    old.up("--nodes", "3")
    try:
        assert old.run("submit", str(request), "--wait", "60").code == 0
        made = old.json("backup", str(file))["backup"]
    finally:
        old.down()

    restored = new.json("restore", str(file))

    assert restored["restored_from"] == made
    assert restored["ledger_id"] != made["ledger_id"]
    assert new.run("restore", str(file)).code == 2, "there is a ledger in that folder now"
    new.up("--nodes", "3")
    try:
        allocations = new.json("allocations")
        assert {one["id"] for one in allocations if one["request"] == "web"} == {"web.0", "web.1"}
        assert new.run("submit", str(more), "--wait", "60").code == 0
        first = new.json("events", "--from", "1")[0]
        assert first["data"]["restored_from"]["ledger_id"] == made["ledger_id"]
        audit = new.json("audit")
        assert audit["violations"] == []
        assert audit["foreign"] == 0
        assert new.json("raft", "status")["ledger_id"] == restored["ledger_id"]
    finally:
        new.down()


def test_what_is_no_whole_backup_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    cluster, file = UpCluster(tmp_path / "new"), tmp_path / "half.backup"
    file.write_text(json.dumps({"sequence": 1, "bytes": ""}) + "\n")

    ended = cluster.run("restore", str(file))

    assert ended.code == 2
    assert "half.backup" in ended.err
    assert not cluster.folder.exists()

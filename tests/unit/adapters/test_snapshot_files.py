"""Files of snapshots: whole or not there, the last two, whatever else lies in the folder."""

from pathlib import Path

import pytest

from berth.adapters.snapshot_files import KEPT, SnapshotFiles
from berth.ids import Sequence


async def test_what_was_written_is_found_newest_first_and_the_oldest_goes(tmp_path: Path) -> None:
    files = SnapshotFiles(tmp_path / "not there yet")

    for sequence in (9, 100, 20):
        await files.write(Sequence(sequence), b"%d" % sequence)

    assert await files.stored() == [100, 20]
    assert KEPT == 2
    assert await files.read(Sequence(100)) == b"100"
    assert await files.read(Sequence(9)) is None


async def test_an_unfinished_file_is_no_snapshot(tmp_path: Path) -> None:
    files = SnapshotFiles(tmp_path)
    (tmp_path / f".{7:020d}.snapshot.4711").write_bytes(b"half of it")
    (tmp_path / "notes.txt").write_text("something else")

    assert await files.stored() == []


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


async def test_a_disk_that_takes_nothing_leaves_what_was_there(tmp_path: Path) -> None:
    files = SnapshotFiles(tmp_path)
    await files.write(Sequence(1), b"one")
    (tmp_path / f"{2:020d}.snapshot").mkdir()  # so that no file can take this name

    with pytest.raises(OSError, match="directory"):
        await files.write(Sequence(2), b"two")

    assert await files.read(Sequence(2)) is None
    assert await files.read(Sequence(1)) == b"one"
    assert hidden(tmp_path) == []

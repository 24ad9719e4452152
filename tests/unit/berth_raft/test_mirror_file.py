"""The mirror on disk: what it was given it gives back, what was torn it cuts off, what was changed it says (RAFT 2)."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.ids import Sequence
from berth.ports import StoredMessage
from berth_raft.mirror_file import MAGIC, MirrorCorrupt, MirrorFile


def stored(sequence: int, payload: bytes = b"record") -> StoredMessage:
    return StoredMessage(sequence=Sequence(sequence), payload=payload)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raft-1" / "mirror"


def written(path: Path, *messages: StoredMessage) -> None:
    mirror = MirrorFile.open(path)
    for message in messages:
        mirror.append([message], sync=True)
    mirror.close()


def test_what_was_appended_is_there_after_a_restart_with_its_sequences(path: Path) -> None:
    written(path, stored(1, b"one"), stored(2, b""), stored(5, b"five"))

    mirror = MirrorFile.open(path)

    assert list(mirror) == [stored(1, b"one"), stored(2, b""), stored(5, b"five")]
    assert mirror.last == 5
    assert mirror.read(Sequence(5)) == b"five"
    assert mirror.read(Sequence(4)) is None
    assert mirror.read(Sequence(6)) is None


def test_only_its_owner_may_read_it(path: Path) -> None:
    written(path)

    assert path.stat().st_mode & 0o777 == 0o600


def test_a_torn_tail_is_cut_off_at_every_length(path: Path) -> None:
    written(path, stored(1, b"one"), stored(2, b"two"))
    whole = path.read_bytes()
    first = MirrorFile.open(path)
    first.cut(Sequence(2))
    first.close()
    kept = len(path.read_bytes())

    for length in range(kept, len(whole)):
        path.write_bytes(whole[:length])
        mirror = MirrorFile.open(path)
        assert list(mirror) == [stored(1, b"one")]
        mirror.append([stored(2, b"again")], sync=False)
        assert [one.payload for one in MirrorFile.open(path)] == [b"one", b"again"]


@given(st.data())
def test_a_changed_byte_is_never_taken_for_a_record(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("mirror") / "mirror"
    messages = [stored(1, b"one"), stored(3, b"three"), stored(4, b"four")]
    written(path, *messages)
    image = bytearray(path.read_bytes())
    image[data.draw(st.integers(0, len(image) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(image)

    try:
        found = list(MirrorFile.open(path))
    except MirrorCorrupt:
        return
    assert found == messages[: len(found)], "a prefix, or nothing at all"


def test_a_foreign_file_is_not_overwritten(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"somebody else's notes, longer than a mirror begins")

    with pytest.raises(MirrorCorrupt, match="does not begin as a mirror"):
        MirrorFile.open(path)


def test_a_file_that_was_just_created_is_begun_again(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(MAGIC[:5])

    assert list(MirrorFile.open(path)) == []
    assert path.read_bytes() == MAGIC


def test_what_is_cut_is_gone_and_can_be_written_anew(path: Path) -> None:
    written(path, stored(1), stored(2), stored(4))
    mirror = MirrorFile.open(path)

    mirror.cut(Sequence(2))
    mirror.append([stored(2, b"other")], sync=True)

    assert list(MirrorFile.open(path)) == [stored(1), stored(2, b"other")]

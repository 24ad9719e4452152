"""Snapshots as files of one folder: each is there whole or not at all, and the last few are kept."""

import asyncio
import logging
import os
from pathlib import Path

from berth.ids import Sequence

log = logging.getLogger(__name__)

KEPT = 2
"""The newest, and the one before it in case the newest cannot be used."""
_SUFFIX = ".snapshot"


class SnapshotFiles:
    """The SnapshotStore port on a local disk. Several processes may share the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def stored(self) -> list[Sequence]:
        """The positions that there are snapshots of, newest first."""
        names = [path.name.removesuffix(_SUFFIX) for path in self._folder.glob(f"*{_SUFFIX}")]
        return sorted((Sequence(int(name)) for name in names if name.isdigit()), reverse=True)

    async def read(self, sequence: Sequence) -> bytes | None:
        """What was stored for that position; None when it is not there any more or cannot be read."""
        try:
            return await asyncio.to_thread(self._path(sequence).read_bytes)
        except OSError as error:
            log.warning("snapshot_unreadable", extra={"sequence": sequence, "why": str(error)})
            return None

    async def write(self, sequence: Sequence, payload: bytes) -> None:
        """Durable when this returns; older ones than the last KEPT are removed.

        Raises:
            OSError: the disk does not take it. What was there is there still.
        """
        await asyncio.to_thread(self._write, sequence, payload)

    def _path(self, sequence: Sequence) -> Path:
        return self._folder / f"{sequence:020d}{_SUFFIX}"

    def _write(self, sequence: Sequence, payload: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(sequence)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self._sync_folder()
        for old in sorted(self._folder.glob(f"*{_SUFFIX}"), reverse=True)[KEPT:]:
            old.unlink(missing_ok=True)

    def _sync_folder(self) -> None:
        """A rename is durable once its folder is."""
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

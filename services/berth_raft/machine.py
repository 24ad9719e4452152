"""What a raft node stands on in the real world: its disk, its connections, a thread for its election."""

import asyncio
import functools
import gc
import logging
import random
import secrets
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import orjson

from berth.adapters.nats_bus import BusSettings, NatsBus
from berth.adapters.permissions import DISCONNECTS
from berth.adapters.system_clock import SystemClock
from berth.errors import BerthError, InvalidSetting
from berth.ids import Sequence
from berth.ports import Envelope, StoredMessage
from berth.runtime.process import kept_snapshots
from berth.runtime.snapshots import Snapshots
from berth.subjects import WATCH
from berth_raft import hard_state
from berth_raft.core.effects import Amnesiac, HardState, RoleChanged
from berth_raft.core.messages import Tip
from berth_raft.core.node import RaftCore
from berth_raft.election import ElectionThread
from berth_raft.mirror_file import MirrorCorrupt, MirrorFile
from berth_raft.process import Promises
from berth_raft.settings import RaftNodeSettings

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005
YOUNG_OBJECTS = 50_000
NEVER = 1_000_000_000


def keep_pauses_short() -> None:
    """No full collection on its own, and a quick hand-over between threads (RAFT section 2, "Stalls").

    Measured there: with the default collector heartbeats pause for seconds. The hot path makes no cycles.
    """
    gc.set_threshold(YOUNG_OBJECTS, 20, NEVER)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def _watch_lost(why: str) -> None:
    log.warning("disconnects_not_watched", extra={"why": why})


def _tell_ended(envelope: Envelope, ended: Callable[[str], None]) -> None:
    """Any client may give itself any name: whoever is told asks before it believes."""
    try:
        name = orjson.loads(envelope.payload)["client"]["name"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return
    if isinstance(name, str):
        ended(name)


class Machine:
    """The `Outside` of one process. `lost` is called on the main loop when a connection is closed for good."""

    def __init__(self, settings: RaftNodeSettings, *, lost: Callable[[str], None]) -> None:
        """Raises InvalidSetting: no folder to keep the vote in."""
        if settings.data_dir is None:
            raise InvalidSetting(
                f"{RaftNodeSettings.prefix()}DATA_DIR is required", hint="a raft node keeps its vote there"
            )
        self.clock = SystemClock()
        self.dice = random.Random(secrets.randbits(64))
        self._settings = settings
        self._folder: Path = settings.data_dir
        self._main = asyncio.get_running_loop()
        self._lost = lost
        self._watch: NatsBus | None = None

    async def connect(self, *, keeps: bool) -> NatsBus:
        settings = BusSettings(
            url=self._settings.nats_url,
            user=self._settings.user,
            seed_file=self._settings.nkey_file,
            connect_within_seconds=None,
            keeps_while_disconnected=keeps,
        )
        return await NatsBus.connect(settings, lost=self._on_lost)

    async def watch(self, ended: Callable[[str], None]) -> None:
        """What the server tells its system account: a hint, so a node does as well without it."""
        seed = self._settings.watch_nkey_file
        if seed is None:
            return
        settings = BusSettings(url=self._settings.nats_url, user=WATCH, seed_file=seed)
        try:
            self._watch = await NatsBus.connect(settings, lost=_watch_lost)
            await self._watch.subscribe(DISCONNECTS, lambda envelope: _tell_ended(envelope, ended))
        except BerthError as error:
            log.warning("disconnects_not_watched", extra={"why": error.message})

    async def close(self) -> None:
        if self._watch is not None:
            await self._watch.close()

    def _on_lost(self, why: str) -> None:
        """Called on whichever loop the connection belongs to."""
        self._main.call_soon_threadsafe(self._lost, why)

    def snapshots(self) -> Snapshots | None:
        return kept_snapshots(self._settings)

    def promises(self, *, ledger_term: int) -> hard_state.KeptPromises:
        """In a ledger without a barrier nobody has voted yet, so the first promises are made at once."""
        kept = hard_state.KeptPromises(self._folder / "hard-state")
        if isinstance(kept.hard_state, Amnesiac):
            if ledger_term == 0:
                kept.store(HardState(incarnation=1, term=0, vote=None))
            else:
                log.warning("votes_lost", extra={"why": kept.hard_state.why, "runbook": "raft-disk.md"})
        return kept

    def mirror(self) -> "DiskMirror":
        return DiskMirror(self._folder / "mirror", now_ms=self.clock.now_ms())

    def election(
        self,
        make_core: Callable[[], RaftCore],
        promises: Promises,
        on_role: Callable[[RoleChanged], None],
        on_tips: Callable[[dict[str, Tip]], None],
    ) -> ElectionThread:
        connect = functools.partial(self.connect, keeps=False)
        return ElectionThread(make_core, connect, promises, self.clock, on_role, on_tips, self._lost)


class DiskMirror:
    """The mirror in a file of this node's folder; written on a thread of its own."""

    def __init__(self, path: Path, *, now_ms: int) -> None:
        """Raises OSError: the disk does not answer. A corrupt mirror is set aside and read anew from the stream."""
        try:
            self._file = MirrorFile.open(path)
        except MirrorCorrupt as error:
            aside = path.with_suffix(f".corrupt-{now_ms}")
            path.rename(aside)
            log.warning("mirror_corrupt", extra={"why": str(error), "kept": aside.name, "runbook": "raft-disk.md"})
            self._file = MirrorFile.open(path)

    def records(self) -> Iterable[StoredMessage]:
        return self._file

    def read(self, sequence: Sequence) -> bytes | None:
        return self._file.read(sequence)

    def cut(self, first: Sequence) -> None:
        self._file.cut(first)

    async def append(self, messages: list[StoredMessage], *, sync: bool) -> None:
        await asyncio.to_thread(self._file.append, messages, sync=sync)

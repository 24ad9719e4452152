"""`berth backup` and `berth restore`: the whole ledger as one file, and a new ledger from such a file.

A backup has one line for every message of the stream, as `berth events --raw` prints it, and a last line that says
what it is and the hash of all lines before. A restored ledger has an id of its own (RAFT section 2, step 11): its
events are those of the backup, byte for byte, in records that are chained anew, so that nothing that was written to
the old ledger ever counts in it; its first record says what it was restored from.
"""

import asyncio
import base64
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import orjson
import typer

from berth import subjects
from berth.adapters.jetstream_api import JetStreamApi
from berth.adapters.jetstream_ledger import JetStreamLedger, LedgerSettings
from berth.adapters.nats_bus import BusSettings, NatsBus
from berth.adapters.nats_server import NatsServer
from berth.adapters.server_config import ServerSettings
from berth.adapters.streams import create_streams
from berth.adapters.users import seed_file
from berth.errors import BerthError, CorruptRecord, InvalidSetting
from berth.ids import LedgerId, Sequence
from berth.messages.envelope import NO_HASH, Record, Tip, tip_of, why_not_valid
from berth.messages.events import Event, LedgerCreated, RestoredFrom
from berth.ports import Appended, StoredMessage
from berth.wire import codec
from berth_cli import bootstrap
from berth_cli.context import Target, on_cluster
from berth_cli.folder import Folder, is_held, write_members
from berth_cli.ledger import open_ledger, stored_messages
from berth_cli.output import print_json, print_lines

app = typer.Typer()

_EVENTS = b',"events":['


class BackupUnusable(BerthError):
    """The file is no backup, or not the whole of one. Nothing was restored."""

    code = "backup_unusable"
    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """The last line. `sequence`, `hash`: of the last record; `messages`: foreign ones included; `lines`: their hash."""

    version: int = 1
    ledger_id: str
    sequence: int
    hash: str
    messages: int
    lines: str


# --- backup -------------------------------------------------------------------------------------------------


@app.command("backup")
@on_cluster
def backup(target: Target, file: Annotated[Path, typer.Argument(help="To be written; or a folder for it.")]) -> None:
    """Write the whole ledger to a file, while everything runs."""
    folder = file if file.is_dir() else file.parent
    temporary = folder / f".backup-{secrets.token_hex(4)}"
    try:
        with temporary.open("wb") as lines:
            made = asyncio.run(_copy(target, lines))
            lines.flush()
            os.fsync(lines.fileno())
        path = folder / f"{made.ledger_id}-{made.sequence}.backup" if file.is_dir() else file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if target.as_json:
        print_json({"version": 1, "file": str(path), "backup": asdict(made)})
    else:
        print_lines(f"{path}: ledger {made.ledger_id} up to {made.sequence}")


async def _copy(target: Target, lines: BinaryIO) -> Backup:
    """Every message there is now, and the last line."""
    hashed, messages = blake2b(digest_size=32), 0
    tip: Tip | None = None
    async with open_ledger(target) as ledger:
        async for stored in stored_messages(ledger, after=0, follow=False):
            line = _line(stored)
            hashed.update(line)
            lines.write(line)
            record = _valid(tip, stored)
            tip, messages = tip if record is None else tip_of(record), stored.sequence
    if tip is None:
        raise CorruptRecord("the ledger has no record", hint="there is nothing to back up")
    made = Backup(
        ledger_id=tip.ledger_id, sequence=tip.sequence, hash=tip.hash, messages=messages, lines=hashed.hexdigest()
    )
    lines.write(orjson.dumps({"backup": asdict(made)}) + b"\n")
    return made


def _line(stored: StoredMessage) -> bytes:
    text = base64.b64encode(stored.payload).decode()
    return orjson.dumps({"sequence": stored.sequence, "bytes": text}) + b"\n"


def _valid(tip: Tip | None, stored: StoredMessage) -> Record | None:
    try:
        record = codec.decode_record(stored.payload)
    except CorruptRecord:
        return None
    return record if why_not_valid(tip, record, stored.sequence) is None else None


def read_backup(file: Path) -> tuple[Backup, list[StoredMessage]]:
    """What the file says of itself, and every message.

    Raises:
        BackupUnusable: it is not a whole backup.
    """
    hashed, messages = blake2b(digest_size=32), list[StoredMessage]()
    try:
        *lines, last = file.read_bytes().splitlines(keepends=True)
        made = Backup(**orjson.loads(last)["backup"])
        for line in lines:
            hashed.update(line)
            members: Any = orjson.loads(line)
            payload = base64.b64decode(members["bytes"], validate=True)
            messages.append(StoredMessage(sequence=Sequence(members["sequence"]), payload=payload))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupUnusable(f"{file}: {error}") from None
    numbers = [stored.sequence for stored in messages]
    if hashed.hexdigest() != made.lines or numbers != list(range(1, made.messages + 1)):
        raise BackupUnusable(f"{file}: its lines are not those that its last line speaks of")
    return made, messages


# --- restore ------------------------------------------------------------------------------------------------


@app.command("restore")
@on_cluster
def restore(target: Target, file: Annotated[Path, typer.Argument(help="Written by `berth backup`.")]) -> None:
    """Make a new ledger from a backup: in a new folder (--dir), or on an empty server (--url, with the key of init)."""
    made, messages = read_backup(file)
    if target.url is not None:
        folder = Folder(path=target.folder_meant().absolute())
        seed = target.nkey or seed_file(folder.keys, subjects.INIT)
        created = asyncio.run(append_all(target.url, seed, made, messages))
    else:
        created = _into_folder(Folder(path=target.folder_meant().absolute()), made, messages)
    if target.as_json:
        print_json({"version": 1, "ledger_id": created.ledger_id, "restored_from": asdict(made)})
    else:
        print_lines(f"ledger {created.ledger_id} has everything of {made.ledger_id} up to {made.sequence}")


def _into_folder(folder: Folder, made: Backup, messages: list[StoredMessage]) -> LedgerCreated:
    """What `berth up` then continues from."""
    if is_held(folder) or folder.store.exists() or folder.members.exists():
        raise InvalidSetting(f"{folder.path} has a ledger already", hint="restore into a new folder with --dir")
    settings = ServerSettings(store=folder.store, port=-1, monitor_port=-1)
    configuration = bootstrap.prepare(folder, settings, bootstrap.Size())
    server = NatsServer(configuration=configuration, folder=folder.server_configuration)
    server.start()
    try:
        created = asyncio.run(append_all(server.url, seed_file(folder.keys, subjects.INIT), made, messages))
    finally:
        server.stop()
    _promise(folder, created, term=codec.decode_record(messages[made.sequence - 1].payload).term)
    write_members(folder, created.members)
    return created


def _promise(folder: Folder, created: LedgerCreated, *, term: int) -> None:
    """Raft nodes that have voted in no term after the backup's: nobody else ever votes on this ledger's id."""
    from berth_raft import hard_state
    from berth_raft.core.effects import HardState

    for name in created.members:
        path = folder.data(name) / "hard-state"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        hard_state.create(path, HardState(incarnation=1, term=term, vote=None)).close()


async def append_all(url: str, seed: Path, made: Backup, messages: list[StoredMessage]) -> LedgerCreated:
    """A new ledger with the backup's events, on a server that has none.

    Raises:
        InvalidSetting: the server has a ledger, or somebody else writes to it.
        BackupUnusable: what the backup holds is no whole ledger.
    """
    settings = BusSettings(url=url, user=subjects.INIT, seed_file=seed, keeps_while_disconnected=False)
    bus = await NatsBus.connect(settings, lost=lambda _: None)
    try:
        api = await JetStreamApi.open(bus)
        await create_streams(api)
        ledger = JetStreamLedger(bus, api, LedgerSettings(consumer=subjects.INIT, append_within_seconds=10))
        if await ledger.last_sequence() != 0:
            raise InvalidSetting("the server has a ledger already", hint="restore on an empty server")
        created: LedgerCreated | None = None
        for number, payload in enumerate(anew(made, messages)):
            stored = await ledger.append(payload, expected=Sequence(number))
            if not isinstance(stored, Appended):
                raise InvalidSetting(f"{number + 1} was not stored: {stored}", hint="begin again on an empty server")
            created = created or codec.decode_record(payload).created
    finally:
        await bus.close()
    assert created is not None, "the first record creates the ledger"
    return created


def anew(made: Backup, messages: list[StoredMessage]) -> Iterator[bytes]:
    """What a ledger of a new id stores: each record's events as they are, its place in a new chain. What was foreign
    stays where it is, and foreign.
    """
    old: Tip | None = None
    new_id, prev_hash = LedgerId(secrets.token_hex(16)), NO_HASH
    for stored in messages:
        record = _valid(old, stored)
        if record is None:
            yield stored.payload
            continue
        old = tip_of(record)
        payload, prev_hash = _rechained(stored.payload, record, new_id, prev_hash, made)
        yield payload
    if old is None or (old.sequence, old.hash) != (made.sequence, made.hash):
        raise BackupUnusable(f"its records end otherwise than at {made.sequence}")


def _rechained(payload: bytes, record: Record, new_id: LedgerId, prev_hash: str, made: Backup) -> tuple[bytes, str]:
    front, events = payload.split(_EVENTS, 1)
    members: Any = orjson.loads(b"{" + front[codec.HASH_END :] + b"}")
    front = orjson.dumps({**members, "ledger_id": new_id, "prev_hash": prev_hash})[1:-1]
    if record.created is not None:
        said = record.created.model_copy(update={"ledger_id": new_id, "restored_from": _origin(made)})
        events = b'{"tx":0,' + codec.encode_event(Event(said))[1:] + b"]}"
    body = front + _EVENTS + events
    found = codec.digest_of(b"{" + body)
    return b'{"hash":"%s",' % found.encode() + body, found


def _origin(made: Backup) -> RestoredFrom:
    return RestoredFrom(ledger_id=LedgerId(made.ledger_id), sequence=Sequence(made.sequence), hash=made.hash)

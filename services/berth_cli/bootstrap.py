"""What a cluster needs before anything can start: a key for each user, the server's configuration, the
streams and the first record of the ledger (RAFT section 2, "Bootstrap").

All of it may be done again: keys and streams that are there stay, and the first record is stored by
compare-and-set on an empty ledger, so of several inits one creates the ledger.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tenacity

from berth import subjects
from berth.adapters import server_config
from berth.adapters.jetstream_api import JetStreamApi
from berth.adapters.jetstream_ledger import JetStreamLedger, LedgerSettings
from berth.adapters.nats_bus import BusSettings, NatsBus
from berth.adapters.server_config import ServerSettings
from berth.adapters.streams import create_streams
from berth.adapters.system_clock import SystemClock
from berth.adapters.users import User, create_user, load_users, save_users, seed_file, standard_users, with_user
from berth.errors import BerthError, CorruptRecord, InvalidSetting, Unreachable
from berth.ids import LedgerId, is_name
from berth.ids import Sequence as Position
from berth.messages.events import LedgerCreated
from berth.wire import codec
from berth_cli.folder import Folder

LEVEL = "ledger"
"""Durability of a new ledger for which nobody asked for another: the embedded set-up has one disk."""

FIRST = Position(1)
_WITHIN_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many processes of each role have a user."""

    raft: int = 3
    schedulers: int = 2
    quotas: int = 2
    reservations: int = 2


# --- the folder -------------------------------------------------------------------------------------


def prepare(folder: Folder, server: ServerSettings, size: Size) -> Path:
    """Make the keys that are missing and write the server's configuration; the path of that file.

    Users that were added to the folder later stay.
    """
    folder.create()
    users = load_users(folder.users)
    for user in standard_users(
        folder.keys, raft=size.raft, schedulers=size.schedulers, quotas=size.quotas, reservations=size.reservations
    ):
        users = with_user(users, user)
    save_users(folder.users, users)
    return server_config.write(folder.server_configuration, server, users)


def add_client(folder: Folder, namespace: str) -> Path:
    """A key for the clients of one namespace, `client-<namespace>`; the path of its seed file.

    Raises:
        InvalidSetting: the namespace can have no such name, or the folder has no users yet.
    """
    name = f"client-{namespace}"
    if not is_name(namespace) or not is_name(name):
        raise InvalidSetting(f"{namespace!r} is no namespace", hint="an RFC 1123 label, here of at most 56 characters")
    return _add(folder, create_user(folder.keys, name=name, role=subjects.CLIENT, namespaces=[namespace]))


def add_agent(folder: Folder, node: str) -> Path:
    """A key for the agent of one node, `agent-<node>`; the path of its seed file.

    Raises:
        InvalidSetting: no node can have that name, or the folder has no users yet.
    """
    if not is_name(node):
        raise InvalidSetting(f"{node!r} is no name of a node", hint="an RFC 1123 label of at most 63 characters")
    return _add(folder, create_user(folder.keys, name=f"agent-{node}", role=subjects.AGENT, node=node))


def _add(folder: Folder, user: User) -> Path:
    users = load_users(folder.users)
    if not users:
        raise InvalidSetting(f"{folder.path} has no users yet", hint=f"`berth init --dir {folder.path}` makes them")
    users = with_user(users, user)
    save_users(folder.users, users)
    text = server_config.render_users(users)
    (folder.server_configuration / server_config.USERS_FILE).write_text(text)
    return seed_file(folder.keys, user.name)


# --- the server -------------------------------------------------------------------------------------


class OtherMembers(BerthError):
    """The ledger was created for other raft nodes than are to be started. Nothing was changed."""

    code = "other_members"
    exit_code = 2

    def __init__(self, there: Sequence[str]) -> None:
        super().__init__(
            f"the ledger has the raft nodes {', '.join(there)}",
            hint=f"start these (--raft {len(there)}), or begin another cluster in another folder",
        )


class OtherLevel(BerthError):
    """The ledger was created with another durability. Nothing was changed."""

    code = "other_level"
    exit_code = 2

    def __init__(self, there: str) -> None:
        super().__init__(
            f"the ledger has durability {there}, for good",
            hint=f"start it with --durability {there}, or begin another cluster in another folder",
        )


async def create_ledger(
    url: str,
    seed: Path,
    *,
    members: Sequence[str],
    replicas: int = 1,
    level: str | None = None,
    keep: Path | None = None,
) -> LedgerCreated:
    """Make streams and first record where they are missing; what the first record says.

    `level` None: as the ledger has it, `ledger` for a new one. `keep`: the first record stays in this file too, and a
    stream that was lost begins with it again, so that what the raft nodes have mirrored follows it.

    Waits up to half a minute for a server that is just starting.

    Raises:
        OtherMembers: the ledger that is there has other raft nodes.
        OtherLevel: it has another durability than was asked for.
        StreamMisconfigured: a stream is there and is not as Berth needs it.
        Unreachable: no server, or one that does not know the key.
    """
    settings = BusSettings(
        url=url,
        user=subjects.INIT,
        seed_file=seed,
        connect_within_seconds=_WITHIN_SECONDS,
        keeps_while_disconnected=False,
    )
    bus = await NatsBus.connect(settings, lost=lambda _: None)  # then the next question is not answered
    try:
        api = await JetStreamApi.open(bus)
        ledger = JetStreamLedger(bus, api, LedgerSettings(consumer=subjects.INIT))
        created: LedgerCreated | None = None
        async for attempt in _until_reached():
            with attempt:
                await create_streams(api, replicas=replicas)
                created = await _first_record(ledger, tuple(members), level or LEVEL, keep)
        assert created is not None
    finally:
        await bus.close()
    if created.members != tuple(members):
        raise OtherMembers(created.members)
    if level is not None and created.level != level:
        raise OtherLevel(created.level)
    return created


def _until_reached() -> tenacity.AsyncRetrying:
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(Unreachable),
        wait=tenacity.wait_exponential_jitter(multiplier=0.02, max=1, jitter=0.05),
        stop=tenacity.stop_after_delay(_WITHIN_SECONDS),
        reraise=True,
    )


async def _first_record(
    ledger: JetStreamLedger, members: tuple[str, ...], level: str, keep: Path | None
) -> LedgerCreated:
    """What the stream's first message says; stored now if there is none.

    Whether our append won, lost or is in doubt: what is read afterwards is the answer.
    """
    kept = _kept(keep)
    if await ledger.last_sequence() == 0:
        await ledger.append(kept or _new_record(members, level), expected=Position(0))
    stored = await ledger.read(FIRST)
    if stored is None:
        raise Unreachable("the first record was not stored")
    created = codec.decode_record(stored.payload).created
    if created is None:
        raise CorruptRecord("the ledger does not begin with LedgerCreated", hint="is this the right server?")
    if keep is not None and kept is None:
        _keep(keep, stored.payload)
    return created


def _kept(path: Path | None) -> bytes | None:
    return path.read_bytes() if path is not None and path.exists() else None


def _keep(path: Path, payload: bytes) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(payload)
    temporary.replace(path)


def _new_record(members: tuple[str, ...], level: str) -> bytes:
    from berth_raft.commit import first_record  # with all of the model, which nothing else here needs

    ledger_id = LedgerId(secrets.token_hex(16))
    return first_record(ledger_id=ledger_id, members=members, level=level, now_ms=SystemClock().now_ms())

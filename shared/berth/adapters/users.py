"""Who may connect: one user per process, known by its public nkey; the seeds are files that only their owner reads.

The server stores public keys only (RAFT section 6). A user's name is its process's name, such as
quota-1; it is also its inbox prefix, `_INBOX_<name>`.
"""

import json
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import nkeys  # pyright: ignore[reportMissingTypeStubs] it has none

from berth import subjects
from berth.errors import InvalidSetting
from berth.ids import is_name

SEED_MODE = 0o600
FOLDER_MODE = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One principal. `namespaces`: a client's, empty is every one. `node`: an agent's, None is any (`--simulate`)."""

    name: str
    role: str
    public_key: str
    namespaces: tuple[str, ...] = ()
    node: str | None = None

    def __post_init__(self) -> None:
        if self.role not in subjects.ROLES:
            raise InvalidSetting(
                f"user {self.name}: no role {self.role}", hint=f"roles are {', '.join(subjects.ROLES)}"
            )
        names = (self.name, *self.namespaces, *((self.node,) if self.node else ()))
        for name in names:
            if not is_name(name) and not is_agent_name(name):
                raise InvalidSetting(
                    f"user {self.name}: {name!r} is no name", hint="names are RFC 1123 labels of at most 63 characters"
                )


def is_agent_name(name: str) -> bool:
    """`agent-<node>` may be longer than a label, since the node alone may have 63 characters."""
    return name.startswith("agent-") and is_name(name.removeprefix("agent-"))


def seed_file(folder: Path, name: str) -> Path:
    """Where the seed of user `name` is kept: what a process is given to sign in with."""
    return folder / f"{name}.nk"


def create_user(folder: Path, *, name: str, role: str, namespaces: Sequence[str] = (), node: str | None = None) -> User:
    """The user, with a seed file `<folder>/<name>.nk` of mode 0600.

    A seed that is already there is kept, so that a second start of the same folder changes no key.

    Raises:
        InvalidSetting: a name or role that cannot be, or a seed file that holds no seed.
    """
    user = User(name=name, role=role, public_key="", namespaces=tuple(namespaces), node=node)
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    path = seed_file(folder, name)
    if not path.exists():
        write_seed(path, new_seed())
    return replace(user, public_key=public_key(path))


def standard_users(
    folder: Path, *, raft: int = 3, schedulers: int = 2, quotas: int = 2, reservations: int = 2
) -> list[User]:
    """The users of one cluster: every process that `berth up` and compose run, `client` for every namespace,
    `admin`, `init`, `watch`, and `agent` for any node.
    """
    counts = {
        subjects.RAFT: raft,
        subjects.QUOTA: quotas,
        subjects.SCHEDULER: schedulers,
        subjects.RESERVATION: reservations,
    }
    users = [
        create_user(folder, name=f"{role}-{number}", role=role)
        for role, count in counts.items()
        for number in range(1, count + 1)
    ]
    single = (subjects.CONSOLE, subjects.AGENT, subjects.CLIENT, subjects.ADMIN, subjects.INIT, subjects.WATCH)
    return users + [create_user(folder, name=role, role=role) for role in single]


def save_users(path: Path, users: Iterable[User]) -> None:
    """Write the register of users (public keys only), replacing it whole."""
    written = json.dumps([asdict(user) for user in users], indent=2) + "\n"
    temporary = path.with_suffix(".new")
    temporary.write_text(written)
    temporary.replace(path)


def load_users(path: Path) -> list[User]:
    """The register as `save_users` wrote it; empty when there is none yet.

    Raises:
        InvalidSetting: the file is not such a register.
    """
    if not path.exists():
        return []
    try:
        entries: list[Any] = json.loads(path.read_text())
        return [_user(entry) for entry in entries]
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidSetting(f"{path} is no register of users: {error}", hint="`berth init` writes it") from None


def _user(entry: dict[str, Any]) -> User:
    return User(
        name=entry["name"],
        role=entry["role"],
        public_key=entry["public_key"],
        namespaces=tuple(entry["namespaces"]),
        node=entry["node"],
    )


def with_user(users: Iterable[User], user: User) -> list[User]:
    """`users` with `user` added, or put in the place of the one that has its name."""
    return [other for other in users if other.name != user.name] + [user]


# --- nkeys ------------------------------------------------------------------------------------------


def new_seed() -> bytes:
    """A new user seed (`SU…`), 58 characters."""
    return bytes(nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER))  # pyright: ignore[reportUnknownMemberType]


def write_seed(path: Path, seed: bytes) -> None:
    """Write a new seed file that nobody else can read, not even for an instant."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SEED_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(seed + b"\n")


def public_key(path: Path) -> str:
    """The public key (`U…`) that belongs to the seed in `path`.

    Raises:
        InvalidSetting: the file holds no user seed.
    """
    try:
        pair = nkeys.from_seed(bytearray(path.read_bytes().strip()))  # pyright: ignore[reportUnknownMemberType]
        found = bytes(pair.public_key).decode()
    except OSError as error:
        raise InvalidSetting(f"no key in {path}: {error.strerror}", hint="`berth init` makes keys") from None
    except (nkeys.NkeysError, ValueError) as error:
        raise InvalidSetting(f"{path} holds no nkey seed: {error}", hint="it is one line that begins with SU") from None
    if not found.startswith("U"):
        raise InvalidSetting(f"{path} is not the seed of a user", hint="it is one line that begins with SU")
    return found

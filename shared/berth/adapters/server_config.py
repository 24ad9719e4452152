"""The configuration of nats-server: storage that syncs always, loopback unless told otherwise, users by nkey.

Two files: `nats.conf` changes only with the machine, `users.conf` is rewritten when a key is added and
read again on SIGHUP (RAFT section 6).
"""

import ipaddress
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from berth.adapters.connection import PAYLOAD_BYTES_MAX
from berth.adapters.permissions import ACCOUNT, RESPONSE_SECONDS, permissions
from berth.adapters.users import User
from berth.errors import InvalidSetting
from berth.subjects import WATCH

CONFIG_FILE = "nats.conf"
USERS_FILE = "users.conf"
SYSTEM_ACCOUNT = "SYS"
ANY_PORT = -1
"""The server takes a free port and writes it to its ports file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of the server. With `authority`, clients must show a certificate that it signed."""

    certificate: Path
    key: Path
    authority: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """One server. `port` and `monitor_port`: -1 is any free one; the monitor listens on loopback only.

    `insecure_network`: the operator says that everybody who can reach `host` may read what passes,
    as in compose, where the listener is on the private network of the containers.
    """

    store: Path
    name: str = "berth"
    host: str = "127.0.0.1"
    port: int = ANY_PORT
    monitor_port: int = ANY_PORT
    tls: TlsFiles | None = None
    insecure_network: bool = False
    store_bytes_max: int = 64 * 1024**3
    connections_max: int = 16_384
    consumers_max: int = 256


def render(settings: ServerSettings) -> str:
    """The text of `nats.conf`, which includes `users.conf` beside it.

    `sync_interval: always` needs a line of its own: after another setting on one line it is a parse
    error, and the server exits (RAFT section 1, config trap).

    Raises:
        InvalidSetting: a listener beyond loopback without TLS that nobody asked for explicitly.
    """
    if not _is_loopback(settings.host) and settings.tls is None and not settings.insecure_network:
        raise InvalidSetting(
            f"the bus would listen on {settings.host} without TLS",
            hint="give TLS files, listen on 127.0.0.1, or say explicitly that the network is private",
        )
    lines = [
        f"server_name: {_text(settings.name)}",
        f"listen: {_text(f'{settings.host}:{settings.port}')}",
        f"http: {_text(f'127.0.0.1:{settings.monitor_port}')}",
        "",
        f"max_payload: {PAYLOAD_BYTES_MAX}",
        "max_control_line: 4096",
        f"max_connections: {settings.connections_max}",
        "max_subscriptions: 4096",
        # A process that stopped (SIGSTOP, a lost machine) is dropped within half a minute; one whose loop
        # is busy with a replay for a few seconds is not.
        'ping_interval: "10s"',
        "ping_max: 2",
        'write_deadline: "10s"',
        "",
        "jetstream {",
        f"  store_dir: {_text(str(settings.store))}",
        "  sync_interval: always",
        "  max_memory_store: 67108864",
        f"  max_file_store: {settings.store_bytes_max}",
        "}",
        *_tls(settings.tls),
        "",
        f"include {_text(USERS_FILE)}",
    ]
    return "\n".join(lines) + "\n"


def render_users(users: Iterable[User], *, consumers_max: int = 256) -> str:
    """The text of `users.conf`: the accounts, and for each user its public key and its allow-lists."""
    users = list(users)
    lines = [
        "accounts {",
        f"  {ACCOUNT} {{",
        "    jetstream {",
        "      max_streams: 16",
        f"      max_consumers: {consumers_max}",
        "    }",
        "    users: [",
        *(line for user in users if user.role != WATCH for line in _user(user)),
        "    ]",
        "  }",
        f"  {SYSTEM_ACCOUNT} {{",
        "    users: [",
        *(line for user in users if user.role == WATCH for line in _user(user)),
        "    ]",
        "  }",
        "}",
        f"system_account: {SYSTEM_ACCOUNT}",
    ]
    return "\n".join(lines) + "\n"


def write(folder: Path, settings: ServerSettings, users: Iterable[User]) -> Path:
    """Write both files into `folder`, which is made where it is missing; the path of `nats.conf`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / CONFIG_FILE
    path.write_text(render(settings))
    (folder / USERS_FILE).write_text(render_users(users, consumers_max=settings.consumers_max))
    return path


def _user(user: User) -> list[str]:
    allowed = permissions(user)
    lines = [
        f"      # {user.role} {user.name}",
        f"      {{ nkey: {user.public_key}, permissions: {{",
        *_allow("publish", allowed.publish),
        *_allow("subscribe", allowed.subscribe),
    ]
    if allowed.answers:
        lines.append(f'        allow_responses: {{ max: {allowed.answers}, expires: "{RESPONSE_SECONDS}s" }}')
    return [*lines, "      } }"]


def _allow(verb: str, patterns: Sequence[str]) -> list[str]:
    """An empty allow-list would allow everything."""
    if not patterns:
        return [f'        {verb}: {{ deny: ">" }}']
    return [
        f"        {verb}: {{ allow: [",
        *(f"          {_text(pattern)}" for pattern in patterns),
        "        ] }",
    ]


def _tls(files: TlsFiles | None) -> list[str]:
    if files is None:
        return []
    lines = ["", "tls {", f"  cert_file: {_text(str(files.certificate))}", f"  key_file: {_text(str(files.key))}"]
    if files.authority is not None:
        lines += [f"  ca_file: {_text(str(files.authority))}", "  verify: true"]
    return [*lines, "}"]


def _text(value: str) -> str:
    """A string of the configuration language. Without quotes a `$` would be a variable, a `-` a sign."""
    return json.dumps(value)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

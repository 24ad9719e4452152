"""Which processes one cluster of `berth up` has, what each is told, and in which order they stop. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from berth import subjects
from berth.adapters.users import seed_file
from berth.errors import InvalidSetting
from berth_cli.folder import Folder
from berth_cli.processes import Program

SUPERVISOR = "supervisor"
NATS = "nats"

STOP_ORDER: tuple[tuple[str, ...], ...] = (
    (subjects.AGENT, subjects.SCHEDULER, subjects.QUOTA, subjects.RESERVATION),
    (subjects.RAFT,),
    (subjects.CONSOLE,),  # it takes the last spans of the others
    (NATS,),
)
"""Roles that stop together; each group waits for the one before."""

_OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Durability(StrEnum):
    """Committed is what the stream has acknowledged, or what a majority of raft nodes has on disk besides (RAFT
    section 0).
    """

    LEDGER = "ledger"
    QUORUM = "quorum"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What `berth up` is asked for. `raft` None: as many as the folder's ledger has, 3 for a new one.

    `durability` None: as the folder's ledger has it, `ledger` for a new one.
    `port`: of the bus; the console has the next one; 0 is any free port for both.
    `settings`: variables for the processes of a service, from `--set`.
    """

    raft: int | None = None
    schedulers: int = 2
    quotas: int = 2
    nodes: int = 20
    workload: bool = True
    port: int = 4222
    durability: Durability | None = None
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """One process: what it runs, and the variables that it gets besides those of the supervisor."""

    role: str
    name: str
    program: Program
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the cluster listens."""

    nats_url: str
    console_port: int

    @property
    def console_url(self) -> str:
        return f"http://127.0.0.1:{self.console_port}"


def raft_members(count: int) -> tuple[str, ...]:
    """The names of the raft nodes of a cluster.

    Raises:
        InvalidSetting: a number that gains nothing over the next smaller odd one, or none.
    """
    if count < 1 or count % 2 == 0:
        raise InvalidSetting(f"{count} raft nodes", hint="3 or 5, or 1 for development: an even number adds no safety")
    return tuple(f"raft-{number}" for number in range(1, count + 1))


def services(
    folder: Folder, wish: Wish, *, members: tuple[str, ...], addresses: Addresses, environment: Mapping[str, str]
) -> list[ProcessSpec]:
    """Every process but the server, in the order in which they are started.

    `environment` is the supervisor's own: where it exports traces to, the console forwards them.
    """
    made: list[ProcessSpec] = []
    forwarded_to = environment.get(_OTLP_ENDPOINT)
    for role, names, own in _roles(folder, wish, members, addresses):
        prefix = f"BERTH_{role.upper()}_"
        for name in names:
            told = {
                "USER": name,
                "NATS_URL": addresses.nats_url,
                "NKEY_FILE": str(folder.keys / f"{name}.nk"),
                "DATA_DIR": str(folder.data(name)),
                **_where_snapshots_are(role, folder),
                "LOG_FORMAT": "json",
                **own,
            }
            variables = {prefix + setting: value for setting, value in told.items()}
            if role != subjects.CONSOLE:
                variables[_OTLP_ENDPOINT] = addresses.console_url
            elif forwarded_to is not None:
                variables[_OTLP_ENDPOINT] = forwarded_to
            made.append(
                ProcessSpec(
                    role=role,
                    name=name,
                    program=Program(module=f"berth_{role}"),
                    environment={**variables, **wish.settings.get(role, {})},
                )
            )
    return made


def _where_snapshots_are(role: str, folder: Folder) -> dict[str, str]:
    """Services share theirs; a raft node trusts its own disk only, and agents fold nothing."""
    return {} if role in (subjects.RAFT, subjects.AGENT) else {"SNAPSHOT_DIR": str(folder.data("snapshots"))}


def _roles(
    folder: Folder, wish: Wish, members: tuple[str, ...], addresses: Addresses
) -> list[tuple[str, tuple[str, ...], dict[str, str]]]:
    """Role, names, and what only this role is told."""
    found: list[tuple[str, tuple[str, ...], dict[str, str]]] = [
        (
            subjects.RAFT,
            members,
            {"MEMBERS": _as_json(members), "WATCH_NKEY_FILE": str(seed_file(folder.keys, subjects.WATCH))},
        ),
        (subjects.QUOTA, tuple(f"quota-{number}" for number in range(1, wish.quotas + 1)), {}),
        (subjects.SCHEDULER, tuple(f"scheduler-{number}" for number in range(1, wish.schedulers + 1)), {}),
        (subjects.RESERVATION, ("reservation-1", "reservation-2"), {}),
        (subjects.CONSOLE, ("console",), {"PORT": str(addresses.console_port)}),
    ]
    if wish.nodes:
        found.append((subjects.AGENT, ("agent",), {"SIMULATE": str(wish.nodes)}))
    return found


def _as_json(names: tuple[str, ...]) -> str:
    return "[" + ",".join(f'"{name}"' for name in names) + "]"


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """The supervisor's environment as its processes get it: where traces go is decided here, not per signal."""
    return {
        name: value
        for name, value in environment.items()
        if not (name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith("ENDPOINT"))
    }

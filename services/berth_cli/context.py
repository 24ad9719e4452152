"""How a command finds its cluster.

By `--url` and `--nkey`, else `--dir` or BERTH_DIR, else the current context, else `.berth` in the current
folder. A command that needs a cluster is decorated with `on_cluster` and gets a `Target`.
"""

import functools
import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from berth.errors import InvalidSetting, Unreachable

FOLDER_VARIABLE = "BERTH_DIR"
DEFAULT_FOLDER = Path(".berth")
FOLDER_FILE = "berth.json"

Role = Literal["client", "admin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAddress:
    """Where a cluster's bus is and who signs in. `folder` and `console_url` are known for clusters of `berth up`.

    A seed file is named after its user (`client.nk`, `client-team-a.nk`): the user's inbox has that name too.
    """

    url: str
    user: str
    seed_file: Path | None = None
    folder: Path | None = None
    console_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the command line says about the cluster; `as_json`: the answer is for a script."""

    url: str | None = None
    nkey: Path | None = None
    folder: Path | None = None
    as_json: bool = False

    def address(self, role: Role = "client") -> ClusterAddress:
        """The cluster that is meant, signed in as its `client` (every namespace) or its `admin`.

        `--nkey` decides who signs in, whatever `role` says.

        Raises:
            Unreachable: there is no cluster where it says.
            InvalidSetting: what it says cannot be read.
        """
        if self.url is not None:
            return _at(self.url, self.nkey, role)
        if self.folder is not None:
            return _in_folder(self.folder, self.nkey, role)
        current = None if os.environ.get(FOLDER_VARIABLE) else load_contexts().current
        if current is not None and current.url is not None:
            return _at(current.url, self.nkey or current.nkey, role)
        return _in_folder(self.folder_meant(), self.nkey, role)

    def folder_meant(self) -> Path:
        """The folder of a cluster of `berth up`, whether or not one runs there."""
        if self.folder is not None:
            return self.folder
        if named := os.environ.get(FOLDER_VARIABLE):
            return Path(named)
        current = load_contexts().current
        return current.folder if current is not None and current.folder is not None else DEFAULT_FOLDER


def _at(url: str, nkey: Path | None, role: Role) -> ClusterAddress:
    if nkey is not None and not nkey.is_file():
        raise InvalidSetting(f"no seed file {nkey}", hint="--nkey names a file such as keys/client.nk")
    return ClusterAddress(url=url, user=nkey.stem if nkey is not None else role, seed_file=nkey)


def _in_folder(folder: Path, nkey: Path | None, role: Role) -> ClusterAddress:
    path = folder / FOLDER_FILE
    try:
        told: dict[str, Any] = json.loads(path.read_text())
        seed_file = nkey if nkey is not None else folder / told["credentials"][role]
        return ClusterAddress(
            url=told["nats_url"],
            user=seed_file.stem,
            seed_file=seed_file,
            folder=folder,
            console_url=told.get("console_url"),
        )
    except (FileNotFoundError, NotADirectoryError):
        raise Unreachable(
            f"no cluster in {folder}: there is no {FOLDER_FILE}",
            hint=f"start one with `berth up --dir {folder}`, or name another with --dir or --url",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidSetting(f"{path} cannot be read: {error!r}", hint="`berth up` writes it again") from None


# --- contexts ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A cluster by name: either `url` (and `nkey`) or `folder`."""

    url: str | None = None
    nkey: Path | None = None
    folder: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """What this user calls which cluster; `chosen` is the name of the current one."""

    chosen: str | None
    named: Mapping[str, Context]

    @property
    def current(self) -> Context | None:
        return self.named.get(self.chosen) if self.chosen is not None else None


def contexts_file() -> Path:
    """`berth/contexts.json` in the user's folder of settings."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "berth" / "contexts.json"


def load_contexts() -> Contexts:
    """As `save_contexts` wrote them; none when it never did.

    Raises:
        InvalidSetting: the file is damaged.
    """
    path = contexts_file()
    try:
        told: dict[str, Any] = json.loads(path.read_text())
        named = {
            name: Context(
                url=entry.get("url"),
                nkey=Path(entry["nkey"]) if entry.get("nkey") else None,
                folder=Path(entry["dir"]) if entry.get("dir") else None,
            )
            for name, entry in told["contexts"].items()
        }
        return Contexts(chosen=told["current"], named=named)
    except (FileNotFoundError, NotADirectoryError):
        return Contexts(chosen=None, named={})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidSetting(f"{path} cannot be read: {error!r}", hint="correct or remove it") from None


def save_contexts(contexts: Contexts) -> None:
    """Write them, replacing the file whole."""
    path = contexts_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = {
        name: {
            "url": context.url,
            "nkey": None if context.nkey is None else str(context.nkey),
            "dir": None if context.folder is None else str(context.folder),
        }
        for name, context in contexts.named.items()
    }
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"version": 1, "current": contexts.chosen, "contexts": entries}, indent=2) + "\n")
    temporary.replace(path)


# --- the options ------------------------------------------------------------------------------------


def _option(name: str, default: object, annotation: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_OPTIONS = (
    _option(
        "url",
        None,
        Annotated[str | None, typer.Option("--url", help="Address of the bus, such as nats://127.0.0.1:4222.")],
    ),
    _option(
        "nkey",
        None,
        Annotated[Path | None, typer.Option("--nkey", help="Seed file of the user; named after it.")],
    ),
    _option(
        "folder",
        None,
        Annotated[Path | None, typer.Option("--dir", help="Folder of a cluster of `berth up`; else BERTH_DIR.")],
    ),
    _option("as_json", False, Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]),
)


def on_cluster(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options that say which cluster, and `--json`; it gets them as its first argument."""
    signature = inspect.signature(command, eval_str=True)
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in signature.parameters.values()]

    @functools.wraps(command)
    def with_target(**given: Any) -> None:
        target = Target(**{option.name: given.pop(option.name) for option in _OPTIONS})
        command(target, **given)

    asked = signature.replace(parameters=[*own[1:], *_OPTIONS])
    with_target.__signature__ = asked  # pyright: ignore[reportAttributeAccessIssue] typer asks for the signature
    return with_target

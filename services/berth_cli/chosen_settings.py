"""`--set name=value`: settings of the services by their names, checked before anything is started."""

import importlib
import os
from collections.abc import Iterable
from difflib import get_close_matches

from berth import subjects
from berth.errors import InvalidSetting
from berth.runtime.settings import ServiceSettings

SERVICES = (
    subjects.RAFT,
    subjects.QUOTA,
    subjects.SCHEDULER,
    subjects.RESERVATION,
    subjects.CONSOLE,
    subjects.AGENT,
)

FIXED = frozenset(
    {
        "user",
        "nats_url",
        "nkey_file",
        "data_dir",
        "snapshot_dir",
        "log_format",
        "members",
        "replicas",
        "port",
        "simulate",
        "node",
        "otlp_endpoint",
    }
)
"""Set by `berth up` itself."""


def settings_class(service: str) -> type[ServiceSettings]:
    """What an operator may change about `service`."""
    module = importlib.import_module(f"berth_{service}.settings")
    for found in vars(module).values():
        if isinstance(found, type) and issubclass(found, ServiceSettings) and found is not ServiceSettings:
            return found
    raise AssertionError(f"berth_{service}.settings has no settings")


def chosen(assignments: Iterable[str]) -> dict[str, dict[str, str]]:
    """Variables by service. `heartbeat_ms=40` is for every service that has it, `raft.heartbeat_ms=40` for one.

    Raises:
        InvalidSetting: no such setting, one that `berth up` sets itself, or a value that cannot be.
    """
    variables: dict[str, dict[str, str]] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise InvalidSetting(f"--set {assignment}", hint="expected name=value, such as heartbeat_ms=50")
        for service, variable in _meant(name):
            variables.setdefault(service, {})[variable] = value
    for service, given in variables.items():
        _check(service, given)
    return variables


def _meant(name: str) -> list[tuple[str, str]]:
    """Each service that has the setting, with its variable."""
    only, _, setting = name.rpartition(".")
    known = {
        service: {
            field: variable for field, variable in settings_class(service).variables().items() if field not in FIXED
        }
        for service in SERVICES
        if only in ("", service)
    }
    found = [(service, fields[setting]) for service, fields in known.items() if setting in fields]
    if found:
        return found
    names = sorted({field for fields in known.values() for field in fields})
    near = get_close_matches(setting, names, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise InvalidSetting(f"unknown setting {name}", hint=f"{meant}known ones are {', '.join(names) or 'none'}")


def _check(service: str, given: dict[str, str]) -> None:
    """Read the settings as the service will."""
    needed = {settings_class(service).variables()["user"]: service}
    before = dict(os.environ)
    os.environ.update({**needed, **given})
    try:
        settings_class(service).load()
    finally:
        os.environ.clear()
        os.environ.update(before)

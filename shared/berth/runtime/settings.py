"""What an operator may change: typed, with units in the names, read once from the environment.

A service's variable is `BERTH_<SERVICE>_<NAME>`, such as `BERTH_QUOTA_NATS_URL`. A variable with the
service's prefix that names no setting is refused: a typo never becomes a default. Telemetry has the
standard `OTEL_*` variables and no others (DESIGN section 6).
"""

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from berth.errors import InvalidSetting, Problem
from berth.messages.requests import Name
from berth.messages.validation import problems

OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

Port = Annotated[int, Field(ge=0, le=65_535)]


class ServiceSettings(BaseSettings):
    """What every service has. A service derives its own class, which sets `service` and adds its numbers."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", populate_by_name=True, env_ignore_empty=True)

    service: ClassVar[str]
    """One word: quota, scheduler, reservation, raft, console, agent."""

    user: Name
    """The process's name on the bus, such as quota-1; also its nkey user and its inbox."""
    nats_url: str = "nats://127.0.0.1:4222"
    """Address of the bus."""
    nkey_file: Path | None = None
    """The user's seed; None where the server asks for no credentials."""
    data_dir: Path | None = None
    """Where this process may keep files; None: it keeps none."""
    snapshot_dir: Path | None = None
    """Where snapshots are, which several processes may share; None: in `data_dir`, or nowhere without that."""
    snapshot_every_events: Annotated[int, Field(ge=0)] = 100_000
    """How many events are folded between two snapshots, half as many as the state has rows at least; 0: none."""
    health_port: Port | None = None
    """Loopback port of `/livez` and `/readyz`; 0 is any free port, None is no port."""
    log_format: Literal["json", "text"] = "json"
    """One JSON object a line, or a line for people; on standard error."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is less important than this is not written."""
    inbox_messages: Annotated[int, Field(ge=1)] = 10_000
    """What waits to be handled; beyond it commands are answered `overloaded`."""
    inbox_bytes: Annotated[int, Field(ge=1)] = 64 * 1024 * 1024
    """The same in bytes."""
    drain_seconds: Annotated[float, Field(gt=0)] = 5.0
    """How long a process that was asked to end may take to finish what it has begun."""
    otlp_endpoint: Annotated[str | None, Field(validation_alias=OTLP_ENDPOINT)] = None
    """Base address of an OTLP/HTTP receiver; None: nothing is exported."""

    @property
    def telemetry_endpoint(self) -> str | None:
        """Where this process's own telemetry goes."""
        return self.otlp_endpoint

    @property
    def snapshot_folder(self) -> Path | None:
        """Where this process looks for snapshots and writes them; None: it does neither."""
        if self.snapshot_every_events == 0:
            return None
        if self.snapshot_dir is not None:
            return self.snapshot_dir
        return None if self.data_dir is None else self.data_dir / "snapshots"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment: no files that nobody sees."""
        del env_settings, dotenv_settings, file_secret_settings
        return (init_settings, EnvSettingsSource(settings_cls, env_prefix=cls.prefix()))

    @classmethod
    def prefix(cls) -> str:
        """What the names of this service's variables begin with."""
        return f"BERTH_{cls.service.upper()}_"

    @classmethod
    def variables(cls) -> dict[str, str]:
        """Each setting's variable by the setting's name."""
        return {name: _variable(cls.prefix(), name, field.validation_alias) for name, field in cls.model_fields.items()}

    @classmethod
    def load(cls) -> Self:
        """The settings that the environment gives; an empty variable counts as absent.

        Raises:
            InvalidSetting: an unknown variable with this service's prefix, a missing or a wrong value.
        """
        variables = cls.variables()
        _refuse_unknown(cls.prefix(), os.environ, variables.values())
        try:
            return cls()  # pyright: ignore[reportCallIssue] the environment gives what is required
        except ValidationError as error:
            raise _invalid(problems(error, root=""), variables) from None
        except SettingsError as error:
            raise InvalidSetting(f"{error}", hint="lists and mappings are written as JSON") from None


def _variable(prefix: str, name: str, alias: object) -> str:
    return alias if isinstance(alias, str) else prefix + name.upper()


def _refuse_unknown(prefix: str, present: Iterable[str], known: Iterable[str]) -> None:
    known = sorted(known)
    for variable in sorted(present):
        if variable.startswith(prefix) and variable not in known:
            near = get_close_matches(variable, known, n=1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise InvalidSetting(f"unknown setting {variable}", hint=f"{meant}known ones are {', '.join(known)}")


def _invalid(found: list[Problem], variables: Mapping[str, str]) -> InvalidSetting:
    lines = [f"{variables.get(problem.path, problem.path)}: {problem.expected}" for problem in found]
    return InvalidSetting("; ".join(lines), hint="units stand in the name of each setting")

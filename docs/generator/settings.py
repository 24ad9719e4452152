"""The page of settings: what an operator may change, by service, with variable, type, bounds and default."""

from typing import Any

from pydantic_core import PydanticUndefined

from berth.resources import LARGEST
from berth.runtime.settings import ServiceSettings
from berth_cli.chosen_settings import FIXED, SERVICES, settings_class
from docs.generator.docstrings import field_docstrings
from docs.generator.markdown import first_sentence, page, table

HEADING = ("setting", "variable", "value", "default", "what")

INTRODUCTION = """\
Each process reads its settings once, from the environment. A variable with a service's prefix that names no
setting is refused, with the nearest known name; an empty variable counts as absent. Units stand in the names.
Lists are written as JSON.

`berth up --set NAME=VALUE` sets one for every service that has it, `--set SERVICE.NAME=VALUE` for one service.
What `berth up` sets itself is marked with ✱ and cannot be set that way."""

STANDARD = (
    ("`OTEL_EXPORTER_OTLP_ENDPOINT`", "Base address of the receiver; for the console: where it forwards to."),
    ("`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`", "The same for one signal."),
    ("`OTEL_EXPORTER_OTLP_HEADERS`", "Headers that the receiver wants."),
    ("`OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER`", "`none` exports none of it."),
    (
        "`OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG`",
        "Which traces are recorded, such as `parentbased_traceidratio` and `0.01`.",
    ),
    ("`OTEL_BSP_SCHEDULE_DELAY`", "How often spans leave, milliseconds; 500 unless set."),
    ("`OTEL_METRIC_EXPORT_INTERVAL`", "How often metrics leave, milliseconds; 5,000 unless set."),
    ("`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`", "Win over what Berth says of itself."),
    ("`OTEL_SDK_DISABLED`", "`true`: nothing is exported."),
)


def settings() -> str:
    every = field_docstrings(ServiceSettings)
    common = [_row(ServiceSettings, "BERTH_<SERVICE>_", name, every) for name in ServiceSettings.model_fields]
    lines = ["## Every service", "", *table(HEADING, *common), ""]
    for service in SERVICES:
        kind = settings_class(service)
        said = field_docstrings(kind)
        own = [name for name in kind.model_fields if _is_own(kind, name)]
        lines += [f"## {service}", "", first_sentence(kind), ""]
        lines += [*table(HEADING, *(_row(kind, kind.prefix(), name, every | said) for name in own)), ""]
    lines += ["## Telemetry", "", "The standard variables of OpenTelemetry, and no others.", ""]
    return page("Settings", INTRODUCTION, [*lines, *table(("variable", "what"), *STANDARD)])


def _is_own(kind: type[ServiceSettings], name: str) -> bool:
    return name in kind.__annotations__


def _row(kind: type[ServiceSettings], prefix: str, name: str, said: dict[str, str]) -> tuple[str, ...]:
    field = kind.model_fields[name]
    alias = field.validation_alias
    variable = alias if isinstance(alias, str) else prefix + name.upper()
    default: Any = field.get_default()
    return (
        f"`{name}`" + (" ✱" if name in FIXED else ""),
        f"`{variable}`",
        _type_in_words(kind, name),
        "**required**" if default is PydanticUndefined else f"`{_written(default)}`",
        said.get(name, ""),
    )


def _type_in_words(kind: type[ServiceSettings], name: str) -> str:
    return in_words(kind.model_json_schema(by_alias=False)["properties"][name])


def in_words(schema: dict[str, Any]) -> str:
    """A type with its bounds."""
    if "anyOf" in schema:
        return " or ".join(in_words(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {in_words(schema.get('items', {}))}"
    kind = "path" if schema.get("format") == "path" else schema.get("type", "anything")
    return " ".join(filter(None, (kind, bounds(schema))))


def bounds(schema: dict[str, Any]) -> str:
    """Of a number, as people say them; empty where there are none."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if high is not None and high >= LARGEST:
        high = None  # what a JSON number holds exactly is no news
        low = None if low is not None and low <= -LARGEST else low
    if low is not None and high is not None:
        return f"{low:,} to {high:,}"
    if low is not None:
        return f"≥ {low:,}"
    if (above := schema.get("exclusiveMinimum")) is not None:
        return f"> {above:g}"
    return f"≤ {high:,}" if high is not None else ""


def _written(default: object) -> str:
    match default:
        case None:
            return "none"
        case bool():
            return str(default).lower()
        case tuple():
            return "[" + ", ".join(f'"{one}"' for one in default) + "]"  # pyright: ignore[reportUnknownVariableType] a default of ours
        case "":
            return '""'
        case _:
            return str(default)

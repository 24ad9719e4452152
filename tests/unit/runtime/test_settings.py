"""Settings come from the environment, typed; a typo is an error that names what was meant."""

from typing import Annotated, ClassVar

import pytest
from pydantic import Field

from berth.errors import InvalidSetting
from berth.runtime.settings import ServiceSettings


class SchedulerSettings(ServiceSettings):
    service: ClassVar[str] = "scheduler"
    nodes_scored_max: Annotated[int, Field(ge=1)] = 500
    zones: tuple[str, ...] = ()


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> SchedulerSettings:
    monkeypatch.setenv("BERTH_SCHEDULER_USER", "scheduler-1")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return SchedulerSettings.load()


def test_a_variable_sets_what_it_names_and_the_rest_is_default(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, BERTH_SCHEDULER_NODES_SCORED_MAX="20", BERTH_SCHEDULER_ZONES='["a","b"]')

    assert (settings.nodes_scored_max, settings.zones) == (20, ("a", "b"))
    assert settings.nats_url == "nats://127.0.0.1:4222"
    assert settings.health_port is None


def test_a_typo_is_refused_and_the_nearest_setting_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSetting) as refused:
        load(monkeypatch, BERTH_SCHEDULER_NODE_SCORED_MAX="20")

    assert "unknown setting BERTH_SCHEDULER_NODE_SCORED_MAX" in str(refused.value)
    assert "did you mean BERTH_SCHEDULER_NODES_SCORED_MAX?" in str(refused.value)
    assert refused.value.exit_code == 2


def test_variables_of_other_services_are_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    load(monkeypatch, BERTH_QUOTA_NONSENSE="1", BERTH_DIR="somewhere")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BERTH_SCHEDULER_NODES_SCORED_MAX", "many", "BERTH_SCHEDULER_NODES_SCORED_MAX: expected a valid integer"),
        (
            "BERTH_SCHEDULER_NODES_SCORED_MAX",
            "0",
            "BERTH_SCHEDULER_NODES_SCORED_MAX: expected greater than or equal to 1",
        ),
        ("BERTH_SCHEDULER_USER", "Scheduler 1", "BERTH_SCHEDULER_USER: expected a name"),
        ("BERTH_SCHEDULER_USER", "", "BERTH_SCHEDULER_USER: is required"),
        ("BERTH_SCHEDULER_ZONES", "a,b", "written as JSON"),
    ],
)
def test_a_wrong_value_is_refused_by_its_variable_s_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    with pytest.raises(InvalidSetting) as refused:
        load(monkeypatch, **{name: value})

    assert said in str(refused.value)


def test_telemetry_has_the_standard_variable_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318")

    assert settings.otlp_endpoint == "http://127.0.0.1:4318"
    assert SchedulerSettings.variables()["otlp_endpoint"] == "OTEL_EXPORTER_OTLP_ENDPOINT"

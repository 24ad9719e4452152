"""When telemetry leaves at all: only where a receiver is set. What leaves: tests/integration/test_process.py."""

import pytest

from berth.runtime import exporting
from berth.runtime.telemetry import NoSpans


@pytest.mark.parametrize(
    ("endpoint", "variables"),
    [
        (None, {}),
        ("http://127.0.0.1:9", {"OTEL_SDK_DISABLED": "true"}),
        ("http://127.0.0.1:9", {"OTEL_TRACES_EXPORTER": "none"}),
    ],
)
def test_without_a_receiver_nothing_is_recorded(
    monkeypatch: pytest.MonkeyPatch, endpoint: str | None, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    telemetry = exporting.start("berth-quota", "quota-1", endpoint=endpoint, with_metrics=False)

    assert isinstance(telemetry.spans, NoSpans)
    telemetry.close()


def test_the_sampler_is_the_standard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")

    telemetry = exporting.start("berth-quota", "quota-1", endpoint="http://127.0.0.1:9", with_metrics=False)

    assert telemetry.spans.wants_root(f"{1:032x}", "receive")
    assert not telemetry.spans.wants_root("f" * 32, "receive")
    telemetry.close()

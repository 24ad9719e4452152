"""What an operator may change about a quota service."""

import pytest

from berth.effects import Identity
from berth.errors import InvalidSetting
from berth_quota.__main__ import build
from berth_quota.bounds import USUAL
from berth_quota.settings import QuotaSettings


def test_what_is_not_said_is_what_we_run_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_QUOTA_USER", "quota-1")

    assert QuotaSettings.load().bounds == USUAL


def test_settings_come_from_the_environment_with_their_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_QUOTA_USER", "quota-2")
    monkeypatch.setenv("BERTH_QUOTA_RETENTION_DAYS", "1")
    monkeypatch.setenv("BERTH_QUOTA_EVALUATION_MS", "500")

    settings = QuotaSettings.load()

    assert (settings.bounds.retention_ms, settings.bounds.evaluation_ms) == (86_400_000, 500)
    assert build(settings, Identity(user=settings.user, boot="b")).role == "quota"


def test_a_value_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_QUOTA_USER", "quota-1")
    monkeypatch.setenv("BERTH_QUOTA_IN_FLIGHT_MAX", "0")

    with pytest.raises(InvalidSetting, match="BERTH_QUOTA_IN_FLIGHT_MAX"):
        QuotaSettings.load()

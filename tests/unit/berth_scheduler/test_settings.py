"""What an operator may set about a scheduler, and what is refused."""

import pytest

from berth.errors import InvalidSetting
from berth_scheduler.limits import USUAL
from berth_scheduler.settings import SchedulerSettings


def test_what_is_not_set_is_what_we_run_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_SCHEDULER_USER", "scheduler-1")

    assert SchedulerSettings.load().limits == USUAL


def test_limits_and_seed_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"USER": "scheduler-1", "SEED": "7", "WAITING_MAX": "9", "ANSWER_MS": "50", "GIVE_UP_MS": "900"}
    for name, value in given.items():
        monkeypatch.setenv(f"BERTH_SCHEDULER_{name}", value)

    settings = SchedulerSettings.load()

    assert settings.seed == "7"
    limits = settings.limits
    assert (limits.waiting_max, limits.answer_ms, limits.give_up_ms) == (9, 50, 900)


@pytest.mark.parametrize(("variable", "value"), [("GIVE_UP_MS", "1"), ("WAITING_MAX", "many"), ("GIVEUP_MS", "900")])
def test_a_wrong_or_unknown_setting_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("BERTH_SCHEDULER_USER", "scheduler-1")
    monkeypatch.setenv(f"BERTH_SCHEDULER_{variable}", value)

    with pytest.raises(InvalidSetting, match=f"BERTH_SCHEDULER_{variable}"):
        SchedulerSettings.load()

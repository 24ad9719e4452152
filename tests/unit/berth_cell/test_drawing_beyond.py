"""Who draws more than its reservation has left, by quota, scheduler and leader together (R95)."""

from tests.scenarios.scenario import Stage


def told(*commands: str) -> list[str]:
    """What happens because of the last command."""
    stage = Stage()
    lines: list[str] = []
    for command in commands:
        lines = list(stage.play((command,)))
    return lines


ALIGNED = ("given node n1 cores=8", "given quota team-a cores=5", "reserve r cores=4 duration_seconds=600 use=aligned")


def test_what_the_owner_may_not_pay_for_waits_in_the_ledger_and_is_not_tried_again_and_again() -> None:
    lines = told(*ALIGNED, "submit big cores=6 reservation=r")

    assert [line for line in lines if "queued" in line and "hard quota is used up" in line]
    assert not [line for line in lines if line.startswith("refused")]


def test_what_the_owner_may_pay_for_is_placed() -> None:
    lines = told(*ALIGNED, "submit fits cores=5 reservation=r")

    assert "decision   fits placed on n1" in lines

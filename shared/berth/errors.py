"""Errors that somebody must act on. A refusal of the domain is a value, not one of these."""

from collections.abc import Sequence
from dataclasses import dataclass


class BerthError(Exception):
    """What went wrong, and what to do next. `retryable`: the same call may succeed later."""

    code = "failure"
    retryable = False
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a document: where, what was found, what was expected."""

    path: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: {self.expected}"


class InvalidCommand(BerthError):
    """A document or message that does not say what Berth can do. Nothing of it was carried out."""

    code = "invalid"
    exit_code = 2

    def __init__(self, problems: Sequence[Problem], *, hint: str = "") -> None:
        assert problems, "an invalid command names at least one problem"
        super().__init__("\n".join(str(problem) for problem in problems), hint=hint)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InvalidSetting(BerthError):
    """A setting that cannot be; names the setting and what was expected."""

    code = "invalid_setting"
    exit_code = 2


class NotFound(BerthError):
    code = "not_found"
    exit_code = 3


class Conflict(BerthError):
    """The id is taken by another body (R106)."""

    code = "conflict"
    exit_code = 4


class TimedOut(BerthError):
    code = "timeout"
    retryable = True
    exit_code = 6


class Unreachable(BerthError):
    """No server, or nobody there who answers."""

    code = "unreachable"
    retryable = True
    exit_code = 7


class Overloaded(BerthError):
    """A bounded queue is full; nothing was taken."""

    code = "overloaded"
    retryable = True


class CorruptRecord(BerthError):
    """Stored bytes that no ledger record has."""

    code = "corrupt_record"


class Halted(BerthError):
    """A follower that cannot fold: its effects are stopped, what it knows stays readable."""

    code = "halted"

    def __init__(self, *, sequence: int, why: str) -> None:
        super().__init__(
            f"stopped at sequence {sequence}: {why}",
            hint="compare with `berth audit`, then see docs/runbooks/halted.md",
        )
        self.sequence = sequence

"""When a node that hears no leader acts next: the random timeouts (Raft thesis, sections 3.4 and 9.3)."""

from berth_raft.core.settings import Dice, RaftSettings


class ElectionTimer:
    """Runs from the start of a node on. All times are microseconds of the clock of the core that holds it."""

    def __init__(self, settings: RaftSettings, dice: Dice, now_us: int, *, is_alone: bool = False) -> None:
        """`is_alone`: nobody else could lead, so there is nothing to wait for."""
        self._settings = settings
        self._dice = dice
        self._pre_votes = self._candidacies = 0  # since a leader was known
        self.due_us = now_us
        if not is_alone:
            self.restart(now_us)

    def restart(self, now_us: int) -> None:
        """Somebody leads, or may soon: a whole timeout from here."""
        self._retry(now_us, sixths=6)

    def ask(self, now_us: int) -> None:
        """A round of pre-votes begins. Asking costs nothing and the first try often comes while others still stick to
        the leader; more time for each later one, in case the network needs it.
        """
        self._pre_votes += 1
        self._retry(now_us, sixths=min(self._pre_votes, 3))

    def stand(self, now_us: int) -> None:
        """A candidacy begins."""
        self._candidacies += 1
        self.await_votes(now_us)

    def await_votes(self, now_us: int) -> None:
        """Half; from the second candidacy in a row the whole: then the disks of the voters may be that slow."""
        self._retry(now_us, sixths=3 if self._candidacies <= 1 else 6)

    def pull_forward(self, due_us: int) -> None:
        """Not later than `due_us`."""
        self.due_us = min(self.due_us, due_us)

    def leader_known(self) -> None:
        """Whatever fails from here on fails for the first time."""
        self._pre_votes = self._candidacies = 0

    def _retry(self, now_us: int, *, sixths: int) -> None:
        """Retries use a short range (Howard 2014, thesis section 9.3): so many sixths of the usual one."""
        self.due_us = now_us + self._settings.drawn_timeout_us(self._dice) * sixths // 6

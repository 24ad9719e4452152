"""A few raft cores that hear each other in order, with instant disks: small stories, told exactly."""

from random import Random

from berth_raft.core.effects import Effect, HardState, Persist, Role, Send
from berth_raft.core.messages import EMPTY, Message, Tip
from berth_raft.core.node import RaftCore
from berth_raft.core.settings import RaftSettings


class Group:
    """`down` are processes that do not run, `cut` are the ways (from, to) on which every message is lost."""

    def __init__(self, *names: str, tips: dict[str, Tip] | None = None) -> None:
        self.now_us = 0
        self.down: list[str] = []
        self.cut: list[tuple[str, str]] = []
        self.cores: dict[str, RaftCore] = {}
        self.disks = {name: HardState(incarnation=1, term=0, vote=None) for name in names}
        self._settings = RaftSettings(members=names)
        self._tips = tips or {}
        self._under_way: list[tuple[str, str, Message]] = []
        for name in names:
            self.start(name)

    def start(self, name: str) -> None:
        """From its disk, as after a crash."""
        random = Random(f"{name} {self.now_us}")
        self.cores[name] = RaftCore(name, self._settings, self.disks[name], random, self.now_us)
        self.cores[name].set_tip(self._tips.get(name, EMPTY))

    def isolate(self, name: str) -> None:
        for other in self.cores:
            self.cut += [(name, other), (other, name)]

    def waits(self, duration_us: int) -> None:
        until_us = self.now_us + duration_us
        while True:
            due_us, name = min((self.cores[name].deadline(), name) for name in self.running)
            if due_us > until_us:
                break
            self.now_us = max(self.now_us, due_us)
            self.performs(name, self.cores[name].tick(self.now_us))
            self.delivers()
        self.now_us = until_us

    def times_out(self, *names: str) -> None:
        """Time runs to the last of their timeouts and nobody else wakes up; then all of them do, at once."""
        self.now_us = max(self.now_us, *(self.cores[name].deadline() for name in names))
        for name in names:
            self.performs(name, self.cores[name].tick(self.now_us))
        self.delivers()

    def delivers(self) -> None:
        while self._under_way:
            sender, to, message = self._under_way.pop(0)
            if (sender, to) not in self.cut and to not in self.down:
                self.performs(to, self.cores[to].step(self.now_us, sender, message))

    def performs(self, name: str, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                self.disks[name] = effect.hard_state
                self.performs(name, self.cores[name].on_synced(effect.token, self.now_us))
            elif isinstance(effect, Send):
                self._under_way.append((name, effect.to, effect.message))

    @property
    def running(self) -> list[str]:
        return [name for name in self.cores if name not in self.down]

    @property
    def leaders(self) -> list[str]:
        return [name for name in self.running if self.cores[name].role is Role.LEADER]

    @property
    def terms(self) -> list[int]:
        return [self.cores[name].term for name in self.running]

    def followers_of(self, leader: str) -> list[str]:
        return [name for name in self.running if name != leader and self.cores[name].leader == leader]

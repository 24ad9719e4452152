"""Whatever happens in whatever order: every request has one true outcome, nothing leaks, no wake-up is missed."""

import random
from dataclasses import dataclass, field
from typing import Any

from berth.ids import Namespace, RequestKey
from berth.messages.commands import Verdict
from berth.messages.events import RequestStatus
from berth.messages.requests import Request
from berth.model.answers import decision_of
from berth.model.charging import recount_usage
from berth.model.entitlement import shortfall
from berth.model.windows import free_now
from tests.builders import HOUR, TEAM_A, TEAM_B, a_node, a_quota
from tests.unit.berth_quota.settings_of_walks import a_walk, cores, wants
from tests.unit.berth_quota.walk import Walk, verdict

TEAMS = (TEAM_A, TEAM_B, Namespace("team-c"))


@dataclass(slots=True)
class Life:
    """One seed's history: what was asked for, in a cluster in which everything goes wrong now and then."""

    chance: random.Random
    walk: Walk
    submitted: dict[RequestKey, Request] = field(default_factory=dict[RequestKey, Request])

    def step(self) -> None:
        act = self.chance.choices(
            (self.submit, self.release, self.limit, self.nodes, self.hold, self.takeover, self.pause, self.trip),
            (10, 7, 2, 1, 3, 1, 3, 2),
        )[0]
        act()

    def submit(self) -> None:
        namespace = self.chance.choice(TEAMS)
        batch: list[Request] = []
        for _ in range(self.chance.randint(1, 4)):
            request = wants(
                f"r{len(self.submitted)}",
                self.chance.randint(1, 4),
                namespace=namespace,
                count=self.chance.choice((1, 1, 2)),
                priority=self.chance.choice((10, 50, 50, 90)),
                grace_seconds=self.chance.choice((0, 0, 5)),
                borrow=self.chance.choice(("allowed", "allowed", "never")),
            )
            self.submitted[request.key] = request
            batch.append(request)
        if self.chance.random() < 0.2:
            batch.append(batch[0])
        self.walk.submit(*batch)
        if self.chance.random() < 0.2:
            self.walk.submit(*batch)

    def release(self) -> None:
        if self.submitted:
            namespace, request = self.chance.choice(list(self.submitted))
            self.walk.release(request, namespace=namespace)

    def limit(self) -> None:
        namespace = self.chance.choice(TEAMS)
        document: dict[str, Any] = {"soft": cores(self.chance.randint(0, 4)), "hard": cores(self.chance.randint(4, 9))}
        if self.chance.random() < 0.7:
            document["cohort"] = "research"
        self.walk.happened(a_quota(namespace, **document))

    def nodes(self) -> None:
        self.walk.happened(a_node(f"n{self.chance.randint(2, 3)}", cpu=self.chance.randint(1, 6) * 1_000))

    def hold(self) -> None:
        self.walk.hold_scheduler = self.chance.random() < 0.5
        self.walk.hold_leader = self.chance.random() < 0.5
        self.walk.nobody_leads = self.chance.random() < 0.2
        self.walk.nobody_evaluates = self.chance.random() < 0.2
        self.walk.run()

    def takeover(self) -> None:
        """The active one is killed or loses the pin; what it had not acknowledged is delivered again."""
        if self.chance.random() < 0.5:
            self.walk.kill()
            self.walk.start()
        else:
            self.walk.lose_pin()
        self.redeliver()
        self.walk.nudged()

    def redeliver(self) -> None:
        for subject, body, namespace, delivery in self.walk.deliveries:
            if delivery.stream_sequence not in self.walk.acknowledged:
                self.walk.redeliver(subject, body, namespace, delivery)

    def pause(self) -> None:
        self.walk.wait(self.chance.randint(1, 6_000))

    def trip(self) -> None:
        said = self.chance.choice((Verdict.CONTENDED, Verdict.UNAVAILABLE, Verdict.SUPERSEDED))
        outcome = verdict(f"r{len(self.submitted)}", said)
        self.walk.scheduler.verdicts[outcome.request] = outcome

    def rest(self) -> None:
        walk = self.walk
        walk.hold_scheduler = walk.hold_leader = walk.nobody_leads = walk.nobody_evaluates = False
        walk.scheduler.verdicts.clear()
        walk.run()
        walk.wait(HOUR)


def a_life(seed: int) -> Life:
    chance = random.Random(seed)
    life = Life(chance, a_walk(*[a_quota(team, hard=cores(6)) for team in TEAMS[:2]], room=10))
    for _ in range(60):
        life.step()
        assert recount_usage(life.walk.leader) == dict(life.walk.leader.quotas.used), "I13"
    life.rest()
    return life


def test_every_request_has_one_true_outcome_and_everything_comes_to_rest(seed: int) -> None:
    walk = (life := a_life(seed)).walk

    assert sorted(walk.acknowledged) == sorted({*walk.acknowledged}), "each message is acknowledged once"
    assert len(walk.acknowledged) == len(walk.deliveries)
    assert walk.quota.unsettled == 0
    assert walk.quota.state.digest() == walk.leader.digest(), "I11"
    for key in life.submitted:
        outcome = decision_of(walk.leader, key)
        assert outcome is not None, f"{key} has no outcome"
        said = [one for one in walk.decisions if (one.namespace, one.request) == key]
        assert (said[-1].status, said[-1].attempt) == (outcome.status, outcome.attempt), "the last word is the true one"


def test_whoever_waits_has_reason_to_wait(seed: int) -> None:
    walk = a_life(seed).walk

    for known in walk.leader.queue.requests.values():
        if known.status is RequestStatus.QUEUED:
            wanted = known.request.total
            over = shortfall(walk.leader, known.request, wanted)
            room = [
                node.id for node in walk.leader.cluster.nodes.values() if wanted.fits_in(free_now(walk.leader, node))
            ]
            assert over or not room, f"{known.key} could be placed on {room}: a wake-up was missed"

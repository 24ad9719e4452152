"""One raft node: who leads, and what this node promised (RAFT section 2, "Elections, exactly"; Raft thesis, sections
3, 4.2.3, 6.2 and 9.6).

What must live here: every rule about terms, votes, roles and timers. What this file must not know: the ledger beyond
its `Tip`, the disk beyond "durable", the bus beyond "send", any clock. Leading here is only permission to append a
barrier: the ledger's compare-and-set is the fence, so a wrong election costs availability, never safety.

Longer than the house's 400 lines because the transitions are one table: one place shows each message in each role.
"""

from dataclasses import astuple, replace

from berth_raft.core.effects import Amnesiac, Effect, HardState, Role, RoleChanged
from berth_raft.core.messages import (
    EMPTY,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    Request,
    Stamp,
    TimeoutNow,
    Tip,
    Vote,
    VoteReply,
)
from berth_raft.core.outbox import Outbox
from berth_raft.core.peers import Peer, Peers
from berth_raft.core.quorum import is_majority, majority_answered_us
from berth_raft.core.settings import Dice, RaftSettings
from berth_raft.core.timer import ElectionTimer


class RaftCore:
    """Every public call with a `now_us` (microseconds of a monotonic clock) returns the effects to perform, in order.

    The shell calls `tick` at `deadline()` or a little later, `step` for each message, and `on_synced` once a
    `Persist` is durable. Calls never block and never raise on anything that another node sends.
    """

    def __init__(
        self, node_id: str, settings: RaftSettings, hard_state: HardState | Amnesiac, random: Dice, now_us: int
    ) -> None:
        """Raises:
        InvalidRaftSetting: `node_id` is not in the member list.
        """
        settings.check_membership(node_id)
        self.node_id = node_id
        self.settings = settings
        self._min_us = settings.timeout_min_us
        self._amnesiac = isinstance(hard_state, Amnesiac)
        promised = (0, 0, None) if isinstance(hard_state, Amnesiac) else astuple(hard_state)
        self._incarnation, self._term, self._vote = promised
        self._role = Role.FOLLOWER
        self._leader: str | None = None
        self._active = False
        self._tip = EMPTY
        self._eligible = True
        self._last_step_down: str | None = None

        self._now_us = now_us
        self.leader_heard_us: int | None = None  # when a heartbeat was last accepted
        self._heartbeat_due_us = now_us
        self._peers = Peers(settings.others(node_id))
        self._outbox = Outbox()
        # Starts anywhere, so that answers to questions of an earlier life are never taken for answers to this one's.
        self._round = random.randint(0, 2**32)
        self._granted: dict[str, bool] = {}
        self._is_transfer = False
        self._timer = ElectionTimer(settings, random, now_us, is_alone=settings.members == (node_id,))

    # ------------------------------------------------------------------ what can be seen

    @property
    def role(self) -> Role:
        return self._role

    @property
    def term(self) -> int:
        return self._term

    @property
    def leader(self) -> str | None:
        """Whom this node takes for the leader of `term`; itself while it leads."""
        return self._leader

    @property
    def active(self) -> bool:
        """Whether that leader says that its barrier is in the ledger."""
        return self._active

    @property
    def is_leader(self) -> bool:
        """Leads, and may commit: the barrier of this term is in the ledger."""
        return self._role is Role.LEADER and self._active

    @property
    def is_voter(self) -> bool:
        return self.node_id in self.settings.members

    @property
    def _other_voters(self) -> list[str]:
        return [name for name in self.settings.members if name != self.node_id]

    @property
    def _stamp(self) -> Stamp:
        settings = self.settings
        return Stamp(cluster_id=settings.cluster_id, config_hash=settings.config_hash, incarnation=self._incarnation)

    @property
    def is_amnesiac(self) -> bool:
        return self._amnesiac

    @property
    def last_step_down(self) -> str | None:
        """Why this node last stopped leading; None if it never led since its start."""
        return self._last_step_down

    @property
    def peers(self) -> dict[str, Peer]:
        """What is known of every other node, in the order of the member list."""
        return self._peers.view()

    def deadline(self) -> int:
        """When `tick` is needed next, in microseconds; never in the past of a core that was just ticked."""
        if self._role is Role.LEADER:
            lost_us = [self._quorum_lost_us()] if self._is_quorum_checked else []
            return min([self._heartbeat_due_us, *lost_us])
        return self._timer.due_us

    # ------------------------------------------------------------------ what happens

    def step(self, now_us: int, sender: str, message: Message) -> list[Effect]:
        """A message arrived; the bus vouches for `sender`. Strangers and other clusters are ignored."""
        before = self._begin(now_us)
        if sender in self._peers and message.stamp.cluster_id == self.settings.cluster_id:
            self._peers.heard(sender, message, self._now_us)
            self._receive(sender, message)
        return self._finish(before)

    def tick(self, now_us: int) -> list[Effect]:
        """Time passed. Harmless when nothing is due."""
        before = self._begin(now_us)
        if self._role is Role.LEADER:
            if self._now_us >= self._heartbeat_due_us:
                self._beat()
        elif self._now_us >= self._timer.due_us:
            self._on_timeout()
        return self._finish(before)

    def on_synced(self, token: int, now_us: int) -> list[Effect]:
        """The `Persist` with `token`, and every earlier one, is durable."""
        before = self._begin(now_us)
        self._outbox.synced(token)
        if self._role is Role.CANDIDATE and self._outbox.durable and not self._granted:
            self._ask_for_votes()
        return self._finish(before)

    def on_persist_failed(self, token: int) -> list[Effect]:
        """The disk refused. What was promised stays promised, but is told to nobody; the next timeout tries again."""
        before = self._begin(self._now_us)
        self._outbox.persist_failed(token)
        if self._outbox.failed and self._role is Role.CANDIDATE:
            self._become_follower(self._term, leader=None, why="the disk failed")
        return self._finish(before)

    def set_tip(self, tip: Tip) -> None:
        """How far this node's verified copy of the ledger reaches now. May go back after a regression."""
        self._tip = tip

    def report(self) -> list[Effect]:
        """Tell the leader this node's tip at once; it says nothing about the leader's heartbeats."""
        before = self._begin(self._now_us)
        if self._role is Role.FOLLOWER and self._leader is not None:
            report = HeartbeatReply(stamp=self._stamp, term=self._term, round=0, tip=self._tip)
            self._outbox.send(self._leader, report)
        return self._finish(before)

    def set_eligible(self, eligible: bool) -> list[Effect]:  # noqa: FBT001 - the one fact that this call tells
        """Whether disk and ledger work. A node that is not eligible never campaigns; a leader is asked to `resign`."""
        before = self._begin(self._now_us)
        self._eligible = eligible
        if not eligible and self._role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
            self._become_follower(self._term, leader=None, why="not eligible")
        return self._finish(before)

    def activate(self, now_us: int) -> list[Effect]:
        """The barrier of this term is committed. Says so at once; nothing happens if the leadership is gone."""
        before = self._begin(now_us)
        if self._role is Role.LEADER:
            self._active = True
            self._beat()
        return self._finish(before)

    def resign(self, now_us: int, why: str) -> list[Effect]:
        """Stop leading or campaigning; stay in the term."""
        before = self._begin(now_us)
        if self._role is not Role.FOLLOWER:
            self._become_follower(self._term, leader=None, why=why)
        return self._finish(before)

    def adopt_term(self, now_us: int, term: int) -> list[Effect]:
        """A barrier of `term` was read in the ledger. Nothing happens unless it is higher than the own term."""
        before = self._begin(now_us)
        if term > self._term:
            self._become_follower(term, leader=None, why="a barrier of a higher term")
        return self._finish(before)

    def transfer(self, now_us: int, to: str | None = None) -> list[Effect]:
        """Ask `to`, or the voter with the best tip, to campaign at once (thesis section 3.10).

        No effect when this node does not lead, or nobody suitable answers. It keeps leading until it hears the vote
        request, so a lost message costs nothing; stop taking proposals before.
        """
        before = self._begin(now_us)
        if self._role is Role.LEADER:
            successor = to or self._peers.best_tip(self._other_voters, self._now_us, within_us=self._min_us)
            if successor in self._other_voters:
                self._outbox.send(successor, TimeoutNow(stamp=self._stamp, term=self._term))
        return self._finish(before)

    @property
    def can_rejoin(self) -> bool:
        """Whether this amnesiac has everything that the active leader is known to have."""
        heard = self._peers.view().get(self._leader or "")
        return self._amnesiac and self._active and heard is not None and self._tip >= heard.tip

    def rejoin(self, now_us: int, incarnation: int) -> list[Effect]:
        """Take part again under a new incarnation (RAFT section 2, "Bootstrap"). Nothing happens unless `can_rejoin`.

        Its vote of the leader's term is the leader's, whatever it was; what it may have promised in a higher term
        led to nobody who could append: the ledger fences two leaders of one term.
        """
        before = self._begin(now_us)
        if self.can_rejoin:
            self._amnesiac, self._incarnation, self._vote = False, incarnation, self._leader
            self._persist()
        return self._finish(before)

    def recover(self, now_us: int, incarnation: int, *, term: int) -> list[Effect]:
        """An operator says that every node has lost its votes: vote again, above `term`, the ledger's. Nothing happens
        to a node that has not, nor while a leader is known.
        """
        before = self._begin(now_us)
        if self._amnesiac and self._leader is None:
            self._amnesiac, self._incarnation = False, incarnation
            # As if it had stood there: in that term it may have voted for somebody, and now votes for nobody else.
            self._term, self._vote = max(self._term, term) + 1, self.node_id
            self._persist()
            self._timer.restart(self._now_us)
        return self._finish(before)

    def reconfigure(self, now_us: int, *, members: tuple[str, ...], observers: tuple[str, ...]) -> list[Effect]:
        """A membership change was read in the ledger: these are the voters and observers from here on (RAFT section
        2, step 13). Whoever is no voter any more stops leading or campaigning; a new voter's silence counts from now.

        Raises:
        InvalidRaftSetting: no voters, a name twice, or this node is in neither list.
        """
        settings = replace(self.settings, members=members, observers=observers)
        settings.check_membership(self.node_id)
        before = self._begin(now_us)
        self.settings = settings
        self._peers.change(settings.others(self.node_id), round_sent=self._round, now_us=self._now_us)
        if not self.is_voter and self._role is not Role.FOLLOWER:
            self._become_follower(self._term, leader=None, why="no longer a voter")
        return self._finish(before)

    def leader_gone(self, now_us: int) -> list[Effect]:
        """A confirmed notice that the known leader's process is gone: a pure hint (RAFT section 2, "Hearing early").

        Forgets the leader, which lifts this node's stickiness, and pulls its election forward, by rank, so that not
        all campaign at once.
        """
        before = self._begin(now_us)
        if self._role is Role.FOLLOWER and self._leader is not None:
            heirs = [name for name in self.settings.members if name != self._leader]
            rank = heirs.index(self.node_id) if self.node_id in heirs else len(heirs)
            self._leader, self.leader_heard_us, self._active = None, None, False
            self._timer.pull_forward(self._now_us + rank * self.settings.heartbeat_us // 4)
        return self._finish(before)

    # ------------------------------------------------------------------ messages

    def _receive(self, sender: str, message: Message) -> None:
        match message:
            case PreVote() | Vote():
                if message.candidate == sender:
                    self._on_request(message)
            case Heartbeat():
                if message.leader == sender:
                    self._on_heartbeat(message)
            case PreVoteReply():
                self._on_pre_vote_reply(sender, message)
            case VoteReply():
                if not self._left_for_higher(message):
                    self._on_vote_reply(sender, message)
            case HeartbeatReply():
                if not self._left_for_higher(message):
                    self._on_heartbeat_reply(sender, message)
            case TimeoutNow():
                if not self._left_for_higher(message):
                    self._on_timeout_now(message)

    def _left_for_higher(self, message: VoteReply | HeartbeatReply | TimeoutNow) -> bool:
        """A message of a higher term makes a follower of that term, and says nothing else."""
        if message.term <= self._term:
            return False
        self._become_follower(message.term, leader=None, why="a message of a higher term")
        return True

    def _on_request(self, request: Request) -> None:
        if request.term > self._term and self._is_sticky(request):
            return
        if isinstance(request, PreVote):
            granted = self._grants(request)
            term = request.term if granted else self._term
            reply = PreVoteReply(stamp=self._stamp, term=term, round=request.round, granted=granted)
        else:
            if request.term > self._term:
                self._become_follower(request.term, leader=None, why="a vote request of a higher term")
            granted = self._grants(request)
            if granted:
                self._give_vote(request.candidate)
            reply = VoteReply(stamp=self._stamp, term=self._term, round=request.round, granted=granted)
        self._outbox.send(request.candidate, reply)

    def _is_sticky(self, request: Request) -> bool:
        """Whether this node has a leader that works, and so does not hear of a higher term (thesis section 4.2.3)."""
        if not self.settings.check_quorum or (isinstance(request, Vote) and request.transfer):
            return False
        if self._role is Role.LEADER:
            return True
        if self._leader is None or self.leader_heard_us is None:
            return False
        return self._now_us - self.leader_heard_us < self._min_us

    def _grants(self, request: Request) -> bool:
        """The same question for both rounds (thesis section 3.4 and 3.6.1): term, vote, tip."""
        if self._amnesiac or request.tip < self._tip:
            return False
        if request.term != self._term:
            return request.term > self._term
        is_free = self._vote is None and self._leader is None
        return is_free or self._vote == request.candidate

    def _give_vote(self, candidate: str) -> None:
        if self._vote is None:
            self._vote = candidate
            self._persist()
        self._role = Role.FOLLOWER  # a pre-candidate that voted waits for the winner instead of disturbing it
        self._timer.restart(self._now_us)

    def _on_heartbeat(self, heartbeat: Heartbeat) -> None:
        if heartbeat.term >= self._term:
            self._become_follower(
                heartbeat.term, leader=heartbeat.leader, active=heartbeat.active, why="heard another leader"
            )
            self.leader_heard_us = self._now_us
            self._timer.leader_known()
            self._timer.restart(self._now_us)
        self._outbox.send(
            heartbeat.leader,
            HeartbeatReply(stamp=self._stamp, term=self._term, round=heartbeat.round, tip=self._tip),
        )

    def _on_pre_vote_reply(self, sender: str, reply: PreVoteReply) -> None:
        if not reply.granted:
            if reply.term > self._term:
                self._become_follower(reply.term, leader=None, why="a message of a higher term")
            return
        asked = (self._term + 1, self._round)
        if self._role is Role.PRE_CANDIDATE and (reply.term, reply.round) == asked:
            self._granted[sender] = True
            if is_majority(self.settings.members, self._granted):
                self._become_candidate()

    def _on_vote_reply(self, sender: str, reply: VoteReply) -> None:
        asked = (self._term, self._round)
        if self._role is Role.CANDIDATE and reply.granted and (reply.term, reply.round) == asked:
            self._granted[sender] = True
            if is_majority(self.settings.members, self._granted):
                self._become_leader()

    def _on_heartbeat_reply(self, sender: str, reply: HeartbeatReply) -> None:
        if self._role is Role.LEADER and reply.term == self._term and reply.round <= self._round:
            self._peers.answered(sender, answered_round=reply.round, now_us=self._now_us)

    def _on_timeout_now(self, message: TimeoutNow) -> None:
        if message.term == self._term and self._role is not Role.LEADER and self._can_stand:
            self._become_candidate(is_transfer=True)

    # ------------------------------------------------------------------ timers

    def _on_timeout(self) -> None:
        """No leader for an election timeout, or a candidacy that led nowhere."""
        if self._outbox.failed:
            self._persist()
        if self._role is Role.CANDIDATE and not self._outbox.durable:
            # A slow disk: wait for it. Another candidacy would only count up the term.
            self._timer.await_votes(self._now_us)
            return
        lags = self._peers.is_far_ahead_of(self._tip, self._now_us, within_us=2 * self.settings.timeout_max_us)
        if self._can_stand and self._outbox.durable and not lags:
            self._become_pre_candidate() if self.settings.pre_vote else self._become_candidate()
        else:
            self._become_follower(self._term, leader=None, why="timed out")
            self._timer.restart(self._now_us)

    def _end_lost_leadership(self) -> None:
        """Check-quorum (thesis section 6.2), and whether this process was stopped so long that others moved on."""
        if self._role is not Role.LEADER or not self._is_quorum_checked:
            return
        if self._now_us >= self._quorum_lost_us():
            self._become_follower(self._term, leader=None, why="no majority answered")
        elif self._now_us - self._heartbeat_due_us > self._min_us:
            self._become_follower(self._term, leader=None, why="this process was stopped")

    def _quorum_lost_us(self) -> int:
        """When this leader will have gone without a majority for too long; it answers itself at any time."""
        answered_us = {**self._peers.answered_us, self.node_id: self._now_us}
        return majority_answered_us(self.settings.members, answered_us) + self.settings.quorum_silence_us

    def _beat(self) -> None:
        assert self._outbox.durable, "I3: a leader's term is durable before it was elected"
        self._round += 1
        self._heartbeat_due_us = self._now_us + self.settings.heartbeat_us
        heartbeat = Heartbeat(
            stamp=self._stamp,
            term=self._term,
            round=self._round,
            leader=self.node_id,
            tip=self._tip,
            active=self._active,
        )
        self._outbox.broadcast(self._peers.names, heartbeat)

    # ------------------------------------------------------------------ roles

    def _become_follower(self, term: int, *, leader: str | None, why: str, active: bool = False) -> None:
        """Of `leader` in `term`. Does not touch a running election timer; a leader has none, so it gets one."""
        assert term >= self._term, "I2: a term never goes back"
        if self._role is Role.LEADER:
            self._last_step_down = why
            self._timer.restart(self._now_us)
        self._role = Role.FOLLOWER
        self._leader = leader
        self._active = active
        if term > self._term:
            self._term = term
            self._vote = None
            self._persist()

    def _become_pre_candidate(self) -> None:
        """Ask whether an election could be won, before disturbing anybody with a term (thesis section 9.6)."""
        self._role = Role.PRE_CANDIDATE
        self._leader = None
        self._active = False
        self._round += 1
        self._granted = {self.node_id: True}
        self._timer.ask(self._now_us)
        if is_majority(self.settings.members, self._granted):
            self._become_candidate()
            return
        request = PreVote(
            stamp=self._stamp, term=self._term + 1, round=self._round, candidate=self.node_id, tip=self._tip
        )
        self._outbox.broadcast(self._other_voters, request)

    def _become_candidate(self, *, is_transfer: bool = False) -> None:
        """Take a new term and vote for oneself; the requests leave when that is durable."""
        assert self._can_stand, "observers and amnesiacs never campaign"
        self._role = Role.CANDIDATE
        self._leader = None
        self._active = False
        self._is_transfer = is_transfer
        self._term += 1
        self._vote = self.node_id
        self._round += 1
        self._granted = {}
        self._timer.stand(self._now_us)
        self._persist()

    def _ask_for_votes(self) -> None:
        """The own vote is durable: now it counts, and the others may hear of it."""
        self._granted = {self.node_id: True}
        self._timer.await_votes(self._now_us)
        if is_majority(self.settings.members, self._granted):
            self._become_leader()
            return
        request = Vote(
            stamp=self._stamp,
            term=self._term,
            round=self._round,
            candidate=self.node_id,
            tip=self._tip,
            transfer=self._is_transfer,
        )
        self._outbox.broadcast(self._other_voters, request)

    def _become_leader(self) -> None:
        assert self._vote == self.node_id, "a candidate voted for itself"
        self._role = Role.LEADER
        self._leader = self.node_id
        self._timer.leader_known()
        self._peers.start_term(round_sent=self._round, now_us=self._now_us)
        self._beat()

    # ------------------------------------------------------------------ small facts

    @property
    def _is_quorum_checked(self) -> bool:
        return self.settings.check_quorum and bool(self._other_voters)

    @property
    def _can_stand(self) -> bool:
        return self.is_voter and self._eligible and not self._amnesiac

    def _persist(self) -> None:
        """An amnesiac promises nothing, so it has nothing to keep: it follows from memory."""
        if not self._amnesiac:
            self._outbox.persist(HardState(incarnation=self._incarnation, term=self._term, vote=self._vote))

    def _begin(self, now_us: int) -> RoleChanged:
        before = self._seen()
        self._now_us = max(self._now_us, now_us)
        self._end_lost_leadership()
        return before

    def _finish(self, before: RoleChanged) -> list[Effect]:
        if self._outbox.failed and self._outbox.holds_messages:
            self._persist()  # somebody asks for what the disk did not take: try again
        after = self._seen()
        changes: list[Effect] = [] if after == before else [after]
        return changes + self._outbox.drain()

    def _seen(self) -> RoleChanged:
        return RoleChanged(role=self._role, term=self._term, leader=self._leader, active=self._active)

"""From an election won to decisions committed: follow, catch up, barrier, append, answer (RAFT section 2, steps 3–8).

The ledger's compare-and-set is the fence. This file only makes sure that nothing is answered before its
append is certain, and that the state is never ahead of what is stored by more than the one append in flight.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from berth.errors import Unreachable
from berth.ids import NodeId, Sequence, Term
from berth.messages.commands import Committed
from berth.messages.envelope import Record, Tip
from berth.model.ledger import State
from berth.ports import Clock, Ledger, StoredMessage
from berth.runtime.snapshots import Snapshots
from berth.wire.codec import OfferedProposal
from berth_raft.appending import RETRY_S, Stored, store
from berth_raft.commit import Answer, Committer, barrier, unknown
from berth_raft.confirming import Confirmations, announcement
from berth_raft.confirming import Stored as Confirmable
from berth_raft.control import Counts, ElectionControl, Observer
from berth_raft.core.effects import Role, RoleChanged
from berth_raft.core.messages import Tip as MirrorTip
from berth_raft.ledger_copy import LedgerCopy
from berth_raft.mirror import Mirror, MirrorStore
from berth_raft.stream_end import StreamEnd

log = logging.getLogger(__name__)

ANNOUNCE_EVERY_S = 0.5
ASK_AGAIN_S = 0.05
CLOCK_EVERY_TURNS = 4  # the clocks are compared while it leads too, every two seconds


class Leadership:
    """One raft node's side of the ledger: follows it always, and appends to it while it leads."""

    def __init__(  # noqa: PLR0913 - everything it stands on, each by name
        self,
        state: State,
        *,
        node_id: str,
        members: tuple[str, ...],
        ledger: Ledger,
        mirror: MirrorStore,
        clock: Clock,
        timeout_max_ms: int,
        answer: Callable[[Answer], None],
        announce: Callable[[Committed], None],
        may_be_lost: Callable[[NodeId], bool],
        on_active: Callable[[bool], None],
        observer: Observer,
        snapshots: Snapshots | None = None,
    ) -> None:
        self.state = state
        self.election: ElectionControl | None = None
        self._node_id = node_id
        self._members = members
        self._ledger = ledger
        self._clock = clock
        self._timeout_max_us = timeout_max_ms * 1000
        self._answer = answer
        self._announce = announce
        self._may_be_lost = may_be_lost
        self._on_active = on_active
        self._observer = observer
        self._snapshots = snapshots
        self._role = RoleChanged(role=Role.FOLLOWER, term=0, leader=None, active=False)
        self._committer: Committer | None = None
        self._confirmations: Confirmations | None = None
        self._committed: Tip | None = None
        self._peers: Mapping[str, MirrorTip] = {}
        self._mirror = Mirror(mirror, reached=self._mirrored, failed=self._mirror_failed)
        self._copy = LedgerCopy(state, ledger, self._mirror, taken=self._taken, halted=self._halted)
        self._wake = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._recovering: asyncio.Task[None] | None = None
        self._stream = StreamEnd(ledger, clock)

    # ------------------------------------------------------------------ what others tell

    @property
    def is_active(self) -> bool:
        """It may commit: the barrier of its term is in the ledger and nothing has ended the term since."""
        return self._committer is not None

    @property
    def is_caught_up(self) -> bool:
        return self._caught_up.is_set()

    @property
    def counts(self) -> Counts:
        return self._copy.counts

    @property
    def mirrored(self) -> int:
        return self._mirror.tip.sequence

    @property
    def committed(self) -> Tip | None:  # None while it does not lead
        return self._committed

    def mirrors_changed(self, tips: Mapping[str, MirrorTip]) -> None:
        """How far the mirrors of the other nodes reach, as they say."""
        self._peers = tips
        self._confirm()

    def role_changed(self, changed: RoleChanged) -> None:
        """The election says who leads."""
        self._role = changed
        self._wake.set()

    def takes(self, reply_to: str) -> bool:
        """Whether a proposal whose answer goes to `reply_to` is news: who waits for a busy leader asks again under
        the same id, and must not make it busier.
        """
        return self._committer is not None and not self._committer.holds(reply_to)

    def offer(self, proposal: OfferedProposal, *, reply_to: str, traceparent: str | None) -> bool:
        """Take a proposal; False when this node does not lead: then somebody else may answer it."""
        if self._committer is None:
            return False
        refused = self._committer.offer(proposal, reply_to=reply_to, traceparent=traceparent)
        if refused is not None:
            self._answer(refused)
        self._wake.set()
        return True

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._mirror.run())
            self._copy.load()
            await self._copy.align()
            self._tell_tip()
            self._election.adopt_term(self._copy.tip.barrier_term)
            tasks.create_task(self._follow())
            tasks.create_task(self._lead())
            tasks.create_task(self._repeat_committed())

    # ------------------------------------------------------------------ following

    async def _follow(self) -> None:
        async for batch in self._ledger.follow(self._copy.stream_sequence):
            self._copy.arrived(batch)
            if not batch:
                self._drain()
                self._set_caught_up()
            elif self._committer is None:
                self._drain()
            self._look_for_snapshot()
            self._wake.set()

    def _look_for_snapshot(self) -> None:
        """Followers write them, never the leader (RAFT section 2, "Stalls")."""
        if self._snapshots is not None and self._role.role is Role.FOLLOWER and not self._copy.is_halted:
            self._snapshots.look(self.state)

    def _set_caught_up(self) -> None:
        if not self._caught_up.is_set() and self.state.tip is not None and not self._copy.is_halted:
            self._caught_up.set()
            self._election.set_eligible(True)

    @property
    def _election(self) -> ElectionControl:
        assert self.election is not None, "leadership runs only beside an election"
        return self.election

    def _drain(self) -> None:
        """Take in what arrived; not while an append is in flight, since the state is ahead then."""
        if self._committer is None or self._committer.in_flight is None:
            self._copy.drain()

    def _taken(self, record: Record) -> None:
        self._tell_tip()
        if record.elected is not None and record.leader != self._node_id:
            self._election.adopt_term(record.term)

    def _halted(self) -> None:
        if self.election is not None:
            self._election.set_eligible(False)
            self._election.resign(self._role.term, f"cannot fold {self.counts.halted_at}")
        self._wake.set()

    def _tell_tip(self) -> None:
        """An election is about what a node can give back: at level `quorum` what its disk has."""
        self._election.set_tip(self._mirror.tip if self._copy.is_quorum else self._copy.tip)

    def _mirrored(self, tip: MirrorTip) -> None:
        if self._copy.is_quorum:
            self._election.set_tip(tip)
            self._election.report()
            self._confirm()

    def _mirror_failed(self, why: str) -> None:
        if self._copy.is_quorum:
            self._step_aside(why)

    # ------------------------------------------------------------------ leading

    async def _lead(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._role.role is Role.LEADER and not self._copy.is_halted:
                await self._lead_term(Term(self._role.term))

    def _leads(self, term: Term) -> bool:
        return self._role.role is Role.LEADER and self._role.term == term and not self._copy.is_halted

    async def _lead_term(self, term: Term) -> None:
        if not await self._establish(term):
            return
        committer = Committer(
            self.state,
            leader=self._node_id,
            monotonic_us=self._clock.monotonic_us,
            may_be_lost=self._may_be_lost,
        )
        self._committer = committer
        self._confirmations = Confirmations(self._members, term)
        self._committed = None
        self._on_active(True)  # noqa: FBT003 - the one fact that this call tells
        self._election.activate(term)
        self._stored(())
        log.info("leadership_established", extra={"term": term, "sequence": self.state.sequence})
        try:
            while self._leads(term):
                self._drain()
                if self.state.tip is None or self.state.tip.term != term:
                    break
                if committer.has_work:
                    await self._commit(committer, term)
                else:
                    await self._wake.wait()
                    self._wake.clear()
        finally:
            self._committer = self._committed = None
            self._on_active(False)  # noqa: FBT003
            left, self._confirmations = self._confirmations.abandoned(), None
            for answer in (*(one for each in left for one in unknown(each.answers)), *committer.stepped_down()):
                self._answer(answer)
            if committer.in_flight is None:  # else this node ends in the middle of an append, its state ahead of it
                self._drain()
            log.info("leadership_ended", extra={"term": term, "sequence": self.state.sequence})
            self._wake.set()

    async def _establish(self, term: Term) -> bool:
        """Read the ledger to its end and append the barrier of `term`; False when that did not come about."""
        deadline = self._clock.monotonic_us() + 2 * self._timeout_max_us
        while self._leads(term):
            if self._clock.monotonic_us() > deadline:
                self._election.resign(self._role.term, "the barrier could not be appended in time")
                return False
            if not await self._read_to_end():
                await asyncio.sleep(RETRY_S)
                continue
            if not self._stream.clock_agrees:
                self._step_aside("its clock differs from the server's")
                return False
            tip = self.state.tip
            if tip is None or tip.term >= term:
                self._election.adopt_term(tip.term if tip is not None else 0)
                at = "empty: run `berth init`" if tip is None else f"at term {tip.term}"
                self._election.resign(self._role.term, f"the ledger is {at}")
                return False
            if self._copy.has_more_than_the_stream:
                await self._copy.restore(lambda: self._leads(term))
                deadline = self._clock.monotonic_us() + 2 * self._timeout_max_us
                continue
            payload, found = barrier(
                tip,
                term=term,
                leader=self._node_id,
                now_ms=self._clock.now_ms(),
                stream_sequence=self._copy.stream_sequence,
            )
            expected = self._copy.stream_sequence
            stored = await self._store(payload, expected, term)
            if stored is Stored.YES:
                self._copy.take_own(StoredMessage(sequence=Sequence(expected + 1), payload=payload))
                return self._leads(term) and self.state.tip is not None and self.state.tip.hash == found
            if stored is Stored.DOUBT:
                return False
            self.counts.lost_races += 1
        return False

    async def _read_to_end(self) -> bool:
        """Whether everything that the stream holds is folded."""
        try:
            return await self._copy.read_to_end(await self._stream.last_sequence())
        except Unreachable:
            return False

    async def _commit(self, committer: Committer, term: Term) -> None:
        began_us = self._clock.monotonic_us()
        flush = committer.flush(now_ms=self._clock.now_ms(), stream_sequence=self._copy.stream_sequence)
        if not flush.payload:
            for answer in flush.answers:
                self._answer(answer)
            return
        appended_us = self._clock.monotonic_us()
        stored = await self._store(flush.payload, flush.expected, term)
        if stored is Stored.YES:
            answers = committer.appended()
            self._copy.took_own(StoredMessage(sequence=Sequence(flush.expected + 1), payload=flush.payload))
            self._tell_tip()
            self._stored(answers)
        else:
            self.counts.lost_races += stored is Stored.NO
            for answer in committer.withdrawn():
                self._answer(answer)
        if stored is Stored.YES:
            self._observer.flushed(
                flush, began_us=began_us, appended_us=appended_us, done_us=self._clock.monotonic_us()
            )
        elif stored is Stored.NO and not await self._read_to_end():
            self._election.resign(self._role.term, "a race was lost and the ledger cannot be read")
        await asyncio.sleep(0)  # let what arrived meanwhile be taken in, even if this append never waited

    async def _store(self, payload: bytes, expected: Sequence, term: Term) -> Stored:
        """Append for `term`; who is too long in doubt about it steps aside (step 7)."""
        found = await store(
            self._ledger,
            payload,
            expected=expected,
            monotonic_us=self._clock.monotonic_us,
            patience_us=2 * self._timeout_max_us,
            may_go_on=lambda: self._leads(term),
        )
        self.counts.doubts += found.was_in_doubt
        if found.gave_up:
            doubt = "in doubt about an append for too long"
            self._step_aside(doubt if found.stored is Stored.DOUBT else "nothing takes an append")
        return found.stored

    def _step_aside(self, why: str) -> None:
        """Stop leading, and do not stand again before the stream answers and the clocks agree."""
        log.warning("leadership_given_up", extra={"term": self._role.term, "why": why})
        self._election.set_eligible(False)
        self._election.resign(self._role.term, why)
        self._recovering = asyncio.get_running_loop().create_task(self._eligible_again())

    async def _eligible_again(self) -> None:
        while not self._copy.is_halted:
            with contextlib.suppress(Unreachable):  # asked again below
                await self._stream.last_sequence()
                if self._stream.clock_agrees:
                    self._election.set_eligible(True)
                    return
            await asyncio.sleep(ASK_AGAIN_S)

    # ------------------------------------------------------------------ telling

    def _stored(self, answers: tuple[Answer, ...]) -> None:
        """The stream has the record that made the tip: tell, or wait until a majority of mirrors has it too."""
        assert self._confirmations is not None and self.state.tip is not None, "only a leader stores"
        stored = Confirmable(tip=self.state.tip, answers=answers)
        if self._copy.is_quorum:
            self._confirmations.add(stored)
            self._confirm()
        else:
            self._tell([stored])

    def _confirm(self) -> None:
        if self._confirmations is not None:
            self._tell(self._confirmations.confirmed({**self._peers, self._node_id: self._mirror.tip}))

    def _tell(self, committed: list[Confirmable]) -> None:
        for one in committed:
            for answer in one.answers:
                self._answer(answer)
            self._committed = one.tip
        if committed:
            self._announce_committed()

    def _announce_committed(self) -> None:
        if self._committed is not None:
            self._announce(announcement(self._committed))

    async def _repeat_committed(self) -> None:
        turn = 0
        while True:
            await asyncio.sleep(ANNOUNCE_EVERY_S)
            turn += 1
            if self._committer is None:
                continue
            self._announce_committed()
            if turn % CLOCK_EVERY_TURNS == 0:
                await self._compare_clocks()

    async def _compare_clocks(self) -> None:
        with contextlib.suppress(Unreachable):  # the next append finds out
            await self._stream.last_sequence()
        if self._committer is not None and not self._stream.clock_agrees:
            self._step_aside("its clock differs from the server's")

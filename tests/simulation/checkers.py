"""What must hold when the storm is over: read from the ledger's bytes, the services' states and what clients heard."""

from collections import Counter
from dataclasses import dataclass, field

from berth.ids import RequestKey, Sequence
from berth.messages.commands import EvaluationItem, Grant
from berth.messages.decisions import Decision
from berth.messages.documents import NodeState
from berth.messages.envelope import Tip, tip_of, why_not_valid
from berth.messages.events import RequestPlaced, RequestStatus
from berth.messages.reasons import ReasonCode
from berth.model.answers import decision_of
from berth.model.charging import recount_usage
from berth.model.check import check
from berth.model.ledger import State
from berth.model.queue import RequestState
from berth.model.windows import free_now
from berth.subjects import DEADLETTER_STREAM
from berth.wire import snapshots
from berth.wire.codec import decode_record, request_digest
from berth_quota.admission import Admit, judge
from berth_scheduler.board import Board
from berth_scheduler.placement import Placed, place
from berth_scheduler.preemption import preempt
from tests.same_state import assert_same
from tests.simulation.cluster_clients import Client, Wish
from tests.simulation.cluster_world import ClusterWorld
from tests.simulation.witness import written

Said = tuple[RequestKey, Sequence]


@dataclass
class History:
    """The ledger, folded anew, each transaction judged again; `said`: what it said of a request at a sequence."""

    state: State = field(default_factory=State)
    said: dict[Said, Decision] = field(default_factory=dict["Said", Decision])
    placements: Counter[tuple[RequestKey, int]] = field(default_factory=Counter["tuple[RequestKey, int]"])
    commits: int = 0
    terms: int = 0


def replayed(records: list[bytes]) -> History:
    """I4–I6, I13: the chain is whole, and every committed transaction was lawful when it was committed."""
    history, tip = History(), None
    state = history.state
    for number, payload in enumerate(records, start=1):
        record = decode_record(payload)
        why = why_not_valid(tip, record, number)
        assert why is None, f"I6: record {number} does not continue the chain: {why}"
        tip: Tip | None = tip_of(record)
        named: dict[RequestKey, None] = {}
        for transaction in record.transactions:
            if record.created is None and record.elected is None:
                refusal = check(state, transaction, record.at)
                assert refusal is None, f"I13: {number} holds what is not lawful: {refusal}"
            state.fold_transaction(transaction, at=record.at, sequence=record.sequence)
            for event in transaction:
                if event.key is not None:
                    named[event.key] = None
                if isinstance(event.data, RequestPlaced) and event.key is not None and event.attempt is not None:
                    history.placements[event.key, event.attempt] += 1
        state.tip = tip
        for key in named:
            decision = decision_of(state, key)
            assert decision is not None, f"{key} is named and unknown"
            history.said[key, record.sequence] = decision
        history.commits += len(record.transactions)
        history.terms = record.term
    return history


def check_everything(world: ClusterWorld, clients: list[Client]) -> History:
    """Everything below."""
    check_nobody_failed(world)
    history = replayed(world.records)
    check_what_was_promised_is_there(world)
    check_each_attempt_took_effect_once(history)
    check_nodes_hold_what_they_were_given(history.state)
    check_usage_is_what_a_recount_finds(history.state)
    check_everybody_knows_the_same(world, history.state)
    check_snapshots_make_no_difference(world)
    check_nothing_is_left(world)
    check_each_wish_has_one_outcome(history, clients)
    check_what_waits_has_a_reason(history.state)
    return history


def check_nobody_failed(world: ClusterWorld) -> None:
    """No error in the log, no process that ended or halted by itself, no message nobody could handle."""
    assert not world.problems.found, "\n".join(world.problems.found[:5])
    for name, process in world.processes.items():
        assert process.runner.halted is None, f"{name} halted: {process.runner.halted}"
        assert not process.task.done(), f"{name} ended: {process.task!r}"
    for name, node in world.raft.nodes.items():
        assert not node.ended.done(), f"{name} ended: {node.ended.result()}"
    for name, agent in world.agents.items():
        assert not agent.task.done(), f"the agent of {name} ended: {agent.task!r}"
    dead = world.jetstream.streams[DEADLETTER_STREAM.name].messages
    assert not dead, f"dead letters: {[one.headers for one in dead.values()]}"


def check_what_was_promised_is_there(world: ClusterWorld) -> None:
    """I7: whatever a leader said it had committed stands in the record that it named."""
    for sequence, transaction in world.promises.accepted:
        found = decode_record(world.records[sequence - 1]) if sequence <= len(world.records) else None
        stored = [] if found is None else [written(one) for one in found.transactions]
        assert transaction in stored, f"I7: not in record {sequence}, where it was said to be: {transaction}"


def check_each_attempt_took_effect_once(history: History) -> None:
    """I8."""
    for (key, attempt), times in history.placements.items():
        assert times == 1, f"I8: {key} was placed {times} times at attempt {attempt}"


def check_nodes_hold_what_they_were_given(state: State) -> None:
    """I13: what runs and what is held fits, on every node."""
    for name, node in state.cluster.nodes.items():
        free = free_now(state, node)
        for dimension, _ in node.capacity.dimensions():
            assert free.amount(dimension) >= 0, f"I13: {name} lacks {-free.amount(dimension)} of {dimension}"


def check_usage_is_what_a_recount_finds(state: State) -> None:
    """I13: what namespaces are charged is what their allocations and reservations say."""
    assert dict(state.quotas.used) == recount_usage(state), "I13: charges and allocations differ"


def check_everybody_knows_the_same(world: ClusterWorld, state: State) -> None:
    """I11: every raft node and every service folded the same ledger to the same state."""
    for name, node in world.raft.nodes.items():
        found = node.leadership.state
        assert (found.sequence, found.digest()) == (state.sequence, state.digest()), f"I11: {name} knows otherwise"
    for name, process in world.processes.items():
        found = process.service.state
        assert (found.sequence, found.digest()) == (state.sequence, state.digest()), f"I11: {name} knows otherwise"


def check_snapshots_make_no_difference(world: ClusterWorld) -> None:
    """I12: who began with a snapshot, and the tail folded onto any snapshot there is, have what everything folds to."""
    records = [decode_record(payload) for payload in world.records]
    whole = State()
    for record in records:
        whole.fold(record)
    for process in world.processes.values():
        if not process.service.state.journal.recording:
            assert_same(process.service.state, whole)
    for store in (world.snapshots, *world.raft.snapshots.values()):
        for payload in store.files.values():
            state, head = State(), snapshots.read_head(payload)
            snapshots.decode_into(state, payload, head)
            for record in records[head.tip.sequence :]:
                state.fold(record)
            assert_same(state, whole)


def check_nothing_is_left(world: ClusterWorld) -> None:
    """The work queue is empty, every node whose agent runs is ready, nothing that ran on a lost one still counts."""
    assert world.requests_left == 0
    nodes = world.state.cluster.nodes
    for name in world.agents:
        assert nodes[world.nodes[name].id].state is NodeState.READY, (
            f"{name} beats and is {nodes[world.nodes[name].id]}"
        )


# --- what clients were told -------------------------------------------------------------------------------------


def check_each_wish_has_one_outcome(history: History, clients: list[Client]) -> None:
    """Everybody was told what the ledger said (I7, I9); what was released is over; of two bodies one stands (R106)."""
    for client in clients:
        for wish in client.wishes:
            _check_wish(history, wish)


def _check_wish(history: History, wish: Wish) -> None:
    request, told = wish.request, wish.told
    known = history.state.queue.requests.get(request.key)
    assert known is not None, f"{request.key} was submitted and is unknown"
    mine = request_digest(request)
    if wish.released:
        assert known.is_settled, f"{request.key} was released and is {known.status}"
    if not wish.waits:
        return
    assert told is not None, f"I17: nobody told what became of {request.key}"
    if told.sequence == 0:
        codes = [reason.code for reason in told.reasons]
        assert codes == [ReasonCode.CONFLICT] and told.digest == mine != known.digest, f"{told} about {mine}"
        return
    said = history.said.get((request.key, told.sequence))
    assert said is not None, f"I7: {request.key} was told of {told.sequence}, where nothing was decided about it"
    assert told.digest == said.digest == mine, f"R106: {request.key} was told of another body"
    assert (told.status, told.attempt) == (said.status, said.attempt), f"I7: told {told}, the ledger says {said}"
    assert told.allocations == said.allocations, f"I7: told {told}, the ledger says {said}"


# --- what waits -------------------------------------------------------------------------------------------------


def check_what_waits_has_a_reason(state: State) -> None:
    """No lost wake-up (R101): quota and scheduler, asked anew about what is queued, have no place for it still."""
    board = Board(state)
    for key in state.queue.waiting:
        known = state.queue.requests[key]
        assert known.status is RequestStatus.QUEUED and known.reasons, f"{key} waits without a reason"
        missing = known.request.count - len(known.live)
        ruling = judge(state, known.request, missing, {}) if missing > 0 else None
        if isinstance(ruling, Admit):
            found = _placed(board, known, missing, ruling.grant)
            assert found is None, f"{key} waits for {known.reasons}, and there is a place: {found}"


def _placed(board: Board, known: RequestState, missing: int, grant: Grant) -> Placed | None:
    """Where a scheduler would place it: on free room, if its quota has any, else at the cost of others."""
    state, request = board.state, known.request
    found = None
    if not grant.quota_short:
        found = place(state, request, missing=missing, at=state.at, attempt=known.attempt, board=board)
    if isinstance(found, Placed) or not grant.preempt:
        return found if isinstance(found, Placed) else None
    item = EvaluationItem(request=request, digest=known.digest, attempt=known.attempt, missing=missing, grant=grant)
    return preempt(board, item, missing=missing, at=state.at, seed="")

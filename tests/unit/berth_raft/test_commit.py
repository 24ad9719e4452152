"""The leader's judgement and group commit: one record a flush, nothing answered before its append."""

from berth.ids import LedgerId, NodeId, Sequence, Term
from berth.messages.commands import Proposal, RefusalCode
from berth.messages.envelope import RECORD_BYTES_MAX, RECORD_EVENTS_MAX, tip_of, why_not_valid
from berth.messages.events import DigestsRecorded, Event, NodeLost, RequestPlaced, Transaction
from berth.model.ledger import State
from berth.wire.codec import decode_proposal, decode_record, encode_proposal
from berth_raft.commit import PROPOSALS_WAITING_MAX, Answer, Committer, Flush, barrier, first_record
from tests.builders import T0, a_node, a_request, placed


def a_leader(*history: Transaction, heard: bool = False) -> Committer:
    """A leader of term 1 whose ledger holds `history`; `heard`: every node was heard just now."""
    state = State()
    fold(state, first_record(ledger_id=LedgerId("l1"), members=("raft-1",), level="ledger", now_ms=T0))
    assert state.tip is not None
    fold(state, barrier(state.tip, term=Term(1), leader="raft-1", now_ms=T0, stream_sequence=state.sequence)[0])
    committer = Committer(state, leader="raft-1", monotonic_us=lambda: 0, may_be_lost=lambda _node: not heard)
    for transaction in history:
        offer(committer, "history", transaction)
    if history:
        commit(committer)
    return committer


def fold(state: State, payload: bytes) -> None:
    record = decode_record(payload)
    assert why_not_valid(state.tip, record, state.sequence + 1) is None
    state.fold(record)


def offer(committer: Committer, name: str, *transactions: Transaction) -> Answer | None:
    proposal = Proposal(id=name, transactions=transactions, view_sequence=Sequence(0))
    return committer.offer(decode_proposal(encode_proposal(proposal)), reply_to=f"to.{name}", traceparent=None)


def flush(committer: Committer) -> Flush:
    return committer.flush(now_ms=T0, stream_sequence=committer.state.sequence)


def commit(committer: Committer) -> list[tuple[str, list[RefusalCode | None]]]:
    """Flush until nothing waits, every append succeeding; who was answered what."""
    said: list[tuple[str, list[RefusalCode | None]]] = []
    while committer.has_work:
        one = flush(committer)
        said += [outcome_of(answer) for answer in (committer.appended() if one.payload else one.answers)]
    return said


def outcome_of(answer: Answer) -> tuple[str, list[RefusalCode | None]]:
    return answer.body.id, [outcome.code if outcome else None for outcome in answer.body.outcomes]


def test_what_waits_becomes_one_record_that_follows_the_last() -> None:
    leader = a_leader(a_node(cpu=4_000))
    tip = leader.state.tip
    offer(leader, "a", placed(a_request("a"), "n1"))
    offer(leader, "b", placed(a_request("b"), "n1"), placed(a_request("c"), "n1"))

    one = flush(leader)
    record = decode_record(one.payload)

    assert why_not_valid(tip, record, record.sequence) is None
    assert [transaction[0].key for transaction in record.transactions] == [
        ("team-a", "a"),
        ("team-a", "b"),
        ("team-a", "c"),
    ]
    assert [outcome_of(answer) for answer in leader.appended()] == [("a", [None]), ("b", [None, None])]
    assert leader.state.tip == tip_of(record)


def test_each_transaction_is_judged_on_what_the_earlier_ones_of_its_flush_did() -> None:
    leader = a_leader(a_node(cpu=2_000))
    for name in ("a", "b", "c"):
        offer(leader, name, placed(a_request(name, cpu=1_000), "n1"))

    assert commit(leader) == [("a", [None]), ("b", [None]), ("c", [RefusalCode.CAPACITY])]


def test_a_fold_of_the_stored_records_is_the_leaders_state() -> None:
    leader = a_leader(a_node())
    follower = a_leader(a_node()).state
    offer(leader, "a", placed(a_request("a"), "n1"), placed(a_request("a"), "n1"))

    one = flush(leader)
    leader.appended()
    fold(follower, one.payload)

    assert follower.digests() == leader.state.digests()


def test_one_append_is_in_flight() -> None:
    leader = a_leader(a_node())
    offer(leader, "a", placed(a_request("a"), "n1"))
    flush(leader)
    offer(leader, "b", placed(a_request("b"), "n1"))

    assert not leader.has_work, "what arrives meanwhile waits for the next flush"
    leader.appended()
    assert leader.has_work


def test_a_record_that_lost_its_race_is_taken_back_and_nobody_is_told_yes() -> None:
    leader = a_leader(a_node())
    before = (leader.state.digests(), leader.state.tip)
    offer(leader, "a", placed(a_request("a"), "n1"), (Event(NodeLost(node=NodeId("n9"))),))
    flush(leader)

    answers = leader.withdrawn()

    assert (leader.state.digests(), leader.state.tip) == before
    assert [outcome_of(answer) for answer in answers] == [("a", [RefusalCode.UNKNOWN, RefusalCode.NOT_FOUND])]
    assert offer(leader, "a again", placed(a_request("a"), "n1")) is None
    assert commit(leader) == [("a again", [None])]


def test_a_leader_that_steps_down_answers_what_still_waits() -> None:
    leader = a_leader(a_node())
    offer(leader, "a", placed(a_request("a"), "n1"))

    assert [outcome_of(answer) for answer in leader.stepped_down()] == [("a", [RefusalCode.NOT_LEADER])]
    assert not leader.has_work


def test_nothing_is_stored_when_everything_was_refused() -> None:
    leader = a_leader()
    offer(leader, "a", (Event(NodeLost(node=NodeId("n9"))),))

    one = flush(leader)

    assert one.payload == b""
    assert [outcome_of(answer) for answer in one.answers] == [("a", [RefusalCode.NOT_FOUND])]


def test_a_node_that_was_heard_is_not_lost() -> None:
    leader = a_leader(a_node(), heard=True)
    offer(leader, "lost", (Event(NodeLost(node=NodeId("n1"))),))

    assert commit(leader) == [("lost", [RefusalCode.TOO_EARLY])]


def test_a_record_stays_within_its_bounds() -> None:
    leader = a_leader(a_node(instances=2_000))
    count = 2 * RECORD_EVENTS_MAX
    for number in range(count):
        offer(leader, f"p{number}", placed(a_request(f"r{number}", cpu=0), "n1"))
    records = 0
    while leader.has_work:
        one = flush(leader)
        record = decode_record(one.payload)
        assert len(one.payload) <= RECORD_BYTES_MAX
        assert sum(map(len, record.transactions)) <= RECORD_EVENTS_MAX
        leader.appended()
        records += 1

    assert records >= 4
    assert len(leader.state.queue.requests) == count


def test_a_transaction_that_fits_no_record_is_refused() -> None:
    leader = a_leader(a_node())
    many = tuple(event for number in range(300) for event in placed(a_request(f"r{number}"), "n1"))
    offer(leader, "big", many)

    assert commit(leader) == [("big", [RefusalCode.TOO_LARGE])]


def test_a_proposal_cut_in_the_middle_is_answered_once_with_all_its_outcomes() -> None:
    leader = a_leader(a_node(instances=2_000))
    transactions = [placed(a_request(f"r{number}", cpu=0), "n1") for number in range(RECORD_EVENTS_MAX)]
    offer(leader, "long", *transactions)

    assert commit(leader) == [("long", [None] * RECORD_EVENTS_MAX)]


def test_a_full_queue_is_said_at_once() -> None:
    leader = a_leader(a_node())
    for number in range(PROPOSALS_WAITING_MAX):
        assert offer(leader, f"p{number}", placed(a_request("a"), "n1")) is None

    refused = offer(leader, "one too many", placed(a_request("a"), "n1"))

    assert refused is not None and outcome_of(refused) == ("one too many", [RefusalCode.OVERLOADED])


def test_a_proposal_is_held_from_its_arrival_until_its_answer_leaves() -> None:
    leader = a_leader(a_node())
    offer(leader, "a", placed(a_request("a"), "n1"))

    held = [leader.holds("to.a")]
    flush(leader)
    held.append(leader.holds("to.a"))
    leader.appended()

    assert held == [True, True]
    assert not leader.holds("to.a")
    assert not leader.holds("to.b")


def test_digests_open_the_first_record_of_every_thousand() -> None:
    leader = a_leader(a_node())
    before = leader.state.digests()
    offer(leader, "a", placed(a_request("a"), "n1"))

    record = decode_record(leader.flush(now_ms=T0, stream_sequence=Sequence(1_000)).payload)
    leader.appended()
    offer(leader, "b", placed(a_request("b"), "n1"))
    following = decode_record(flush(leader).payload)

    first = record.transactions[0][0].data
    assert isinstance(first, DigestsRecorded) and first.digests == before
    assert isinstance(record.transactions[1][1].data, RequestPlaced)
    assert len(following.transactions) == 1, "once in a thousand"


def test_domain_time_never_goes_back() -> None:
    leader = a_leader(a_node())
    offer(leader, "a", placed(a_request("a"), "n1"))

    record = decode_record(leader.flush(now_ms=T0 - 60_000, stream_sequence=leader.state.sequence).payload)

    assert record.at == T0


def a_long_proposal_cut_in_two(leader: Committer) -> tuple[Flush, int]:
    """The first record holds only a part of it; how many of its transactions that are."""
    transactions = [placed(a_request(f"r{number}", cpu=0), "n1") for number in range(RECORD_EVENTS_MAX)]
    offer(leader, "long", *transactions)
    one = flush(leader)
    assert one.answers == (), "it is not answered before all of it is judged"
    return one, one.transactions


def test_what_a_withdrawn_record_held_of_a_cut_proposal_is_judged_again() -> None:
    leader = a_leader(a_node(instances=2_000))
    a_long_proposal_cut_in_two(leader)
    assert leader.withdrawn() == ()

    assert commit(leader) == [("long", [None] * RECORD_EVENTS_MAX)]
    assert len(leader.state.queue.requests) == RECORD_EVENTS_MAX, "what was answered as accepted is there"


def test_a_leader_that_steps_down_says_what_it_committed_of_a_cut_proposal() -> None:
    leader = a_leader(a_node(instances=2_000))
    _, committed = a_long_proposal_cut_in_two(leader)
    leader.appended()

    (answer,) = leader.stepped_down()

    rest = RECORD_EVENTS_MAX - committed
    assert outcome_of(answer) == ("long", [None] * committed + [RefusalCode.NOT_LEADER] * rest)

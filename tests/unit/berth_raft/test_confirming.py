"""When a record that the stream has is committed at level `quorum` (RAFT section 2, step 5; I7, I10)."""

from berth.ids import LedgerId, Sequence, Term
from berth.messages.envelope import NO_HASH, Tip
from berth_raft.confirming import Confirmations, Stored
from berth_raft.core.messages import Tip as MirrorTip

MEMBERS = ("a", "b", "c")


def stored(sequence: int, term: int = 3) -> Stored:
    tip = Tip(
        ledger_id=LedgerId("l"),
        sequence=Sequence(sequence),
        hash=NO_HASH,
        term=Term(term),
        leader="a",
        barrier=Sequence(1),
        at=0,
    )
    return Stored(tip=tip, answers=())


def mirrors(**sequences: int) -> dict[str, MirrorTip]:
    return {name: MirrorTip(barrier_term=3, sequence=sequence) for name, sequence in sequences.items()}


def sequences(found: list[Stored]) -> list[int]:
    return [one.tip.sequence for one in found]


def waiting(*numbers: int) -> Confirmations:
    confirmations = Confirmations(MEMBERS, Term(3))
    for number in numbers:
        confirmations.add(stored(number))
    return confirmations


def test_a_record_is_committed_when_a_majority_has_it_and_told_once() -> None:
    confirmations = waiting(5, 6, 7)

    assert confirmations.confirmed(mirrors(a=7)) == []
    assert sequences(confirmations.confirmed(mirrors(a=7, b=6))) == [5, 6]
    assert sequences(confirmations.confirmed(mirrors(a=7, b=6))) == []
    assert sequences(confirmations.confirmed(mirrors(a=6, b=7, c=7))) == [7]


def test_the_leaders_own_mirror_is_one_among_others() -> None:
    assert sequences(waiting(5).confirmed(mirrors(b=5, c=5))) == [5]


def test_who_is_no_member_does_not_count() -> None:
    assert waiting(5).confirmed(mirrors(a=5, x=5, y=5)) == []


def test_what_is_mirrored_as_part_of_an_earlier_term_does_not_count() -> None:
    tips = {"a": MirrorTip(barrier_term=3, sequence=5), "b": MirrorTip(barrier_term=2, sequence=9)}

    assert waiting(5).confirmed(tips) == []


def test_what_is_left_when_the_term_ends_is_nobodys_to_tell() -> None:
    confirmations = waiting(5, 6)
    confirmations.confirmed(mirrors(a=5, b=5))

    assert sequences(confirmations.abandoned()) == [6]
    assert confirmations.abandoned() == []

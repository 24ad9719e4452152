"""What a raft node remembers of the nodes it hears, by which it believes a loss or not."""

from berth.ids import NodeId
from berth_raft.hearing import Hearing

N1, N2, N3 = (NodeId(f"n{number}") for number in (1, 2, 3))


def test_a_node_may_be_lost_only_after_it_was_listened_to_in_vain_for_long_enough() -> None:
    hearing = Hearing(0)
    hearing.heard(N1, 3_000, known=[N1, N2])

    assert not hearing.may_be_lost(N2, nodes=2, now_ms=4_999)
    assert hearing.may_be_lost(N2, nodes=2, now_ms=5_000)
    assert not hearing.may_be_lost(N1, nodes=2, now_ms=7_999)
    hearing.start(8_000)
    assert not hearing.may_be_lost(N1, nodes=2, now_ms=12_999)


def test_never_more_nodes_are_remembered_than_there_are() -> None:
    hearing = Hearing(0)
    for number in range(1_000):
        hearing.heard(NodeId(f"stranger-{number}"), 1, known=[N1, N2, N3])
    for node in (N1, N2, N3):
        hearing.heard(node, 2, known=[N1, N2, N3])
    assert len(hearing) == 3

    hearing.heard(N1, 3, known=[N1, N2])

    assert len(hearing) == 2

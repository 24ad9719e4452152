"""Random calendars: bookings, changes, failing nodes and work, in any order and with time passing between.

Whatever happens: nothing overlaps beyond capacity at any instant, each promise is kept or its break has a cause that
is true, nothing begins before its start, and in the end everything is cleaned up.
"""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from berth.ids import NodeId
from berth.messages.documents import NodeState, time_text
from berth.messages.events import Event, NodeChanged, NodeLost, ReservationHeld, Transaction
from berth.messages.reservation_events import HoldCause
from berth.model.check import check
from berth.model.ledger import State
from berth.model.reservation import Reservation, ReservationState
from berth.model.windows import free_now, load_at
from tests.builders import MINUTE, SECOND, T0, a_node, a_quota, a_request, ended, placed
from tests.unit.berth_reservation.scene import Scene

NODES = ("n1", "n2", "n3")
HARD = 30_000
LAST_END = 3 * 60 * MINUTE

Act = Callable[[Scene, int], None]


def commit_if_lawful(scene: Scene, transaction: Transaction) -> None:
    """As others do: only what the leader accepts."""
    if check(scene.leader, transaction, scene.now) is None:
        scene.commit(transaction)


def book(scene: Scene, number: int, /, *, start: int | None, minutes: int, **document: Any) -> None:
    window = {} if start is None else {"start": time_text(scene.now + start * MINUTE)}
    scene.create(id=f"res{number}", duration_seconds=minutes * 60, **window, **document)


def recur(scene: Scene, number: int, /, *, minutes: int) -> None:
    until = time_text(T0 + 60 * MINUTE)
    every = {"cron": "*/20 * * * *", "time_zone": "Europe/Berlin", "until": until}
    scene.create(id=f"res{number}", duration_seconds=minutes * 60, recurrence=every)


def work(scene: Scene, number: int, /, *, cpu: int, minutes: int | None, node: str, draws: int | None) -> None:
    seconds = None if minutes is None else minutes * 60
    drawn = None if draws is None else f"res{draws}"
    request = a_request(f"work{number}", cpu=cpu * 1_000, duration_seconds=seconds, reservation=drawn)
    commit_if_lawful(scene, placed(request, node))


def stop(scene: Scene, _number: int, /, *, which: int) -> None:
    running = sorted(key for key, known in scene.leader.queue.requests.items() if known.live)
    if running:
        commit_if_lawful(scene, ended(scene.leader, running[which % len(running)]))


def fail(scene: Scene, _number: int, /, *, node: str) -> None:
    """A node is lost with nothing on it; what runs there is the scheduler's business."""
    if not scene.leader.cluster.on_node(NodeId(node)):
        commit_if_lawful(scene, (Event(NodeLost(node=NodeId(node))),))


def come_back(scene: Scene, _number: int, /, *, node: str) -> None:
    if scene.leader.cluster.nodes[NodeId(node)].state is NodeState.LOST:
        commit_if_lawful(scene, a_node(node))


def drain(scene: Scene, _number: int, /, *, node: str, draining: bool) -> None:
    commit_if_lawful(scene, (Event(NodeChanged(node=NodeId(node), draining=draining)),))


def change(scene: Scene, _number: int, /, *, which: int, what: str, by: int) -> None:
    names = sorted(scene.leader.reservations.open)
    if not names:
        return
    known = scene.reservation(names[which % len(names)])
    match what:
        case "extend":
            scene.extend(known.id, end=time_text(known.body.end + by * MINUTE))
        case "shrink":
            scene.shrink(known.id, end=time_text(max(known.body.start + SECOND, known.body.end - by * MINUTE)))
        case "skip":
            scene.skip(known.id)
        case _:
            scene.cancel(known.id, evict=by % 2 == 0)


def wait(scene: Scene, _number: int, /, *, seconds: int) -> None:
    scene.advance(scene.now + seconds * SECOND)


def oversleep(scene: Scene, _number: int, /, *, minutes: int) -> None:
    """The services' clock jumps, as after a pause."""
    scene.now += minutes * MINUTE
    scene.run()


def an(act: Callable[..., None], **arguments: Any) -> some.SearchStrategy[Act]:
    return some.fixed_dictionaries(arguments).map(lambda chosen: lambda scene, number: act(scene, number, **chosen))


node = some.sampled_from(NODES)
few = some.integers(0, 5)
ACTS: some.SearchStrategy[Act] = some.one_of(
    an(
        book,
        start=some.none() | some.integers(0, 40),
        minutes=some.integers(1, 40),
        count=some.integers(1, 4),
        resources=some.integers(1, 5).map(lambda cores: {"cpu_cores": cores}),
        priority=some.sampled_from((10, 50, 90)),
        displace=some.sampled_from(("never", "lower_priority")),
        on_node_loss=some.sampled_from(("replace_down", "static")),
        on_expiry=some.sampled_from(("keep", "evict")),
        grace_seconds=some.sampled_from((0, 0, 90)),
        use=some.sampled_from(("restricted", "aligned")),
        nodes=some.sampled_from(([], [], ["n1"], ["n1", "n2"])),
        spread=some.sampled_from(([], [], [{"topology_key": "node"}])),
        soonest=some.booleans(),
    ),
    an(recur, minutes=some.integers(1, 30)),
    an(work, cpu=some.integers(1, 6), minutes=some.none() | some.integers(1, 60), node=node, draws=some.none() | few),
    an(stop, which=few),
    an(fail, node=node),
    an(come_back, node=node),
    an(drain, node=node, draining=some.booleans()),
    an(change, which=few, what=some.sampled_from(("extend", "shrink", "skip", "cancel")), by=some.integers(1, 20)),
    an(wait, seconds=some.integers(1, 900)),
    an(wait, seconds=some.integers(1, 30)),
    an(oversleep, minutes=some.integers(1, 60)),
)


@given(acts=some.lists(ACTS, min_size=5, max_size=25))
def test_every_calendar_is_kept_or_says_why_not(acts: list[Act]) -> None:
    scene = Scene(*(a_node(name) for name in NODES), a_quota(hard={"cpu_millicores": HARD}), replicas=2)
    for number, act in enumerate(acts):
        act(scene, number)
        scene.run()
        check_nothing_overlaps(scene)
        check_promises(scene)
    for name in NODES:
        drain(scene, 0, node=name, draining=False)
    scene.advance(scene.now + LAST_END)
    check_all_is_cleaned_up(scene)


def check_nothing_overlaps(scene: Scene) -> None:
    """At every instant at which anything changes, on every node that is there."""
    state, now = scene.leader, scene.now
    opened = [state.reservations.reservations[name] for name in state.reservations.open]
    moments = sorted({now, *(one.body.start for one in opened if one.body.start > now)})
    for name, node in state.cluster.nodes.items():
        assert free_now(state, node).is_non_negative(), f"{name} now"
        for moment in moments:
            left = node.allocatable.minus(load_at(state, name, moment).total)
            assert left.is_non_negative(), f"{name} at {time_text(moment)}: {left}"
    assert state.quotas.used_by(opened[0].namespace).cpu_millicores <= HARD if opened else True


def check_promises(scene: Scene) -> None:
    """Held whole, or with a cause; those that begin have come to their start."""
    state = scene.leader
    for name in state.reservations.open:
        one = state.reservations.reservations[name]
        if one.state is ReservationState.PENDING:
            assert one.body.occurrence > 1, "only a later occurrence of a series waits for room"
        elif one.missing:
            assert one.because is not None, f"{name} holds {one.units} of {one.body.count} for no cause"
        if one.state is ReservationState.ACTIVE:
            assert scene.leader.at >= one.body.start
        if one.body.on_node_loss == "replace_down":
            assert not stranded(state, one), f"{name} was left on nodes that are not there"
    for data in scene.data(ReservationHeld):
        assert data.because is None or data.because.names or data.because.cause in CAUSES_WITHOUT_PLACE


CAUSES_WITHOUT_PLACE = (HoldCause.REFILLED, HoldCause.EXTENDED, HoldCause.SHRUNK)


def stranded(state: State, one: Reservation) -> list[str]:
    """Nodes that are lost and hold units of a window that has not begun; one may name such nodes when it is booked."""
    return [
        name
        for name, _ in one.holds
        if not one.body.nodes
        and one.state is ReservationState.HELD
        and state.cluster.nodes[name].state is NodeState.LOST
    ]


def check_all_is_cleaned_up(scene: Scene) -> None:
    state = scene.leader
    assert not state.reservations.open
    assert not state.reservations.drawers
    assert not state.reservations.idle_since
    assert len(scene.answers) == scene.asked, "every command was answered"
    for names in (scene.activated, scene.over):
        assert len(names) == len(set(names)), "each begins and ends once"
    live = [one for one in state.cluster.allocations.values() if one.is_live]
    assert all(one.ends_at is None for one in live), "what has a duration has ended"

"""Windows against a calendar of seconds, counted from nothing: what fits is what every second has room for."""

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from berth.ids import NodeId, ReservationId
from berth.messages.documents import OnExpiry
from berth.model.charging import recount_usage
from berth.model.cluster import Node
from berth.model.ledger import State
from berth.model.windows import free_now, units_that_fit, window_reason
from berth.resources import Resources
from tests.builders import T0, a_node, a_request, a_reservation, a_state, activated, happened, placed


def node_of(state: State) -> Node:
    return state.cluster.nodes[NodeId("n1")]


def charge(*, cpu: int) -> Resources:
    return Resources(cpu_millicores=cpu, instances=1)


@dataclass(frozen=True, kw_only=True)
class Run:
    """An allocation: `ends` in seconds (None: never), `draws` on the active reservation of that place."""

    cpu: int
    ends: int | None
    draws: int | None


@dataclass(frozen=True, kw_only=True)
class Hold:
    start: int
    end: int
    cpu: int
    units: int
    evicts: bool

    @property
    def held(self) -> Resources:
        return charge(cpu=self.cpu).times(self.units)


@dataclass(frozen=True, kw_only=True)
class Day:
    """One node's day, in seconds from its beginning; `active` holds have begun."""

    cpu: int
    instances: int
    active: tuple[Hold, ...]
    later: tuple[Hold, ...]
    runs: tuple[Run, ...]

    def taken(self, second: int) -> Resources:
        """What is taken in that second, counted from nothing."""
        drawn = [Resources() for _ in self.active]
        total = Resources()
        for run in self.runs:
            hold = None if run.draws is None else self.active[run.draws]
            if run.ends is not None and run.ends <= second:
                continue
            if hold is None or (second >= hold.end and not hold.evicts):
                total += charge(cpu=run.cpu)
            elif second < hold.end and run.draws is not None:
                drawn[run.draws] += charge(cpu=run.cpu)
        for hold, used in zip(self.active, drawn, strict=True):
            if second < hold.end:
                total += used + hold.held.beyond(used)
        for hold in self.later:
            if hold.start <= second < hold.end:
                total += hold.held
        return total

    def drawn_now(self, place: int) -> int:
        return sum(run.cpu for run in self.runs if run.draws == place)


SECONDS = 13


@st.composite
def days(draw: st.DrawFn) -> Day:
    second = st.integers(1, SECONDS - 2)
    active = tuple(
        Hold(
            start=0,
            end=draw(second),
            cpu=draw(st.integers(1, 4)),
            units=draw(st.integers(1, 2)),
            evicts=draw(st.booleans()),
        )
        for _ in range(draw(st.integers(0, 2)))
    )
    later: list[Hold] = []
    for _ in range(draw(st.integers(0, 3))):
        start = draw(second)
        later.append(
            Hold(
                start=start,
                end=draw(st.integers(start + 1, SECONDS - 1)),
                cpu=draw(st.integers(1, 4)),
                units=draw(st.integers(1, 2)),
                evicts=False,
            )
        )
    draws = st.sampled_from([None, *range(len(active))])
    runs = tuple(
        Run(cpu=draw(st.integers(1, 3)), ends=draw(st.none() | second), draws=draw(draws))
        for _ in range(draw(st.integers(0, 4)))
    )
    return Day(
        cpu=draw(st.integers(4, 14)), instances=draw(st.integers(3, 9)), active=active, later=tuple(later), runs=runs
    )


def folded(day: Day) -> State:
    state = a_state(a_node(cpu=day.cpu, instances=day.instances))
    for place, hold in enumerate((*day.active, *day.later)):
        name, is_active = f"res{place}", place < len(day.active)
        body = a_reservation(
            name,
            start=T0 + hold.start * 1000,
            end=T0 + hold.end * 1000,
            on={"n1": hold.units},
            cpu=hold.cpu,
            on_expiry=OnExpiry.EVICT if hold.evicts else OnExpiry.KEEP,
        )
        happened(state, body, *([activated(name)] if is_active else []))
    for place, run in enumerate(day.runs):
        draws = None if run.draws is None else f"res{run.draws}"
        request = a_request(f"run{place}", cpu=run.cpu, duration_seconds=run.ends, reservation=draws)
        happened(state, placed(request, "n1"))
    return state


def fits_in_the_calendar(day: Day, newcomer: Run) -> bool:
    """Second by second: what is asked for is there now and in every second until it ends."""
    capacity = Resources(cpu_millicores=day.cpu, instances=day.instances)
    together = replace(day, runs=(*day.runs, newcomer))
    end = SECONDS if newcomer.ends is None else newcomer.ends
    if newcomer.draws is not None:
        hold = day.active[newcomer.draws]
        if together.drawn_now(newcomer.draws) > hold.held.cpu_millicores:
            return False
        end = min(end, hold.end) if hold.evicts else end
    return all(together.taken(second).fits_in(capacity) for second in range(end))


@given(day=days(), cpu=st.integers(1, 5), ends=st.none() | st.integers(1, SECONDS - 1), data=st.data())
def test_what_fits_is_what_a_calendar_of_seconds_has_room_for(
    day: Day, cpu: int, ends: int | None, data: st.DataObject
) -> None:
    draws = data.draw(st.sampled_from([None, *range(len(day.active))]))
    newcomer = Run(cpu=cpu, ends=ends, draws=draws)
    state = folded(day)
    node = node_of(state)
    drawing = None if draws is None else ReservationId(f"res{draws}")
    ends_at = None if ends is None else T0 + ends * 1000

    now = charge(cpu=cpu).fits_in(free_now(state, node, drawing))
    later = window_reason(state, node, charge(cpu=cpu), at=T0, ends_at=ends_at, drawing=drawing) is None

    assert (now and later) == fits_in_the_calendar(day, newcomer)


@given(day=days(), start=st.integers(0, SECONDS - 2), length=st.integers(1, SECONDS), cpu=st.integers(1, 4))
def test_as_many_units_are_bookable_as_a_calendar_of_seconds_has_room_for(
    day: Day, start: int, length: int, cpu: int
) -> None:
    state = folded(day)
    capacity = Resources(cpu_millicores=day.cpu, instances=day.instances)
    fullest = 0

    for count in range(1, 20):
        hold = charge(cpu=cpu).times(count)
        if all((day.taken(second) + hold).fits_in(capacity) for second in range(start, start + length)):
            fullest = count

    bookable = units_that_fit(
        state, node_of(state), charge(cpu=cpu), start=T0 + start * 1000, end=T0 + (start + length) * 1000, at=T0
    )
    assert bookable == fullest


@given(day=days())
def test_recounts_equal_what_is_counted_along_the_way(day: Day) -> None:
    state = folded(day)

    assert state.cluster.recount() == dict(state.cluster.used)
    assert recount_usage(state) == dict(state.quotas.used)

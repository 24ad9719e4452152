"""What happens to reservations: booked, held (again), active, over. Listed with all others in `events`."""

from enum import StrEnum

from berth.ids import NodeId, ReservationId
from berth.messages.documents import Displace, OnExpiry, OnNodeLoss, Owner, Recurrence, UnitSpread, Use
from berth.messages.event_data import EventData, said
from berth.messages.requests import Constraint
from berth.messages.vectors import Vector


class ReservationBody(EventData):
    """A reservation, normalised: whole numbers, times in milliseconds UTC, the window said in full."""

    id: ReservationId
    resources: Vector
    count: int
    start: int
    end: int
    nodes: tuple[NodeId, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    priority: int = 50
    owners: tuple[Owner, ...] = ()
    allocate_once: bool = False
    on_expiry: OnExpiry = OnExpiry.KEEP
    release_if_unused_after_seconds: int | None = None
    spread: tuple[UnitSpread, ...] = said(())
    use: Use = said(Use.RESTRICTED)
    on_node_loss: OnNodeLoss = said(OnNodeLoss.REPLACE_DOWN)
    displace: Displace = said(Displace.NEVER)
    grace_seconds: int = said(0)
    recurrence: Recurrence | None = None
    series: ReservationId | None = None
    """The id that the series was created under; None: it comes once."""
    occurrence: int = said(1)


class ReservationCreated(EventData):
    reservation: ReservationBody
    digest: str


class HeldOnNode(EventData):
    node: NodeId
    count: int


class HoldCause(StrEnum):
    """Why a reservation is held otherwise than before."""

    NODE_LOST = "node_lost"
    NODE_LEFT = "node_left"
    NODE_DRAINED = "node_drained"
    NODE_SMALLER = "node_smaller"
    DISPLACED = "displaced"
    EXTENDED = "extended"
    SHRUNK = "shrunk"
    REFILLED = "refilled"


class Because(EventData):
    """A cause, and the nodes or the reservation that it lies in."""

    cause: HoldCause
    names: tuple[str, ...] = ()


class ReservationHeld(EventData):
    """Where its units are held from now on. Held again, it says why; `end` and `count`: the new ones, if they change.

    Fewer units than its count: that promise is broken, for the cause named.
    """

    reservation: ReservationId
    nodes: tuple[HeldOnNode, ...]
    because: Because | None = None
    end: int | None = None
    count: int | None = None


class ReservationActivated(EventData):
    reservation: ReservationId


class ReservationStatus(StrEnum):
    RELEASED = "released"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class EndCause(StrEnum):
    """Why a reservation ended: its time is over, it was not used, it was used once, somebody said so."""

    OVER = "over"
    UNUSED = "unused"
    USED = "used"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class ReservationEnded(EventData):
    reservation: ReservationId
    status: ReservationStatus
    cause: EndCause | None = None

"""What may go wrong on the simulated network."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFaults:
    """What may happen to one message on one hop. `delay_us`: least and most, microseconds.

    Doubled is only what the server delivers: what a client sends once, the server reads at most once.
    Without `reordered`, what one connection sends or receives keeps its order, as on TCP; a stream's messages
    to a consumer always do.
    """

    delay_us: tuple[int, int] = (0, 0)
    dropped_permille: int = 0
    doubled_permille: int = 0
    reordered: bool = False


NO_FAULTS = NetworkFaults()

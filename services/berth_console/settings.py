"""What an operator may change about the console."""

from ipaddress import ip_address
from typing import Annotated, ClassVar

from pydantic import Field

from berth.messages.requests import LabelKey
from berth.runtime.settings import Port, ServiceSettings
from berth_console.receiver import BODY_BYTES_MAX
from berth_console.traces import BYTES_MAX, BYTES_PER_TRACE_MAX, TRACES_MAX

EVERY_HOST = ("*",)
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1", "[::1]")
"""Names by which a browser on this machine reaches a console that listens on loopback."""


class ConsoleSettings(ServiceSettings):
    """`otlp_endpoint` is where received telemetry is passed on to; the console's own goes to itself."""

    service: ClassVar[str] = "console"

    host: str = "127.0.0.1"
    """Address to listen on, for pages and OTLP alike."""
    port: Port = 4318
    """0: any free port."""
    allowed_hosts: tuple[str, ...] | None = None
    """Names in the Host header that are answered. None: those of loopback while it listens there, else any."""
    usage_labels: tuple[LabelKey, ...] = ("region", "zone")
    """Node labels by whose values the metrics tell utilisation and fragmentation."""
    traces_max: Annotated[int, Field(ge=1)] = TRACES_MAX
    """Traces that are kept; those written to longest ago leave first."""
    trace_bytes_max: Annotated[int, Field(ge=BYTES_PER_TRACE_MAX)] = BYTES_MAX
    """The same in bytes."""
    export_bytes_max: Annotated[int, Field(ge=1_024)] = BODY_BYTES_MAX
    """Of one export request, as sent and unpacked."""

    @property
    def is_on_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def telemetry_endpoint(self) -> str | None:
        """Itself; nowhere while nobody knows yet which free port that will be."""
        if not self.port:
            return None
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 recognised, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names that are answered."""
        if self.allowed_hosts is not None:
            return self.allowed_hosts
        return LOOPBACK_HOSTS if self.is_on_loopback else EVERY_HOST

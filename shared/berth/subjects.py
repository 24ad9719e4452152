"""Every subject, stream and consumer, in the order in which a request meets them.

This is data. The server's permissions, the AsyncAPI document and the tests of both are generated from it
(DESIGN section 3). A role stands for its users: `raft` for raft-1 …, `agent` for every node agent,
`client` for the users of namespaces.
"""

from dataclasses import dataclass

ROOT = "berth.v1"

RAFT = "raft"
SCHEDULER = "scheduler"
QUOTA = "quota"
RESERVATION = "reservation"
CONSOLE = "console"
AGENT = "agent"
CLIENT = "client"
ADMIN = "admin"
INIT = "init"
WATCH = "watch"
"""Of the system account: is told whose connections end, for raft nodes; may do nothing else."""
ROLES = (RAFT, SCHEDULER, QUOTA, RESERVATION, CONSOLE, AGENT, CLIENT, ADMIN, INIT, WATCH)
SERVICES = (RAFT, SCHEDULER, QUOTA, RESERVATION, CONSOLE)
LEDGER_READERS = (RAFT, SCHEDULER, QUOTA, RESERVATION, CONSOLE, ADMIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """`template` has names in braces; `own` is the name that must be the sender's (node, role or raft id),
    so that the server enforces who speaks.
    """

    name: str
    template: str
    message: str
    summary: str
    publishers: tuple[str, ...]
    subscribers: tuple[str, ...]
    reply: str | None = None
    stream: str | None = None
    queue: str | None = None
    own: str | None = None

    def of(self, **tokens: str) -> str:
        """The concrete subject."""
        return self.template.format(**tokens)

    def pattern(self, **tokens: str) -> str:
        """What to subscribe to: `*` for each name that `tokens` does not give."""
        return ".".join(
            tokens.get(part[1:-1], "*") if part.startswith("{") else part for part in self.template.split(".")
        )

    def tokens(self, subject: str) -> dict[str, str] | None:
        """What stands for each name in a concrete `subject`, or None if it is another subject."""
        parts, wanted = subject.split("."), self.template.split(".")
        if len(parts) != len(wanted):
            return None
        found: dict[str, str] = {}
        for part, want in zip(parts, wanted, strict=True):
            if want.startswith("{"):
                found[want[1:-1]] = part
            elif part != want:
                return None
        return found


REQUEST = Subject(
    name="request",
    template=f"{ROOT}.request.{{namespace}}",
    message="list[Request]",
    summary="1 to 256 requests of one namespace; `_` is the empty nudge that makes a quota service active",
    publishers=(CLIENT, ADMIN, QUOTA),
    subscribers=(),
    stream="REQUESTS",
    own="namespace",
)
RELEASE = Subject(
    name="release",
    template=f"{ROOT}.release.{{namespace}}",
    message="list[RequestId]",
    summary="requests to release; the same stream, so a release cannot overtake its request",
    publishers=(CLIENT, ADMIN),
    subscribers=(),
    stream="REQUESTS",
    own="namespace",
)
EVALUATE = Subject(
    name="evaluate",
    template=f"{ROOT}.evaluate",
    message="Evaluation",
    summary="a batch to place, admitted in order, each assuming the earlier ones",
    publishers=(QUOTA,),
    subscribers=(SCHEDULER,),
    reply="EvaluationAnswer",
    queue="scheduler",
)
COMMIT = Subject(
    name="commit",
    template=f"{ROOT}.commit.{{role}}",
    message="Proposal",
    summary="transactions offered to the leader",
    publishers=(QUOTA, SCHEDULER, RESERVATION, ADMIN),
    subscribers=(RAFT,),
    reply="ProposalAnswer",
    own="role",
)
LEDGER = Subject(
    name="ledger",
    template=f"{ROOT}.ledger",
    message="Record",
    summary="one append; nobody subscribes, readers go through JetStream",
    publishers=(RAFT, INIT),
    subscribers=(),
    stream="LEDGER",
)
COMMITTED = Subject(
    name="committed",
    template=f"{ROOT}.committed",
    message="Committed",
    summary="how far the ledger is committed, repeated every 500 ms",
    publishers=(RAFT,),
    subscribers=(RAFT, SCHEDULER, QUOTA, RESERVATION, CONSOLE, CLIENT, ADMIN),
)
DECISION = Subject(
    name="decision",
    template=f"{ROOT}.decision.{{namespace}}.{{request}}",
    message="Decision",
    summary="the notice of an outcome; the ledger is the answer",
    publishers=(QUOTA,),
    subscribers=(CLIENT, ADMIN),
    own="namespace",
)
QUERY = Subject(
    name="query",
    template=f"{ROOT}.query.{{namespace}}.{{what}}",
    message="Query",
    summary="read models; namespace `_` is the cluster",
    publishers=(CLIENT, ADMIN),
    subscribers=(CONSOLE, QUOTA, RAFT),
    reply="QueryAnswer",
    queue="query",
    own="namespace",
)
ADMIN_QUOTA = Subject(
    name="admin_quota",
    template=f"{ROOT}.admin.quota",
    message="ApplyQuotas | RemoveQuota | StopNamespace",
    summary="set or remove quotas and cohorts",
    publishers=(ADMIN,),
    subscribers=(QUOTA,),
    reply="AdminAnswer",
    queue="quota",
)
ADMIN_NODE = Subject(
    name="admin_node",
    template=f"{ROOT}.admin.node",
    message="SetNode | RemoveNode",
    summary="cordon, uncordon, drain, remove",
    publishers=(ADMIN,),
    subscribers=(SCHEDULER,),
    reply="AdminAnswer",
    queue="scheduler",
)
ADMIN_RAFT = Subject(
    name="admin_raft",
    template=f"{ROOT}.admin.raft",
    message="RaftCommand",
    summary="hand the leadership over: the leader answers; recover lost votes: who has lost them answers",
    publishers=(ADMIN,),
    subscribers=(RAFT,),
    reply="AdminAnswer",
)
RESERVE = Subject(
    name="reservation",
    template=f"{ROOT}.reservation.{{namespace}}.{{verb}}",
    message="CreateReservation | CancelReservation | ExtendReservation | ShrinkReservation | SkipReservation",
    summary="create, cancel, extend or shrink a reservation, skip one of a series; answered after commit",
    publishers=(CLIENT, ADMIN),
    subscribers=(RESERVATION,),
    reply="ReservationAnswer",
    queue="reservation",
    own="namespace",
)
NODE_REGISTER = Subject(
    name="node_register",
    template=f"{ROOT}.node.{{node}}.register",
    message="NodeRegister",
    summary="an agent offers its node, empty; the answer assigns the heartbeat interval",
    publishers=(AGENT,),
    subscribers=(SCHEDULER,),
    reply="NodeAnswer",
    queue="scheduler",
    own="node",
)
NODE_LEAVE = Subject(
    name="node_leave",
    template=f"{ROOT}.node.{{node}}.leave",
    message="NodeLeave",
    summary="a node goes for good",
    publishers=(AGENT,),
    subscribers=(SCHEDULER,),
    reply="NodeAnswer",
    queue="scheduler",
    own="node",
)
NODE_STOPPED = Subject(
    name="node_stopped",
    template=f"{ROOT}.node.{{node}}.stopped",
    message="NodeStopped",
    summary="releasing allocations that the agent has stopped",
    publishers=(AGENT,),
    subscribers=(SCHEDULER,),
    reply="NodeAnswer",
    queue="scheduler",
    own="node",
)
NODE_ALLOCATIONS = Subject(
    name="node_allocations",
    template=f"{ROOT}.node.{{node}}.allocations",
    message="NodeAllocationsWanted",
    summary="an agent asks for its full list with its sequence",
    publishers=(AGENT,),
    subscribers=(SCHEDULER,),
    reply="NodeAnswer",
    queue="scheduler",
    own="node",
)
NODE_HEARTBEAT = Subject(
    name="node_heartbeat",
    template=f"{ROOT}.node.{{node}}.heartbeat",
    message="Heartbeat",
    summary="a node lives; at the interval assigned when it registered",
    publishers=(AGENT,),
    subscribers=(SCHEDULER, RAFT),
    own="node",
)
RAFT_PEER = Subject(
    name="raft_peer",
    template=f"{ROOT}.raft.{{to}}.from.{{sender}}",
    message="raft message",
    summary="votes, heartbeats, transfer",
    publishers=(RAFT,),
    subscribers=(RAFT,),
    own="sender",
)
DEADLETTER = Subject(
    name="deadletter",
    template=f"{ROOT}.deadletter.{{stream}}",
    message="the original bytes",
    summary="what could not be handled, with reason and original headers",
    publishers=SERVICES,
    subscribers=(),
    stream="DEADLETTER",
)

CLUSTER = "_"
"""Stands for a namespace where the whole cluster is meant."""

SUBJECTS: tuple[Subject, ...] = (
    REQUEST,
    RELEASE,
    EVALUATE,
    COMMIT,
    LEDGER,
    COMMITTED,
    DECISION,
    QUERY,
    ADMIN_QUOTA,
    ADMIN_NODE,
    ADMIN_RAFT,
    RESERVE,
    NODE_REGISTER,
    NODE_LEAVE,
    NODE_STOPPED,
    NODE_ALLOCATIONS,
    NODE_HEARTBEAT,
    RAFT_PEER,
    DEADLETTER,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """`retention`: "limits" keeps everything, "workqueue" until acknowledged."""

    name: str
    subjects: tuple[str, ...]
    retention: str
    max_msg_size: int
    max_age_seconds: int = 0
    duplicate_window_seconds: int = 120
    deny_delete: bool = False


LEDGER_STREAM = Stream(
    name="LEDGER",
    subjects=(LEDGER.template,),
    retention="limits",
    max_msg_size=512 * 1024,
    deny_delete=True,
)
REQUESTS_STREAM = Stream(
    name="REQUESTS",
    subjects=(REQUEST.pattern(), RELEASE.pattern()),
    retention="workqueue",
    max_msg_size=1024 * 1024,
)
DEADLETTER_STREAM = Stream(
    name="DEADLETTER",
    subjects=(DEADLETTER.pattern(),),
    retention="limits",
    max_msg_size=1024 * 1024,
    max_age_seconds=30 * 86_400,
)
STREAMS = (LEDGER_STREAM, REQUESTS_STREAM, DEADLETTER_STREAM)

QUOTA_CONSUMER = "quota"
"""The pinned durable consumer of REQUESTS: who holds its pin is the active quota service."""

PIN_GROUP = "active"
PIN_TIMEOUT_SECONDS = 2
ACK_WAIT_SECONDS = 10
ACK_PENDING_MAX = 1_000

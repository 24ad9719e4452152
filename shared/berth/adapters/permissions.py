"""What each user may publish and subscribe to: allow-lists made from the register of subjects, all else denied.

DESIGN section 3, RAFT section 6. Allow-lists only: a plain deny can be walked around with a queue group
(NATS-2026-18). The sender stands in the subject where identity matters, so the server enforces it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from berth import subjects
from berth.adapters.users import User
from berth.subjects import (
    ADMIN,
    CLIENT,
    CLUSTER,
    INIT,
    LEDGER_READERS,
    QUOTA,
    RAFT,
    SCHEDULER,
    SERVICES,
    WATCH,
    Subject,
)

RESPONSE_SECONDS = 10
ACCOUNT = "BERTH"
DISCONNECTS = f"$SYS.ACCOUNT.{ACCOUNT}.DISCONNECT"
"""Where the server tells the system account that a connection of ours has ended."""
LEDGER = subjects.LEDGER_STREAM.name
REQUESTS = subjects.REQUESTS_STREAM.name

ANSWERS_MAX = {SCHEDULER: 256}
"""How many messages may answer one question; 1 unless named. A scheduler answers an evaluation of at most
256 items as its outcomes become known, so in at most that many."""

_PUBLISHED_AS: dict[tuple[str, str], dict[str, str]] = {
    (subjects.REQUEST.name, QUOTA): {"namespace": CLUSTER},  # the empty nudge, nothing else
}
_SUBSCRIBED_AS: dict[tuple[str, str], dict[str, str]] = {
    (subjects.QUERY.name, QUOTA): {"what": "requests"},
    (subjects.QUERY.name, RAFT): {"namespace": CLUSTER, "what": "raft"},
}
_NO_QUEUE = {(subjects.QUERY.name, RAFT)}
"""Every raft node answers for itself, so these do not share one queue group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """Allow-lists as nats-server takes them: `"<subject>"`, or `"<subject> <queue group>"` for that group only.

    `answers`: how many messages it may send to the reply subject of one that it received.
    """

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: int


def permissions(user: User) -> Permissions:
    """Everything that `user` may do; what is not listed, the server refuses."""
    if user.role == WATCH:
        return Permissions(publish=(), subscribe=(DISCONNECTS,), answers=0)
    publish = [pattern for subject in subjects.SUBJECTS for pattern in _published(subject, user)]
    subscribe = [pattern for subject in subjects.SUBJECTS for pattern in _subscribed(subject, user)]
    subscribe.append(f"_INBOX_{user.name}.>")
    if user.role in LEDGER_READERS:
        publish += _reads_ledger(user)
    if user.role in SERVICES:
        subscribe.append("$SRV.>")
    if user.role in (CLIENT, ADMIN):
        publish += [f"$SRV.{verb}{rest}" for verb in ("PING", "INFO", "STATS") for rest in ("", ".>")]
    publish += _of_role(user)
    return Permissions(
        publish=tuple(publish),
        subscribe=tuple(subscribe),
        answers=ANSWERS_MAX.get(user.role, 1) if user.role in SERVICES else 0,
    )


def _published(subject: Subject, user: User) -> Iterator[str]:
    if user.role not in subject.publishers:
        return
    fixed = _PUBLISHED_AS.get((subject.name, user.role), {})
    for own in _own_tokens(subject, user):
        yield subject.pattern(**own, **fixed)


def _own_tokens(subject: Subject, user: User) -> Iterator[dict[str, str]]:
    """What must stand for the name that says who speaks; empty where anybody of the role may say anything."""
    match subject.own:
        case "role":
            yield {"role": user.role}
        case "sender":
            yield {"sender": user.name}
        case "node" if user.node is not None:
            yield {"node": user.node}
        case "namespace" if user.role == CLIENT and user.namespaces:
            yield from ({"namespace": namespace} for namespace in user.namespaces)
        case _:
            yield {}


def _subscribed(subject: Subject, user: User) -> Iterator[str]:
    if user.role not in subject.subscribers:
        return
    key = (subject.name, user.role)
    tokens = dict(_SUBSCRIBED_AS.get(key, {}))
    if subject is subjects.RAFT_PEER:
        tokens["to"] = user.name
    queue = "" if subject.queue is None or key in _NO_QUEUE else f" {subject.queue}"
    own = _own_tokens(subject, user) if user.role == CLIENT else iter([dict[str, str]()])
    for more in own:
        yield subject.pattern(**tokens, **more) + queue


def _reads_ledger(user: User) -> list[str]:
    """Pull consumers of the reader's own name only, filtered to the ledger's subject (RAFT section 6, known residual).

    Several command lines share `admin`, so their consumers are `admin-<random>`; a wildcard cannot say that.
    Deleting the own consumer is how a follower starts again at another sequence.
    """
    name = "*" if user.role == ADMIN else user.name
    granted = [
        f"$JS.API.CONSUMER.CREATE.{LEDGER}.{name}.{subjects.LEDGER.template}",
        f"$JS.API.CONSUMER.MSG.NEXT.{LEDGER}.{name}",
        f"$JS.API.STREAM.INFO.{LEDGER}",
    ]
    if user.role != ADMIN:
        granted.append(f"$JS.API.CONSUMER.DELETE.{LEDGER}.{name}")
    return granted


def _of_role(user: User) -> list[str]:
    consumer = subjects.QUOTA_CONSUMER
    if user.role == QUOTA:
        return [f"$JS.API.CONSUMER.MSG.NEXT.{REQUESTS}.{consumer}", f"$JS.ACK.{REQUESTS}.{consumer}.>"]
    if user.role == RAFT:
        return [f"$JS.API.STREAM.MSG.GET.{LEDGER}"]
    if user.role == INIT:
        return [
            *(f"$JS.API.STREAM.{verb}.{stream.name}" for stream in subjects.STREAMS for verb in ("CREATE", "INFO")),
            f"$JS.API.CONSUMER.CREATE.{REQUESTS}.{consumer}",
            f"$JS.API.STREAM.MSG.GET.{LEDGER}",
        ]
    return []

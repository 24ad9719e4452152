"""Who may do what on the bus: every cell of role x verb x subject, asked of the real server.

The table is written by hand, so it does not repeat what generates the permissions (RAFT section 6). A
configuration in which one wildcard is put back must not pass it.
"""

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from nats.aio.client import Client

from berth import subjects
from berth.adapters import server_config, users
from berth.adapters.nats_bus import NotPermitted
from berth.adapters.nats_server import NatsServer
from berth.ports import Envelope
from tests.nats_fixture import RealServer, configure, real_server

__all__ = ["real_server"]

SERVICES = "raft-1 scheduler-1 quota-1 reservation-1 console"
READERS = f"{SERVICES} admin"
USERS = f"{READERS} agent agent-n1 client client-team-a init watch".split()
NOBODY = ""

MAY_PUBLISH = {
    "berth.v1.request.team-a": "client client-team-a admin",
    "berth.v1.request.team-b": "client admin",
    "berth.v1.request._": "client admin quota-1",
    "berth.v1.release.team-a": "client client-team-a admin",
    "berth.v1.release.team-b": "client admin",
    "berth.v1.evaluate": "quota-1",
    "berth.v1.commit.quota": "quota-1",
    "berth.v1.commit.scheduler": "scheduler-1",
    "berth.v1.commit.reservation": "reservation-1",
    "berth.v1.commit.admin": "admin",
    "berth.v1.commit.raft": NOBODY,
    "berth.v1.ledger": "raft-1 init",
    "berth.v1.committed": "raft-1",
    "berth.v1.decision.team-a.r1": "quota-1",
    "berth.v1.query.team-a.requests": "client client-team-a admin",
    "berth.v1.query.team-b.requests": "client admin",
    "berth.v1.query._.nodes": "client admin",
    "berth.v1.admin.quota": "admin",
    "berth.v1.admin.node": "admin",
    "berth.v1.admin.raft": "admin",
    "berth.v1.reservation.team-a.create": "client client-team-a admin",
    "berth.v1.reservation.team-b.cancel": "client admin",
    "berth.v1.node.n1.register": "agent agent-n1",
    "berth.v1.node.n1.leave": "agent agent-n1",
    "berth.v1.node.n1.stopped": "agent agent-n1",
    "berth.v1.node.n1.allocations": "agent agent-n1",
    "berth.v1.node.n1.heartbeat": "agent agent-n1",
    "berth.v1.node.n2.register": "agent",
    "berth.v1.node.n2.heartbeat": "agent",
    "berth.v1.raft.raft-2.from.raft-1": "raft-1",
    "berth.v1.raft.raft-1.from.raft-2": NOBODY,
    "berth.v1.deadletter.REQUESTS": SERVICES,
    "berth.v1.anything.else": NOBODY,
    "berth": NOBODY,
    # other people's answers
    "_INBOX_client.token": NOBODY,
    "_INBOX_quota-1.token": NOBODY,
    "_INBOX.token": NOBODY,
    # the services protocol
    "$SRV.PING": "client client-team-a admin",
    "$SRV.INFO.berth-quota": "client client-team-a admin",
    "$SRV.STATS.berth-quota.one": "client client-team-a admin",
    "$SRV.OTHER": NOBODY,
    # streams: made by init, never changed by anybody
    "$JS.API.STREAM.CREATE.LEDGER": "init",
    "$JS.API.STREAM.CREATE.REQUESTS": "init",
    "$JS.API.STREAM.CREATE.DEADLETTER": "init",
    "$JS.API.STREAM.CREATE.OTHER": NOBODY,
    "$JS.API.STREAM.UPDATE.LEDGER": NOBODY,
    "$JS.API.STREAM.PURGE.LEDGER": NOBODY,
    "$JS.API.STREAM.PURGE.REQUESTS": NOBODY,
    "$JS.API.STREAM.DELETE.LEDGER": NOBODY,
    "$JS.API.STREAM.MSG.DELETE.LEDGER": NOBODY,
    "$JS.API.STREAM.RESTORE.LEDGER": NOBODY,
    "$JS.API.STREAM.SNAPSHOT.LEDGER": NOBODY,
    "$JS.API.STREAM.INFO.LEDGER": f"{READERS} init",
    "$JS.API.STREAM.INFO.REQUESTS": "init",
    "$JS.API.STREAM.MSG.GET.LEDGER": "raft-1 init",
    "$JS.API.STREAM.MSG.GET.REQUESTS": NOBODY,
    "$JS.API.DIRECT.GET.LEDGER": NOBODY,
    "$JS.API.INFO": NOBODY,
    # consumers: each reader its own, filtered; several command lines share `admin`
    "$JS.API.CONSUMER.CREATE.LEDGER.quota-1.berth.v1.ledger": "quota-1 admin",
    "$JS.API.CONSUMER.CREATE.LEDGER.console.berth.v1.ledger": "console admin",
    "$JS.API.CONSUMER.CREATE.LEDGER.admin-1f.berth.v1.ledger": "admin",
    "$JS.API.CONSUMER.CREATE.LEDGER.quota-1": NOBODY,
    "$JS.API.CONSUMER.CREATE.LEDGER": NOBODY,
    "$JS.API.CONSUMER.DURABLE.CREATE.LEDGER.quota-1": NOBODY,
    "$JS.API.CONSUMER.DELETE.LEDGER.quota-1": "quota-1",
    "$JS.API.CONSUMER.DELETE.LEDGER.console": "console",
    "$JS.API.CONSUMER.MSG.NEXT.LEDGER.quota-1": "quota-1 admin",
    "$JS.API.CONSUMER.MSG.NEXT.LEDGER.scheduler-1": "scheduler-1 admin",
    "$JS.API.CONSUMER.LIST.LEDGER": NOBODY,
    "$JS.API.CONSUMER.CREATE.REQUESTS.quota": "init",
    "$JS.API.CONSUMER.CREATE.REQUESTS.thief.berth.v1.request.team-a": NOBODY,
    "$JS.API.CONSUMER.MSG.NEXT.REQUESTS.quota": "quota-1",
    "$JS.API.CONSUMER.DELETE.REQUESTS.quota": NOBODY,
    "$JS.API.CONSUMER.UNPIN.REQUESTS.quota": NOBODY,
    "$JS.ACK.REQUESTS.quota.1.1.1.1.0": "quota-1",
    "$JS.ACK.LEDGER.quota-1.1.1.1.1.0": NOBODY,
    # the server's own
    "$SYS.REQ.SERVER.PING": NOBODY,
    "$SYS.REQ.ACCOUNT.BERTH.CONNZ": NOBODY,
}

MAY_SUBSCRIBE = {
    "berth.v1.request.*": NOBODY,
    "berth.v1.release.*": NOBODY,
    "berth.v1.evaluate scheduler": "scheduler-1",
    "berth.v1.evaluate": NOBODY,
    "berth.v1.evaluate thieves": NOBODY,
    "berth.v1.commit.*": "raft-1",
    "berth.v1.commit.scheduler": "raft-1",
    "berth.v1.ledger": NOBODY,
    "berth.v1.ledger query": NOBODY,
    "berth.v1.committed": f"{READERS} client client-team-a",
    "berth.v1.decision.team-a.*": "client client-team-a admin",
    "berth.v1.decision.team-b.*": "client admin",
    "berth.v1.decision.*.*": "client admin",
    "berth.v1.query.*.* query": "console",
    "berth.v1.query.*.requests query": "console quota-1",
    "berth.v1.query.*.*": NOBODY,
    "berth.v1.query._.raft": "raft-1",
    "berth.v1.admin.quota quota": "quota-1",
    "berth.v1.admin.node scheduler": "scheduler-1",
    "berth.v1.admin.raft": "raft-1",
    "berth.v1.admin.*": NOBODY,
    "berth.v1.reservation.*.* reservation": "reservation-1",
    "berth.v1.node.*.register scheduler": "scheduler-1",
    "berth.v1.node.*.leave scheduler": "scheduler-1",
    "berth.v1.node.*.stopped scheduler": "scheduler-1",
    "berth.v1.node.*.allocations scheduler": "scheduler-1",
    "berth.v1.node.*.heartbeat": "scheduler-1 raft-1",
    "berth.v1.raft.raft-1.from.*": "raft-1",
    "berth.v1.raft.raft-2.from.*": NOBODY,
    "berth.v1.raft.>": NOBODY,
    "berth.v1.deadletter.*": NOBODY,
    "berth.v1.>": NOBODY,
    ">": NOBODY,
    "*": NOBODY,
    "> query": NOBODY,
    "_INBOX_client.>": "client",
    "_INBOX_client-team-a.>": "client-team-a",
    "_INBOX_quota-1.>": "quota-1",
    "_INBOX_raft-1.core.*": "raft-1",
    "_INBOX_raft-2.>": NOBODY,
    "_INBOX.>": NOBODY,
    "$SRV.PING": SERVICES,
    "$SRV.>": SERVICES,
    "$SYS.>": NOBODY,
    "$SYS.ACCOUNT.BERTH.DISCONNECT": "watch",
    "$JS.>": NOBODY,
    "$JS.EVENT.ADVISORY.>": NOBODY,
}


# --- asking the server --------------------------------------------------------------------------------


@dataclass
class Refusals:
    """What the server refused one user, in the small letters in which the client reports it."""

    publish: set[str] = field(default_factory=set[str])
    subscribe: set[str] = field(default_factory=set[str])

    async def note(self, error: Exception) -> None:
        found = re.search(r'violation for (publish|subscription) to "([^"]+)"(?: using queue "([^"]+)")?', str(error))
        assert found is not None, error
        if found[1] == "publish":
            self.publish.add(found[2])
        else:
            self.subscribe.add(f"{found[2]} {found[3]}" if found[3] else found[2])


async def _unheard(_message: object) -> None:
    """For subscriptions whose messages nobody wants."""


async def refusals(server: NatsServer, seed: Path) -> Refusals:
    """Try every cell of both tables as one user; the server answers in order, so a round trip ends it."""
    refused = Refusals()
    connection = Client()
    await connection.connect(server.url, nkeys_seed=str(seed), error_cb=refused.note, allow_reconnect=False)
    for subject in MAY_PUBLISH:
        await connection.publish(subject, b"")
    for pattern in MAY_SUBSCRIBE:
        subject, _, queue = pattern.partition(" ")
        await connection.subscribe(subject, queue, _unheard)  # pyright: ignore[reportUnknownMemberType]
    await connection.flush()  # its PING overtakes what the client has buffered, so only the second proves something
    await connection.flush()
    await connection.close()
    return refused


async def differences(server: NatsServer, keys: Path) -> list[str]:
    """Every cell that is not as the tables say."""
    found: list[str] = []
    for user in USERS:
        refused = await refusals(server, users.seed_file(keys, user))
        for verb, table, denied in (
            ("publish", MAY_PUBLISH, refused.publish),
            ("subscribe to", MAY_SUBSCRIBE, refused.subscribe),
        ):
            for cell, allowed in table.items():
                may, does = user in allowed.split(), cell.lower() not in denied
                if may != does:
                    found.append(f"{user} {'may' if does else 'may not'} {verb} {cell}")
    return found


async def test_every_cell_is_as_the_table_says(real_server: RealServer) -> None:
    assert await differences(real_server.server, real_server.keys) == []


def test_the_table_has_a_row_for_every_subject_and_a_user_of_every_role(tmp_path: Path) -> None:
    known = {user.name: user.role for user in configure(tmp_path)}

    assert {known[user] for user in USERS} == set(subjects.ROLES)
    for subject in subjects.SUBJECTS:
        assert any(subject.tokens(row) is not None for row in MAY_PUBLISH), subject.name
        assert any(subject.tokens(row.partition(" ")[0]) is not None for row in MAY_SUBSCRIBE), subject.name


@pytest.mark.parametrize(
    ("narrow", "wide", "seen"),
    [
        ("berth.v1.commit.scheduler", "berth.v1.commit.*", "scheduler-1 may publish berth.v1.commit.quota"),
        ("berth.v1.raft.*.from.raft-1", "berth.v1.raft.>", "raft-1 may publish berth.v1.raft.raft-1.from.raft-2"),
        ("berth.v1.request._", "berth.v1.>", "quota-1 may publish berth.v1.ledger"),
        ("$JS.API.STREAM.MSG.GET.LEDGER", "$JS.API.STREAM.>", "raft-1 may publish $JS.API.STREAM.PURGE.LEDGER"),
        ("berth.v1.decision.team-a.*", "berth.v1.decision.*.*", "client-team-a may subscribe to berth.v1.decision.*.*"),
        ("berth.v1.evaluate scheduler", "berth.v1.evaluate", "scheduler-1 may subscribe to berth.v1.evaluate thieves"),
        ("_INBOX_client.>", ">", "client may subscribe to _INBOX_quota-1.>"),
        ("_INBOX_console.>", "berth.v1.ledger", "console may subscribe to berth.v1.ledger"),
        ("$SYS.ACCOUNT.BERTH.DISCONNECT", "$SYS.>", "watch may subscribe to $SYS.>"),
    ],
)
async def test_a_wildcard_put_back_is_seen(tmp_path: Path, narrow: str, wide: str, seen: str) -> None:
    configure(tmp_path)
    file = tmp_path / server_config.USERS_FILE
    assert f'"{narrow}"' in file.read_text()
    file.write_text(file.read_text().replace(f'"{narrow}"', f'"{wide}"'))
    server = NatsServer(configuration=tmp_path / server_config.CONFIG_FILE, folder=tmp_path)
    server.start()
    try:
        assert seen in await differences(server, tmp_path / "keys")
    finally:
        server.kill()


# --- answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asker", "subject", "answerer", "queue", "most"),
    [
        ("quota-1", "berth.v1.commit.quota", "raft-1", None, 1),
        ("client", "berth.v1.query._.nodes", "console", "query", 1),
        ("quota-1", "berth.v1.evaluate", "scheduler-1", "scheduler", 256),
    ],
)
async def test_whoever_is_asked_may_answer_as_often_as_its_role_needs_and_no_more(
    real_server: RealServer, asker: str, subject: str, answerer: str, queue: str | None, most: int
) -> None:
    asking, answering = await real_server.connect(asker), await real_server.connect(answerer)
    questions: asyncio.Queue[Envelope] = asyncio.Queue()
    answers: list[Envelope] = []
    await answering.subscribe(subject, questions.put_nowait, queue=queue)
    await asking.subscribe(f"{asking.inbox}.*", answers.append)

    asking.publish(subject, b"?", reply=f"{asking.inbox}.1")
    question = await questions.get()
    assert question.reply is not None
    for _ in range(most + 5):
        answering.publish(question.reply, b"!")
    await answering.flush()
    await asking.flush()

    assert len(answers) == most


async def test_nobody_answers_a_question_that_it_was_not_asked(real_server: RealServer) -> None:
    client, console = await real_server.connect("client"), await real_server.connect("console")
    answers: list[Envelope] = []
    await client.subscribe(f"{client.inbox}.*", answers.append)

    console.publish(f"{client.inbox}.1", b"forged")
    await console.flush()
    await client.flush()

    assert answers == []


async def test_a_refused_subscription_is_an_error_not_a_silence(real_server: RealServer) -> None:
    console = await real_server.connect("console")

    with pytest.raises(NotPermitted, match=r"console may not subscribe to berth\.v1\.ledger"):
        await console.subscribe("berth.v1.ledger", lambda _envelope: None)

    assert console.connected

"""nats-server as Berth runs it: found, configured, watched while it starts, and refused when it is not right."""

import asyncio
import stat
from pathlib import Path

import psutil
import pytest

from berth.adapters import nats_server, server_config, users
from berth.adapters.nats_bus import BusSettings, NatsBus
from berth.adapters.nats_server import NatsServer, ServerFailed, ServerMissing
from berth.adapters.server_config import ServerSettings, TlsFiles
from berth.errors import BerthError, InvalidSetting, Unreachable
from tests.nats_fixture import ROOT, RealServer, configure, real_server

__all__ = ["real_server"]


def ignore(_why: str) -> None:
    """For connections whose end is expected."""


# --- the program --------------------------------------------------------------------------------------


def a_program(folder: Path, says: str) -> Path:
    path = folder / "nats-server"
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_the_program_named_by_the_environment_wins(tmp_path: Path) -> None:
    program = a_program(tmp_path, "nats-server: v2.99.0")

    assert nats_server.find_server({"BERTH_NATS_SERVER": str(program)}) == program


def test_a_name_that_is_no_program_is_an_error_not_a_fallback(tmp_path: Path) -> None:
    with pytest.raises(ServerMissing, match="BERTH_NATS_SERVER names"):
        nats_server.find_server({"BERTH_NATS_SERVER": str(tmp_path / "missing")})


def test_the_wheel_has_a_program_that_is_found_without_path() -> None:
    program = nats_server.find_server({"PATH": ""})

    assert program.name == "nats-server"
    assert nats_server.check_version(program) >= (2, 14, 0)


@pytest.mark.parametrize("says", ["nats-server: v2.12.6", "nats-server: v2.13.9", "nats-server: v2.9.20", "hello"])
def test_an_old_or_strange_program_is_refused(tmp_path: Path, says: str) -> None:
    program = a_program(tmp_path, says)

    with pytest.raises(ServerMissing):
        nats_server.find_server({"BERTH_NATS_SERVER": str(program)})


@pytest.mark.parametrize(
    ("version", "enough"),
    [
        ((2, 11, 99), False),
        ((2, 12, 6), False),
        ((2, 12, 7), True),
        ((2, 13, 0), False),
        ((2, 14, 0), True),
        ((2, 15, 1), True),
        ((3, 0, 0), True),
    ],
)
def test_new_enough_is_what_has_the_security_fixes(version: tuple[int, int, int], enough: bool) -> None:
    assert nats_server.is_new_enough(version) is enough


# --- configuration ------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "bus.example.org"])  # noqa: S104 that is the point
def test_a_listener_beyond_loopback_needs_tls_or_an_explicit_word(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidSetting, match="without TLS"):
        server_config.render(ServerSettings(store=tmp_path, host=host))

    assert host in server_config.render(ServerSettings(store=tmp_path, host=host, insecure_network=True))
    files = TlsFiles(certificate=tmp_path / "c.pem", key=tmp_path / "k.pem", authority=tmp_path / "ca.pem")
    with_tls = server_config.render(ServerSettings(store=tmp_path, host=host, tls=files))
    assert "verify: true" in with_tls


def test_seeds_are_files_that_only_their_owner_reads_and_are_kept_over_a_second_start(tmp_path: Path) -> None:
    first = users.standard_users(tmp_path / "keys")
    second = users.standard_users(tmp_path / "keys")

    assert first == second
    assert len({user.public_key for user in first}) == len(first)
    for user in first:
        assert stat.S_IMODE(users.seed_file(tmp_path / "keys", user.name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_no_seed_stands_in_any_configuration_or_register(tmp_path: Path) -> None:
    known = configure(tmp_path)
    users.save_users(tmp_path / "users.json", known)

    seeds = [path.read_text().strip() for path in (tmp_path / "keys").iterdir()]
    written = "".join((tmp_path / name).read_text() for name in ("nats.conf", "users.conf", "users.json"))

    assert users.load_users(tmp_path / "users.json") == known
    assert all(user.public_key in written for user in known)
    assert not any(seed in written for seed in seeds)


@pytest.mark.parametrize("name", ["a.b", "a b", "", "A", "*", ">", "x" * 64, "a\n"])
def test_a_name_that_is_no_subject_token_makes_no_user(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidSetting):
        users.create_user(tmp_path, name=name, role="client")
    with pytest.raises(InvalidSetting):
        users.create_user(tmp_path, name="client-x", role="client", namespaces=[name])


def test_an_agent_of_a_node_with_the_longest_name_has_a_user(tmp_path: Path) -> None:
    node = "n" * 63

    assert users.create_user(tmp_path, name=f"agent-{node}", role="agent", node=node).node == node


# --- start and stop -----------------------------------------------------------------------------------


def a_server(folder: Path) -> NatsServer:
    return NatsServer(configuration=folder / server_config.CONFIG_FILE, folder=folder)


def test_a_configuration_that_does_not_parse_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    configure(tmp_path)
    file = tmp_path / server_config.CONFIG_FILE
    # RAFT section 1, config trap: one line, no comma.
    file.write_text(file.read_text().replace("\n  sync_interval: always", " sync_interval: always"))

    with pytest.raises(ServerFailed, match=r"ended with status 1: .*Parse error on line"):
        a_server(tmp_path).start()


def test_a_server_that_syncs_now_and_then_is_refused_by_what_it_says_itself(tmp_path: Path) -> None:
    configure(tmp_path)
    file = tmp_path / server_config.CONFIG_FILE
    file.write_text(file.read_text().replace("sync_interval: always", 'sync_interval: "2m"'))

    with pytest.raises(ServerFailed, match="does not sync every write"):
        a_server(tmp_path).start()


def test_a_server_comes_back_on_the_ports_that_it_had(tmp_path: Path) -> None:
    configure(tmp_path)
    server = a_server(tmp_path)
    first = server.start()
    server.kill()
    second = server.start()
    server.stop()

    assert first == second
    assert first.url.startswith("nats://127.0.0.1:")
    assert not list(tmp_path.glob("*.ports"))


def test_two_servers_do_not_meet(tmp_path: Path) -> None:
    servers: list[NatsServer] = []
    for name in ("one", "other"):
        configure(tmp_path / name)
        servers.append(a_server(tmp_path / name))
    addresses = [server.start() for server in servers]
    for server in servers:
        server.stop()

    assert len({address.url for address in addresses} | {address.monitor_url for address in addresses}) == 4


# --- signing in ---------------------------------------------------------------------------------------


async def test_a_key_that_the_server_does_not_know_is_refused_at_once(real_server: RealServer, tmp_path: Path) -> None:
    users.create_user(tmp_path / "other", name="client", role="client")
    settings = BusSettings(
        url=real_server.server.url,
        user="client",
        seed_file=users.seed_file(tmp_path / "other", "client"),
        connect_within_seconds=None,
    )

    with pytest.raises(Unreachable, match="refuses user client"):
        await NatsBus.connect(settings, lost=ignore)


async def test_nobody_signs_in_without_a_key(real_server: RealServer) -> None:
    with pytest.raises(Unreachable, match="refuses user client"):
        await NatsBus.connect(BusSettings(url=real_server.server.url, user="client"), lost=ignore)


async def test_a_server_that_is_not_there_is_said_within_the_time() -> None:
    settings = BusSettings(url="nats://127.0.0.1:1", user="client", connect_within_seconds=0.2)

    with pytest.raises(Unreachable, match="no NATS server answers"):
        await NatsBus.connect(settings, lost=ignore)


@pytest.mark.parametrize("content", [None, "", "no seed", "SUAAAA", "SAAPJC5HDZDFYZTFZ2RA"])
async def test_a_seed_file_that_is_none_is_said_clearly(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "client.nk"
    if content is not None:
        file.write_text(content)

    with pytest.raises(BerthError, match=r"client\.nk"):
        await NatsBus.connect(BusSettings(url="nats://127.0.0.1:1", user="client", seed_file=file), lost=ignore)


async def test_a_new_key_works_after_a_reload_and_others_stay_connected(real_server: RealServer) -> None:
    before = await real_server.connect("client")
    newcomer = users.create_user(real_server.keys, name="client-team-b", role="client", namespaces=["team-b"])
    file = real_server.folder / server_config.USERS_FILE
    file.write_text(server_config.render_users(users.with_user(real_server.users, newcomer)))

    real_server.server.reload()
    after = await real_server.connect("client-team-b")
    after.publish("berth.v1.request.team-b", b"")
    await after.flush()

    assert before.connected
    assert after.connected


def test_a_reload_of_nonsense_is_said_and_changes_nothing(real_server: RealServer) -> None:
    (real_server.folder / server_config.USERS_FILE).write_text("accounts {")

    with pytest.raises(ServerFailed, match="kept its configuration"):
        real_server.server.reload()


async def test_a_user_that_is_taken_off_the_register_is_out(real_server: RealServer) -> None:
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    settings = BusSettings(
        url=real_server.server.url, user="client", seed_file=users.seed_file(real_server.keys, "client")
    )
    bus = await NatsBus.connect(settings, lost=lost.set_result)
    remaining = [user for user in real_server.users if user.name != "client"]
    (real_server.folder / server_config.USERS_FILE).write_text(server_config.render_users(remaining))

    real_server.server.reload()

    assert "closed for good" in await lost
    await bus.close()


async def test_a_message_that_the_server_cannot_take_is_the_end_of_the_connection_and_said_so(
    real_server: RealServer,
) -> None:
    bus = await real_server.connect(ROOT)

    bus.publish("x" * 5_000, b"")  # beyond max_control_line, which nobody checks before
    async with asyncio.timeout(10):
        while not real_server.lost:  # noqa: ASYNC110 the callback is the fixture's
            await asyncio.sleep(0.01)

    assert "closed for good" in real_server.lost[0]
    assert not bus.connected


def listeners(port: int) -> set[str]:
    """The addresses of this machine on which something listens at `port`."""
    listening = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    return {each.laddr.ip for each in listening if each.laddr and each.laddr.port == port}


async def test_the_monitor_and_the_bus_listen_on_loopback_only(real_server: RealServer) -> None:
    api = await real_server.api()
    assert api.bus.connected

    address = real_server.server.address
    assert address is not None
    for port in (address.port, address.monitor_port):
        assert listeners(port) == {"127.0.0.1"}


async def test_what_a_bus_cannot_send_does_not_stop_the_others(real_server: RealServer) -> None:
    bus = await real_server.connect(ROOT)
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    await bus.subscribe("here", lambda envelope: heard.put_nowait(envelope.payload))

    bus.publish("not a subject", b"1")
    bus.publish("here", b"2")

    assert await heard.get() == b"2"

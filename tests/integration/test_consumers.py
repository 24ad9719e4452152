"""What readers leave behind on the server: nothing that grows (NATS section 4, defect 12)."""

from tests.contract.worlds import RealWorld, ledger_of, read_to_end
from tests.nats_fixture import RealServer, real_server

__all__ = ["real_server"]


async def test_a_reader_that_starts_again_and_again_leaves_one_consumer(real_server: RealServer) -> None:
    await real_server.bootstrap()
    for _ in range(5):
        await read_to_end(await ledger_of(RealWorld(real_server), "quota-1"))

    root = await real_server.api()
    consumers = (await root.call("CONSUMER.NAMES.LEDGER"))["consumers"]

    assert consumers == ["quota-1"]


async def test_what_a_command_line_leaves_is_forgotten_by_itself(real_server: RealServer) -> None:
    await real_server.bootstrap()
    await read_to_end(await ledger_of(RealWorld(real_server), "admin", shared_user=True))

    root = await real_server.api()
    (name,) = (await root.call("CONSUMER.NAMES.LEDGER"))["consumers"]
    config = (await root.call(f"CONSUMER.INFO.LEDGER.{name}"))["config"]

    assert name.startswith("admin-")
    assert "durable_name" not in config
    assert config["inactive_threshold"] == 300 * 1_000_000_000
    assert config["ack_policy"] == "none"

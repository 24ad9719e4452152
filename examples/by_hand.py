"""A request without Berth's client: published on NATS as JSON, its decision received as JSON."""

import asyncio
import json
import os

import nats

URL = os.environ.get("BERTH_URL", "nats://127.0.0.1:4222")
KEY = os.environ.get("BERTH_KEY", ".berth/keys/client.nk")

REQUESTS = [{"id": "by-hand-1", "namespace": "team-a", "resources": {"cpu_cores": 1, "ram_mb": 512}}]


async def main() -> None:
    # The inbox prefix is the user's: a user may listen to its own inbox only.
    bus = await nats.connect(URL, nkeys_seed=KEY, inbox_prefix=b"_INBOX_client")
    decisions = await bus.subscribe("berth.v1.decision.team-a.by-hand-1")
    await bus.flush()

    stored = await bus.request("berth.v1.request.team-a", json.dumps(REQUESTS).encode())
    print("stored:", stored.data.decode())

    message = await decisions.next_msg(timeout=10)
    decision = json.loads(message.data)
    print("decided:", decision["status"], decision["allocations"])

    query = json.dumps({"ids": ["by-hand-1"], "decisions": True}).encode()
    answer = await bus.request("berth.v1.query.team-a.requests", query)
    print("asked:", json.loads(answer.data)["items"][0]["decision"]["status"])

    await bus.request("berth.v1.release.team-a", json.dumps(["by-hand-1"]).encode())
    await bus.close()


asyncio.run(main())

"""Submits a request with preferences and waits for the decision: 4 cores, 8192 MB, a node in us-east-1."""

import asyncio
import os

import berth

URL = os.environ.get("BERTH_URL", "nats://127.0.0.1:4222")
KEY = os.environ.get("BERTH_KEY", ".berth/keys/client.nk")


async def main() -> None:
    wishes = (
        berth.Preferences.binpack().require("region", "in", ["us-east-1"]).prefer("disk", "equals", ["ssd"], weight=50)
    )
    request = berth.Request(id="web-2", namespace="team-a", resources=berth.Amounts(cpu_cores=4.0, ram_mb=8192))
    async with berth.connect(URL, nkey=KEY) as cluster:
        decision = await cluster.submit(wishes.apply(request))
        print(decision.status, [allocation.node for allocation in decision.allocations])
        print("the leader is", await cluster.raft.leader())


asyncio.run(main())

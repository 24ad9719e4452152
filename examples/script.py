"""The blocking client: many requests at once, a question, a release."""

import os

import berth

URL = os.environ.get("BERTH_URL", "nats://127.0.0.1:4222")
KEY = os.environ.get("BERTH_KEY", ".berth/keys/client.nk")

with berth.blocking.connect(URL, nkey=KEY) as cluster:
    requests = [
        berth.Request(id=f"job-{number}", namespace="team-b", resources=berth.Amounts(cpu_cores=0.5, ram_mb=256))
        for number in range(20)
    ]
    for decision in cluster.submit_all(requests):
        print(decision.request, decision.status, [allocation.node for allocation in decision.allocations])

    waiting = [row["id"] for row in cluster.query("requests") if row["status"] == "queued"]
    print("waiting:", waiting)

    cluster.release("team-b", "job-0")

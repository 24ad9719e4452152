"""The scheduler: which node each instance gets, which nodes are alive, and how a node is emptied.

Step 3 of the walk: quota's evaluation comes in on `berth.v1.evaluate`, one proposal goes out on
`berth.v1.commit.scheduler`, an outcome per request goes back. Any number of replicas, each on its own view.
It never queues or rejects a request (that is quota's) and never changes state: the leader commits.
"""

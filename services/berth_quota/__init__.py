"""Quota service, step 2 and 7 of the walk: decides who may be placed and who comes first, and publishes decisions.

Requests and releases come from the work queue REQUESTS. Within quota: a batch on `berth.v1.evaluate`. Over
quota: a proposal to queue or to reject, on `berth.v1.commit.quota`. It never chooses a node and never
writes to the ledger. One process is active, the holder of the pinned consumer; the others only fold.
"""

"""Reservation service: decides windows, their start and their end, and the end of durations.

It books capacity on named nodes (or anywhere, from now on), activates what it holds when the window begins,
ends it when it is over, and ends allocations whose duration is over. It never places anything: requests draw
on a reservation through quota and scheduler. In the walk it stands beside them: its proposals go to the leader
on `berth.v1.commit.reservation`, its commands come on `berth.v1.reservation.<namespace>.<verb>`.

`booking.py`: may this window be booked? `activation.py`: what happens at its start? `expiry.py`: what ends with
time? `service.py`: messages in, effects out.
"""

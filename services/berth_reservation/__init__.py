"""Reservation service: decides windows, their start and their end, and the end of durations.

It books capacity for windows now and in time to come, keeps what it has promised when nodes fail, activates what it
holds when the window begins, ends it when it is over and books the next of its series, and ends allocations whose
duration is over. It never places anything: requests draw on a reservation through quota and scheduler. In the walk it
stands beside them: its proposals go to the leader on `berth.v1.commit.reservation`, its commands come on
`berth.v1.reservation.<namespace>.<verb>`.

`booking.py`: may this window be booked, and when else would it be? `calendar.py`: what is free when?
`choosing.py`: on which nodes? `displacing.py`: in whose place? `replanning.py`: where instead, when nodes fail?
`resizing.py`, `giving_back.py`: what its owner may change. `recurrence.py`: when does it come again?
`activation.py`: what happens at its start? `expiry.py`: what ends with time? `agenda.py`: what is due?
`service.py`: messages in, effects out.
"""

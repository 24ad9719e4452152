"""What a message may make of whoever receives it: where an answer goes, and what only the server says."""

import nats.aio.client
import pytest
from nats.aio.msg import Msg

from berth.adapters.nats_bus import envelope


def a_message(*, reply: str, data: bytes = b"{}", headers: dict[str, str] | None = None) -> Msg:
    client = nats.aio.client.Client()
    return Msg(_client=client, subject="berth.v1.query.team-a.requests", reply=reply, data=data, headers=headers)


@pytest.mark.parametrize("reply", ["berth.v1.ledger", "berth.v1.request.team-b", "$JS.ACK.REQUESTS.quota.1.1.1.1.0"])
def test_who_asks_names_an_inbox_or_is_not_answered(reply: str) -> None:
    assert envelope(a_message(reply=reply), takes_any_reply=False).reply is None
    assert envelope(a_message(reply="_INBOX_client.x.1"), takes_any_reply=False).reply == "_INBOX_client.x.1"


def test_a_stored_message_with_a_status_header_is_a_message() -> None:
    stored = a_message(reply="$JS.ACK.REQUESTS.quota.1.1.1.1.0", data=b"", headers={"Status": "423"})
    told = a_message(reply="", data=b"", headers={"Status": "423"})

    assert envelope(stored).status is None
    assert envelope(told).status == 423

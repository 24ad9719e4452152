"""What a record says that the quota service must act on. Pure."""

from berth.ids import Namespace, RequestKey
from berth.messages.envelope import Record
from berth.messages.events import AllocationsReleasing, QuotaSet


def named(record: Record) -> dict[RequestKey, tuple[str | None, bool]]:
    """The requests that a record decides about: in whose trace, and whether any of it is releasing."""
    found: dict[RequestKey, tuple[str | None, bool]] = {}
    for transaction in record.transactions:
        for event in transaction:
            key = event.key
            if key is not None:
                before = found.get(key, (None, False))
                found[key] = (
                    event.traceparent or before[0],
                    before[1] or isinstance(event.data, AllocationsReleasing),
                )
    return found


def limited(record: Record) -> list[Namespace]:
    """The namespaces that got a quota."""
    events = (event for transaction in record.transactions for event in transaction)
    found = dict.fromkeys(event.namespace for event in events if isinstance(event.data, QuotaSet))
    return [namespace for namespace in found if namespace is not None]

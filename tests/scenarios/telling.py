"""How a scenario tells what passed from hand to hand: one line for each step, in the words of the walk."""

from collections.abc import Iterable

from berth.effects import Acknowledge, Ask, DeadLetter, Message, Propose, Publish, Reply
from berth.messages.commands import (
    AdminAnswer,
    ApplyQuotas,
    CancelReservation,
    CreateReservation,
    Evaluation,
    EvaluationAnswer,
    EvaluationOutcome,
    ExtendReservation,
    NodeAnswer,
    NodeLeave,
    NodeRegister,
    ProposalAnswer,
    Refusal,
    ReleaseBatch,
    RequestBatch,
    ReservationAnswer,
    ShrinkReservation,
    SkipReservation,
)
from berth.messages.decisions import Decision
from berth.messages.envelope import Record
from berth.messages.events import (
    AllocationsEnded,
    AllocationsReleasing,
    Event,
    NodeChanged,
    NodeLeft,
    NodeLost,
    NodeRegistered,
    RequestEnded,
    RequestPlaced,
    RequestQueued,
    ReservationActivated,
    ReservationCreated,
    ReservationEnded,
    ReservationHeld,
    StartPromised,
    Transaction,
)
from berth.messages.node_commands import RemoveNode, SetNode
from berth.messages.reasons import Reason, sentence
from berth.messages.reservation_events import EndCause
from berth_cell.cell import Step

Line = tuple[str, str]
"""The step of the walk, and what happened there."""


def lines_of(step: Step, *, began_ms: int) -> list[Line]:
    """Nothing for what only keeps the machinery going. `began_ms`: when the scenario began."""
    match step.what:
        case Message(body=body, delivery=delivery):
            return [("request" if delivery else "command", _asked(body))]
        case Ask(body=Evaluation(items=items)):
            return [("evaluate", "Evaluate " + ", ".join(f"{item.request.id} #{item.attempt}" for item in items))]
        case Reply(body=EvaluationAnswer(outcomes=outcomes)):
            return [("evaluated", _outcome(outcome)) for outcome in outcomes]
        case Propose(proposal=proposal):
            return [("commit", f"Proposal {_summary(one, began_ms)} ({step.by})") for one in proposal.transactions]
        case ProposalAnswer(outcomes=refusals):
            return [("refused", _refusal(refusal)) for refusal in refusals if refusal is not None]
        case Record() as record:
            return [
                ("ledger", f"{record.sequence}: " + ", ".join(event_text(event, began_ms) for event in one))
                for one in record.transactions
            ]
        case Publish(body=Decision() as decision):
            return [("decision", _decision(decision))]
        case Acknowledge(delivery=delivery):
            return [("ack", f"message {delivery.stream_sequence}")]
        case DeadLetter(reason=reason):
            return [("deadletter", reason)]
        case Reply(body=AdminAnswer() | NodeAnswer() | ReservationAnswer() as answer):
            return [("reply", _answer(answer))]
        case _:
            return []


def _asked(body: object) -> str:
    match body:
        case RequestBatch(requests=requests):
            return "Request " + ", ".join(request.id for request in requests)
        case ReleaseBatch(requests=names):
            return "Release " + ", ".join(names)
        case None:
            return "Nudge: somebody should be active"
        case NodeRegister(node=node):
            return f"NodeRegister {node.id}"
        case NodeLeave(node=node) | RemoveNode(node=node):
            forced = isinstance(body, RemoveNode) and body.force
            return f"{type(body).__name__} {node}" + (" by force" if forced else "")
        case SetNode(node=node):
            return f"SetNode {node} {_said(body, 'schedulable', 'draining', 'deadline_seconds')}"
        case ApplyQuotas(quotas=quotas):
            return "ApplyQuotas " + ", ".join(quota.namespace for quota in quotas)
        case CreateReservation(reservation=reservation):
            return f"CreateReservation {reservation.id}"
        case CancelReservation(reservation=name):
            return f"CancelReservation {name}"
        case ExtendReservation(reservation=name) | ShrinkReservation(reservation=name):
            return f"{type(body).__name__} {name}"
        case SkipReservation(reservation=name):
            return f"SkipReservation {name}"
        case _:
            return type(body).__name__


def _said(body: object, *fields: str) -> str:
    return " ".join(f"{name}={value}".lower() for name in fields if (value := getattr(body, name)) is not None)


def _outcome(outcome: EvaluationOutcome) -> str:
    text = f"{outcome.request} #{outcome.attempt} {outcome.verdict}"
    if outcome.sequence is not None:
        text += f" at {outcome.sequence}"
    if outcome.refusal is not None:
        text += f": {_refusal(outcome.refusal)}"
    return text + _because(outcome.reasons)


def _because(reasons: tuple[Reason, ...]) -> str:
    return "".join(f"; {_counted(reason)}" for reason in reasons).replace(";", ":", 1)


def _counted(reason: Reason) -> str:
    where = f" on {reason.nodes} node{'s' if reason.nodes > 1 else ''}" if reason.nodes else ""
    return f" {sentence(reason)}{where}".removeprefix(" ")


def _summary(transaction: Transaction, began_ms: int) -> str:
    """What the transaction is about: where something goes, a node, or its last event."""
    for event in transaction:
        if isinstance(event.data, RequestPlaced):
            return f"{event.request} on {_nodes(event.data)}"
    last = transaction[0] if transaction[0].request is None else transaction[-1]
    match last.data:
        case RequestQueued():
            return f"{last.request} queued"
        case RequestEnded(status=status):
            return f"{last.request} {status}"
        case _:
            return event_text(last, began_ms)


def _refusal(refusal: Refusal) -> str:
    return f"{refusal.code}: {refusal.detail}" if refusal.detail else str(refusal.code)


def _decision(decision: Decision) -> str:
    text = f"{decision.request} {decision.status}"
    if decision.allocations:
        text += " on " + _listed(str(one.node) for one in decision.allocations)
    if decision.evicted:
        text += ", evicted " + ", ".join(one.allocation for one in decision.evicted)
    return text + _because(decision.reasons)


def _answer(answer: AdminAnswer | NodeAnswer | ReservationAnswer) -> str:
    if answer.refusal is not None:
        return f"no: {_refusal(answer.refusal)}"
    if isinstance(answer, ReservationAnswer) and answer.reservation is not None:
        row = answer.reservation
        return f"yes: {row['id']} {row['state']} on {', '.join(row['nodes'])}"
    return "yes" if answer.sequence is None else f"yes, at {answer.sequence}"


# --- events -------------------------------------------------------------------------------------------------


def event_text(event: Event, began_ms: int) -> str:
    """`RequestPlaced web on n1`: the type, whom it is about, what matters of it."""
    about = event.request or event.namespace or ""
    return " ".join(part for part in (event.type, about, _matters(event, began_ms)) if part)


def _matters(event: Event, began_ms: int) -> str:
    match event.data:
        case RequestPlaced() as placed:
            return f"on {_nodes(placed)}"
        case RequestQueued(reasons=reasons, evaluated_at=evaluated_at):
            return f"({', '.join(reason.code for reason in reasons)}; judged at {evaluated_at})"
        case StartPromised() as promise:
            return _promise(promise, began_ms)
        case RequestEnded(status=status, reason=reason):
            return str(status) if status == reason else f"{status} ({reason})"
        case AllocationsEnded(ids=ids, how=how, reason=reason):
            return f"{', '.join(ids)} {how}" + ("" if how == reason else f" ({reason})")
        case AllocationsReleasing(ids=ids, how=how, until=until):
            return f"{', '.join(ids)} {how} by {moment(until, began_ms)}"
        case (
            NodeRegistered(node=name)
            | NodeLost(node=name)
            | NodeLeft(node=name)
            | ReservationActivated(reservation=name)
        ):
            return str(name)
        case NodeChanged(node=node) as changed:
            by = "" if changed.drain_until is None else f" by {moment(changed.drain_until, began_ms)}"
            return f"{node} {_said(changed, 'schedulable', 'draining')}{by}"
        case ReservationCreated(reservation=body):
            return body.id
        case ReservationHeld(reservation=name, nodes=nodes, because=because):
            where = ", ".join(f"{held.node} x{held.count}" for held in nodes) or "no node"
            why = "" if because is None else f" ({' '.join((because.cause, *because.names))})"
            return f"{name} on {where}{why}"
        case ReservationEnded(reservation=name, status=status, cause=cause):
            return f"{name} {status}" if cause in (None, EndCause.OVER) else f"{name} {status} ({cause})"
        case _:
            return ""


def _promise(promise: StartPromised, began_ms: int) -> str:
    because = "" if promise.cause is None else f" ({promise.cause})"
    if promise.start is None:
        return f"taken back{because}"
    nodes = ", ".join(f"{kept.node} x{kept.count}" for kept in promise.nodes)
    return f"{moment(promise.start, began_ms)} on {nodes}{because}"


def _nodes(placed: RequestPlaced) -> str:
    return _listed(str(one.node) for one in placed.allocations)


def _listed(names: Iterable[str]) -> str:
    """`n1 x2, n2`: each once, in order of first mention."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(name if count == 1 else f"{name} x{count}" for name, count in counts.items())


def moment(at_ms: int, began_ms: int) -> str:
    """Seconds since the scenario began."""
    seconds = (at_ms - began_ms) / 1000
    return f"+{seconds:g} s"

"""What a raft node tells about its commits: spans of sampled requests, metrics, gauges."""

from berth import subjects
from berth.messages.commands import ProposalAnswer
from berth.ports import Clock
from berth.runtime import telemetry, traceparent
from berth_raft.commit import Flush
from berth_raft.leadership import Leadership

_COMMIT = telemetry.operation(telemetry.COMMIT, subjects.COMMIT)
_APPEND = telemetry.operation(telemetry.APPEND, subjects.LEDGER)


class CommitObserver:
    """Makes the `commit` and `append` spans of each sampled transaction of a flush, afterwards."""

    def __init__(self, spans: telemetry.Spans, clock: Clock) -> None:
        self._spans = spans
        self._clock = clock

    def flushed(self, flush: Flush, *, began_us: int, appended_us: int, done_us: int) -> None:
        """The times are microseconds of the monotonic clock, just now."""
        telemetry.COMMIT_TRANSACTIONS.record(flush.transactions)
        telemetry.COMMIT_DURATION.record((done_us - began_us) / 1e6)
        if not flush.traced or not self._spans.recording or flush.tip is None:
            return
        now_ns = self._clock.now_ms() * 1_000_000
        began_ns = now_ns - (done_us - began_us) * 1000
        appended_ns = now_ns - (done_us - appended_us) * 1000
        sequence = flush.tip.sequence
        for context, request in flush.traced:
            if not traceparent.is_sampled(context):
                continue
            committed = telemetry.child_of(context)
            about: dict[str, telemetry.AttributeValue] = {
                telemetry.REQUEST_ID: request,
                telemetry.NAMESPACE: request.partition("/")[0],
            }
            self._spans.finished(
                telemetry.Span(
                    operation=_COMMIT,
                    context=committed,
                    parent=context,
                    start_ns=began_ns,
                    end_ns=now_ns,
                    attributes={**about, "berth.raft.term": flush.tip.term, "berth.raft.leader": flush.tip.leader},
                )
            )
            self._spans.finished(
                telemetry.Span(
                    operation=_APPEND,
                    context=traceparent.appended(context, sequence),
                    parent=committed,
                    start_ns=appended_ns,
                    end_ns=now_ns,
                    attributes={
                        **about,
                        telemetry.SEQUENCE: sequence,
                        telemetry.BATCH_COUNT: flush.transactions,
                        "messaging.message.body.size": len(flush.payload),
                    },
                )
            )


def count_refusals(answer: ProposalAnswer) -> None:
    """Whatever the leader tells a proposer passes here."""
    for refusal in answer.outcomes:
        if refusal is not None:
            telemetry.COMMIT_REFUSALS.add(1, {telemetry.OUTCOME: refusal.code.value})


def observe(leadership: Leadership) -> None:
    """Gauges, read from state when they are collected."""
    telemetry.observe("berth.ledger.sequence", lambda: [(leadership.state.sequence, {})])
    telemetry.observe("berth.ledger.foreign", lambda: [(leadership.counts.foreign, {})])
    telemetry.observe("berth.halted", lambda: [(int(leadership.counts.halted_at is not None), {})])
    telemetry.observe("berth.raft.leader", lambda: [(int(leadership.is_active), {})])
    telemetry.observe("berth.raft.term", lambda: [(leadership.state.tip.term if leadership.state.tip else 0, {})])

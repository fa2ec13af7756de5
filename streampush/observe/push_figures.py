"""What is counted and measured of messages: `push.ports.PushMetrics`; see observe/metrics.py."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, Metric

from streampush.observe.tallies import MILLISECOND_BOUNDS, SECOND_BOUNDS, Buckets, Tally
from streampush.protocol.codes import Code
from streampush.protocol.terms import LossReason, Outcome

PRINCIPAL_KINDS = ("device", "publisher", "key", "probe", "server")
NOT_PUBLISHED = ("duplicate", "superseded")
RECALLED = ("stored", "scheduled", "recalled", "processed")
IGNORED = ("older", "other_epoch")
IN_VAIN = ("timeout", "retry_later")
FELL_BACK = ("delivered", "rejected", "not_sent", "unknown", "cancelled")


class PushFigures:
    """Publishing, delivery and its end, and what falls back to Apple."""

    def __init__(self) -> None:
        self._deliveries_live = 0
        self._deliveries_log = 0
        self._fan_outs = 0
        self._count_publishing()
        self._count_delivery()

    def _count_publishing(self) -> None:
        codes = [str(int(code)) for code in Code]
        self._published = Tally("streampush_published_total", "Publications stored.", ("kind",), (PRINCIPAL_KINDS,))
        self._published_bytes = Tally(
            "streampush_published_bytes_total", "Payload of publications stored.", ("kind",), (PRINCIPAL_KINDS,)
        )
        self._not_published = Tally(
            "streampush_not_published_total", "Publishes answered well with nothing stored.", ("reason",), (NOT_PUBLISHED,)
        )
        self._fired = Tally("streampush_scheduled_fired_total", "Scheduled publications appended at their time.")
        self._fired_late = Buckets("streampush_scheduled_late_seconds", "How late the earliest of a step was.", SECOND_BOUNDS)
        self._stalled = Tally("streampush_schedule_stalled_total", "Times the store was not there for what was due.")
        self._recalled = Tally("streampush_recalled_total", "Recalls, by what the message was.", ("was",), (RECALLED,))
        self._refused = Tally("streampush_refused_total", "Requests refused, by code.", ("code",), (codes,))

    def _count_delivery(self) -> None:
        outcomes = [outcome.name.lower() for outcome in Outcome]
        losses = [reason.name.lower() for reason in LossReason if reason]
        self._publish_to_write = Buckets(
            "streampush_publish_to_write_seconds", "From publish to the write of a delivery, live ones.", MILLISECOND_BOUNDS
        )
        self._acknowledged = Tally("streampush_acknowledgements_total", "Acknowledgements.", ("outcome",), (outcomes,))
        self._acknowledgements_ignored = Tally(
            "streampush_acknowledgements_ignored_total", "Acknowledgements that changed nothing.", ("reason",), (IGNORED,)
        )
        self._redelivered = Tally("streampush_redelivered_total", "Deliveries written again.", ("reason",), (IN_VAIN,))
        self._dead_lettered = Tally("streampush_dead_letters_total", "Messages given up for a device.", ("reason",), (IN_VAIN,))
        self._lost = Tally("streampush_positions_lost_total", "Positions not recovered without loss.", ("reason",), (losses,))
        self._fell_back = Tally(
            "streampush_fallbacks_total", "Messages with an alert, by device and what came of the push.", ("outcome",), (FELL_BACK,)
        )
        self._fallback_stalled = Tally(
            "streampush_fallback_stalled_total", "Times the store was not there for what was to be pushed."
        )
        self._left_behind = Tally(
            "streampush_left_behind_total", "Publications that left the log by a limit before a durable follower had taken them."
        )
        self._marks_dropped = Tally("streampush_marks_dropped_total", "Milestones of receipts that could not be stored.")

    def published(self, kind: str, size: int) -> None:
        """A publication was stored; `size` in bytes of payload."""
        self._published.add(kind)
        self._published_bytes.add(kind, amount=size)

    def not_published(self, reason: str) -> None:
        """A publish was answered well, and nothing was stored."""
        self._not_published.add(reason)

    def fired(self, publications: int, late: float) -> None:
        """Scheduled publications were appended, the earliest `late` seconds after its time."""
        self._fired.add(amount=publications)
        self._fired_late.observe(late)

    def schedule_stalled(self) -> None:
        """The store was not there when scheduled publications were due."""
        self._stalled.add()

    def recalled(self, was: str) -> None:
        """A message was recalled."""
        self._recalled.add(was)

    def refused(self, code: Code) -> None:
        """A request was refused."""
        self._refused.add(str(int(code)))

    def fanned_out(self, deliveries: int, publications: int, oldest_wait: float) -> None:
        """`deliveries` frames were written, each at most `oldest_wait` seconds after its publish."""
        self._deliveries_live += deliveries
        self._fan_outs += publications
        self._publish_to_write.observe(oldest_wait, deliveries)

    def read_from_log(self, deliveries: int) -> None:
        """Deliveries were read from the log for a connection that had fallen behind."""
        self._deliveries_log += deliveries

    def acknowledged(self, outcome: str) -> None:
        """An acknowledgement arrived; `outcome` is the lower-case name of a terms.Outcome."""
        self._acknowledged.add(outcome)

    def acknowledgement_ignored(self, reason: str) -> None:
        """An acknowledgement changed nothing: "older" or "other_epoch"."""
        self._acknowledgements_ignored.add(reason)

    def redelivered(self, reason: str) -> None:
        """A delivery was written again: "timeout" or "retry_later"."""
        self._redelivered.add(reason)

    def dead_lettered(self, reason: str) -> None:
        """A publication was given up for a device: "timeout" or "retry_later"."""
        self._dead_lettered.add(reason)

    def positions_lost(self, reason: str) -> None:
        """A position was not recovered; `reason` is the lower-case name of a terms.LossReason."""
        self._lost.add(reason)

    def fell_back(self, outcome: str, count: int) -> None:
        """Follow-ups of messages to devices ended so."""
        self._fell_back.add(outcome, amount=count)

    def fallback_stalled(self) -> None:
        """The store was not there when follow-ups were due."""
        self._fallback_stalled.add()

    def left_behind(self, count: int) -> None:
        """So many publications left their logs before durable followers had taken them."""
        self._left_behind.add(amount=count)

    def marks_dropped(self, count: int) -> None:
        """So many milestones were dropped: the store was away for too long."""
        self._marks_dropped.add(amount=count)

    def collect(self) -> Iterator[Metric]:
        """As of now."""
        for tally in (self._published, self._published_bytes, self._not_published, self._fired, self._stalled, self._recalled):
            yield tally.export()
        for tally in (self._refused, self._acknowledged, self._acknowledgements_ignored, self._redelivered, self._dead_lettered):
            yield tally.export()
        for tally in (self._lost, self._left_behind, self._marks_dropped, self._fell_back, self._fallback_stalled):
            yield tally.export()
        deliveries = CounterMetricFamily("streampush_deliveries_total", "Deliveries written, by where from.", labels=("path",))
        deliveries.add_metric(("live",), self._deliveries_live)
        deliveries.add_metric(("log",), self._deliveries_log)
        yield deliveries
        yield CounterMetricFamily(
            "streampush_fanned_out_publications_total", "Publications that had a live follower.", value=self._fan_outs
        )
        yield self._publish_to_write.export()
        yield self._fired_late.export()

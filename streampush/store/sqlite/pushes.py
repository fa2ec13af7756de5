"""How pushes ended, written in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from streampush.errors import Refused
from streampush.push.channels import is_addressed
from streampush.push.values import OutboxWork, PushOutcome, PushRecord
from streampush.store.sqlite.ledger import Ledger
from streampush.store.sqlite.outbox import Outbox
from streampush.store.sqlite.rows import OFFSET_BITS, as_json, offset_of, read_list, write_many

PUSH_COLUMNS = "pushed_at, push_outcome, push_reason, apns_id"
"""Of the table receipts."""

COUNT_COLUMNS = ", ".join(outcome.value for outcome in PushOutcome)
"""Of the table push_counts, in the order of PushOutcome."""

_ENTRIES = f"""
SELECT json_group_array(json_array(e.message_id, e.id, c.name)) FROM json_each(?) AS j
CROSS JOIN entries AS e ON e.message_id = j.value CROSS JOIN channels AS c ON c.id = e.id >> {OFFSET_BITS}
"""
_INSERT = f"INSERT INTO receipts (entry, device, {PUSH_COLUMNS}) VALUES"
_NEWEST_STANDS = (
    "ON CONFLICT (entry, device) DO UPDATE SET pushed_at = excluded.pushed_at, push_outcome = excluded.push_outcome,"
    " push_reason = excluded.push_reason, apns_id = excluded.apns_id WHERE excluded.pushed_at >= coalesce(receipts.pushed_at, 0)"
)
_INSERT_COUNTS = f"INSERT INTO push_counts (entry, {COUNT_COLUMNS}) VALUES"
_ADD_COUNTS = "ON CONFLICT (entry) DO UPDATE SET " + ", ".join(f"{one} = {one} + excluded.{one}" for one in PushOutcome)


class Pushes:
    """The writer's part of push.store_ports.MessageStore.record_pushes, and of outbox_replace, which records too."""

    def __init__(self, ledger: Ledger, outbox: Outbox) -> None:
        self._ledger = ledger
        self._outbox = outbox

    def record(self, batch: Sequence[tuple[Sequence[PushRecord]]]) -> list[None]:
        """See push.store_ports.MessageStore.record_pushes; the calls of a batch as one."""
        self._record([record for (records,) in batch for record in records])
        return [None] * len(batch)

    def replace(self, batch: Sequence[tuple[str, Sequence[OutboxWork], Sequence[PushRecord]]]) -> list[bool | Refused]:
        """See push.store_ports.OutboxStore.outbox_replace, for many at once."""
        answers = self._outbox.replace([(token, works) for token, works, _ in batch])
        told = [record for (_, _, records), answer in zip(batch, answers, strict=True) if answer is True for record in records]
        if told:
            self._record(told)
        return answers

    def _record(self, records: Sequence[PushRecord]) -> None:
        leases = [record.lease for record in records if record.lease]
        ours = self._outbox.complete_all(leases) if leases else set()
        ids = as_json(list({record.message_id for record in records}))
        found = sorted(read_list(self._ledger.db, _ENTRIES, (ids,)))
        entries = {message_id: (entry, channel) for message_id, entry, channel in found}
        rows: list[tuple[int, str, int, str, str, str]] = []
        counts: dict[tuple[int, str], Counter[PushOutcome]] = {}
        for record in records:
            entry, channel = entries.get(record.message_id, (0, ""))
            result = record.result
            is_ours = not record.lease or record.lease in ours
            ours.discard(record.lease)
            if is_addressed(channel):
                rows.append((entry, record.device_id, result.at_ms, result.outcome.value, result.reason, result.apns_id))
            elif entry and is_ours:
                counts.setdefault((entry, channel), Counter())[result.outcome] += record.count
        write_many(self._ledger.db, _INSERT, rows, _NEWEST_STANDS)
        if counts:
            self._count(counts)

    def _count(self, counts: Mapping[tuple[int, str], Counter[PushOutcome]]) -> None:
        ledger = self._ledger
        rows = [(entry, *(count[outcome] for outcome in PushOutcome)) for (entry, _), count in counts.items()]
        write_many(ledger.db, _INSERT_COUNTS, rows, _ADD_COUNTS)
        ledger.fetch([channel for _, channel in counts])
        for entry, channel in counts:
            log = ledger.log(channel)
            assert log is not None
            log.pushed = max(log.pushed, offset_of(entry))
            ledger.touch(log)

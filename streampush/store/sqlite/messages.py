"""The reader's answers about single messages: what became of them, and how devices may be reached with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from streampush.protocol.terms import Milestone, Priority
from streampush.push.channels import is_addressed
from streampush.push.values import (
    NO_COUNTS,
    NO_PUSHES,
    Cursor,
    DeviceReceipt,
    MessageReach,
    MessageRecord,
    PushOutcome,
    PushRecord,
    PushResult,
    PushToken,
    Reach,
)
from streampush.store.drafts import scheduled
from streampush.store.packing import WANTS_RECEIPT
from streampush.store.sqlite.appending import DURABILITY
from streampush.store.sqlite.pushes import COUNT_COLUMNS, PUSH_COLUMNS
from streampush.store.sqlite.recording import RECEIPT_COLUMNS
from streampush.store.sqlite.rows import OFFSET_BITS, as_json, offset_of, read_list, read_many
from streampush.store.sqlite.waiting import SCHEDULED_COLUMNS, scheduled_draft

_REACH_COLUMNS = (
    "d.id, user_id, CASE WHEN push_token IS NULL THEN NULL ELSE hex(push_token) END, push_topic, push_sandbox,"
    " push_registered_at, s.since_at IS NOT NULL, epoch, position, processed, c.attempts"
)
_REACH = f"""
SELECT json_group_array(json_array({_REACH_COLUMNS}))
FROM json_each(?1) AS j CROSS JOIN devices AS d ON d.id = j.value
    LEFT JOIN cursors AS c ON c.device = d.id AND c.channel = ?2
    LEFT JOIN subscriptions AS s ON s.device = d.id AND s.channel = ?2
"""
_REACH_PAIRS = f"""
SELECT json_group_array(json_array(b, {_REACH_COLUMNS}))
FROM wanted CROSS JOIN devices AS d ON d.id = a
    LEFT JOIN cursors AS c ON c.device = a AND c.channel = b
    LEFT JOIN subscriptions AS s ON s.device = a AND s.channel = b
"""
_REACH_USERS = f"""
SELECT json_group_array(json_array(j.value, {_REACH_COLUMNS}))
FROM json_each(?1) AS j CROSS JOIN devices AS d
    ON d.id IN (SELECT id FROM devices WHERE user_id = j.value AND user_id <> '' ORDER BY id LIMIT ?2)
    LEFT JOIN cursors AS c ON c.device = d.id AND c.channel = 'user:' || j.value
    LEFT JOIN subscriptions AS s ON s.device = d.id AND s.channel = 'user:' || j.value
"""
_MESSAGE_COLUMNS = (
    "e.message_id, c.name, e.id, e.publisher, e.published_at, e.expires_at, e.deliver_at, e.priority, e.collapse_key, e.flags,"
    " e.size, e.recalls, e.recalled_at, e.superseded_by"
)
_MESSAGES = f"""
SELECT json_group_array(json_array({_MESSAGE_COLUMNS})) FROM json_each(?) AS j
CROSS JOIN entries AS e ON e.message_id = j.value CROSS JOIN channels AS c ON c.id = e.id >> {OFFSET_BITS}
"""
_RESULTS = f"""
SELECT json_group_array(json_array(a, b, {PUSH_COLUMNS})) FROM wanted CROSS JOIN receipts ON entry = a AND device = b
WHERE pushed_at IS NOT NULL
"""

_USER = "user:"
"""Begins the channels of users."""

_NO_RESULTS: Mapping[str, PushResult] = MappingProxyType({})


class MessageReading:
    """Queries on a connection, within one transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._epoch: str = db.execute("SELECT epoch FROM store").fetchone()[0]

    def message(self, message_id: str, max_devices: int) -> MessageRecord | None:
        row = self._db.execute(
            f"SELECT {_MESSAGE_COLUMNS} FROM entries AS e JOIN channels AS c ON c.id = e.id >> {OFFSET_BITS}"
            " WHERE e.message_id = ? ORDER BY e.id DESC LIMIT 1",
            (message_id,),
        ).fetchone()
        if row is None:
            return self._scheduled(message_id)
        channel, entry = row[1], row[2]
        if not is_addressed(channel):  # what became of it is counted
            return self._record(row, (), self._counts(entry), self._push_counts(entry))
        return self._record(row, tuple(self._receipts(entry, max_devices)) if max_devices else ())

    def _record(
        self,
        row: Sequence[Any],
        devices: tuple[DeviceReceipt, ...] = (),
        counts: Mapping[Milestone, int] = NO_COUNTS,
        push_counts: Mapping[PushOutcome, int] = NO_PUSHES,
    ) -> MessageRecord:
        """A message from its _MESSAGE_COLUMNS."""
        (
            message_id,
            channel,
            entry,
            publisher,
            published_at,
            expires_at,
            deliver_at,
            priority,
            collapse_key,
            flags,
            size,
            recalls,
            recalled_at,
            newer,
        ) = row
        return MessageRecord(
            message_id,
            channel,
            self._epoch,
            offset_of(entry),
            publisher,
            published_at,
            expires_at,
            deliver_at,
            Priority(priority),
            collapse_key,
            bool(flags & WANTS_RECEIPT),
            size,
            DURABILITY,
            recalls,
            recalled_at,
            newer,
            devices,
            counts,
            push_counts,
        )

    def _scheduled(self, message_id: str) -> MessageRecord | None:
        row = self._db.execute(f"SELECT {SCHEDULED_COLUMNS} FROM scheduled WHERE message_id = ?", (message_id,)).fetchone()
        if row is None:
            return None
        return scheduled(scheduled_draft(row), self._epoch, DURABILITY)

    def _receipts(self, entry: int, max_devices: int) -> Iterable[DeviceReceipt]:
        columns = f"{PUSH_COLUMNS}, {', '.join(RECEIPT_COLUMNS.values())}"
        query = f"SELECT device, {columns} FROM receipts WHERE entry = ? ORDER BY device LIMIT ?"
        for device, pushed_at, outcome, reason, apns_id, *times in self._db.execute(query, (entry, max_devices)):
            reached = zip(RECEIPT_COLUMNS, times, strict=True)
            push = None if pushed_at is None else PushResult(pushed_at, PushOutcome(outcome), reason, apns_id)
            yield DeviceReceipt(device, {milestone: time for milestone, time in reached if time is not None}, push)

    def _counts(self, entry: int) -> Mapping[Milestone, int]:
        query = f"SELECT {', '.join(RECEIPT_COLUMNS.values())} FROM receipt_counts WHERE entry = ?"
        row = self._db.execute(query, (entry,)).fetchone()
        if row is None:
            return NO_COUNTS
        return {milestone: count for milestone, count in zip(RECEIPT_COLUMNS, row, strict=True) if count}

    def _push_counts(self, entry: int) -> Mapping[PushOutcome, int]:
        row = self._db.execute(f"SELECT {COUNT_COLUMNS} FROM push_counts WHERE entry = ?", (entry,)).fetchone()
        if row is None:
            return NO_PUSHES
        return {outcome: count for outcome, count in zip(PushOutcome, row, strict=True) if count}

    def push_of(self, apns_id: str) -> PushRecord | None:
        row = self._db.execute(
            f"SELECT e.message_id, r.device, {PUSH_COLUMNS} FROM receipts AS r JOIN entries AS e ON e.id = r.entry"
            " WHERE r.apns_id = ? AND r.apns_id <> '' ORDER BY r.pushed_at DESC LIMIT 1",
            (apns_id,),
        ).fetchone()
        if row is None:
            return None
        message_id, device_id, at_ms, outcome, reason, _ = row
        return PushRecord(message_id, device_id, PushResult(at_ms, PushOutcome(outcome), reason, apns_id))

    # -------------------------------------------------------------------------------------------------------- reaching devices

    def reach(self, channel: str, device_ids: Sequence[str]) -> list[Reach]:
        """As push.store_ports.DeviceStore.reach; who is connected is not known here."""
        return [_reach(row) for row in read_list(self._db, _REACH, (as_json(list(device_ids)), channel))]

    def reach_with(self, asked: Sequence[tuple[str, Sequence[str]]], results: bool) -> list[MessageReach | None]:
        """As push.store_ports.MessageStore.reach_with; who is connected is not known here. The number of steps grows with that of
        the devices in steps of 64."""
        known = self._messages([message_id for message_id, _ in asked])
        wanted = [(known[message_id], device_ids) for message_id, device_ids in asked if message_id in known]
        pairs = dict.fromkeys((device_id, row[1]) for row, device_ids in wanted for device_id in device_ids)
        reaches = {(row[0], channel): _reach(row) for channel, *row in read_many(self._db, _REACH_PAIRS, list(pairs))}
        ended = self._results(wanted) if results else {}
        found: list[MessageReach | None] = []
        for message_id, device_ids in asked:
            row = known.get(message_id)
            if row is None:
                found.append(None)
                continue
            there = [reach for one in device_ids if (reach := reaches.get((one, row[1]))) is not None]
            found.append(MessageReach(self._record(row), tuple(there), ended.get(row[2], _NO_RESULTS)))
        return found

    def reach_users(self, message_ids: Sequence[str], limit: int, results: bool) -> list[MessageReach | None]:
        """As push.store_ports.MessageStore.reach_users; who is connected is not known here."""
        known = self._messages(message_ids)
        users = {row[1]: row[1][len(_USER) :] for row in known.values() if row[1].startswith(_USER)}
        rows = read_list(self._db, _REACH_USERS, (as_json(list(users.values())), limit)) if users else []
        reaches: dict[str, list[Reach]] = {user_id: [] for user_id in users.values()}
        for user_id, *row in sorted(rows, key=itemgetter(1)):
            reaches[user_id].append(_reach(row))
        there = {channel: tuple(reaches[user_id]) for channel, user_id in users.items()}
        wanted = [(row, [reach.device_id for reach in there.get(row[1], ())]) for row in known.values()] if results else []
        ended = self._results(wanted)
        return [
            None
            if (row := known.get(message_id)) is None
            else MessageReach(self._record(row), there.get(row[1], ()), ended.get(row[2], _NO_RESULTS))
            for message_id in message_ids
        ]

    def _messages(self, message_ids: Sequence[str]) -> dict[str, Sequence[Any]]:
        """The _MESSAGE_COLUMNS of those that are in a log; of entries of the same id the newest."""
        rows = sorted(read_list(self._db, _MESSAGES, (as_json(list(message_ids)),)), key=itemgetter(2))
        return {row[0]: row for row in rows}

    def _results(self, wanted: Sequence[tuple[Sequence[Any], Sequence[str]]]) -> dict[int, dict[str, PushResult]]:
        """How pushes to these devices ended, by entry, of the messages of devices and users."""
        ended: dict[int, dict[str, PushResult]] = {}
        keys = [(row[2], device_id) for row, device_ids in wanted if is_addressed(row[1]) for device_id in device_ids]
        for entry, device_id, at_ms, outcome, reason, apns_id in read_many(self._db, _RESULTS, keys):
            ended.setdefault(entry, {})[device_id] = PushResult(at_ms, PushOutcome(outcome), reason, apns_id)
        return ended


def _reach(row: Sequence[Any]) -> Reach:
    """From its _REACH_COLUMNS."""
    device_id, user_id, token, topic, sandbox, registered_at, follows, epoch, offset, processed, attempts = row
    return Reach(
        device_id,
        user_id,
        None if token is None else PushToken(bytes.fromhex(token), topic, bool(sandbox), registered_at),
        None if epoch is None else Cursor(epoch, offset, processed, attempts),
        "",
        bool(follows),
    )

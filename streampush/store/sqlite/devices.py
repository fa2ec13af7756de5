"""What is written of devices: their records, what they follow for good, what they did not take."""

from __future__ import annotations

from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.values import Close, DeviceRecord, PushToken
from streampush.store.packing import pack_headers
from streampush.store.sqlite.ledger import Ledger
from streampush.store.sqlite.recording import drop_letters, drop_oldest_letters
from streampush.store.sqlite.retention import STEP

DEVICE_COLUMNS = (
    "id, user_id, first_seen_at, last_seen_at, push_token, push_topic, push_sandbox, push_registered_at, attributes,"
    " close_code, close_advice, close_detail, close_at"
)

_UNREACHABLE = "UPDATE devices SET push_token = NULL, push_topic = '', push_sandbox = 0, push_registered_at = 0"


class Devices:
    """The writer's part of push.store_ports.DeviceStore, and of subscriptions."""

    def __init__(self, ledger: Ledger, max_devices: int) -> None:
        self._ledger = ledger
        self._max_devices = max_devices

    def remember(self, record: DeviceRecord) -> None:
        """See push.store_ports.DeviceStore.remember_device."""
        db, totals = self._ledger.db, self._ledger.totals
        known = db.execute("SELECT user_id FROM devices WHERE id = ?", (record.device_id,)).fetchone()
        if known is None:
            if totals.devices >= self._max_devices:
                raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {totals.devices} devices, its limit")
            totals.devices += 1
        elif known[0] != record.user_id:
            self._ledger.forget_recipient(f"user:{known[0]}")
        token, close = self._take_token(record), record.last_close
        db.execute(
            f"INSERT OR REPLACE INTO devices ({DEVICE_COLUMNS}) VALUES ({','.join('?' * 13)})",
            (
                record.device_id,
                record.user_id,
                record.first_seen_ms,
                record.last_seen_ms,
                None if token is None else token.token,
                "" if token is None else token.topic,
                int(token is not None and token.sandbox),
                0 if token is None else token.registered_at_ms,
                pack_headers(record.attributes),
                *((None, 0, "", 0) if close is None else (close.code, int(close.advice), close.detail, close.at_ms)),
            ),
        )

    def _take_token(self, record: DeviceRecord) -> PushToken | None:
        """The record's token if no other device has registered it later; from one that has not it is taken away."""
        token = record.push_token
        if token is None:
            return None
        db = self._ledger.db
        other = db.execute(
            "SELECT id, push_registered_at FROM devices WHERE push_token = ? AND id <> ?", (token.token, record.device_id)
        ).fetchone()
        if other is None:
            return token
        if other[1] > token.registered_at_ms:
            return None
        db.execute(f"{_UNREACHABLE} WHERE id = ?", (other[0],))
        return token

    def drop_token(self, device_id: str, token: bytes, at_ms: int) -> bool:
        """See push.store_ports.DeviceStore.drop_token."""
        dropped = self._ledger.db.execute(
            f"{_UNREACHABLE} WHERE id = ? AND push_token = ? AND push_registered_at <= ?", (device_id, token, at_ms)
        )
        return dropped.rowcount > 0

    def forget(self, device_id: str) -> bool | None:
        """See push.store_ports.DeviceStore.forget_device. None: some of its dead letters are left, call this again.

        There may be a thousand of 256 KiB each, and nobody else's work is done while they go.
        """
        if drop_oldest_letters(self._ledger, device_id, STEP):
            return None
        db = self._ledger.db
        known = db.execute("SELECT user_id FROM devices WHERE id = ?", (device_id,)).fetchone()
        db.execute("DELETE FROM cursors WHERE device = ?", (device_id,))
        db.execute("DELETE FROM subscriptions WHERE device = ?", (device_id,))
        if known is None:
            return False
        db.execute("DELETE FROM devices WHERE id = ?", (device_id,))
        self._ledger.totals.devices -= 1
        self._ledger.forget_recipient(f"device:{device_id}")
        self._ledger.forget_recipient(f"user:{known[0]}")
        return True

    def closed(self, device_id: str, close: Close) -> None:
        """Keeps how the last connection of a known device ended."""
        self._ledger.db.execute(
            "UPDATE devices SET close_code = ?, close_advice = ?, close_detail = ?, close_at = ? WHERE id = ?",
            (close.code, int(close.advice), close.detail, close.at_ms, device_id),
        )

    def forget_cursor(self, device_id: str, channel: str) -> None:
        """See push.store_ports.CursorStore.forget_cursor."""
        self._ledger.db.execute("DELETE FROM cursors WHERE device = ? AND channel = ?", (device_id, channel))

    def add_subscription(self, device_id: str, channel: str, at_ms: int, at_most: int) -> bool:
        """See push.store_ports.CursorStore.add_subscription."""
        db = self._ledger.db
        if db.execute("SELECT 1 FROM devices WHERE id = ?", (device_id,)).fetchone() is None:
            raise Refused(Code.UNKNOWN_RECIPIENT, "no device of this id was ever seen", channel=channel)
        count, there = db.execute(
            "SELECT count(*), coalesce(max(channel = ?), 0) FROM subscriptions WHERE device = ?", (channel, device_id)
        ).fetchone()
        if there:
            return False
        if count >= at_most:
            raise Refused(Code.QUOTA_EXCEEDED, f"at most {at_most} durable subscriptions", channel=channel)
        db.execute("INSERT INTO subscriptions (device, channel, since_at) VALUES (?, ?, ?)", (device_id, channel, at_ms))
        return True

    def remove_subscription(self, device_id: str, channel: str) -> bool:
        """See push.store_ports.CursorStore.remove_subscription."""
        removed = self._ledger.db.execute("DELETE FROM subscriptions WHERE device = ? AND channel = ?", (device_id, channel))
        return removed.rowcount > 0

    def drop_dead_letter(self, device_id: str, message_id: str) -> bool:
        """See push.store_ports.DeviceStore.drop_dead_letter."""
        return drop_letters(self._ledger, "device = ? AND message_id = ?", (device_id, message_id)) > 0

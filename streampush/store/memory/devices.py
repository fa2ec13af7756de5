"""Devices, their cursors, and what they follow for good."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from heapq import nsmallest

from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.values import Close, Cursor, CursorMove, DeviceRecord, DurableSubscription
from streampush.store.memory.names import OrderedNames


class Devices:
    """Records by device, and the devices of each user."""

    def __init__(self, max_devices: int) -> None:
        self._max_devices = max_devices
        self._records: dict[str, DeviceRecord] = {}
        self._users: dict[str, set[str]] = {}
        self._tokens: dict[bytes, str] = {}  # which device has it

    def __len__(self) -> int:
        return len(self._records)

    def get(self, device_id: str) -> DeviceRecord | None:
        return self._records.get(device_id)

    def knows_user(self, user_id: str) -> bool:
        """Whether a device is bound to the user."""
        return user_id in self._users

    def remember(self, record: DeviceRecord) -> None:
        """See push.store_ports.DeviceStore.remember_device."""
        known = self._records.get(record.device_id)
        if known is None and len(self._records) >= self._max_devices:
            raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {len(self._records)} devices, its limit")
        if known is not None:
            self._forget_token(known)
            if known.user_id != record.user_id:
                self._unbind(known)
        record = self._take_token(record)
        if record.user_id:
            self._users.setdefault(record.user_id, set()).add(record.device_id)
        self._records[record.device_id] = record

    def _take_token(self, record: DeviceRecord) -> DeviceRecord:
        """The record with its token if no other device has registered it later; from one that has not it is taken away."""
        token = record.push_token
        if token is None:
            return record
        other = self._records.get(self._tokens.get(token.token, ""))
        if other is not None and other.push_token is not None:
            if other.push_token.registered_at_ms > token.registered_at_ms:
                return replace(record, push_token=None)
            self._records[other.device_id] = replace(other, push_token=None)
        self._tokens[token.token] = record.device_id
        return record

    def _forget_token(self, record: DeviceRecord) -> None:
        if record.push_token is not None:
            del self._tokens[record.push_token.token]

    def drop_token(self, device_id: str, token: bytes, at_ms: int) -> bool:
        """See push.store_ports.DeviceStore.drop_token."""
        record = self._records.get(device_id)
        known = None if record is None else record.push_token
        if record is None or known is None or known.token != token or known.registered_at_ms > at_ms:
            return False
        self._forget_token(record)
        self._records[device_id] = replace(record, push_token=None)
        return True

    def of_token(self, token: bytes) -> DeviceRecord | None:
        """See push.store_ports.DeviceStore.device_of_token."""
        return self._records.get(self._tokens.get(token, ""))

    def closed(self, device_id: str, close: Close) -> None:
        """Keeps how the last connection of a known device ended."""
        record = self._records.get(device_id)
        if record is not None:
            self._records[device_id] = replace(record, last_close=close)

    def forget(self, device_id: str) -> bool:
        """The record is gone; False if there was none."""
        record = self._records.pop(device_id, None)
        if record is None:
            return False
        self._forget_token(record)
        self._unbind(record)
        return True

    def of_user(self, user_id: str, limit: int) -> tuple[DeviceRecord, ...]:
        """See push.store_ports.DeviceStore.devices_of_user."""
        return tuple(self._records[device_id] for device_id in nsmallest(limit, self._users.get(user_id, ())))

    def named(self, prefix: str, limit: int) -> list[str]:
        """See push.store_ports.DeviceStore.devices_named. Looks at all ids: a tenth of a second for a million."""
        return nsmallest(limit, (device_id for device_id in self._records if device_id.startswith(prefix)))

    def _unbind(self, record: DeviceRecord) -> None:
        devices = self._users.get(record.user_id)
        if devices is not None:
            devices.discard(record.device_id)
            if not devices:
                del self._users[record.user_id]


class Cursors:
    """Cursors and durable subscriptions by device; of each device the `max_cursors` that moved last."""

    def __init__(self, max_cursors: int) -> None:
        self._max_cursors = max_cursors
        self._cursors: dict[str, OrderedDict[str, Cursor]] = {}
        self._durable: dict[str, dict[str, int]] = {}  # channel: since, Unix milliseconds
        self._followers: dict[str, OrderedNames] = {}  # by channel, those for whom it is durable

    def of(self, device_id: str) -> dict[str, Cursor]:
        return dict(self._cursors.get(device_id, {}))

    def get(self, device_id: str, channel: str) -> Cursor | None:
        cursors = self._cursors.get(device_id)
        return None if cursors is None else cursors.get(channel)

    def move(self, move: CursorMove) -> tuple[int, int] | None:
        """Moves a cursor; gives the offset and the processed offset that it had in this epoch, None if it does not go back."""
        cursors = self._cursors.get(move.device_id)
        if cursors is None:
            cursors = self._cursors[move.device_id] = OrderedDict()
        known = cursors.get(move.channel)
        if known is None or known.epoch != move.epoch:
            cursors[move.channel] = Cursor(move.epoch, move.offset, move.processed, move.attempts)
            cursors.move_to_end(move.channel)
            if len(cursors) > self._max_cursors:
                self._drop_one(move.device_id, cursors)
            return 0, 0
        cursors.move_to_end(move.channel)
        if move.offset < known.offset:
            return None
        processed = max(known.processed, move.processed)
        cursors[move.channel] = Cursor(move.epoch, move.offset, processed, move.attempts)
        return known.offset, known.processed

    def _drop_one(self, device_id: str, cursors: OrderedDict[str, Cursor]) -> None:
        durable = self._durable.get(device_id, {})
        oldest = next((channel for channel in cursors if channel not in durable), next(iter(cursors)))
        del cursors[oldest]

    def forget(self, device_id: str, channel: str) -> None:
        cursors = self._cursors.get(device_id)
        if cursors is not None:
            cursors.pop(channel, None)
            if not cursors:
                del self._cursors[device_id]

    def forget_device(self, device_id: str) -> None:
        """Nothing of the device is left."""
        self._cursors.pop(device_id, None)
        for channel in self._durable.pop(device_id, {}):
            self._unfollow(channel, device_id)

    def add_durable(self, device_id: str, channel: str, at_ms: int, at_most: int) -> bool:
        """See push.store_ports.CursorStore.add_subscription, for a known device."""
        durable = self._durable.get(device_id, {})
        if channel in durable:
            return False
        if len(durable) >= at_most:
            raise Refused(Code.QUOTA_EXCEEDED, f"at most {at_most} durable subscriptions", channel=channel)
        self._durable.setdefault(device_id, {})[channel] = at_ms
        self._followers.setdefault(channel, OrderedNames()).add(device_id)
        return True

    def remove_durable(self, device_id: str, channel: str) -> bool:
        durable = self._durable.get(device_id, {})
        if durable.pop(channel, None) is None:
            return False
        if not durable:
            del self._durable[device_id]
        self._unfollow(channel, device_id)
        return True

    def follows(self, device_id: str, channel: str) -> bool:
        """Whether the device's subscription is durable."""
        return channel in self._durable.get(device_id, ())

    def durable(self, device_id: str) -> tuple[DurableSubscription, ...]:
        return tuple(DurableSubscription(channel, at_ms) for channel, at_ms in sorted(self._durable.get(device_id, {}).items()))

    def followers(self, channel: str, after: str, limit: int) -> list[str]:
        """See push.store_ports.CursorStore.subscribers."""
        followers = self._followers.get(channel)
        return [] if followers is None else followers.behind(after, limit)

    def _unfollow(self, channel: str, device_id: str) -> None:
        followers = self._followers[channel]
        followers.remove(device_id)
        if not followers:
            del self._followers[channel]

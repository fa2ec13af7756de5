"""The devices as backends see them: made, changed and forgotten over REST, or remembered because they connected.

Which user a device belongs to: the certificate says so, and wins at every connect. If it names none, what a backend has stored
counts. Whenever the user changes the device follows the channel of the new one, from that moment on, and no longer that of the
old one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from streampush.errors import Refused
from streampush.protocol.codes import Advice, Code
from streampush.protocol.terms import is_id
from streampush.push.backlog import Backlog
from streampush.push.bus import Order, OrderKind
from streampush.push.channels import kind_of, unknown_device, user_channel
from streampush.push.connections import Connections
from streampush.push.cursors import CursorWriter
from streampush.push.elsewhere import Elsewhere
from streampush.push.presence import Presence
from streampush.push.store_ports import Store
from streampush.push.turns import Turns
from streampush.push.values import (
    ChannelCursor,
    ChannelPresence,
    Close,
    CursorMove,
    DeviceRecord,
    DeviceStatus,
    DurableSubscription,
    Principal,
    PushToken,
    Session,
)

NO_CLOSE = Close(0, Advice.UNSPECIFIED, "", 0)

MAX_ATTRIBUTES = 32
MAX_ATTRIBUTE_NAME_BYTES = 64
MAX_ATTRIBUTE_BYTES = 256
"""A backend's own words about a device: enough for a model, a version, a cohort; not a place for data."""


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """What a backend wants of a device. None: it stays as it is; an empty `user_id` binds it to no user."""

    user_id: str | None = None
    attributes: Mapping[str, str] | None = None


class Devices:
    """Every change of a device's record goes through here, one at a time for each device."""

    def __init__(
        self,
        store: Store,
        cursors: CursorWriter,
        turns: Turns,
        connections: Connections,
        presence: Presence,
        backlog: Backlog,
        elsewhere: Elsewhere,
        wall_ms: Callable[[], int],
        standing_changed: Callable[[str], None] = lambda device_id: None,
    ) -> None:
        self._store = store
        self._cursors = cursors
        self._turns = turns
        self._connections = connections
        self._presence = presence
        self._backlog = backlog
        self._elsewhere = elsewhere
        self._wall_ms = wall_ms
        self._standing_changed = standing_changed

    async def remember(self, principal: Principal) -> Principal:
        """A device has connected. Gives the principal with the user that it is bound to. Raises Refused."""
        async with self._turns.of(principal.name):
            now_ms = self._wall_ms()
            known = await self._store.device(principal.name)
            if known is None:
                record = DeviceRecord(principal.name, principal.user_id, now_ms, now_ms)
            else:
                record = replace(known, user_id=principal.user_id or known.user_id, last_seen_ms=now_ms)
            await self._store.remember_device(record)
            if known is not None and known.user_id not in ("", record.user_id):
                await self._leave_user(principal.name, known.user_id)
            return principal if principal.user_id == record.user_id else replace(principal, user_id=record.user_id)

    async def register_token(self, device_id: str, token: PushToken | None) -> bool:
        """Keeps the device's push token, as registered now, or forgets it; another device that had the same one loses it.

        True if the device had one before. Raises Refused: UNKNOWN_RECIPIENT, STORE_UNAVAILABLE.
        """
        async with self._turns.of(device_id):
            record = await self._known(device_id)
            if token is not None:
                token = replace(token, registered_at_ms=self._wall_ms())
            await self._store.remember_device(replace(record, push_token=token))
            self._standing_changed(device_id)
            return record.push_token is not None

    async def push_token(self, device_id: str) -> PushToken | None:
        """The device's push token, which is secret; None: it has none. Raises Refused(UNKNOWN_RECIPIENT)."""
        return (await self._known(device_id)).push_token

    async def drop_token(self, device_id: str, token: bytes, at_ms: int) -> bool:
        """Forgets the device's push token, which was no longer good at that time; False if it has registered one since then.

        Use this and not the store's: a change of the record that is under way would bring the token back.
        """
        async with self._turns.of(device_id):
            return await self._store.drop_token(device_id, token, at_ms)

    async def drop_dead(self, token: PushToken, at_ms: int) -> bool:
        """As `drop_token`, for whatever device has the token; False if none has it for this topic and environment. Apple's word is
        about the token together with these: of another topic's push it says nothing about the device's own."""
        record = await self._store.device_of_token(token.token)
        known = None if record is None else record.push_token
        if record is None or known is None or (known.topic, known.sandbox) != (token.topic, token.sandbox):
            return False
        return await self.drop_token(record.device_id, token.token, at_ms)

    async def change(self, device_id: str, change: DeviceChange) -> bool:
        """Makes or changes a device; True if it was made. It may then be published to, also if it never connected.

        Raises Refused: SERIALIZATION_ERROR for an id or attribute that breaks a rule, FORBIDDEN for a user other than the one
        in the certificate of the device's connection, QUOTA_EXCEEDED, STORE_UNAVAILABLE.
        """
        _check(device_id, change)
        async with self._turns.of(device_id):
            known = await self._store.device(device_id)
            old = known or DeviceRecord(device_id, first_seen_ms=self._wall_ms())
            record = replace(
                old,
                user_id=old.user_id if change.user_id is None else change.user_id,
                attributes=old.attributes if change.attributes is None else dict(change.attributes),
            )
            certified = self._connections.certified_user(device_id)
            if certified and record.user_id != certified:
                raise Refused(Code.FORBIDDEN, f"the certificate of this device binds it to user {certified}")
            await self._store.remember_device(record)
            if record.user_id != old.user_id:
                await self._move(device_id, old.user_id, record.user_id)
                self._standing_changed(device_id)
            return known is None

    async def _move(self, device_id: str, old: str, new: str) -> None:
        if old:
            await self._leave_user(device_id, old)
        if new:  # what is published from now on is found by a device that is away
            channel = user_channel(new)
            head = await self._store.head(channel)
            place = CursorMove(device_id, channel, head.epoch, head.top_offset, at_ms=self._wall_ms(), begun=head.top_offset)
            await self._store.record((place,))
        await self._connections.rebind(device_id, new)
        if self._connections.get(device_id) is None:
            await self._elsewhere.tell(Order(OrderKind.REBIND, device_id, new))

    async def _leave_user(self, device_id: str, user_id: str) -> None:
        channel = user_channel(user_id)
        self._cursors.forget(device_id, channel)
        await self._store.forget_cursor(device_id, channel)

    async def describe(self, device_id: str) -> DeviceStatus:
        """What is known of a device. Raises Refused(UNKNOWN_RECIPIENT)."""
        record = await self._known(device_id)
        close = self._presence.last_close(device_id) or record.last_close or NO_CLOSE
        status = DeviceStatus(
            device_id,
            record.user_id,
            connected=False,
            attributes=record.attributes,
            first_seen_ms=record.first_seen_ms,
            last_seen_ms=max(record.last_seen_ms, close.at_ms),
            token_registered=record.push_token is not None,
            last_close_code=close.code,
            last_close_detail=close.detail,
            last_close_advice=close.advice,
            last_close_at_ms=close.at_ms,
        )
        connected = self._connections.get(device_id)
        if connected is None:
            return await self._not_here(status)
        attachment = connected.attachment
        info = attachment.info
        return replace(
            status,
            connected=True,
            session_id=info.session_id,
            address=info.address,
            connected_at_ms=connected.connected_at_ms,
            last_seen_ms=self._wall_ms(),
            app=info.app,
            app_version=info.app_version,
            state=attachment.state,
            round_trip=attachment.heartbeats.last,
            channels=attachment.cursors(),
        )

    async def _not_here(self, status: DeviceStatus) -> DeviceStatus:
        """Of a device that is away, or connected to another node, of which the store knows the session."""
        rows = await self._backlog.channels(status.device_id)
        cursors = tuple(ChannelCursor(row.channel, row.acknowledged, row.acknowledged, row.top) for row in rows)
        session = await self._elsewhere.session(status.device_id)
        if session is None:
            return replace(status, channels=cursors)
        return replace(
            status,
            connected=True,
            session_id=session.session_id,
            address=session.address,
            connected_at_ms=session.connected_at_ms,
            last_seen_ms=self._wall_ms(),
            app=session.app,
            app_version=session.app_version,
            channels=cursors,
        )

    async def disconnect(self, device_id: str, detail: str) -> bool:
        """Closes the device's connection (advice: reconnect), on whatever node; False if it has none. Raises StoreUnavailable."""
        if self._connections.close(device_id, detail):
            return True
        return await self._elsewhere.tell(Order(OrderKind.CLOSE, device_id, detail))

    async def subscriptions(self, device_id: str) -> Sequence[DurableSubscription]:
        """The channels that the device follows whenever it is connected. Raises Refused(UNKNOWN_RECIPIENT)."""
        await self._known(device_id)
        return await self._store.subscriptions(device_id)

    async def user_presence(self, user_id: str, limit: int) -> Sequence[Session]:
        """The user's devices that are connected. Raises Refused(UNKNOWN_RECIPIENT) for a user that no device is bound to."""
        sessions = await self._store.user_sessions(user_id, limit)
        if not sessions and not await self._store.devices_of_user(user_id, 1):
            raise Refused(Code.UNKNOWN_RECIPIENT, "no user of this id was ever seen")
        return sessions

    async def channel_presence(self, channel: str, limit: int) -> ChannelPresence:
        """Who follows the channel now. Raises Refused(UNKNOWN_RECIPIENT) for what is no name of a channel."""
        kind_of(channel)
        return await self._store.channel_presence(channel, limit)

    async def forget(self, device_id: str) -> bool:
        """Forgets the device: user, attributes, token, cursors, subscriptions, dead letters. False if it was not known.

        Its connection is closed. A device whose certificate is still good is remembered anew when it connects.
        """
        await self.disconnect(device_id, "the device was forgotten over the REST API")
        async with self._turns.of(device_id):
            self._cursors.forget_device(device_id)
            forgotten = await self._store.forget_device(device_id)
            self._standing_changed(device_id)
            return forgotten

    async def _known(self, device_id: str) -> DeviceRecord:
        record = await self._store.device(device_id)
        if record is None:
            raise unknown_device()
        return record


def _check(device_id: str, change: DeviceChange) -> None:
    if not is_id(device_id):
        raise _bad("the id of a device must be 1 to 128 characters of A-Z a-z 0-9 . _ ~ @ -")
    if change.user_id and not is_id(change.user_id):
        raise _bad("user_id must be empty or 1 to 128 characters of A-Z a-z 0-9 . _ ~ @ -")
    attributes = change.attributes or {}
    if len(attributes) > MAX_ATTRIBUTES:
        raise _bad(f"{len(attributes)} attributes, the limit is {MAX_ATTRIBUTES}")
    for name, value in attributes.items():
        if not 1 <= len(name.encode()) <= MAX_ATTRIBUTE_NAME_BYTES:
            raise _bad(f"the name of an attribute must have 1 to {MAX_ATTRIBUTE_NAME_BYTES} bytes")
        if len(value.encode()) > MAX_ATTRIBUTE_BYTES:
            raise _bad(f"the value of an attribute is above {MAX_ATTRIBUTE_BYTES} bytes")


def _bad(detail: str) -> Refused:
    return Refused(Code.SERIALIZATION_ERROR, detail)

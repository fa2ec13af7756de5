"""The devices that are connected to this node, each by its newest connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from streampush.protocol.codes import Code
from streampush.push.channels import user_channel
from streampush.push.delivery import Attachment, DeliverySurroundings
from streampush.push.ports import Link
from streampush.push.presence import Presence
from streampush.push.values import Close, ConnectionInfo, Principal, Session, SubscriptionRefused


@dataclass(frozen=True, slots=True)
class Connected:
    """One of them. `certified_user`: the user in its certificate, empty if it names none."""

    attachment: Attachment
    connected_at_ms: int
    certified_user: str


class Connections:
    """`follow` lets a connection follow one channel more, and tells the device so."""

    def __init__(
        self,
        surroundings: DeliverySurroundings,
        presence: Presence,
        run: str,
        wall_ms: Callable[[], int],
        follow: Callable[[Attachment, str], Awaitable[object]],
    ) -> None:
        self._surroundings = surroundings
        self._presence = presence
        self._run = run
        self._wall_ms = wall_ms
        self._follow = follow
        self._connected: dict[str, Connected] = {}
        self._overtaken: dict[str, int] = {}  # of connected devices: the newest generation elsewhere, while ours is not known

    def __len__(self) -> int:
        return len(self._connected)

    def get(self, device_id: str) -> Connected | None:
        """The device's connection, if it has one here."""
        return self._connected.get(device_id)

    def names(self, at_most: int) -> Iterator[str]:
        """Some of the devices."""
        return islice(self._connected, at_most)

    def attach(self, principal: Principal, link: Link, info: ConnectionInfo) -> Attachment:
        """A device has connected. An older connection of the same device is closed with REPLACED."""
        older = self._connected.get(principal.name)
        attachment = Attachment(principal, link, info, self._surroundings)
        connected = self._connected[principal.name] = Connected(attachment, self._wall_ms(), principal.user_id)
        self._presence.began(self._session(connected))
        if older is not None:
            older.attachment.detach()
            older.attachment.close(Code.REPLACED, f"replaced by session {info.session_id}")
        return attachment

    def detach(self, attachment: Attachment, close: Close) -> None:
        """The device's connection is gone, for this reason. Detaching twice is harmless."""
        attachment.detach(close.code)
        device_id = attachment.principal.name
        connected = self._connected.get(device_id)
        if connected is not None and connected.attachment is attachment:
            del self._connected[device_id]
            self._overtaken.pop(device_id, None)
            self._presence.ended(device_id, attachment.info.session_id, close)

    def close(self, device_id: str, detail: str) -> bool:
        """Closes the device's connection (advice: reconnect); False if it has none."""
        connected = self._connected.get(device_id)
        if connected is None:
            return False
        connected.attachment.close(Code.CONNECTION_TIMED_OUT, detail)
        return True

    # -------------------------------------------------------------------------------------------------------- one owner

    def replaced(self, device_id: str, generation: int) -> None:
        """The device has a session of this generation on another node: an older connection here is closed with REPLACED."""
        if device_id in self._connected:
            self._overtaken[device_id] = max(generation, self._overtaken.get(device_id, 0))
            self.begun(device_id, self._presence.generation(device_id))

    def begun(self, device_id: str, generation: int) -> None:
        """The store has given the device's session here this generation; 0: it has not yet."""
        newest = self._overtaken.get(device_id, 0)
        if not generation or not newest:
            return
        del self._overtaken[device_id]
        if newest > generation:
            self._connected[device_id].attachment.close(Code.REPLACED, "replaced by a session on another node")

    def overtaken(self, device_id: str, session_id: str) -> None:
        """The device has a session of a later connection on another node: if this one is still here, it is closed with REPLACED."""
        connected = self._connected.get(device_id)
        if connected is not None and connected.attachment.info.session_id == session_id:
            connected.attachment.close(Code.REPLACED, "replaced by a session on another node")

    def lost(self, device_id: str, generation: int) -> None:
        """The store has lost the session of this generation: without it the device would count as away."""
        connected = self._connected.get(device_id)
        if connected is not None:
            self._presence.lost(device_id, generation, connected.attachment.feeds)

    def generations(self) -> list[tuple[str, int]]:
        """The devices here whose sessions the store knows, with their generations."""
        known = ((device_id, self._presence.generation(device_id)) for device_id in self._connected)
        return [(device_id, generation) for device_id, generation in known if generation]

    # ------------------------------------------------------------------------------------------------------ whose it is

    def certified_user(self, device_id: str) -> str | None:
        """See devices.ConnectedDevices."""
        connected = self._connected.get(device_id)
        return None if connected is None else connected.certified_user

    def bound(self, principal: Principal) -> None:
        """The device was remembered with this user: it is what its connection counts for, before it follows anything."""
        connected = self._connected.get(principal.name)
        if connected is not None and connected.attachment.principal.user_id != principal.user_id:
            connected.attachment.principal = replace(connected.attachment.principal, user_id=principal.user_id)
            self._presence.began(self._session(connected), connected.attachment.feeds)

    async def rebind(self, device_id: str, user_id: str) -> None:
        """See devices.ConnectedDevices."""
        connected = self._connected.get(device_id)
        if connected is None:
            return
        attachment = connected.attachment
        old = attachment.principal.user_id
        if old == user_id:
            return
        self.bound(replace(attachment.principal, user_id=user_id))
        if old:
            detail = "the device is no longer bound to this user"
            attachment.end_unasked(SubscriptionRefused(user_channel(old), Code.NOT_SUBSCRIBED, detail))
        if user_id:
            await self._follow(attachment, user_channel(user_id))

    def _session(self, connected: Connected) -> Session:
        attachment = connected.attachment
        principal, info = attachment.principal, attachment.info
        return Session(
            principal.name,
            info.session_id,
            self._run,
            principal.user_id,
            info.address,
            info.app,
            info.app_version,
            connected.connected_at_ms,
        )

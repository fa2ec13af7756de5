"""What this node does with what it hears of others: see `bus`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streampush.errors import Refused, StoreUnavailable
from streampush.push.bus import Order, OrderKind
from streampush.push.connections import Connections
from streampush.push.fanout import FanOut
from streampush.push.ports import Spawner
from streampush.push.service import PushService
from streampush.push.store_ports import PresenceStore
from streampush.push.values import Appended, Principal

LOOK_AT = 500
"""Sessions that the store is asked about at a time."""


class NodeHearing:
    """See bus.Hearing. `clock` gives monotonic seconds; `retry_later` calls its argument after a pause."""

    def __init__(
        self,
        service: PushService,
        store: PresenceStore,
        *,
        clock: Callable[[], float],
        spawn: Spawner,
        retry_later: Callable[[Callable[[], None]], object],
    ) -> None:
        self._service = service
        self._fanout: FanOut = service.fanout
        self._connections: Connections = service.connections
        self._store = store
        self._clock = clock
        self._spawn = spawn
        self._retry_later = retry_later
        self._looking = False
        self._look_again = False

    def heard(self, appended: Appended) -> None:
        """See bus.Hearing. What this node has published itself it knows already."""
        publication = appended.publication
        if publication.offset > self._fanout.top(publication.channel, appended.epoch):
            self._fanout.appended(appended, self._clock())

    def seen(self, channel: str, epoch: str, top: int) -> None:
        """See bus.Hearing."""
        self._fanout.seen(channel, epoch, top)

    def changed(self, message_id: str) -> None:
        """See bus.Hearing."""
        self._service.receipts.changed(message_id)

    def ordered(self, order: Order) -> None:
        """See bus.Hearing."""
        if order.kind is OrderKind.REPLACED:
            self._connections.replaced(order.device_id, order.number)
        elif order.kind is OrderKind.CLOSE:
            self._connections.close(order.device_id, order.text)
        elif order.kind is OrderKind.LEAVE:
            self._service.subscriptions.leave_removed(order.device_id, order.text)
        elif order.kind is OrderKind.FOLLOW or order.kind is OrderKind.REBIND:
            self._spawn(self._try(order))

    async def _try(self, order: Order) -> None:
        """What is ordered is stored already, so that a device that has left, or a store that is away, does no harm: it holds from
        the next connection on."""
        try:
            if order.kind is OrderKind.FOLLOW:
                await self._service.subscriptions.follow_added(order.device_id, order.text)
            else:
                await self._rebind(order.device_id, order.text)
        except Refused:
            return

    async def _rebind(self, device_id: str, user_id: str) -> None:
        """The user in the certificate of a device that is connected wins."""
        certified = self._connections.certified_user(device_id)
        if certified and certified != user_id:
            await self._service.remember(Principal("device", device_id, certified))
        else:
            await self._connections.rebind(device_id, user_id)

    def back(self) -> None:
        """See bus.Hearing: devices may have connected elsewhere meanwhile, and count as away if the store lost their sessions."""
        self._look_again = True
        if not self._looking:
            self._looking = True
            self._spawn(self._look())

    async def _look(self) -> None:
        try:
            while self._look_again:
                self._look_again = False
                await self._service.presence.renew()  # first: others may be about to take away what this node has left
                here = self._connections.generations()
                for first in range(0, len(here), LOOK_AT):
                    await self._look_at(here[first : first + LOOK_AT])
        except StoreUnavailable:
            self._retry_later(self.back)
        finally:
            self._looking = False

    async def _look_at(self, sessions: Sequence[tuple[str, int]]) -> None:
        asked = dict(sessions)
        for device_id, newest in await self._store.newer_sessions(sessions):
            if newest:
                self._connections.replaced(device_id, newest)
            else:
                self._connections.lost(device_id, asked[device_id])

"""What is to be done with the connection of a device that another node has."""

from __future__ import annotations

from streampush.push.bus import Bus, Order
from streampush.push.store_ports import PresenceStore
from streampush.push.values import Session


class Elsewhere:
    """Finds the node that a device is connected to. `node` is this one's name."""

    def __init__(self, store: PresenceStore, bus: Bus, node: str) -> None:
        self._store = store
        self._bus = bus
        self._node = node

    async def session(self, device_id: str) -> Session | None:
        """The device's session on another node. Raises StoreUnavailable."""
        if not self._bus.shared:
            return None
        session = await self._store.session(device_id)
        return None if session is None or session.node == self._node else session

    async def tell(self, order: Order) -> bool:
        """Sends the order to the node of its device; False if the device is not connected to another one.

        It is a hint: what must hold for the device is stored before. Raises StoreUnavailable.
        """
        session = await self.session(order.device_id)
        if session is None:
            return False
        self._bus.tell(session.node, order)
        return True

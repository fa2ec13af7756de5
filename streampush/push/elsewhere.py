"""What is to be done with the connection of a device that another process has."""

from __future__ import annotations

from streampush.push.bus import Bus, Order
from streampush.push.store_ports import PresenceStore
from streampush.push.values import Session


class Elsewhere:
    """Finds the process that a device is connected to. `run` is this one, see values.run_name."""

    def __init__(self, store: PresenceStore, bus: Bus, run: str) -> None:
        self._store = store
        self._bus = bus
        self._run = run

    async def session(self, device_id: str) -> Session | None:
        """The device's session in another process, of this node or another. Raises StoreUnavailable."""
        if not self._bus.shared:
            return None
        session = await self._store.session(device_id)
        return None if session is None or session.run == self._run else session

    async def tell(self, order: Order) -> bool:
        """Sends the order to the process that has its device; False if no other one has.

        It is a hint: what must hold for the device is stored before. Raises StoreUnavailable.
        """
        session = await self.session(order.device_id)
        if session is None:
            return False
        self._bus.tell(session.run, order)
        return True

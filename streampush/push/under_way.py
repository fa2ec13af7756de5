"""Pushes that the sender has, and has perhaps not written yet: they are taken back when they are not wanted any more.

A push may wait with the sender for a connection, for room or for its next try, for as long as the sender takes for one answer. What
is taken back meanwhile is answered as not sent and to be looked at again at once; that look finds that it is over, or the device's
new token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from streampush.push.values import CursorMove, MessageRecord, PushOrder


class UnderWay:
    """Knows them from `begin` to `end`. `withdraw` takes back the push of that id, if it can be: see PushSender."""

    def __init__(self, withdraw: Callable[[str], None]) -> None:
        self._withdraw = withdraw
        self._by_device: dict[str, dict[str, tuple[PushOrder, MessageRecord]]] = {}

    def begin(self, order: PushOrder, record: MessageRecord) -> None:
        """The sender is about to have it."""
        self._by_device.setdefault(order.device_id, {})[order.push_id] = order, record

    def end(self, order: PushOrder) -> None:
        """The sender has answered."""
        orders = self._by_device[order.device_id]
        del orders[order.push_id]
        if not orders:
            del self._by_device[order.device_id]

    def orders(self) -> Iterator[PushOrder]:
        """All that the sender has."""
        return (order for orders in self._by_device.values() for order, _ in orders.values())

    def withdraw(self, order: PushOrder) -> None:
        """It is not wanted any more. Harmless if the sender has answered meanwhile."""
        if order.push_id in self._by_device.get(order.device_id, ()):
            self._withdraw(order.push_id)

    def acknowledged(self, moves: Iterable[CursorMove]) -> None:
        """Devices have reached these places."""
        if not self._by_device:
            return
        for move in moves:
            for order, record in tuple(self._by_device.get(move.device_id, {}).values()):
                if record.channel == move.channel and record.epoch == move.epoch and record.offset <= move.offset:
                    self._withdraw(order.push_id)

    def recalled(self, message_id: str) -> None:
        """The message is taken back."""
        found = [id_ for orders in self._by_device.values() for id_, (order, _) in orders.items() if order.message_id == message_id]
        for push_id in found:
            self._withdraw(push_id)

    def changed(self, device_id: str) -> None:
        """The device has another push token, or none any more, or belongs to somebody else."""
        for push_id in tuple(self._by_device.get(device_id, ())):
            self._withdraw(push_id)

"""What nodes tell each other: that something was appended, that something became of a message, and what the node that a device is
connected to is to do with it.

All of it is a hint. It may be lost, repeated or late: the log is the truth of what was published, its receipts of what became of
that, the store's session of where a device is. So nothing is wrong without a bus but time, and one process has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from streampush.push.values import Appended


class OrderKind(StrEnum):
    """What a node is asked to do."""

    REPLACED = "replaced"
    """The device has a session elsewhere whose generation is `number`: an older one here is over."""
    CLOSE = "close"
    """The device's connection is to be closed, for the reason `text`."""
    REBIND = "rebind"
    """The device is bound to the user `text` from now on."""
    FOLLOW = "follow"
    """The device is subscribed to the channel `text` for good."""
    LEAVE = "leave"
    """A backend has ended the device's subscription to the channel `text`."""


@dataclass(frozen=True, slots=True)
class Order:
    """Something to be done with one device's connection, where it is."""

    kind: OrderKind
    device_id: str
    text: str = ""
    number: int = 0


class Bus(Protocol):
    """The way to and from other nodes. Nothing here waits or raises."""

    @property
    def shared(self) -> bool:
        """Whether there may be other nodes, so that what they do has to be looked for."""

    def interest(self, channel: str, follows: bool) -> None:
        """Somebody on this node follows the channel from now on, or nobody does."""

    def watch(self, message_id: str, watched: bool) -> None:
        """Somebody on this node wants to know what becomes of the message, or nobody does any more."""

    def tell(self, run: str, order: Order) -> None:
        """Sends an order to another process: a run of a node, see values.run_name."""


class Hearing(Protocol):
    """What a node does with what it hears."""

    def heard(self, appended: Appended) -> None:
        """A publication is new in a log that is followed here."""

    def seen(self, channel: str, epoch: str, top: int) -> None:
        """The state of a log that is followed here."""

    def changed(self, message_id: str) -> None:
        """Something may have become of a message that is watched here."""

    def ordered(self, order: Order) -> None:
        """Another node, or the store, asks for this."""

    def back(self) -> None:
        """Orders may have been lost until now, and the store may have lost who is connected."""


class NoBus:
    """For the only process there is."""

    shared = False

    def interest(self, channel: str, follows: bool) -> None:
        """Nobody else appends."""

    def watch(self, message_id: str, watched: bool) -> None:
        """Nobody else has devices."""

    def tell(self, run: str, order: Order) -> None:
        """There is nobody else."""

"""Where an application is on each channel, kept over connections and, with a store of its own, over restarts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from streampush.protocol.messages import Position


class PositionStore(Protocol):
    """Called on the reactor's thread after every processed message: be quick.

    What `load` gives is subscribed to again, so subscriptions live as long as the store. An exception in `save` or `forget` is
    reported as a Fault; the message is then delivered again after a restart.
    """

    def load(self) -> Mapping[str, Position]:
        """The positions by channel; called once, when the client is made."""

    def save(self, channel: str, position: Position) -> None:
        """The application has processed everything of the channel up to the position."""

    def forget(self, channel: str) -> None:
        """The channel is no longer followed."""


class MemoryPositions:
    """Positions that live as long as the process."""

    def __init__(self, positions: Mapping[str, Position] | None = None) -> None:
        self._positions = dict(positions or {})

    def load(self) -> Mapping[str, Position]:
        return dict(self._positions)

    def save(self, channel: str, position: Position) -> None:
        self._positions[channel] = position

    def forget(self, channel: str) -> None:
        self._positions.pop(channel, None)

"""What this room asks of others."""

from __future__ import annotations

from typing import Protocol

from streampush.apns.link_state import LinkState
from streampush.apns.outcome import Why


class ApnsMetrics(Protocol):
    """Counters of a pool's rare events; what there is at the moment `Pool.figures` tells. All values are few, so they can be
    labels.
    """

    def link_moved(self, old: LinkState | None, new: LinkState) -> None:
        """A connection began (`old` None) or went on to another state."""

    def link_failed(self, permanent: bool) -> None:
        """A connection ended before it was of any use."""

    def gone_away(self, code: str) -> None:
        """A server sent GOAWAY; `code`: the RFC's name or "other"."""

    def returned(self, why: Why, again: bool) -> None:
        """A request ended without an answer; `again`: it is sent once more."""


class NoMetrics:
    """Counts nothing."""

    def link_moved(self, old: LinkState | None, new: LinkState) -> None:
        pass

    def link_failed(self, permanent: bool) -> None:
        pass

    def gone_away(self, code: str) -> None:
        pass

    def returned(self, why: Why, again: bool) -> None:
        pass

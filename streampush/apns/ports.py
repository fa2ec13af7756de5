"""What this room asks of others."""

from __future__ import annotations

from typing import Protocol

from streampush.apns.link_state import LinkState
from streampush.apns.outcome import Why


class ApnsMetrics(Protocol):
    """Counters of rare events, and the time that pushes take; what there is at the moment, and how much was delivered, `figures` of
    pool and client tell. All words are few, so they can be labels.

    `app`: its name in the configuration. `outcome`, `reason`: see client_figures.named.
    """

    def link_moved(self, old: LinkState | None, new: LinkState) -> None:
        """A connection began (`old` None) or went on to another state."""

    def link_failed(self, permanent: bool) -> None:
        """A connection ended before it was of any use."""

    def gone_away(self, code: str) -> None:
        """A server sent GOAWAY; `code`: the RFC's name or "other"."""

    def returned(self, why: Why, again: bool) -> None:
        """A request ended without an answer; `again`: it is sent once more."""

    def push_delivered(self, waited: float, answered: float) -> None:
        """Apple took a push: `waited` seconds until it had its stream, repeats included, and `answered` seconds more."""

    def push_ended(self, app: str, outcome: str, reason: str) -> None:
        """A push ended, and was not delivered."""

    def push_repeated(self, app: str, outcome: str, reason: str) -> None:
        """A push ended like that for now; it will be tried again."""

    def order_put_off(self, app: str) -> None:
        """A push from the outbox had no place, because its app has as many under way as it may; it comes again."""

    def broadcast_ended(self, app: str, request: str, outcome: str, reason: str) -> None:
        """A request about a channel for Live Activities ended: create, list, read, delete or publish; "done" or as a push."""

    def credential_stopped(self, app: str, reason: str) -> None:
        """Apple refuses the app's key or certificate; nothing goes out until it is replaced."""

    def clock_skewed(self, seconds: float) -> None:
        """Our clock differs from Apple's by so much, or does so no more; above 0: ours is behind."""


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

    def push_delivered(self, waited: float, answered: float) -> None:
        pass

    def push_ended(self, app: str, outcome: str, reason: str) -> None:
        pass

    def push_repeated(self, app: str, outcome: str, reason: str) -> None:
        pass

    def order_put_off(self, app: str) -> None:
        pass

    def broadcast_ended(self, app: str, request: str, outcome: str, reason: str) -> None:
        pass

    def credential_stopped(self, app: str, reason: str) -> None:
        pass

    def clock_skewed(self, seconds: float) -> None:
        pass

"""Waiting until replicas have what was written: what makes a publication REPLICATED.

Redis answers a write before its replicas have it. `WAIT` says how many have everything that *its own connection* wrote before; so
it must go over the connection that wrote, and an answer that wrote nothing (a known idempotency key) must write something first,
or it would be confirmed by a connection that knows of nothing to wait for.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from streampush.errors import StoreUnavailable


class ReplicatingLink(Protocol):
    """The connection that writes: streampush.store.redis.link.RedisLink. Only those who wait for replicas may use it: all that
    comes behind a WAIT waits, too."""

    made: int
    """Connections made so far."""

    def command(self, *parts: bytes | str | int) -> Awaitable[Any]:
        """See link.RedisLink.command."""


class Replication:
    """Asks for `replicas` of them, each time for at most `timeout` seconds."""

    def __init__(self, link: ReplicatingLink, *, replicas: int, timeout: float) -> None:
        self.link = link
        self._replicas = replicas
        self._timeout = timeout
        self._waiting: list[Deferred[int]] | None = None  # for the answer to the WAIT that is under way

    async def confirm(self) -> None:
        """Returns when what was answered on the link just now is on so many replicas. Raises StoreUnavailable: it is stored, and
        may be lost with the master.

        Called when the answer is there, and at once: then every other answer since the last WAIT is confirmed by the same one.
        """
        made = self.link.made
        found = await self._ask()
        if made != self.link.made:
            raise StoreUnavailable("stored, but the connection to Redis was lost before its replicas confirmed it")
        if found < self._replicas:
            raise StoreUnavailable(
                f"stored, but {found} of {self._replicas} replicas confirmed it in {self._timeout:g} s (store.replicas):"
                " publish it again with the same idempotency key"
            )

    def _ask(self) -> Deferred[int]:
        """How many replicas have it. One WAIT at a time: an answer that comes before that of a WAIT was written before it, because
        Redis answers a connection in order."""
        joined: Deferred[int] = Deferred()
        if self._waiting is not None:
            self._waiting.append(joined)
            return joined
        self._waiting = [joined]
        asked = Deferred.fromCoroutine(self._wait())
        asked.addBoth(self._answer)
        return joined

    async def _wait(self) -> int:
        found = await self.link.command("WAIT", self._replicas, max(1, int(self._timeout * 1000)))
        if isinstance(found, Exception):
            raise StoreUnavailable("stored, but Redis does not say whether its replicas have it")
        return int(found)

    def _answer(self, outcome: Any) -> None:
        waiting, self._waiting = self._waiting or (), None
        for joined in waiting:
            joined.callback(outcome)  # a Failure goes to its errback

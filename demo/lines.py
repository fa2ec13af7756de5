"""How the demo's own processes listen and talk: lines on stdin, lines of JSON on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure


def tell(event: str, **fields: object) -> None:
    """One line for the demo."""
    sys.__stdout__.write(json.dumps({"event": event, **fields}) + "\n")  # type: ignore[union-attr]  # there is a stdout
    sys.__stdout__.flush()  # type: ignore[union-attr]  # likewise


class Commands(LineReceiver):
    """What the demo wants: `obey` is given each line; if it fails, that is told, and nothing more is read."""

    delimiter = b"\n"

    def __init__(self, obey: Callable[[bytes], Awaitable[None]]) -> None:
        self._obey = obey
        self._ended: Deferred[None] = Deferred()

    async def until_the_end(self) -> None:
        """Obeys until stdin ends."""
        StandardIO(self)  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        await self._ended

    def lineReceived(self, line: bytes) -> None:
        async def obey() -> None:
            await self._obey(line)

        Deferred.fromCoroutine(obey()).addErrback(self._failed)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended.callback(None)

    def _failed(self, failure: Failure) -> None:
        tell("failed", error=failure.getErrorMessage())

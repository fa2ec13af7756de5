"""What `streampush publish` says while a message waits: for the server, or for what the server itself waits for."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall

from streampush.cli.exits import describe_code
from streampush.cli.outgoing import PublishRefused
from streampush.cli.words import counted, shown

SILENT_FOR: Final = 1.0
"""Seconds that a message waits before anything is said: most waits are over by then."""

SAME_AGAIN: Final = 10.0
"""Seconds before the same cause is named again, so that thousands of messages that each wait do not fill a screen."""


class Patience:
    """Hears how each message fares, from `begin` to `end`, and tells `say` what it waits for and until when, a line each time.

    `clock`: an IReactorTime. `answer_timeout`: seconds that an answer is waited for. `wall`: Unix seconds.
    """

    def __init__(
        self, clock: Any, say: Callable[[str], None], *, answer_timeout: float, wall: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._say = say
        self._answer_timeout = answer_timeout
        self._wall = wall
        self._alarm: IDelayedCall | None = None
        self._cause = ""
        self._words = ""
        self._until = 0.0  # wall time
        self._told = ""
        self._told_at = 0.0

    def begin(self) -> None:
        """The server is asked to take a message."""
        self._cause = self._words = "waits for the server's answer"
        self._until = self._wall() + self._answer_timeout
        self._alarm = self._clock.callLater(SILENT_FOR, self._tell)

    def refused(self, error: PublishRefused, tries: int, seconds: float) -> None:
        """It was refused, and will be tried so many times more, which will take so long if nothing changes."""
        self._cause = describe_code(error.code, error.advice, error.detail)
        self._words = f"waits: {self._cause}; tries again, {counted(tries, 'time')} at most"
        self._until = self._wall() + seconds
        if self._alarm is None or not self._alarm.active():
            self._tell()

    def end(self) -> None:
        """Whatever became of it, it waits no more."""
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        self._alarm = None

    def _tell(self) -> None:
        now = self._clock.seconds()
        if self._cause == self._told and now < self._told_at + SAME_AGAIN:
            return
        self._told, self._told_at = self._cause, now
        until = datetime.fromtimestamp(self._until, UTC)
        self._say(f"{shown(self._words)}, until about {until:%H:%M:%S} UTC")

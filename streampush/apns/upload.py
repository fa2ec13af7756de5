"""The body of a request, from a producer: collected first if it is short, else written as the windows allow."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IProducer
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from streampush.apns.agent_errors import BodyFailed


@implementer(IConsumer)
class Upload:
    """Takes what the producer writes. `write`: is given each part; `done`: is called at the end, with None or why it failed.

    The part that makes a body too long is not passed on. After `stop` nothing is called any more.
    """

    def __init__(self, producer: IBodyProducer, write: Callable[[bytes], None], done: Callable[[BodyFailed | None], None]) -> None:
        self._producer = producer
        self._write = write
        self._done = done
        self._written = 0
        self._length: int | None = None if producer.length == UNKNOWN_LENGTH else int(producer.length)
        self._started = False
        self._paused = False
        self._over = False

    def start(self) -> None:
        """Lets the producer begin; `write` and `done` may be called before this returns."""
        self._started = True
        producing: Deferred[None] = self._producer.startProducing(self)  # type: ignore[no-untyped-call]  # of zope interfaces
        producing.addCallbacks(self._produced, self._broken)

    def pause(self) -> None:
        """There is no room."""
        if not self._over and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def resume(self) -> None:
        """There is room again."""
        if not self._over and self._paused:
            self._paused = False
            self._producer.resumeProducing()

    def stop(self) -> None:
        """Nobody wants the rest."""
        if not self._over:
            self._over = True
            if self._started:  # one that never began need not know how to stop
                self._producer.stopProducing()  # type: ignore[no-untyped-call]  # as above

    def write(self, data: bytes) -> None:
        """For the producer."""
        if self._over:
            return
        if self._length is not None and self._written + len(data) > self._length:
            self.stop()
            self._done(BodyFailed(f"the body is longer than the {self._length} bytes that were announced"))
            return
        self._written += len(data)
        if data:
            self._write(data)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Producers of bodies do not call it."""

    def unregisterProducer(self) -> None:
        """Producers of bodies do not call it."""

    def _produced(self, _result: object) -> None:
        if self._over:
            return
        self._over = True
        if self._length is not None and self._written != self._length:
            text = f"the body has {self._written} of the {self._length} bytes that were announced"
            self._done(BodyFailed(text))
        else:
            self._done(None)

    def _broken(self, reason: Failure) -> None:
        if self._over:
            return
        self._over = True
        error = BodyFailed(f"the producer of the body failed: {type(reason.value).__name__}")
        error.__cause__ = reason.value
        self._done(error)

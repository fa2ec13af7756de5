"""The connection to Redis: one, on which commands follow each other without waiting, found again whenever it is lost.

Commands of one turn of the reactor leave in one piece, because Twisted writes a socket once a turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from streampush.backoff import doubled
from streampush.errors import StoreUnavailable
from streampush.store.redis.connecting import Connector, RedisConnection, Unreachable
from streampush.store.redis.scripts import trouble_of

FIRST_PAUSE = 0.1
"""Seconds before the second try, at most; doubled with each. The pause is a random part of that: nodes do not come all at once."""

LONGEST_PAUSE = 5.0
"""Seconds. Redis is back for a while at most before it is found."""

WATCH_INTERVAL = 0.5
"""Seconds between two looks at how long the oldest command waits."""

QUIET = 5.0
"""Seconds without a command after which a PING goes out, so that a connection that is dead is found before it is needed."""

_CHANGED_ROLE = ("READONLY", "MASTERDOWN")
"""Errors of a Redis that is not the master any more: another one is."""


LINK_FAULTS = ("connection", "silent", "refused")
"""Kinds of faults: the connection was lost or could not be made; Redis did not answer in time; it would not have us."""


class LinkMetrics(Protocol):
    """What is counted of the connection to Redis."""

    def store_fault(self, kind: str) -> None:
        """The connection was lost or could not be made; `kind` is one of LINK_FAULTS, or "other"."""

    def redis_connected(self) -> None:
        """A connection was made and may be used."""


class RedisLink:
    """Takes commands between `start` and `stop`.

    `prepare` is run on each new connection before it is used: what it raises ends that connection. `timeout`: seconds without an
    answer after which a connection counts as dead; `wait`: seconds that a command may wait for a connection, 0: it fails at
    once; `max_queue`: commands under way and waiting. `uniform` gives a random number from 0 to 1.
    """

    _log = Logger(namespace="streampush.store")

    def __init__(
        self,
        clock: Any,
        connector: Connector,
        metrics: LinkMetrics,
        uniform: Callable[[], float],
        *,
        prepare: Callable[[RedisConnection], Coroutine[Any, Any, None]] | None = None,
        timeout: float = 5.0,
        wait: float = 0.0,
        max_queue: int = 10_000,
    ) -> None:
        self._reason = "no connection to Redis has been made yet"
        self.made = 0
        """Connections made so far: what two answers say together holds only if they came over the same one."""
        self._clock = clock
        self._connector = connector
        self._metrics = metrics
        self._uniform = uniform
        self._prepare = prepare
        self._timeout = timeout
        self._wait = wait
        self._max_queue = max_queue
        self._connection: RedisConnection | None = None
        self._waiting: deque[_Wait] = deque()
        self._tries = 0
        self._running = False
        self._attempt: Deferred[None] | None = None
        self._call: IDelayedCall | None = None
        self._watch: IDelayedCall | None = None
        self._told = ""  # what the log was last told to be wrong
        self._since = 0.0

    # ------------------------------------------------------------------------------------------------------ start and stop

    def start(self) -> None:
        """Begins to look for Redis."""
        self._running = True
        self._since = self._clock.seconds()
        self._watch = self._clock.callLater(WATCH_INTERVAL, self._look)
        self._connect()

    async def stop(self) -> None:
        """Ends the connection; what waits for an answer fails."""
        self._running = False
        for call in (self._call, self._watch):
            if call is not None:
                call.cancel()
        self._call = self._watch = None
        self._give_up_waiting("the server stops", lambda wait: True)
        if self._attempt is not None:
            self._attempt.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @property
    def waiting(self) -> int:
        """Commands without an answer so far."""
        return len(self._waiting) + (0 if self._connection is None else self._connection.waiting)

    @property
    def reason(self) -> str:
        """Why there is no connection; "": there is one."""
        return self._connection.why if self._connection is not None else self._reason

    @property
    def connected(self) -> bool:
        """Whether commands go out at once."""
        return self._connection is not None and not self._connection.why

    def drop(self, reason: str) -> None:
        """Ends the connection, which is of no use for this reason; another one is looked for."""
        if self._connection is not None:
            self._connection.abort(reason)

    # ------------------------------------------------------------------------------------------------------------ commands

    def command(self, *parts: bytes | str | int) -> Awaitable[Any]:
        """The answer to one command: bytes, whole numbers, lists of them, None; an error of Redis is a value, too.

        Raises StoreUnavailable: without a connection, with too much under way, or if the connection ends before the answer; then
        it is not known whether Redis has done it.
        """
        if self.waiting >= self._max_queue:
            return fail(StoreUnavailable(f"{self.waiting} operations wait for Redis, as many as may (store.max_queue)"))
        if self._connection is not None and not self._connection.why:
            return self._send(self._connection, parts)
        if not self._wait or not self._running:
            return fail(StoreUnavailable(f"Redis is away: {self.reason}"))
        wait = _Wait(self._clock.seconds() + self._wait, parts)
        self._waiting.append(wait)
        return wait.answer

    def _send(self, connection: RedisConnection, parts: tuple[bytes | str | int, ...]) -> Deferred[Any]:
        answer = connection.command(*parts)

        def look(reply: Any) -> Any:
            if isinstance(reply, Exception) and str(reply).lstrip().startswith(_CHANGED_ROLE):
                connection.abort(trouble_of(str(reply).lstrip()))
            return reply

        return answer.addCallback(look)

    # ---------------------------------------------------------------------------------------------------------- connecting

    def _connect(self) -> None:
        self._call = None
        self._attempt = Deferred.fromCoroutine(self._try())
        self._attempt.addErrback(self._failed)

    async def _try(self) -> None:
        connection = await self._connector.connect()
        try:
            if self._prepare is not None:
                await self._prepare(connection)
        except BaseException:
            connection.abort("it could not be prepared")
            raise
        if connection.ended:
            raise Unreachable("the connection was lost")
        self._attempt = None
        self._connected(connection)

    def _connected(self, connection: RedisConnection) -> None:
        self._tries = 0
        self.made += 1
        self._connection = connection
        connection.closed.addCallback(self._lost)
        self._metrics.redis_connected()
        if self._told:
            seconds = self._clock.seconds() - self._since
            self._log.info("Redis is there again, after {seconds:.1f} s: {place}", seconds=seconds, place=connection.place)
        else:
            self._log.info("connected to Redis: {place}", place=connection.place)
        self._reason = self._told = ""
        while self._waiting and not connection.why:
            wait = self._waiting.popleft()
            self._send(connection, wait.parts).chainDeferred(wait.answer)

    def _lost(self, reason: str) -> None:
        if self._connection is None:
            return  # it was ended by `stop`
        self._connection = None
        self._since = self._clock.seconds()
        self._metrics.store_fault("silent" if "answer" in reason else "connection")
        self._tell(reason)
        self._again()

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        if not self._running:
            return
        error = failure.value
        if isinstance(error, (Unreachable, StoreUnavailable)):
            self._metrics.store_fault("refused" if isinstance(error, Unreachable) and error.refused else "connection")
            self._tell(str(error) if isinstance(error, Unreachable) else error.detail)
        else:
            self._metrics.store_fault("other")
            self._log.failure("preparing a connection to Redis failed", failure=failure)
            self._reason = "a connection to Redis could not be prepared"
        self._again()

    def _tell(self, reason: str) -> None:
        self._reason = reason
        if reason != self._told:  # it is tried again and again: one line is enough
            self._log.error("Redis is away: {problem}", problem=reason)
            self._told = reason

    def _again(self) -> None:
        if self._running:
            pause = doubled(FIRST_PAUSE, self._tries, LONGEST_PAUSE) * self._uniform()
            self._tries += 1
            self._call = self._clock.callLater(pause, self._connect)

    # ------------------------------------------------------------------------------------------------------------- watching

    def _look(self) -> None:
        self._watch = self._clock.callLater(WATCH_INTERVAL, self._look)
        now = self._clock.seconds()
        self._give_up_waiting(f"Redis is away: {self.reason}", lambda wait: wait.until <= now)
        connection = self._connection
        if connection is None:
            return
        silent = connection.silent_for(now)
        if connection.waiting:
            if silent > self._timeout:
                connection.abort(f"it has not answered for {silent:.1f} s (store.timeout)")
        elif silent > QUIET:
            connection.command("PING").addErrback(lambda _: None)  # the loss of the connection is told elsewhere

    def _give_up_waiting(self, reason: str, over: Callable[[_Wait], bool]) -> None:
        while self._waiting and over(self._waiting[0]):
            self._waiting.popleft().answer.errback(StoreUnavailable(reason))


class _Wait:
    """A command that waits for a connection."""

    __slots__ = ("answer", "parts", "until")

    def __init__(self, until: float, parts: tuple[bytes | str | int, ...]) -> None:
        self.until = until
        self.parts = parts
        self.answer: Deferred[Any] = Deferred()


def no_metrics() -> LinkMetrics:
    """For connections that nobody watches, such as a command's."""
    return _NoMetrics()


class _NoMetrics:
    def store_fault(self, kind: str) -> None:
        """Nobody counts."""

    def redis_connected(self) -> None:
        """Nobody counts."""


__all__ = ["LinkMetrics", "RedisLink", "no_metrics"]

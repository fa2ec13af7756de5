"""How a connection to Redis is made: the address, by sentinels if need be, TLS, who we are, and whether it is the master."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hiredis import pack_command
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionDone, DNSLookupError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from txredisapi import ConnectionError as LostConnection
from txredisapi import RedisProtocol

from streampush.errors import StoreUnavailable
from streampush.redis_url import RedisAddress
from streampush.store.redis.scripts import words_of
from streampush.tls_clients import is_untrusted, is_wrong_name, openssl_reasons, refuses_us

CONNECT_TIMEOUT = 5.0
"""Seconds for TCP and TLS to one host."""

ANSWER_TIMEOUT = 5.0
"""Seconds for each answer while a connection is made."""

CLIENT_NAME = "streampush"
"""What CLIENT LIST shows for us."""


C = TypeVar("C", bound="RedisConnection")


class Unreachable(Exception):
    """Why Redis cannot be used now; `str()` is safe to log. `refused`: it answered, and would not have us."""

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


class _Protocol(RedisProtocol):  # type: ignore[misc]  # txredisapi has no types
    """Tells its end, and when it last heard something. Texts are bytes, numbers are what Redis says are numbers."""

    def __init__(self, clock: Any) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self.clock = clock
        self.heard = clock.seconds()
        self.ended: Deferred[str] = Deferred()
        self.why = ""
        self._asked: deque[Deferred[Any]] = deque()

    @property
    def waiting(self) -> int:
        """Commands without an answer so far."""
        return len(self._asked)

    def ask(self, parts: tuple[bytes | str | int, ...]) -> Deferred[Any]:
        """As `execute_command`, of which a command of a busy node took a quarter of its time: packed in C, with one Deferred. An
        error of Redis, and the loss of the connection, are values.

        Whoever cancels it has only stopped waiting: the answer comes, and is nobody else's. (A DeferredQueue, where txredisapi has
        who waits, would give it to the next command, and so on: each would get another one's.)
        """
        self.transport.write(_packed(parts))
        answer: Deferred[Any] = Deferred()
        self._asked.append(answer)
        return answer

    def replyReceived(self, reply: Any) -> None:
        if self._asked:
            self._asked.popleft().callback(reply)
        else:
            self.unasked(reply)

    def unasked(self, reply: Any) -> None:
        """What nobody has asked for would be taken for the answer to the next command: the connection is of no use any more."""
        error = f": {words_of(reply)}" if isinstance(reply, Exception) else ""
        self.abort(f"it said what nobody had asked for{error}")

    def abort(self, reason: str) -> None:
        """Ends the connection at once; the first reason stands."""
        self.why = self.why or reason
        self.transport.abortConnection()

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        self.heard = self.clock.seconds()
        super().dataReceived(data, unpause)

    def connectionLost(self, why: Failure) -> None:
        self.why = self.why or _words(why.value)
        super().connectionLost(why)
        while self._asked:
            self._asked.popleft().callback(LostConnection("Lost connection"))
        self.ended.callback(self.why)


class _SubscriberProtocol(_Protocol):
    """What is published goes to `message`, a subscription that has begun to `answered`; answers to commands as ever."""

    def __init__(self, clock: Any, message: Callable[[bytes, bytes], None], answered: Callable[[bytes], None]) -> None:
        super().__init__(clock)
        self._message = message
        self._answered = answered

    def replyReceived(self, reply: Any) -> None:
        kind = reply[0] if isinstance(reply, list) and len(reply) == 3 else None
        if kind == b"message":
            self._message(reply[1], reply[2])
        elif kind == b"subscribe":
            self._answered(reply[1])
        elif kind != b"unsubscribe":
            super().replyReceived(reply)

    def unasked(self, reply: Any) -> None:
        """SUBSCRIBE has no answer of its own but an error."""
        if isinstance(reply, Exception):
            self.abort(f"it refuses SUBSCRIBE: {words_of(reply)}")
        else:
            super().unasked(reply)


class RedisConnection:
    """One connection. `closed` fires with the reason when it has ended; `place`: where it leads to, for logs."""

    def __init__(self, protocol: _Protocol, place: str) -> None:
        self.place = place
        self.closed: Deferred[str] = Deferred()
        self.ended = False
        self._protocol = protocol
        protocol.ended.addCallback(self._end)

    def _end(self, reason: str) -> None:
        self.ended = True
        self.closed.callback(reason)

    @property
    def waiting(self) -> int:
        """Commands without an answer so far."""
        return self._protocol.waiting

    @property
    def why(self) -> str:
        """Why it has ended, or will at once; "": it works."""
        return self._protocol.why

    def silent_for(self, now: float) -> float:
        """Seconds since Redis last said something, or since it was first asked after a silence."""
        return float(now - self._protocol.heard)

    def command(self, *parts: bytes | str | int) -> Deferred[Any]:
        """See link.RedisLink.command."""
        if not self.waiting:
            self._protocol.heard = self._protocol.clock.seconds()
        if not self._protocol.connected:
            return fail(StoreUnavailable("the connection to Redis was lost"))
        return self._protocol.ask(parts).addCallback(_reply)

    def abort(self, reason: str) -> None:
        """Ends it at once."""
        if not self.ended:
            self._protocol.abort(reason)

    async def close(self) -> None:
        """Ends it, and returns when it is gone."""
        if not self.ended:
            self.abort("the server stops")
            gone: Deferred[None] = Deferred()
            self.closed.addCallback(lambda reason: gone.callback(None))
            await gone


class RedisSubscriber(RedisConnection):
    """A connection that hears what is published. Gives up its commands with the first subscription."""

    def subscribe(self, names: Sequence[bytes]) -> None:
        """Hears what is published under these names, once Redis has answered for each."""
        self._say("SUBSCRIBE", names)

    def unsubscribe(self, names: Sequence[bytes]) -> None:
        """Hears no more of these."""
        self._say("UNSUBSCRIBE", names)

    def _say(self, command: str, names: Sequence[bytes]) -> None:
        if not self.why:
            self._protocol.transport.write(_packed((command, *names)))


def _packed(parts: tuple[bytes | str | int, ...]) -> bytes:
    packed: bytes = pack_command(parts)  # type: ignore[arg-type]  # its types know only tuples of one
    return packed


def _reply(reply: Any) -> Any:
    """Errors that Redis answers are values; that no answer came is not."""
    if isinstance(reply, LostConnection):
        raise StoreUnavailable("the connection to Redis was lost before it answered")
    return reply


class Connector:
    """Makes connections to the Redis of an address. `tls` makes what Twisted needs for TLS to a host; None: no TLS."""

    def __init__(
        self,
        reactor: Any,
        address: RedisAddress,
        *,
        password: str = "",
        tls: Callable[[str], IOpenSSLClientConnectionCreator] | None = None,
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._password = password or address.password
        self._tls = tls
        self._first_sentinel = 0

    async def connect(self) -> RedisConnection:
        """A connection to the master that takes commands. Raises Unreachable."""
        return await self._greeted(lambda: _Protocol(self._reactor), RedisConnection)

    async def subscriber(self, message: Callable[[bytes, bytes], None], answered: Callable[[bytes], None]) -> RedisSubscriber:
        """A connection that hears: `message` is told name and content of what is published, `answered` each name that is heard
        from now on. Raises Unreachable."""
        return await self._greeted(lambda: _SubscriberProtocol(self._reactor, message, answered), RedisSubscriber)

    async def _greeted(self, protocol: Callable[[], _Protocol], kind: type[C]) -> C:
        if self._address.service:
            host, port = await self._ask_sentinels()
        else:
            ((host, port),) = self._address.hosts
        connection = await self._open(host, port, protocol, kind)
        try:
            await self._greet(connection)
        except BaseException:
            connection.abort("it would not have us")
            raise
        return connection

    async def _greet(self, connection: RedisConnection) -> None:
        address = self._address
        if self._password:
            who = (address.user, self._password) if address.user else (self._password,)
            await self._ask(connection, "AUTH", *who)
        if address.database:
            await self._ask(connection, "SELECT", address.database)
        await self._ask(connection, "CLIENT", "SETNAME", CLIENT_NAME)
        role = await self._ask(connection, "ROLE")
        if role[0] != b"master":
            raise Unreachable(f"{connection.place} is a {role[0].decode(errors='replace')}, not the master", refused=True)

    async def _ask_sentinels(self) -> tuple[str, int]:
        """Where the master is. The first sentinel that answers is asked first next time."""
        hosts = self._address.hosts
        problem = ""
        for turn in range(len(hosts)):
            number = (self._first_sentinel + turn) % len(hosts)
            try:
                found = await self._ask_sentinel(*hosts[number])
            except Unreachable as error:
                problem = str(error)
                continue
            self._first_sentinel = number
            return found
        raise Unreachable(f"no sentinel tells where {self._address.service} is: {problem}")

    async def _ask_sentinel(self, host: str, port: int) -> tuple[str, int]:
        connection = await self._open(host, port, lambda: _Protocol(self._reactor), RedisConnection)
        try:
            found = await self._ask(connection, "SENTINEL", "get-master-addr-by-name", self._address.service)
        finally:
            connection.abort("it has said what it knows")
        if not isinstance(found, list) or len(found) != 2:
            raise Unreachable(f"the sentinel at {connection.place} knows no service {self._address.service!r}", refused=True)
        return found[0].decode(), int(found[1])

    async def _open(self, host: str, port: int, protocol_of: Callable[[], _Protocol], kind: type[C]) -> C:
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        endpoint: Any = HostnameEndpoint(self._reactor, host, port, timeout=CONNECT_TIMEOUT)
        if self._tls is not None:
            endpoint = wrapClientTLS(self._tls(host), endpoint)
        factory = Factory.forProtocol(protocol_of)
        factory.noisy = False
        opening = endpoint.connect(factory)
        try:
            protocol = await opening
        except Exception as error:
            raise Unreachable(f"{place}: {_words(error)}") from error
        protocol.transport.setTcpNoDelay(True)
        return kind(protocol, place)

    async def _ask(self, connection: RedisConnection, command: str, *arguments: str | int) -> Any:
        """The answer, in time. Raises Unreachable, which names the command and nothing of its arguments."""
        late = self._reactor.callLater(ANSWER_TIMEOUT, connection.abort, f"no answer to {command} in {ANSWER_TIMEOUT:.0f} s")
        try:
            answer = await connection.command(command, *arguments)
        except StoreUnavailable as error:
            raise Unreachable(f"{connection.place}: {connection.why or error.detail}") from error
        finally:
            if late.active():
                late.cancel()
        if isinstance(answer, Exception):
            raise Unreachable(f"{connection.place} refuses {command}: {words_of(answer)}", refused=True)
        return answer


def _words(error: BaseException | None) -> str:
    """What a failed or ended connection says, for people."""
    if is_wrong_name(error):
        return "its certificate is not valid for this host"
    for text in openssl_reasons(error):
        if is_untrusted(text):
            return "its certificate is not trusted, or has expired"
        return f"it refused our certificate: {text}" if refuses_us(text) else f"TLS: {text}"
    if isinstance(error, ConnectionDone):
        return "it ended the connection"
    if isinstance(error, DNSLookupError):
        return "no address of this name is known"
    if isinstance(error, ConnectError) and error.osError:
        return f"cannot be connected to ({error})"
    return str(error) or type(error).__name__

"""The side of a process that serves: it is asked at its Unix socket, hands over, lets go, and comes back if it was in vain."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from streampush.handover.place import Peer, Place, peer_of
from streampush.handover.steps import Action, Event, Stage, Steps
from streampush.handover.wire import HandoverFault, Message, Offered, Reader, encode, encode_offer

MAX_ASKERS: Final = 8
"""Connections at once: one successor, and commands. More are closed."""

FIRST_WORD: Final = 5.0
"""Seconds for the first message of a connection."""

LAST_WORD: Final = 1.0
"""Seconds in which a connection must take what was said last."""

HELD_TIMEOUT: Final = 30.0
"""Seconds that a successor may take to prepare with the sockets in its hands; it has looked at its settings before it asks."""

TAKEN_TIMEOUT: Final = 600.0
"""Seconds from the successor's turn until it serves. It may bring a large store to a new schema in this time; that it dies is seen
at once, so this is for one that hangs only."""


@dataclass(frozen=True, slots=True)
class Share:
    """A descriptor that is handed over under a name, see `wire.Offered`; it stays open here."""

    name: str
    descriptor: int
    foreign: bool = False


class Holder(Protocol):
    """What a process does with what it has, when it is asked for it."""

    release_time: float
    """Seconds that `release` takes, at most."""

    def shares(self) -> Sequence[Share]:
        """The listening sockets."""

    def release(self) -> Awaitable[None]:
        """Lets go of what only one process may use. The listening sockets stay open, and nothing is accepted from them."""

    def resume(self) -> None:
        """The successor was lost: serves again, as if nothing had been. Called also where nothing was released."""

    def leave(self, successor: int) -> None:
        """The successor, a process id, serves: this process ends, without a word to anybody who waits at the sockets."""


class Incumbent:
    """Answers at `path`. Between `start` and `stop` a successor, and one at a time, may have what `holder` has."""

    _log = Logger(namespace="streampush.handover")

    def __init__(self, reactor: Any, path: str, holder: Holder) -> None:
        self._reactor = reactor
        self._holder = holder
        self._place = Place(path)
        self._steps = Steps()
        self._port: _UnixPort | None = None
        self._successor: Asker | None = None
        self._askers: set[Asker] = set()
        self._all_gone: Deferred[None] | None = None
        self.on_lost: Callable[[int, str], None] = lambda pid, reason: None
        self.on_taken: Callable[[int], None] = lambda pid: None
        self.extra_shares: Callable[[Peer], Sequence[Share]] = lambda peer: ()
        self.on_order: Callable[[Asker], None] = lambda asker: asker.tell("refused", reason="this process starts no successor")

    @property
    def stage(self) -> Stage:
        """How far a handover is."""
        return self._steps.stage

    def start(self) -> None:
        """Answers from now on; whoever had the path before is not asked any more. Raises OSError."""
        self._port = _UnixPort(self._reactor, self._place.claim(), self._accepted)

    async def stop(self) -> None:
        """Answers no more. Whoever is connected hears what was said to the end, and is cut. A successor that is not ready goes on
        by itself."""
        if self._port is not None:
            self._place.leave()
            self._port.stop()
            self._port = None
        self._steps = Steps()
        self._successor = None
        if not self._askers:
            return
        gone: Deferred[None] = Deferred()
        self._all_gone = gone
        for asker in tuple(self._askers):
            asker.cut()
        late = self._reactor.callLater(LAST_WORD, self._cut_all)
        await gone
        if late.active():
            late.cancel()

    def _cut_all(self) -> None:
        for asker in tuple(self._askers):
            asker.abort()

    # ----------------------------------------------------------------------------------------------------------- connections

    def _accepted(self, sock: socket.socket) -> None:
        try:
            peer = peer_of(sock)
        except OSError:
            return
        if not peer.is_trusted(os.geteuid()):
            self._log.warn(
                "process {pid} of user {uid} asked for the listening sockets, and is refused", pid=peer.pid, uid=peer.uid
            )
            return
        if len(self._askers) < MAX_ASKERS:
            sock.setblocking(False)
            asker = Asker(self._reactor, peer, self._said, self._gone)
            self._askers.add(asker)
            self._reactor.adoptStreamConnection(sock.fileno(), socket.AF_UNIX, _Single(asker))

    def _said(self, asker: Asker, message: Message) -> None:
        if message.kind == "ask":
            self._asked(asker)
        elif message.kind == "upgrade":
            self.on_order(asker)
        elif asker is self._successor and message.kind in ("held", "taken"):
            self._happened(Event.HELD if message.kind == "held" else Event.TAKEN)
        elif asker is self._successor and message.kind == "failed":
            self._lose(f"it failed: {message.text('reason')}")
        else:
            asker.fail("this was not expected now")

    def _gone(self, asker: Asker, reason: str) -> None:
        self._askers.discard(asker)
        if self._all_gone is not None and not self._askers:
            gone, self._all_gone = self._all_gone, None
            gone.callback(None)
        if asker is self._successor:
            self._lose(reason)

    # ---------------------------------------------------------------------------------------------------------- the handover

    def _asked(self, asker: Asker) -> None:
        action = self._steps.happened(Event.ASKED)
        if action is None:
            other = (
                f"process {self._successor.peer.pid} takes over already" if self._successor else "it is coming back from another"
            )
            asker.tell("refused", reason=other)
            return
        self._successor = asker
        shares = (*self._holder.shares(), *self.extra_shares(asker.peer))
        self._log.info("process {pid} asks for the listening sockets, and gets them", pid=asker.peer.pid)
        asker.offer(shares, self._holder.release_time)
        asker.limit(HELD_TIMEOUT)

    def _happened(self, event: Event) -> None:
        action = self._steps.happened(event)
        asker = self._successor
        if action is None:
            assert asker is not None
            asker.fail("this was not expected now")
        elif action is Action.RELEASE:
            assert asker is not None
            asker.limit(None)
            self._log.info("process {pid} can start, this one lets go", pid=asker.peer.pid)
            Deferred.fromCoroutine(self._release()).addErrback(self._release_failed)
        elif action is Action.TELL_FREE:
            assert asker is not None
            asker.tell("free")
            asker.limit(TAKEN_TIMEOUT)
        elif action is Action.LEAVE:
            assert asker is not None
            asker.limit(None)
            self._log.info("process {pid} serves, this one ends", pid=asker.peer.pid)
            self.on_taken(asker.peer.pid)
            self._holder.leave(asker.peer.pid)
        elif action is Action.RESUME:
            self._resume()

    async def _release(self) -> None:
        steps = self._steps
        await self._holder.release()
        if steps is self._steps:  # not stopped meanwhile
            self._happened(Event.RELEASED)

    def _release_failed(self, failure: Failure) -> None:
        self._log.failure("letting go failed; the successor goes on if it can", failure=failure)
        self._happened(Event.RELEASED)

    def _lose(self, reason: str) -> None:
        asker, self._successor = self._successor, None
        if asker is None or self.stage is Stage.LEFT:
            return
        asker.cut()
        self._log.error("process {pid} does not take over: {reason}", pid=asker.peer.pid, reason=reason)
        self.on_lost(asker.peer.pid, reason)
        self._happened(Event.LOST)
        self._claim_again()

    def _resume(self) -> None:
        self._log.info("this process goes on")
        self._holder.resume()

    def _claim_again(self) -> None:
        """The successor may have taken the path before it was lost."""
        if self._port is None or self._place.is_ours:
            return
        self._port.stop()
        self._port = None
        try:
            self.start()
        except OSError as error:
            self._log.error("the path of node.handover cannot be used any more: {problem}", problem=str(error))


class Asker(TwistedProtocol):
    """One connection to the Unix socket: a successor, or a command."""

    transport: Any  # a Unix socket's: sendFileDescriptor is in no interface of streams

    def __init__(
        self, reactor: Any, peer: Peer, said: Callable[[Asker, Message], None], gone: Callable[[Asker, str], None]
    ) -> None:
        self.peer = peer
        self._reactor = reactor
        self._said = said
        self._gone = gone
        self._reader = Reader()
        self._deadline: IDelayedCall | None = None
        self._why = "its connection is gone"
        self._is_cut = False

    def connectionMade(self) -> None:
        self.limit(FIRST_WORD)

    def dataReceived(self, data: bytes) -> None:
        try:
            messages = self._reader.feed(data)
        except HandoverFault as fault:
            self.fail(str(fault))
            return
        for message in messages:
            if self._is_cut:
                return  # what it said behind something wrong does not count
            self.limit(None)
            self._said(self, message)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.limit(None)
        self._gone(self, self._why)

    @property
    def is_there(self) -> bool:
        """Whether anybody would hear what it is told."""
        return self.transport is not None and bool(self.transport.connected)

    def limit(self, seconds: float | None) -> None:
        """Gives it so long for its next word; None: as long as it likes."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None if seconds is None else self._reactor.callLater(seconds, self.fail, f"no word within {seconds:g} s")

    def offer(self, shares: Sequence[Share], wait: float) -> None:
        """Sends descriptors with their names."""
        for share in shares:
            self.transport.sendFileDescriptor(share.descriptor)
        self.transport.write(encode_offer([Offered(share.name, share.foreign) for share in shares], wait))

    def tell(self, kind: str, **fields: Any) -> None:
        """Sends one word."""
        self.transport.write(encode(kind, **fields))

    def fail(self, reason: str) -> None:
        """Says why nothing more is said, and closes."""
        self._why = reason
        self.tell("failed", reason=reason)
        self.cut()

    def cut(self) -> None:
        """Closes, behind what was written."""
        self._is_cut = True
        self.limit(None)
        self.transport.loseConnection()

    def abort(self) -> None:
        """Closes at once."""
        self.transport.abortConnection()


class _Single(Factory):
    """Gives a connection the protocol that was made for it."""

    noisy = False

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def buildProtocol(self, addr: IAddress | None) -> Asker:
        return self._asker


class _UnixPort:
    """Accepts at a Unix socket that listens already."""

    def __init__(self, reactor: Any, sock: socket.socket, accepted: Callable[[socket.socket], None]) -> None:
        self._reactor = reactor
        self._sock = sock
        self._accepted = accepted
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._sock.fileno()

    def logPrefix(self) -> str:
        return "handover"

    def doRead(self) -> None:
        with contextlib.suppress(OSError):  # it is gone again; or no descriptor is left, and the next turn tries once more
            sock, _ = self._sock.accept()
            with sock:
                self._accepted(sock)

    def connectionLost(self, reason: Failure) -> None:
        """By a reactor that shuts down."""
        self.stop()

    def stop(self) -> None:
        if self._sock.fileno() != -1:
            self._reactor.removeReader(self)
            self._sock.close()

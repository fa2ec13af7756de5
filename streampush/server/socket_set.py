"""The sockets of all connections as one descriptor of the reactor: an epoll set of our own inside the reactor's.

Theory of operation. Twisted's reactor takes some 6 us for each event before a transport hears of it: a logging context, and looks
at the descriptor. That is as much as reading a frame. An epoll set is itself a descriptor, readable while something in it is
ready (epoll(7)); so the reactor tells us once a turn, and we tell the transports, as the reactor would: what one returns or raises
ends that one alone. Both sets are level-triggered: what is left over comes with the next turn, the others first.

What is ready is looked up when its turn comes, because a transport before it may have removed it.
"""

from __future__ import annotations

import select
import sys
from typing import Final

from twisted.internet.interfaces import IReadDescriptor, IReadWriteDescriptor, IWriteDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from streampush.server.stream import Descriptors

MAX_EVENTS: Final = 1024
"""Sockets that are served in a turn; the reactor's timers have their turn in between."""

_log: Final = Logger()

Watched = IReadDescriptor | IWriteDescriptor | IReadWriteDescriptor


def make_socket_set(reactor: Descriptors) -> Descriptors:
    """Where the sockets of connections are watched: a SocketSet, or the reactor itself where there is no epoll."""
    return SocketSet(reactor) if sys.platform == "linux" else reactor


@implementer(IReadDescriptor)
class SocketSet:
    """Watches sockets for a reactor, whose methods for descriptors it has. It is in the reactor while it watches any."""

    def __init__(self, reactor: Descriptors) -> None:
        self._reactor = reactor
        self._epoll: select.epoll | None = None  # while there is something to watch
        self._watched: dict[int, Watched] = {}
        self._wanted: dict[int, int] = {}  # events, by descriptor as _watched

    # --------------------------------------------------------------------------------------------------- for the transports

    def addReader(self, reader: IReadDescriptor) -> None:
        """`reader.doRead` is called while there is something to read. Raises OSError for what is no open socket."""
        self._want(reader, select.EPOLLIN)

    def addWriter(self, writer: IWriteDescriptor) -> None:
        """`writer.doWrite` is called while there is room to write. Raises as addReader."""
        self._want(writer, select.EPOLLOUT)

    def removeReader(self, reader: IReadDescriptor) -> None:
        """Ends addReader. Harmless if it is not watched."""
        self._want_no_more(reader, select.EPOLLIN)

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        """Ends addWriter. Harmless if it is not watched."""
        self._want_no_more(writer, select.EPOLLOUT)

    def getReaders(self) -> list[Watched]:
        """What is watched for reading."""
        return [self._watched[number] for number, wanted in self._wanted.items() if wanted & select.EPOLLIN]

    def getWriters(self) -> list[Watched]:
        """What is watched for writing."""
        return [self._watched[number] for number, wanted in self._wanted.items() if wanted & select.EPOLLOUT]

    def _want(self, descriptor: Watched, event: int) -> None:
        number = descriptor.fileno()
        wanted = self._wanted.get(number, 0) if self._watched.get(number) is descriptor else 0  # of another: closed unsaid
        if wanted & event:
            return
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reactor.addReader(self)
        if wanted:
            self._epoll.modify(number, wanted | event)
        else:
            self._epoll.register(number, event)
        self._wanted[number] = wanted | event
        self._watched[number] = descriptor

    def _want_no_more(self, descriptor: Watched, event: int) -> None:
        number = descriptor.fileno()
        if self._epoll is None or self._watched.get(number) is not descriptor:
            return
        wanted = self._wanted[number] & ~event
        if wanted:
            self._wanted[number] = wanted
            self._epoll.modify(number, wanted)
            return
        del self._wanted[number], self._watched[number]
        self._epoll.unregister(number)
        if not self._watched:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    # ------------------------------------------------------------------------------------------------------- for the reactor

    def fileno(self) -> int:
        """-1 while nothing is watched."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        return "SocketSet"

    def doRead(self) -> None:
        """Serves the sockets that are ready."""
        if self._epoll is None:
            return
        watched = self._watched
        for number, events in self._epoll.poll(0, MAX_EVENTS):
            descriptor = watched.get(number)
            if descriptor is None:
                continue  # one before it has removed it
            try:
                why = self._serve(descriptor, number, events)
            except BaseException as error:  # noqa: BLE001 - as the reactor does: what leaves here would end all connections
                _log.failure("Serving a connection failed, it is closed")
                why = error
            if why is not None:
                self._end(descriptor, why)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops: so do all connections."""
        for descriptor in list(self._watched.values()):
            self._end(descriptor, reason.value or CONNECTION_LOST)

    # ---------------------------------------------------------------------------------------------------------------- inside

    def _serve(self, descriptor: Watched, number: int, events: int) -> BaseException | None:
        why: BaseException | None = None
        if events & select.EPOLLIN:
            why = descriptor.doRead()  # type: ignore[union-attr]  # who wants this event can read
        elif events & (select.EPOLLHUP | select.EPOLLERR):  # and all was read
            return CONNECTION_DONE if self._wanted[number] & select.EPOLLIN else CONNECTION_LOST
        if events & select.EPOLLOUT and why is None and self._watched.get(number) is descriptor:
            why = descriptor.doWrite()  # type: ignore[union-attr]  # as above
        return why

    def _end(self, descriptor: Watched, why: BaseException) -> None:
        try:
            self._want_no_more(descriptor, select.EPOLLIN)
            self._want_no_more(descriptor, select.EPOLLOUT)
            descriptor.connectionLost(Failure(why))  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        except Exception:  # noqa: BLE001 - one connection's fault must not reach the others; it is logged
            _log.failure("Closing a connection failed")

"""What a stream's transport and its surroundings owe each other: its protocol, its states, and what it needs of a reactor."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from streampush.server.transport import TlsTransport

Address = IPv4Address | IPv6Address


class Descriptors(Protocol):
    """What a transport needs of Twisted's reactor: IReactorFDSet."""

    def addReader(self, reader: IReadDescriptor) -> None: ...

    def removeReader(self, reader: IReadDescriptor) -> None: ...

    def addWriter(self, writer: IWriteDescriptor) -> None: ...

    def removeWriter(self, writer: IWriteDescriptor) -> None: ...


class StreamProtocol(Protocol):
    """What a TlsTransport tells its protocol."""

    def makeConnection(self, transport: TlsTransport) -> None:
        """The socket is there, the handshake begins."""

    def handshakeCompleted(self) -> None:
        """The peer's certificate is verified (or its session resumed); bytes may go both ways. At most once."""

    def handshakeFailed(self, result: str, detail: str) -> None:
        """The handshake ended without success; `connectionLost` follows, perhaps later. `result` is a HandshakeResult."""

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the peer, at most READ_BYTES."""

    def roomAgain(self) -> None:
        """The send buffer is below its mark again, after `has_room` has said that it was not."""

    def connectionLost(self, reason: Failure) -> None:
        """All is over. ConnectionDone: closed in order by either side; ConnectionLost: the peer or the network cut it;
        ConnectionAborted: `abort` was called; else an exception of the protocol's own."""


class State(enum.Enum):
    """Of a transport; what they mean is told at the head of `transport`."""

    HANDSHAKING = enum.auto()
    OPEN = enum.auto()
    CLOSING = enum.auto()
    LINGERING = enum.auto()
    ABORTED = enum.auto()
    LOST = enum.auto()


NEXT: Final = {
    State.HANDSHAKING: frozenset((State.OPEN, State.LINGERING, State.ABORTED, State.LOST)),
    State.OPEN: frozenset((State.CLOSING, State.ABORTED, State.LOST)),
    State.CLOSING: frozenset((State.LINGERING, State.ABORTED, State.LOST)),
    State.LINGERING: frozenset((State.ABORTED, State.LOST)),
    State.ABORTED: frozenset((State.LOST,)),
    State.LOST: frozenset[State](),
}
"""Which state may follow which."""

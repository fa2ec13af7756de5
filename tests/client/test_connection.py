"""One connection by itself: what Twisted calls, and how often."""

from __future__ import annotations

from importlib.metadata import version

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from streampush.client.connection import StreamConnection
from streampush.client.reconnect import Loss
from streampush.client.stream import SDK_VERSION
from streampush.protocol import messages as m
from streampush.protocol.client_session import ClientSession
from streampush.protocol.codes import Code
from streampush.protocol.errors import LocalProtocolError
from streampush.protocol.framing import encode_frame
from streampush.protocol.session import SessionSettings
from tests.client.peer import Network


@implementer(ITCPTransport)
class TcpTransport(StringTransport):
    """Remembers what a socket would be set to."""

    no_delay = keep_alive = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.keep_alive = enabled


class Owner:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.losses: list[Loss] = []
        self.messages: list[m.Message] = []

    def received(self, connection: StreamConnection, request_id: int, message: m.Message) -> None:
        self.messages.append(message)

    def faulted(self, connection: StreamConnection, code: Code | int, detail: str) -> None:
        raise AssertionError(detail)

    def settle(self, connection: StreamConnection) -> None:
        pass

    def lost(self, connection: StreamConnection, loss: Loss) -> None:
        self.losses.append(loss)


class ConnectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.owner = Owner()
        self.transport = TcpTransport()
        session = ClientSession(SessionSettings(), 0.0)
        address = ("host", 1)
        self.connection = StreamConnection(self.clock, session, address, Network(self.clock), m.Hello, self.owner)
        self.connection.makeConnection(self.transport)

    def test_the_socket_sends_at_once_and_is_kept_alive(self) -> None:
        self.assertTrue(self.transport.no_delay)
        self.assertTrue(self.transport.keep_alive)

    def test_a_handshake_that_is_reported_twice_greets_once(self) -> None:
        self.connection.handshakeCompleted()
        greeting = self.transport.value()
        self.connection.handshakeCompleted()
        self.assertEqual(self.transport.value(), greeting)
        self.assertNotEqual(greeting, b"")

    def test_a_handshake_that_never_ends_is_given_up(self) -> None:
        self.clock.advance(10)
        self.assertTrue(self.transport.disconnecting)
        self.clock.advance(5)
        self.assertTrue(self.transport.disconnected)

    def test_nothing_is_done_after_the_end(self) -> None:
        self.connection.handshakeCompleted()
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.connection.dataReceived(encode_frame(b"\x8a\x01\x00"))
        self.connection.abort()
        self.assertEqual((len(self.owner.losses), self.owner.messages), (1, []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_sending_before_the_handshake_is_our_mistake(self) -> None:
        self.assertRaises(LocalProtocolError, self.connection.send, m.Ping())

    def test_leaving_before_the_greeting_cuts(self) -> None:
        self.connection.handshakeCompleted()
        self.connection.leave()
        self.assertTrue(self.transport.disconnected)

    def test_one_timer_serves_all_deadlines(self) -> None:
        self.connection.handshakeCompleted()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)


class VersionTests(SynchronousTestCase):
    def test_hello_names_the_version_of_this_package(self) -> None:
        self.assertEqual(SDK_VERSION, version("streampush"))

"""The simulator over a transport: in memory on a fake clock, and with TLS on a port."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import defer, reactor
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from streampush.apns.http2 import frames
from streampush.apns.simulator import Orders, SimulatedApple, Validation, When
from streampush.apns.simulator.orders import Close, Delay, Freeze, GoAway, Http11, Order, StopReading
from streampush.apns.simulator.server import CLOSE_TIMEOUT, AppleContexts, AppleProtocol, AppleServer, listen
from streampush.cli.pki import Issued
from tests.apns.simulator.providers import MINTED, TOPIC, H2Side, make_jwt
from tests.apns.simulator.visiting import Visitor, visit
from tests.support import authority, device_issued, server_issued, signed

VALIDATION = Validation(keys=(MINTED.key,))


class ProtocolTests(SynchronousTestCase):
    def begin(self, *orders: Order) -> None:
        self.clock = Clock()
        self.protocol = AppleProtocol(self.clock, SimulatedApple(VALIDATION, Orders(orders)).connect(0.0))
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        self.side = H2Side(make_jwt())

    def push(self) -> None:
        self.side.push()
        self.protocol.dataReceived(self.side.outbound())

    def written(self) -> list[int]:
        data = self.transport.value()
        self.transport.clear()
        return [kind for kind, *_ in frames.FrameReader().feed(data)]

    def test_settings_go_out_at_once(self) -> None:
        self.begin()
        self.assertEqual(self.written(), [4])

    def test_a_late_answer_is_written_when_it_is_due(self) -> None:
        self.begin(Delay(2.0))
        self.push()
        self.written()
        self.clock.advance(1.9)
        self.assertEqual(self.written(), [])
        self.clock.advance(0.2)
        self.assertEqual(self.written()[0], 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closing_waits_for_the_client_and_then_resets(self) -> None:
        self.begin(Close(When(at=1)))
        self.push()
        self.assertTrue(self.transport.disconnecting)
        self.assertIsNone(self.transport.producer)  # or the transport would wait for it
        self.clock.advance(CLOSE_TIMEOUT)
        self.assertTrue(self.transport.disconnected)

    def test_a_reset_is_one_at_once(self) -> None:
        self.begin(Close(When(at=1), reset=True))
        self.push()
        self.assertTrue(self.transport.disconnected)

    def test_a_transport_that_is_lost_leaves_nothing_behind(self) -> None:
        self.begin(Delay(2.0))
        self.push()
        self.protocol.connectionLost(Failure(ConnectionError()))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(self.protocol.lost)

    def test_what_is_not_to_be_read_is_not_read(self) -> None:
        self.begin(StopReading(When(at=1)))
        self.push()
        self.assertEqual(self.transport.producerState, "paused")

    def test_a_full_transport_gets_nothing_until_it_has_room(self) -> None:
        self.begin()
        self.written()
        self.protocol.pauseProducing()
        self.push()
        self.assertEqual(self.written(), [])
        self.protocol.resumeProducing()
        self.assertIn(1, self.written())


class PortTests(TestCase):
    timeout = 120

    def serve(self, *orders: Order, validation: Validation = VALIDATION, client_ca: bytes = b"") -> AppleServer:
        self.apple = SimulatedApple(validation, Orders(orders))
        issued = server_issued()
        server = listen(reactor, self.apple, certificate=issued.certificate_pem, key=issued.key_pem, client_ca=client_ca)
        self.addCleanup(lambda: defer.ensureDeferred(server.stop()))
        return server

    async def visit(self, server: AppleServer, want: int, client: Issued | None = None) -> Visitor:
        jwt = make_jwt(issued_at=int(reactor.seconds())) if client is None else b""  # type: ignore[attr-defined]
        return await visit(server.host, server.port, want, authority().issued.certificate_pem, jwt, client)

    async def test_pushes_over_tls_with_h2(self) -> None:
        visitor = await self.visit(self.serve(), 50)
        self.assertEqual(visitor.protocol, b"h2")
        self.assertEqual(visitor.statuses, [200] * 50)
        self.assertEqual(self.apple.ledger.accepted, 50)

    async def test_a_server_that_speaks_http_1_agrees_on_nothing(self) -> None:
        visitor = await self.visit(self.serve(Http11()), 1)
        self.assertEqual(visitor.protocol, None)
        self.assertTrue(visitor.raw.startswith(b"HTTP/1.1 400 "))

    async def test_closed_without_a_word(self) -> None:
        visitor = await self.visit(self.serve(Close(When(at=3))), 5)
        self.assertTrue(visitor.lost)
        self.assertEqual(self.apple.ledger.accepted, 3)

    async def test_an_orderly_goaway_ends_the_connection_behind_its_answers(self) -> None:
        visitor = await self.visit(self.serve(GoAway(When(at=1))), 2)
        self.assertEqual((visitor.statuses, visitor.lost), ([200, 0], True))
        self.assertEqual(visitor.side.goaways, [(1, 0, b"")])

    async def test_a_certificate_stands_for_the_token(self) -> None:
        server = self.serve(client_ca=authority().issued.certificate_pem)
        self.assertEqual((await self.visit(server, 1, _provider_certificate(TOPIC))).statuses, [200])
        self.assertEqual((await self.visit(server, 1, _provider_certificate("com.example.other"))).statuses, [400])
        self.assertEqual((await self.visit(server, 1, device_issued("phone-1"))).statuses, [403])

    async def test_stopping_resets_what_is_open(self) -> None:
        server = self.serve(Freeze(When(at=1)))
        visiting = defer.ensureDeferred(self.visit(server, 1))
        while not self.apple.ledger.requests:
            turn: defer.Deferred[None] = defer.Deferred()
            reactor.callLater(0, turn.callback, None)  # type: ignore[attr-defined]
            await turn
        await server.stop()
        self.assertTrue((await visiting).lost)


def _provider_certificate(bundle_id: str) -> Issued:
    """A certificate as Apple gives it to a provider: the bundle id is its subject's user id."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Issued(signed([x509.NameAttribute(NameOID.USER_ID, bundle_id)], key.public_key()), key)


class ContextTests(SynchronousTestCase):
    def test_key_and_certificate_belong_together(self) -> None:
        for certificate, key in ((server_issued().certificate_pem, device_issued("phone-1").key_pem), (b"", b""), (b"x", b"y")):
            with self.assertRaises(ValueError):
                AppleContexts(certificate, key)

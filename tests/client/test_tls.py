"""The client over real TCP and real TLS on the loopback interface, against a small server around ServerSession."""

from __future__ import annotations

import datetime as dt
import tempfile
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, CertificateOptions, TLSVersion, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from streampush.cli.pki import CertificateAuthority, Issued
from streampush.client import ClientTls, Connected, CredentialsError, Disconnected, Stopped, StopReason, StreamClient
from streampush.client.events import ClientEvent
from streampush.protocol import messages as m
from streampush.protocol.session import Received, ServerSession, SessionSettings
from tests.support import authority, device_issued, server_issued, signed


@implementer(IHandshakeListener)
class ServerConnection(Protocol):
    """Greets, delivers one message, notes what it hears."""

    def __init__(self, factory: Server) -> None:
        self.server = factory
        self.session = ServerSession(SessionSettings(), reactor.seconds())

    def handshakeCompleted(self) -> None:
        self.session.tls_done(reactor.seconds())

    def dataReceived(self, data: bytes) -> None:
        for event in self.session.receive(data, reactor.seconds()):
            if isinstance(event, Received):
                self.server.heard.append(event.message)
                if isinstance(event.message, m.Hello):
                    news = m.Subscribed("news", "e1", 0, 1)
                    self.session.welcome(m.Welcome(subscribed=(news,), reconnect=m.ReconnectPolicy(first_jitter_ms=0)))
                    self.session.send(m.Delivery("news", 1, "id1", b"payload"))
                elif isinstance(event.message, m.Ack):
                    self.server.acknowledged.callback(event.message)
        self.transport.write(self.session.data_to_send())


class Server(Factory):
    """A TLS server that asks for client certificates; `verified` counts the certificates that it had to verify."""

    noisy = False

    def __init__(self, issued: Issued, highest: Any = None) -> None:
        self.heard: list[m.Message] = []
        self.acknowledged: Deferred[m.Ack] = Deferred()
        self.verified = 0
        ca = Certificate(crypto.X509.from_cryptography(authority().issued.certificate))
        self.options = CertificateOptions(
            privateKey=issued.key,
            certificate=issued.certificate,
            trustRoot=trustRootFromCertificates([ca]),
            enableSessions=True,
            enableSessionTickets=True,
            **({"lowerMaximumSecurityTo": highest} if highest is not None else {}),
        )
        self.options.getContext().set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._verify)

    def _verify(self, connection: Any, certificate: Any, error: int, depth: int, ok: int) -> bool:
        self.verified += depth == 0
        return bool(ok)

    def buildProtocol(self, addr: object) -> ServerConnection:
        return ServerConnection(self)

    async def listen(self) -> Any:
        factory = TLSMemoryBIOFactory(self.options, False, self, clock=reactor)
        return await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)


def client_tls(issued: Issued | None = None, ca: CertificateAuthority | None = None, **options: Any) -> ClientTls:
    trusted = (ca or authority()).issued.certificate_pem
    if issued is None:
        return ClientTls(trusted, **options)
    return ClientTls(trusted, issued.certificate_pem, issued.key_pem, **options)


def nameless_server() -> Issued:
    """A server certificate of the right CA with nothing but a common name."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Issued(signed([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")], key.public_key()), key)


class LoopbackCase(TestCase):
    timeout = 120

    async def serve(self, issued: Issued | None = None, highest: Any = None) -> Server:
        self.server = Server(issued or server_issued(), highest)
        self.port = await self.server.listen()
        self.number = self.port.getHost().port
        self.addCleanup(self.port.stopListening)
        return self.server

    def connect(self, tls: ClientTls, host: str = "127.0.0.1") -> StreamClient:
        self.events: list[ClientEvent] = []
        self.waiting: list[tuple[type, int, Deferred[Any]]] = []
        address = (host, self.number)
        self.client = StreamClient(reactor, [address], tls, on_message=self._take, on_event=self._heard)
        self.addCleanup(self._stop)
        self.client.start()
        return self.client

    async def _take(self, message: m.Delivery) -> None:
        self.taken = message

    def _heard(self, event: ClientEvent) -> None:
        self.events.append(event)
        for waiting in list(self.waiting):
            kind, number, until = waiting
            if len([seen for seen in self.events if isinstance(seen, kind)]) >= number:
                self.waiting.remove(waiting)
                until.callback(event)

    async def until(self, kind: type, number: int = 1) -> Any:
        """The event of a kind that comes next, or the one that makes up the number."""
        until: Deferred[Any] = Deferred()
        self.waiting.append((kind, number, until))
        return await until

    async def _stop(self) -> None:
        await self.client.stop()  # trial fails the test if a delayed call or a socket is left

    async def assert_credentials_stop(self, words: str) -> None:
        stopped = await self.until(Stopped)
        self.assertEqual(stopped.reason, StopReason.CREDENTIALS)
        self.assertIn(words, stopped.detail)
        self.assertEqual(self.server.heard, [])


class DeliveryTests(LoopbackCase):
    async def test_a_message_arrives_and_its_acknowledgement_goes_back(self) -> None:
        server = await self.serve()
        self.connect(client_tls(device_issued("d1")))
        self.assertEqual(await server.acknowledged, m.Ack("news", 1, m.Outcome.PROCESSED))
        self.assertEqual(self.taken.payload, b"payload")

    async def test_a_server_is_known_by_its_dns_name(self) -> None:
        await self.serve()
        client = self.connect(client_tls(device_issued("d1")), host="localhost")
        self.assertEqual((await client.connected()).subscribed[0].channel, "news")

    async def test_a_given_server_name_wins_over_the_address(self) -> None:
        await self.serve(authority().issue_server(["push.example.org"]))
        client = self.connect(client_tls(device_issued("d1"), server_name="push.example.org"))
        await client.connected()

    async def test_tls_1_2_will_do(self) -> None:
        await self.serve(highest=TLSVersion.TLSv1_2)
        await self.connect(client_tls(device_issued("d1"))).connected()

    async def test_a_reconnect_resumes_the_tls_session(self) -> None:
        server = await self.serve()
        client = self.connect(client_tls(device_issued("d1")))
        await server.acknowledged
        server.acknowledged = Deferred()
        again = Deferred.fromCoroutine(self.until(Connected, 2))
        client.drop()
        await again
        self.assertEqual(server.verified, 1)

    async def test_without_resumption_every_handshake_is_a_full_one(self) -> None:
        server = await self.serve()
        client = self.connect(client_tls(device_issued("d1"), resume_sessions=False))
        await server.acknowledged
        server.acknowledged = Deferred()
        again = Deferred.fromCoroutine(self.until(Connected, 2))
        client.drop()
        await again
        self.assertEqual(server.verified, 2)


class RefusalTests(LoopbackCase):
    async def test_a_server_of_another_ca_stops_the_client(self) -> None:
        await self.serve()
        self.connect(client_tls(device_issued("d1"), CertificateAuthority.create("another CA")))
        await self.assert_credentials_stop("the server's certificate is not trusted")

    async def test_a_server_of_another_name_stops_the_client(self) -> None:
        await self.serve(authority().issue_server(["other.example.org"]))
        self.connect(client_tls(device_issued("d1")))
        await self.assert_credentials_stop("not valid for")

    async def test_a_device_that_plays_server_stops_the_client(self) -> None:
        await self.serve(device_issued("d2"))
        self.connect(client_tls(device_issued("d1")))
        await self.assert_credentials_stop("the server's certificate is not")
        self.flushLoggedErrors()  # Twisted logs what it cannot read

    async def test_a_server_without_any_name_stops_the_client(self) -> None:
        await self.serve(nameless_server())
        self.connect(client_tls(device_issued("d1")))
        await self.assert_credentials_stop("not valid for")
        self.flushLoggedErrors()  # Twisted logs what it does not refuse

    async def test_an_expired_client_certificate_stops_the_client(self) -> None:
        await self.serve()
        start = dt.datetime.now(dt.UTC) - dt.timedelta(days=10)
        self.connect(client_tls(authority().issue_device("d1", days=1, start=start)))
        await self.assert_credentials_stop("certificate expired")

    async def test_an_expired_client_certificate_stops_the_client_with_tls_1_2_too(self) -> None:
        await self.serve(highest=TLSVersion.TLSv1_2)
        start = dt.datetime.now(dt.UTC) - dt.timedelta(days=10)
        self.connect(client_tls(authority().issue_device("d1", days=1, start=start)))
        await self.assert_credentials_stop("certificate expired")

    async def test_a_client_certificate_of_another_ca_stops_the_client(self) -> None:
        await self.serve()
        self.connect(client_tls(CertificateAuthority.create("another CA").issue_device("d1")))
        await self.assert_credentials_stop("unknown ca")

    async def test_no_client_certificate_stops_the_client(self) -> None:
        await self.serve()
        self.connect(client_tls())
        await self.assert_credentials_stop("certificate required")

    async def test_nobody_listening_is_no_matter_of_credentials(self) -> None:
        await self.serve()
        await self.port.stopListening()
        self.connect(client_tls(device_issued("d1")))
        disconnected = await self.until(Disconnected)
        self.assertEqual(disconnected.next_try_in, 0.5)


class MaterialTests(TestCase):
    """What is wrong with the files is said at once, by name, without the key."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.ca = self.directory / "ca.crt"
        self.ca.write_bytes(authority().issued.certificate_pem)
        self.issued = device_issued("d1")
        self.certificate, self.key = self.directory / "d1.crt", self.directory / "d1.key"
        self.issued.write(self.certificate, self.key)

    def refused(self, *arguments: Any) -> str:
        return str(self.assertRaises(CredentialsError, ClientTls.from_files, *arguments))

    def test_good_files_are_taken(self) -> None:
        ClientTls.from_files(self.ca, str(self.certificate), self.key)

    def test_a_missing_file_is_named(self) -> None:
        missing = self.directory / "none.key"
        self.assertEqual(self.refused(self.ca, self.certificate, missing), f"{missing}: No such file or directory")

    def test_a_key_of_another_certificate_is_refused(self) -> None:
        self.key.write_bytes(device_issued("d2").key_pem)
        self.assertIn("do not belong together", self.refused(self.ca, self.certificate, self.key))

    def test_a_certificate_without_its_key_is_refused(self) -> None:
        self.assertIn("needs its key", self.refused(self.ca, self.certificate))

    def test_a_ca_that_is_no_certificate_is_refused(self) -> None:
        self.ca.write_bytes(b"hello")
        self.assertEqual(self.refused(self.ca), "CA: no certificate in PEM form")

    def test_a_broken_key_is_refused_and_not_shown(self) -> None:
        self.key.write_bytes(self.issued.key_pem.replace(b"M", b"!"))
        self.assertEqual(self.refused(self.ca, self.certificate, self.key), "key: no unencrypted private key in PEM form")

    def test_an_encrypted_key_is_refused(self) -> None:
        encryption = serialization.BestAvailableEncryption(b"password")
        pem = self.issued.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        self.key.write_bytes(pem)
        self.assertEqual(self.refused(self.ca, self.certificate, self.key), "key: no unencrypted private key in PEM form")

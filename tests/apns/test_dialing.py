"""How a connection comes about, or does not: real sockets and TLS on loopback."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from service_identity import CertificateError
from twisted.internet import reactor as any_reactor
from twisted.internet import task
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from streampush.apns.addresses import MAX_ADDRESSES, HostAddresses
from streampush.apns.dialing import TlsDialer
from streampush.apns.errors import BadCredential
from streampush.apns.http2 import Verdict
from streampush.apns.outcome import Why
from streampush.apns.pool import Pool
from streampush.apns.pool_limits import PoolLimits
from streampush.apns.proxy import MAX_ANSWER, Proxy, ProxyRefused, Tunnel
from streampush.apns.simulator import Orders, SimulatedApple, Validation
from streampush.apns.simulator.orders import Garbage, Http11, Order
from streampush.apns.simulator.server import listen
from streampush.apns.tls import NO_HTTP2, ClientCredential, Http2Tls
from streampush.cli.pki import Issued
from tests.apns.pooling import Push
from tests.apns.simulator.providers import MINTED, TOPIC, make_jwt
from tests.support import authority, device_issued, make_files, server_issued, signed

reactor: Any = any_reactor

CA = authority().issued.certificate_pem


def minted(names: Iterable[str], *, user_id: str = "", hours: float = 1.0) -> Issued:
    """A certificate of the test's authority with these names and times."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = [x509.NameAttribute(NameOID.USER_ID, user_id)] if user_id else []
    return Issued(signed(subject, key.public_key(), hours=(-2.0, hours), names=names), key)


@cache
def provider_token() -> bytes:
    """One for the whole run, as a provider shares one."""
    return make_jwt(issued_at=int(reactor.seconds()))


class Ended(Push):
    """A push that can be awaited."""

    __slots__ = ("done",)

    def __init__(self, timeout: float = 10.0) -> None:
        super().__init__(reactor.seconds() + timeout, jwt=provider_token(), clock=reactor)
        self.done: Deferred[Push] = Deferred()

    def answered(self, headers: Any, ended: bool) -> None:
        super().answered(headers, ended)
        self._look()

    def received(self, data: bytes, ended: bool) -> None:
        super().received(data, ended)
        self._look()

    def trailed(self, headers: Any) -> None:
        super().trailed(headers)
        self._look()

    def failed(self, fault: Any) -> None:
        super().failed(fault)
        self._look()

    def _look(self) -> None:
        if self.ended and not self.done.called:
            self.done.callback(self)


class FixedResolver:
    """Every name has these addresses."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self.addresses = addresses

    def resolveHostName(
        self, receiver: Any, hostName: str, portNumber: int = 0, addressTypes: Any = None, transportSemantics: str = "TCP"
    ) -> Any:
        receiver.resolutionBegan(None)
        for host, port in self.addresses:
            receiver.addressResolved(IPv4Address("TCP", host, port))
        receiver.resolutionComplete()
        return None


class ReactorWith:
    """The reactor with another resolver."""

    def __init__(self, resolver: FixedResolver) -> None:
        self.nameResolver = resolver

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


@implementer(IOpenSSLServerConnectionCreator)
class NoProtocol:
    """A server that ends the handshake because it speaks none of what we offer (RFC 7301 section 3.2)."""

    def __init__(self) -> None:
        issued = server_issued()
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_certificate(issued.certificate)
        self._context.use_privatekey(issued.key)
        lib = SSL._lib
        self._callback = SSL._ffi.callback(
            "int (*)(SSL *, const unsigned char **, unsigned char *, const unsigned char *, unsigned int, void *)", lambda *_: 2
        )
        lib.SSL_CTX_set_alpn_select_cb(self._context._context, self._callback, SSL._ffi.NULL)

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)


class DialingTests(TestCase):
    timeout = 120

    def serve(self, *orders: Order, issued: Issued | None = None, client_ca: bytes = b"") -> int:
        self.apple = SimulatedApple(Validation(keys=(MINTED.key,)), Orders(orders))
        issued = issued or server_issued()
        server = listen(reactor, self.apple, certificate=issued.certificate_pem, key=issued.key_pem, client_ca=client_ca)
        self.addCleanup(lambda: ensureDeferred(server.stop()))
        return server.port

    def listen(self, factory: Factory) -> int:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def pool(
        self,
        port: int,
        *,
        host: str = "localhost",
        name: str = "localhost",
        credential: ClientCredential | None = None,
        trust: bytes | None = CA,
        proxy: Proxy | None = None,
        resolver: FixedResolver | None = None,
    ) -> Pool:
        limits = PoolLimits(connect_patience=0.2, first_backoff=0.1, connect_timeout=5.0, attempt_timeout=2.0)
        around = ReactorWith(resolver) if resolver is not None else reactor
        dialer = TlsDialer(around, host, port, Http2Tls(name, credential, trust), limits.attempt_timeout, proxy)
        pool = Pool(dialer, reactor, limits=limits)
        self.addCleanup(pool.stop)
        return pool

    async def push(self, pool: Pool) -> Push:
        push = Ended()
        pool.submit(push)
        return await push.done

    async def assert_not_sent(self, pool: Pool, text: str) -> None:
        push = await self.push(pool)
        assert push.fault is not None
        self.assertEqual((push.fault.verdict, push.fault.why), (Verdict.NOT_WRITTEN, Why.NO_CONNECTION))
        self.assertIn(text, push.fault.text)

    async def test_pushes_over_tls(self) -> None:
        pool = self.pool(self.serve())
        self.assertEqual((await self.push(pool)).status, 200)
        self.assertEqual((await self.push(pool)).status, 200)
        (link,) = pool.figures().links
        self.assertEqual((link.sent, link.answers), (2, 2))
        self.assertIn(link.address, ("127.0.0.1", "::1"))

    async def room_after_a_turn_of_pushes(self, pool: Pool) -> int:
        await self.push(pool)  # the connection is open then
        pushes = [Ended() for _ in range(400)]
        for push in pushes:
            pool.submit(push)
        await task.deferLater(reactor, 0, lambda: None)  # behind the write of this turn
        room = pool.figures().room
        for push in pushes:
            await push.done
        return room

    async def test_what_a_turn_brings_leaves_room_for_the_next_push(self) -> None:
        self.assertEqual(await self.room_after_a_turn_of_pushes(self.pool(self.serve())), 600)

    async def test_so_does_it_through_a_proxy(self) -> None:
        proxy, _ = self.proxy()
        pool = self.pool(self.serve(), proxy=Proxy("127.0.0.1", proxy))
        self.assertEqual(await self.room_after_a_turn_of_pushes(pool), 600)

    async def test_an_address_in_place_of_a_name(self) -> None:
        self.assertEqual((await self.push(self.pool(self.serve(), host="127.0.0.1", name="127.0.0.1"))).status, 200)

    async def test_a_server_with_another_name(self) -> None:
        port = self.serve(issued=minted(["other.example"]))
        await self.assert_not_sent(self.pool(port), "the server's certificate is not valid for localhost")
        self.assertEqual(self.apple.ledger.requests, 0)

    async def test_a_server_without_any_name(self) -> None:
        port = self.serve(issued=minted([]))
        await self.assert_not_sent(self.pool(port), "the server's certificate is not valid for localhost")
        self.assertEqual(self.apple.ledger.requests, 0)
        self.flushLoggedErrors(CertificateError)  # Twisted lets it pass, and says so

    async def test_an_expired_server_certificate(self) -> None:
        port = self.serve(issued=minted(["localhost"], hours=-1.0))
        await self.assert_not_sent(self.pool(port), "not trusted, or has expired")

    async def test_a_server_of_an_authority_that_we_do_not_trust(self) -> None:
        pool = self.pool(self.serve(), trust=authority("another CA").issued.certificate_pem)
        await self.assert_not_sent(pool, "not trusted, or has expired")

    async def test_a_server_that_speaks_http_1_only(self) -> None:
        await self.assert_not_sent(self.pool(self.serve(Http11())), NO_HTTP2)

    async def test_a_server_that_refuses_our_protocols(self) -> None:
        port = self.listen(TLSMemoryBIOFactory(NoProtocol(), False, Factory.forProtocol(Protocol)))
        await self.assert_not_sent(self.pool(port), NO_HTTP2)

    async def test_a_server_that_does_not_speak_tls(self) -> None:
        class Plain(Protocol):
            def dataReceived(self, data: bytes) -> None:
                transport: Any = self.transport
                transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        await self.assert_not_sent(self.pool(self.listen(Factory.forProtocol(Plain))), "the TLS handshake failed")

    async def test_a_server_that_answers_with_garbage(self) -> None:
        push = await self.push(self.pool(self.serve(Garbage())))
        assert push.fault is not None
        self.assertEqual((push.fault.verdict, push.fault.why), (Verdict.UNKNOWN, Why.BAD_ANSWER))

    async def test_nobody_listens(self) -> None:
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        await self.assert_not_sent(self.pool(number, host="127.0.0.1", name="127.0.0.1"), f"127.0.0.1 port {number}")

    async def test_a_name_without_an_address(self) -> None:
        await self.assert_not_sent(self.pool(443, resolver=FixedResolver()), "localhost: no address")

    async def test_stopping_while_it_connects_leaves_nothing_and_logs_nothing(self) -> None:
        pool = self.pool(443, resolver=FixedResolver(("127.0.0.1", self.serve())))
        push = Ended()
        pool.submit(push)
        await pool.stop()
        assert push.fault is not None
        self.assertEqual(push.fault.why, Why.STOPPING)

    async def test_a_resolver_that_breaks_is_told(self) -> None:
        class Breaking(FixedResolver):
            def resolveHostName(self, *args: Any, **kwargs: Any) -> Any:
                raise ZeroDivisionError

        await self.assert_not_sent(self.pool(443, resolver=Breaking()), "the connection could not be begun")
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    async def test_the_next_address_is_tried_when_one_fails(self) -> None:
        port = self.serve()
        free = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        closed = free.getHost().port
        await free.stopListening()
        pool = self.pool(port, resolver=FixedResolver(("127.0.0.2", closed), ("127.0.0.1", port)))
        self.assertEqual((await self.push(pool)).status, 200)
        self.assertEqual(pool.figures().links[0].address, "127.0.0.1")

    async def test_a_client_certificate_stands_for_the_token(self) -> None:
        issued = minted([], user_id=TOPIC)
        pool = self.pool(self.serve(client_ca=CA), credential=ClientCredential(issued.certificate_pem, issued.key_pem))
        push = Ended()
        push.block = Push().block  # without a token
        pool.submit(push)
        await push.done
        self.assertEqual(push.status, 200)

    async def test_a_client_certificate_that_is_refused_after_our_handshake(self) -> None:
        issued = minted([], user_id=TOPIC)
        port = self.serve(client_ca=authority("another CA").issued.certificate_pem)
        pool = self.pool(port, credential=ClientCredential(issued.certificate_pem, issued.key_pem))
        await self.assert_not_sent(pool, "the server refused our certificate")

    # ------------------------------------------------------------------------------------------------------------------- proxies

    def proxy(self, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> tuple[int, list[bytes]]:
        """A proxy that answers like that and, if it says 200, opens a way. Gives its port, and what it was asked."""
        asked: list[bytes] = []
        return self.listen(Factory.forProtocol(lambda: ProxySide(answer, asked))), asked

    async def test_through_a_proxy_with_tls_from_end_to_end(self) -> None:
        port = self.serve()
        proxy, asked = self.proxy()
        pool = self.pool(port, proxy=Proxy("127.0.0.1", proxy, "user", "secret"))
        self.assertEqual((await self.push(pool)).status, 200)
        self.assertEqual(
            asked,
            [
                f"CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n"
                "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n\r\n".encode()
            ],
        )
        self.assertEqual(self.apple.ledger.accepted, 1)

    async def test_a_proxy_that_wants_to_know_who_we_are(self) -> None:
        proxy, _ = self.proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await self.assert_not_sent(self.pool(443, proxy=Proxy("127.0.0.1", proxy)), "the proxy answered 407")

    async def test_a_proxy_that_is_none(self) -> None:
        proxy, _ = self.proxy(b"220 mail.example ESMTP\r\n\r\n")
        await self.assert_not_sent(self.pool(443, proxy=Proxy("127.0.0.1", proxy)), "the proxy's answer is not HTTP/1")

    async def test_a_proxy_without_an_end(self) -> None:
        proxy, _ = self.proxy(b"HTTP/1.1 200 OK\r\n" + b"X-Filler: 1\r\n" * 10_000)
        await self.assert_not_sent(self.pool(443, proxy=Proxy("127.0.0.1", proxy)), f"longer than {MAX_ANSWER} bytes")

    async def test_a_proxy_that_hangs_up(self) -> None:
        class HangingUp(Protocol):
            def dataReceived(self, data: bytes) -> None:
                transport: Any = self.transport
                transport.loseConnection()

        proxy = self.listen(Factory.forProtocol(HangingUp))
        await self.assert_not_sent(self.pool(443, proxy=Proxy("127.0.0.1", proxy)), "the proxy ended the connection")

    async def test_stopping_while_a_proxy_says_nothing(self) -> None:
        lost: Deferred[None] = Deferred()

        class Silent(Protocol):
            def dataReceived(self, data: bytes) -> None:
                reactor.callLater(0, pool.stop)

            def connectionLost(self, reason: Failure | None = None) -> None:
                lost.callback(None)

        pool = self.pool(443, proxy=Proxy("127.0.0.1", self.listen(Factory.forProtocol(Silent))))
        push = await self.push(pool)
        assert push.fault is not None
        self.assertEqual(push.fault.why, Why.STOPPING)
        await lost


class ProxySide(Protocol):
    """The proxy's side of a connection."""

    def __init__(self, answer: bytes, asked: list[bytes]) -> None:
        self._answer = answer
        self._asked = asked
        self._request = b""
        self._onward: Any = None

    def dataReceived(self, data: bytes) -> None:
        if self._onward is not None:
            self._onward.transport.write(data)
            return
        self._request += data
        if not self._request.endswith(b"\r\n\r\n"):
            return
        self._asked.append(self._request)
        transport: Any = self.transport
        if b" 200 " not in self._answer or len(self._answer) > 1000:
            transport.write(self._answer)
            return
        outer = self

        class Onward(Protocol):
            def connectionMade(self) -> None:
                outer._onward = self
                transport.write(outer._answer)

            def dataReceived(self, data: bytes) -> None:
                transport.write(data)

            def connectionLost(self, reason: Failure | None = None) -> None:
                transport.loseConnection()

        place = self._request.split()[1].decode()
        factory = ClientFactory.forProtocol(Onward)
        factory.noisy = False
        reactor.connectTCP("127.0.0.1", int(place.rpartition(":")[2]), factory)

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._onward is not None:
            self._onward.transport.loseConnection()


class TunnelTests(SynchronousTestCase):
    def begin(self) -> None:
        self.inner = Inner()
        self.tunnel = Tunnel(Proxy("proxy", 3128).request("api.push.apple.com", 443), self.inner)
        self.transport = StringTransport()
        self.tunnel.makeConnection(self.transport)

    def test_the_answer_may_come_in_any_pieces_and_what_follows_is_not_lost(self) -> None:
        answer = b"HTTP/1.0 200 Connection established\nVia: x\r\n\r\nfirst bytes"
        for size in range(1, len(answer) + 1):
            self.begin()
            for at in range(0, len(answer), size):
                self.tunnel.dataReceived(answer[at : at + size])
            self.successResultOf(self.tunnel.opened)
            self.assertEqual(self.inner.heard, b"first bytes")

    def test_to_cancel_it_ends_the_connection(self) -> None:
        self.begin()
        self.tunnel.opened.addErrback(lambda _: None)
        self.tunnel.opened.cancel()
        self.assertTrue(self.transport.disconnected)

    def test_a_refusal_has_its_status(self) -> None:
        self.begin()
        self.tunnel.dataReceived(b"HTTP/1.1 503 Busy\r\n\r\n")
        self.assertEqual(self.failureResultOf(self.tunnel.opened, ProxyRefused).value.status, 503)

    def test_an_ipv6_address_is_in_brackets(self) -> None:
        self.assertTrue(Proxy("proxy", 1).request("2001:db8::1", 443).startswith(b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\n"))

    def test_what_is_no_host_is_refused(self) -> None:
        for host in ("a\r\nX: 1", "", "a b"):
            with self.assertRaises(ValueError):
                Proxy("proxy", 1).request(host, 443)

    def test_a_proxy_does_not_show_its_password(self) -> None:
        self.assertNotIn("hunter2", repr(Proxy("proxy", 1, "me", "hunter2")))


class Inner(Protocol):
    heard = b""

    def dataReceived(self, data: bytes) -> None:
        self.heard += data


class AddressTests(SynchronousTestCase):
    def find(self, resolver: FixedResolver) -> tuple[HostAddresses, list[Any]]:
        addresses: Any = HostAddresses(resolver, "host.example", 443)  # type: ignore[arg-type]  # as much of it as is used
        return addresses, self.successResultOf(Deferred.fromCoroutine(addresses.find()))

    def test_a_new_connection_goes_where_none_is_and_where_none_failed(self) -> None:
        addresses, found = self.find(FixedResolver(("10.0.0.1", 443), ("10.0.0.2", 443), ("10.0.0.3", 443)))
        addresses.failed(found[2])
        self.assertEqual([each.host for each in addresses.ranked(found, {"10.0.0.1"})], ["10.0.0.2", "10.0.0.1", "10.0.0.3"])
        addresses.succeeded(found[2])
        self.assertEqual([each.host for each in addresses.ranked(found, {"10.0.0.1"})], ["10.0.0.2", "10.0.0.3", "10.0.0.1"])

    def test_a_name_server_cannot_make_us_keep_any_number(self) -> None:
        _, found = self.find(FixedResolver(*((f"10.0.{number // 256}.{number % 256}", 443) for number in range(5000))))
        self.assertEqual(len(found), MAX_ADDRESSES)

    def test_what_was_found_before_serves_when_names_cannot_be_resolved(self) -> None:
        resolver = FixedResolver(("10.0.0.1", 443))
        addresses, found = self.find(resolver)
        resolver.addresses = ()
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(addresses.find())), found)


class CredentialTests(SynchronousTestCase):
    def test_what_cannot_be_used_is_said_without_a_word_of_it(self) -> None:
        good = device_issued("phone-1")
        cases = {
            "client certificate: no certificate": (b"nothing", good.key_pem),
            "client key: no unencrypted private key": (good.certificate_pem, b"secret words"),
            "do not belong together": (good.certificate_pem, server_issued().key_pem),
        }
        for text, (certificate, key) in cases.items():
            with self.assertRaisesRegex(BadCredential, text) as caught:
                ClientCredential(certificate, key)
            self.assertNotIn("secret", str(caught.exception))

    def test_a_file_that_is_not_there_is_named(self) -> None:
        with self.assertRaisesRegex(BadCredential, "/nowhere/push.pem cannot be read: No such file"):
            ClientCredential.from_files("/nowhere/push.pem", "/nowhere/push.key")

    def test_it_is_read_from_files(self) -> None:
        files = make_files(self.mktemp()).device("phone-1")
        self.assertEqual(len(ClientCredential.from_files(files.certificate, files.key).options), 3)

    def test_what_is_no_host_name_is_said(self) -> None:
        with self.assertRaises(BadCredential):
            Http2Tls("a..b", None, CA)

    def test_trust_must_be_certificates(self) -> None:
        with self.assertRaisesRegex(BadCredential, "trust: no certificate"):
            Http2Tls("localhost", None, b"nothing")

    def test_a_transport_without_tls_is_not_the_right_server(self) -> None:
        self.assertEqual(Http2Tls("localhost", None, CA).check(StringTransport()), "not a TLS connection")
        self.assertIsNone(Http2Tls("localhost", None, CA).explain(Failure(ConnectionError())))

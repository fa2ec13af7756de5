"""TlsTransport on real sockets with the real reactor and real OpenSSL on both sides."""

from __future__ import annotations

import datetime as dt
import gc
import socket
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import defer, reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.trial.unittest import TestCase

from streampush.cli.pki import CertificateAuthority
from streampush.config import TlsConfig
from streampush.server.transport import JOIN_BYTES, READ_BYTES, State
from tests.server.tls import Client, PlainClient, Recorder, TlsServer, client_context
from tests.support import authority, device_issued, make_files, server_issued

TLS_1_2, TLS_1_3 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION


def turn() -> defer.Deferred[None]:
    """Fires two turns of the reactor later, when what was scheduled by now has been done."""
    done: defer.Deferred[None] = defer.Deferred()
    reactor.callLater(0, reactor.callLater, 0, done.callback, None)  # type: ignore[attr-defined]
    return done


class TransportTestCase(TestCase):
    timeout = 20
    minimum = "1.2"
    high_water = 65536
    resumption = True

    def setUp(self) -> None:
        files = make_files(Path(self.mktemp()))
        self.tls = TlsConfig(
            certificate=str(files.server.certificate),
            key=str(files.server.key),
            client_ca=str(files.ca),
            minimum=self.minimum,
            resumption=self.resumption,
        )
        self.prepare: Callable[[Recorder], object] = lambda protocol: None
        self.server = TlsServer(reactor, self.tls, high_water=self.high_water, prepare=lambda protocol: self.prepare(protocol))
        self.clients: list[Client] = []
        self.addCleanup(self.stop)

    def stop(self) -> defer.Deferred[None]:
        return defer.ensureDeferred(self._stop())

    async def _stop(self) -> None:
        for client in self.clients:
            client.drop()
        await self.server.stop()
        self.assertEqual((self.server.admission.connections, self.server.admission.handshakes), (0, 0))

    def client(self, context: SSL.Context | None = None, session: SSL.Session | None = None) -> Client:
        context = context or client_context(authority(), device_issued("phone-1", "alice"))
        client = Client(reactor, self.server.address, context, session)
        self.clients.append(client)
        return client

    async def pair(self, context: SSL.Context | None = None, session: SSL.Session | None = None) -> tuple[Recorder, Client]:
        """A connection with its handshake done on both sides."""
        accepted = self.server.next_protocol()
        client = self.client(context, session)
        protocol = await accepted
        await protocol.wait("completed")
        await client.connected
        return protocol, client

    async def refused(self, context: SSL.Context) -> tuple[Recorder, Client]:
        """A connection whose handshake the server does not accept, when the client has noticed."""
        accepted = self.server.next_protocol()
        client = self.client(context)
        protocol = await accepted
        await protocol.wait("failed")
        await client.closed
        await protocol.wait("lost")
        return protocol, client


class HandshakeTests(TransportTestCase):
    async def test_tls_1_3_with_a_client_certificate(self) -> None:
        protocol, _ = await self.pair()
        self.assertEqual(protocol.names, ["made", "completed"])
        self.assertEqual(protocol.transport.tls_version, "TLSv1.3")
        self.assertEqual(protocol.transport.peer_certificate(), device_issued("phone-1", "alice").certificate)
        self.assertFalse(protocol.transport.session_reused)

    async def test_tls_1_2_with_a_client_certificate(self) -> None:
        protocol, _ = await self.pair(client_context(authority(), device_issued("phone-1", "alice"), version=TLS_1_2))
        self.assertEqual(protocol.transport.tls_version, "TLSv1.2")
        self.assertFalse(protocol.transport.session_reused)

    async def test_addresses_of_both_ends_are_known(self) -> None:
        protocol, client = await self.pair()
        peer, host = protocol.transport.getPeer(), protocol.transport.getHost()
        self.assertEqual((peer.host, peer.port), client.sock.getsockname())
        self.assertEqual((host.host, host.port), self.server.address)

    async def test_socket_sends_small_writes_at_once_and_probes_dead_peers(self) -> None:
        protocol, _ = await self.pair()
        sock = socket.socket(fileno=socket.dup(protocol.transport.fileno()))
        self.addCleanup(sock.close)
        self.assertTrue(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        self.assertTrue(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        self.assertEqual(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), 60)

    async def check_resumed(self, version: int) -> None:
        context = client_context(authority(), device_issued("phone-1", "alice"), version=version)
        first, client = await self.pair(context)
        first.transport.write(b"ticket")
        await client.wait_bytes(6)  # TLS 1.3 sends its tickets behind the handshake
        session = client.tls.get_session()
        client.close()
        await first.wait("lost")
        second, _ = await self.pair(context, session)
        self.assertTrue(second.transport.session_reused)
        self.assertEqual(second.transport.peer_certificate(), device_issued("phone-1", "alice").certificate)

    async def test_session_is_resumed_in_tls_1_3(self) -> None:
        await self.check_resumed(TLS_1_3)

    async def test_session_is_resumed_in_tls_1_2(self) -> None:
        await self.check_resumed(TLS_1_2)

    async def test_session_does_not_outlive_a_reload(self) -> None:
        context = client_context(authority(), device_issued("phone-1", "alice"))
        first, client = await self.pair(context)
        first.transport.write(b"ticket")
        await client.wait_bytes(6)
        session = client.tls.get_session()
        self.server.contexts.reload()
        second, _ = await self.pair(context, session)
        self.assertFalse(second.transport.session_reused)
        first.transport.write(b"still here")
        await client.wait_bytes(16)

    async def check_refused(self, context: SSL.Context, result: str) -> Client:
        protocol, client = await self.refused(context)
        self.assertEqual(protocol.names, ["made", "failed", "lost"])
        self.assertEqual(protocol.events[1][1], result)
        return client

    def assert_alert(self, client: Client, *texts: str) -> None:
        self.assertIsInstance(client.error, SSL.Error)
        self.assertNotIsInstance(client.error, SSL.SysCallError)
        self.assertTrue(any(text in str(client.error) for text in texts), str(client.error))

    async def test_client_without_a_certificate_gets_an_alert(self) -> None:
        client = await self.check_refused(client_context(authority(), None), "no_certificate")
        self.assert_alert(client, "certificate required")

    async def test_client_without_a_certificate_gets_an_alert_in_tls_1_2(self) -> None:
        client = await self.check_refused(client_context(authority(), None, version=TLS_1_2), "no_certificate")
        self.assert_alert(client, "handshake failure")

    async def test_certificate_of_another_ca_gets_an_alert(self) -> None:
        foreign = authority("another CA").issue_device("phone-1")
        client = await self.check_refused(client_context(authority(), foreign), "unknown_ca")
        self.assert_alert(client, "unknown ca")

    async def test_expired_certificate_gets_an_alert(self) -> None:
        start = dt.datetime.now(dt.UTC) - dt.timedelta(days=3)
        expired = authority().issue_device("phone-1", days=1, start=start)
        client = await self.check_refused(client_context(authority(), expired), "expired")
        self.assert_alert(client, "certificate expired")

    async def test_certificate_that_is_not_valid_yet_gets_an_alert(self) -> None:
        start = dt.datetime.now(dt.UTC) + dt.timedelta(days=3)
        early = authority().issue_device("phone-1", days=1, start=start)
        await self.check_refused(client_context(authority(), early), "expired")

    async def test_certificate_for_servers_is_no_identity_of_a_client(self) -> None:
        client = await self.check_refused(client_context(authority(), server_issued()), "bad_certificate")
        self.assert_alert(client, "certificate")

    async def test_alert_arrives_although_the_client_has_sent_on(self) -> None:
        accepted = self.server.next_protocol()
        client = self.client(client_context(authority(), None, version=TLS_1_3))
        # TLS 1.3 lets the client write as soon as its own part is done, before it can know that it is refused
        await client.connected
        client.write(b"x" * 100_000)
        protocol = await accepted
        await client.closed
        await protocol.wait("lost")
        self.assert_alert(client, "certificate required")

    async def test_plain_http_is_told_from_tls(self) -> None:
        accepted = self.server.next_protocol()
        endpoint = TCP4ClientEndpoint(reactor, *self.server.address)
        client: Any = await endpoint.connect(PlainClient.factory(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
        protocol = await accepted
        await protocol.wait("lost")
        await client.lost
        self.assertEqual(protocol.events[1][1], "not_tls")

    async def test_arbitrary_bytes_are_told_from_tls(self) -> None:
        for greeting in (b"\0\0\0\x10streampush......", b"\xff" * 64, b"SSH-2.0-OpenSSH_9.6\r\n"):
            accepted = self.server.next_protocol()
            endpoint = TCP4ClientEndpoint(reactor, *self.server.address)
            client: Any = await endpoint.connect(PlainClient.factory(greeting))
            protocol = await accepted
            await protocol.wait("failed")
            await client.lost
            await protocol.wait("lost")
            self.assertEqual(protocol.events[1][1], "not_tls", greeting)

    async def test_reset_in_the_middle_of_the_handshake(self) -> None:
        accepted = self.server.next_protocol()
        client = self.client()
        client.drop(reset=True)
        protocol = await accepted
        await protocol.wait("lost")
        self.assertEqual(protocol.names, ["made", "failed", "lost"])
        self.assertEqual(protocol.events[1][1], "aborted")

    async def test_connection_that_says_nothing_and_goes(self) -> None:
        accepted = self.server.next_protocol()
        sock = socket.create_connection(self.server.address)
        protocol = await accepted
        sock.close()
        await protocol.wait("lost")
        self.assertEqual(protocol.events[1][1], "aborted")

    async def test_owner_names_the_deadline_that_ended_the_handshake(self) -> None:
        accepted = self.server.next_protocol()
        sock = socket.create_connection(self.server.address)
        self.addCleanup(sock.close)
        protocol = await accepted
        protocol.transport.abort("timeout")
        await protocol.wait("lost")
        self.assertEqual(protocol.events[1:], [("failed", "timeout", ""), ("lost", "ConnectionAborted")])

    async def test_renegotiation_is_refused(self) -> None:
        protocol, client = await self.pair(client_context(authority(), device_issued("phone-1", "alice"), version=TLS_1_2))
        client.tls.renegotiate()
        with self.assertRaises(SSL.Error):
            client.tls.do_handshake()
            await client.closed
            raise client.error or AssertionError("renegotiated")
        client.drop()
        await protocol.wait("lost")
        self.assertEqual(protocol.names.count("completed"), 1)

    async def test_one_failure_is_not_taken_for_another_connections(self) -> None:
        protocol, client = await self.pair()
        await self.refused(client_context(authority(), None))
        self.client().drop(reset=True)
        protocol.transport.write(b"unharmed")
        client.write(b"unharmed")
        await client.wait_bytes(8)
        await protocol.wait_bytes(8)
        self.assertEqual(protocol.transport.state, State.OPEN)

    async def test_chain_through_an_intermediate_ca_is_accepted(self) -> None:
        # `authority()` signs leaves only; here its own certificate comes along, as clients do that send the whole chain
        chain = (authority().issued.certificate,)
        await self.pair(client_context(authority(), device_issued("phone-1", "alice"), chain=chain))


class OnlyTls13Tests(TransportTestCase):
    minimum = "1.3"

    async def test_tls_1_2_is_refused(self) -> None:
        protocol, client = await self.refused(client_context(authority(), device_issued("phone-1", "alice"), version=TLS_1_2))
        self.assertEqual(protocol.events[1][1], "tls_error")
        self.assertIn("protocol version", str(client.error))


class NoResumptionTests(TransportTestCase):
    resumption = False

    async def check_not_resumed(self, version: int) -> None:
        context = client_context(authority(), device_issued("phone-1", "alice"), version=version)
        first, client = await self.pair(context)
        first.transport.write(b"ticket")
        await client.wait_bytes(6)
        session = client.tls.get_session()
        second, _ = await self.pair(context, session)
        self.assertFalse(second.transport.session_reused)

    async def test_session_is_not_resumed_in_tls_1_3(self) -> None:
        await self.check_not_resumed(TLS_1_3)

    async def test_session_is_not_resumed_in_tls_1_2(self) -> None:
        await self.check_not_resumed(TLS_1_2)

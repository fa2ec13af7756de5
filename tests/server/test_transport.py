"""TlsTransport on real sockets with the real reactor and real OpenSSL on both sides."""

from __future__ import annotations

import datetime as dt
import gc
import socket
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import defer, reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from streampush.cli.pki import CertificateAuthority
from streampush.config import TlsConfig
from streampush.server.send_buffer import JOIN_BYTES
from streampush.server.transport import READ_BYTES, State
from tests.server.tls import Client, PlainClient, Recorder, TlsServer, client_context
from tests.support import authority, device_issued, make_files, server_issued

TLS_1_2, TLS_1_3 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION


def turn() -> defer.Deferred[None]:
    """Fires two turns of the reactor later, when what was scheduled by now has been done."""
    done: defer.Deferred[None] = defer.Deferred()
    reactor.callLater(0, reactor.callLater, 0, done.callback, None)  # type: ignore[attr-defined]
    return done


class TransportTestCase(TestCase):
    timeout = 120
    minimum = "1.2"
    high_water = 65536
    resumption = True

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        files = make_files(directory.name)
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
        self.assertEqual(protocol.events[2], ("lost", "ConnectionLost"))

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


class DataTests(TransportTestCase):
    async def test_bytes_go_both_ways(self) -> None:
        protocol, client = await self.pair()
        client.write(b"from the device")
        protocol.transport.write(b"from the server")
        await protocol.wait_bytes(15)
        await client.wait_bytes(15)
        self.assertEqual((bytes(protocol.received), bytes(client.received)), (b"from the device", b"from the server"))
        self.assertEqual((protocol.transport.bytes_read, protocol.transport.bytes_written), (15, 15))

    async def test_writes_of_one_turn_leave_as_one_record(self) -> None:
        protocol, client = await self.pair()
        sizes: list[int] = []
        client.on_read = sizes.append
        for n in range(1000):
            protocol.transport.write(b"%03d" % n)
        self.assertEqual(protocol.transport.buffered, 3000)
        self.assertEqual(protocol.transport.bytes_written, 0)
        await client.wait_bytes(3000)
        self.assertEqual(bytes(client.received), b"".join(b"%03d" % n for n in range(1000)))
        self.assertEqual(sizes, [3000])
        self.assertEqual(protocol.transport.buffered, 0)

    async def test_write_before_the_handshake_is_done_waits_for_it(self) -> None:
        self.prepare = lambda protocol: protocol.on.update(made=lambda p: p.transport.write(b"early"))
        _, client = await self.pair()
        await client.wait_bytes(5)
        self.assertEqual(bytes(client.received), b"early")

    async def test_write_when_the_handshake_completes(self) -> None:
        self.prepare = lambda protocol: protocol.on.update(completed=lambda p: p.transport.write(b"welcome"))
        _, client = await self.pair()
        await client.wait_bytes(7)

    async def test_write_from_within_data_received(self) -> None:
        protocol, client = await self.pair()
        protocol.on["data"] = lambda p: p.transport.write(b"echo:" + bytes(p.received))
        client.write(b"hello")
        await client.wait_bytes(10)
        self.assertEqual(bytes(client.received), b"echo:hello")

    async def test_empty_write_is_nothing(self) -> None:
        protocol, client = await self.pair()
        protocol.transport.write(b"")
        protocol.transport.writeSequence([b"a", b"", b"b"])
        await client.wait_bytes(2)
        self.assertEqual(bytes(client.received), b"ab")

    async def test_same_bytes_are_written_to_many_connections_uncopied(self) -> None:
        frame = bytes(range(256)) * 4
        pairs = [await self.pair() for _ in range(5)]
        for protocol, _ in pairs:
            protocol.transport.write(frame)
        for _, client in pairs:
            await client.wait_bytes(len(frame))
            self.assertEqual(bytes(client.received), frame)

    async def test_large_data_of_the_client_arrives_whole(self) -> None:
        protocol, client = await self.pair()
        data = bytes(range(256)) * 4096
        client.write(data)
        await protocol.wait_bytes(len(data))
        self.assertEqual(bytes(protocol.received), data)
        self.assertLessEqual(max(event[1] for event in protocol.events if event[0] == "data"), READ_BYTES)

    async def test_slow_reader_leaves_the_rest_in_the_buffer_until_it_reads(self) -> None:
        protocol, client = await self.pair()
        client.pause()
        items = [bytes([n % 256]) * (n * 37 % 5000) for n in range(6000)]
        for item in items:
            protocol.transport.write(item)
        data = b"".join(items)
        self.assertEqual(protocol.transport.buffered, len(data))
        self.assertFalse(protocol.transport.has_room())
        await turn()
        self.assertGreater(protocol.transport.buffered, 65536)
        self.assertNotIn("room", protocol.names)
        self.assertIn(protocol.transport, self.server.sockets.getWriters())  # type: ignore[attr-defined]  # a SocketSet's
        client.resume()
        await protocol.wait("room")
        self.assertLess(protocol.transport.buffered, 65536)
        await client.wait_bytes(len(data))
        self.assertEqual(bytes(client.received), data)
        await turn()
        self.assertEqual(protocol.transport.buffered, 0)
        self.assertEqual(protocol.transport.bytes_written, len(data))
        self.assertNotIn(protocol.transport, self.server.sockets.getWriters())  # type: ignore[attr-defined]  # a SocketSet's

    async def test_writes_behind_a_full_buffer_keep_their_order(self) -> None:
        protocol, client = await self.pair()
        client.pause()
        protocol.transport.write(b"a" * 8_000_000)
        await turn()
        for _ in range(3):
            protocol.transport.write(b"b" * 1000)
            await turn()
            protocol.transport.write(b"c" * (JOIN_BYTES + 1))
        client.resume()
        total = 8_000_000 + 3 * (1000 + JOIN_BYTES + 1)
        await client.wait_bytes(total)
        self.assertEqual(bytes(client.received), b"a" * 8_000_000 + (b"b" * 1000 + b"c" * (JOIN_BYTES + 1)) * 3)

    async def test_room_is_reported_once_and_only_to_who_asked(self) -> None:
        protocol, client = await self.pair()
        protocol.transport.write(b"x" * 100_000)
        await client.wait_bytes(100_000)
        self.assertNotIn("room", protocol.names)
        protocol.transport.write(b"x" * 100_000)
        self.assertFalse(protocol.transport.has_room())
        self.assertFalse(protocol.transport.has_room())
        await client.wait_bytes(200_000)
        protocol.transport.write(b"x")
        await client.wait_bytes(200_001)
        self.assertEqual(protocol.names.count("room"), 1)
        self.assertTrue(protocol.transport.has_room())

    async def test_producer_that_writes_whenever_there_is_room(self) -> None:
        protocol, client = await self.pair()
        left = [3_000_000]

        def produce(p: Recorder) -> None:
            while left[0] and p.transport.has_room():
                p.transport.write(b"y" * 10_000)
                left[0] -= 10_000
                self.assertLess(p.transport.buffered, self.high_water + 10_000)

        protocol.on["room"] = produce
        produce(protocol)
        await client.wait_bytes(3_000_000)

    async def test_paused_reading_delivers_nothing_until_it_is_resumed(self) -> None:
        protocol, client = await self.pair()
        protocol.on["data"] = lambda p: p.transport.pause_reading()
        client.write(b"z" * 100_000)
        await protocol.wait("data")
        await turn()
        held = len(protocol.received)
        self.assertLessEqual(held, READ_BYTES)
        del protocol.on["data"]
        protocol.transport.resume_reading()
        await protocol.wait_bytes(100_000)

    async def test_pause_during_the_handshake_holds_data_and_not_the_handshake(self) -> None:
        self.prepare = lambda protocol: protocol.on.update(made=lambda p: p.transport.pause_reading())
        protocol, client = await self.pair()
        client.write(b"held")
        await turn()
        await turn()
        self.assertEqual(bytes(protocol.received), b"")
        protocol.transport.resume_reading()
        await protocol.wait_bytes(4)

    async def test_greedy_client_does_not_keep_others_waiting(self) -> None:
        greedy, client = await self.pair()
        client.write(b"g" * 2_000_000)
        reads: list[int] = []
        greedy.on["data"] = lambda p: reads.append(len(p.received))
        greedy.transport.doRead()
        self.assertLessEqual(reads[-1], 4 * READ_BYTES)


class ClosingTests(TransportTestCase):
    async def test_server_closes_in_order(self) -> None:
        protocol, client = await self.pair()
        protocol.transport.write(b"goodbye")
        protocol.transport.lose_connection()
        protocol.transport.write(b"too late")
        await client.closed
        self.assertEqual(bytes(client.received), b"goodbye")
        self.assertIsNone(client.error)  # close_notify, not a bare FIN
        await protocol.wait("lost")
        self.assertEqual(protocol.events[-1], ("lost", "ConnectionDone"))

    async def test_server_closes_behind_all_that_a_slow_reader_has_to_read(self) -> None:
        protocol, client = await self.pair()
        client.pause()
        protocol.transport.write(b"x" * 8_000_000)
        protocol.transport.lose_connection()
        await turn()
        self.assertEqual(protocol.transport.state, State.CLOSING)
        client.resume()
        await client.closed
        self.assertEqual(len(client.received), 8_000_000)
        self.assertIsNone(client.error)

    async def test_socket_stays_open_behind_the_last_words_until_the_client_closes(self) -> None:
        protocol, client = await self.pair()
        client.pause()
        protocol.transport.lose_connection()
        await turn()
        client.write(b"on its way")
        await turn()
        self.assertEqual(protocol.transport.state, State.LINGERING)
        client.resume()
        await protocol.wait("lost")
        self.assertEqual(bytes(protocol.received), b"")

    async def test_last_words_arrive_although_the_client_has_sent_on(self) -> None:
        protocol, client = await self.pair()
        protocol.transport.pause_reading()
        client.write(b"x" * 300_000)
        await turn()
        protocol.transport.write(b"goodbye")
        protocol.transport.lose_connection()
        await client.closed
        self.assertEqual(bytes(client.received), b"goodbye")
        self.assertEqual(bytes(protocol.received), b"")
        await protocol.wait("lost")

    async def test_client_that_neither_reads_nor_closes_is_ended_by_abort(self) -> None:
        protocol, client = await self.pair()
        client.pause()
        protocol.transport.write(b"x" * 8_000_000)
        protocol.transport.lose_connection()
        await turn()
        protocol.transport.abort()
        await protocol.wait("lost")
        self.assertEqual(protocol.events[-1], ("lost", "ConnectionAborted"))

    async def test_client_that_closes_while_the_server_closes(self) -> None:
        protocol, client = await self.pair()
        protocol.transport.lose_connection()
        client.close()
        await protocol.wait("lost")
        self.assertEqual(protocol.events[-1], ("lost", "ConnectionDone"))

    async def test_client_closes_in_order(self) -> None:
        protocol, client = await self.pair()
        client.write(b"last")
        client.close()
        await protocol.wait("lost")
        self.assertEqual(bytes(protocol.received), b"last")
        self.assertEqual(protocol.events[-1], ("lost", "ConnectionDone"))

    async def test_client_that_closes_its_half_gets_what_is_due_and_an_answer(self) -> None:
        protocol, client = await self.pair()
        protocol.on["data"] = lambda p: p.transport.write(b"answer")
        client.write(b"question")
        client.tls.shutdown()
        await client.closed
        self.assertEqual(bytes(client.received), b"answer")
        self.assertIsNone(client.error)
        await protocol.wait("lost")

    async def test_fin_without_close_notify_is_a_loss(self) -> None:
        protocol, client = await self.pair()
        client.drop()
        await protocol.wait("lost")
        self.assertEqual(protocol.events[-1], ("lost", "ConnectionLost"))

    async def test_reset_is_a_loss(self) -> None:
        protocol, client = await self.pair()
        client.drop(reset=True)
        await protocol.wait("lost")
        self.assertIn(protocol.events[-1], [("lost", "ConnectionLost"), ("lost", "ConnectionDone")])

    async def test_write_to_a_peer_that_is_gone_is_a_loss(self) -> None:
        protocol, client = await self.pair()
        protocol.transport.pause_reading()
        client.drop(reset=True)
        protocol.transport.write(b"x" * 100_000)
        await protocol.wait("lost")
        self.assertEqual(protocol.events[-1], ("lost", "ConnectionLost"))

    async def test_abort_drops_what_is_buffered_and_resets(self) -> None:
        protocol, client = await self.pair()
        protocol.transport.write(b"never")
        protocol.transport.abort()
        self.assertNotIn("lost", protocol.names)
        self.assertEqual(protocol.transport.buffered, 0)
        await client.closed
        self.assertIsInstance(client.error, SSL.SysCallError)
        self.assertEqual(bytes(client.received), b"")
        await protocol.wait("lost")
        self.assertEqual(protocol.names.count("lost"), 1)

    async def check_abort_in(self, event: str, *, provoke: Callable[[Recorder, Client], None] = lambda p, c: None) -> None:
        def abort(p: Recorder) -> None:
            p.transport.abort()
            p.transport.write(b"ignored")
            p.transport.lose_connection()
            p.transport.abort()

        self.prepare = lambda protocol: protocol.on.update({event: abort})
        accepted = self.server.next_protocol()
        client = self.client()
        protocol = await accepted
        if event in ("data", "room"):
            await protocol.wait("completed")
            await client.connected
        provoke(protocol, client)
        await protocol.wait("lost")
        self.assertEqual(protocol.events[-1], ("lost", "ConnectionAborted"))
        self.assertEqual(protocol.names.count("lost"), 1)

    async def test_abort_when_the_connection_is_made(self) -> None:
        await self.check_abort_in("made")

    async def test_abort_when_the_handshake_completes(self) -> None:
        await self.check_abort_in("completed")

    async def test_abort_when_data_comes(self) -> None:
        await self.check_abort_in("data", provoke=lambda p, c: c.write(b"x" * 100_000))

    async def test_abort_when_room_comes_back(self) -> None:
        def provoke(protocol: Recorder, client: Client) -> None:
            protocol.transport.write(b"x" * 100_000)
            protocol.transport.has_room()

        await self.check_abort_in("room", provoke=provoke)

    async def test_abort_when_the_handshake_has_failed(self) -> None:
        self.prepare = lambda protocol: protocol.on.update(failed=lambda p: p.transport.abort())
        protocol, _ = await self.refused(client_context(authority(), None))
        self.assertEqual(protocol.names, ["made", "failed", "lost"])

    async def test_losing_the_connection_before_the_handshake_is_an_abort(self) -> None:
        self.prepare = lambda protocol: protocol.on.update(made=lambda p: p.transport.lose_connection())
        protocol, _ = await self.refused(client_context(authority(), device_issued("phone-1", "alice")))
        self.assertEqual(protocol.events[1:], [("failed", "aborted", ""), ("lost", "ConnectionAborted")])

    async def test_client_that_stays_after_a_refusal_is_ended_by_abort(self) -> None:
        accepted = self.server.next_protocol()
        client = self.client(client_context(authority(), None))
        client.pause()
        protocol = await accepted
        while "failed" not in protocol.names:
            client.doRead()
            client.pause()
            await turn()
        self.assertEqual(protocol.transport.state, State.LINGERING)
        protocol.transport.abort("timeout")
        await protocol.wait("lost")
        self.assertEqual(protocol.names.count("failed"), 1)
        self.assertEqual(protocol.events[1][1], "no_certificate")

    async def test_protocol_that_raises_in_data_received_is_closed_alone(self) -> None:
        other, other_client = await self.pair()
        protocol, client = await self.pair()
        protocol.on["data"] = lambda p: 1 // 0
        client.write(b"x")
        await protocol.wait("lost")
        self.assertEqual(protocol.events[-1], ("lost", "ZeroDivisionError"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        other.transport.write(b"unharmed")
        await other_client.wait_bytes(8)

    async def test_protocol_that_raises_while_flushing_is_closed_alone(self) -> None:
        pairs = [await self.pair() for _ in range(3)]
        pairs[1][0].on["room"] = lambda p: 1 // 0
        for protocol, _ in pairs:
            protocol.transport.write(b"x" * 70_000)
            protocol.transport.has_room()
        for _, client in pairs:
            await client.wait_bytes(70_000)
        await pairs[1][0].wait("lost")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual([protocol.transport.state for protocol, _ in pairs], [State.OPEN, State.LOST, State.OPEN])

    async def test_lost_transport_answers_and_does_nothing(self) -> None:
        protocol, client = await self.pair()
        transport = protocol.transport
        client.close()
        await protocol.wait("lost")
        transport.write(b"x")
        transport.pause_reading()
        transport.resume_reading()
        transport.lose_connection()
        transport.abort()
        self.assertEqual((transport.buffered, transport.fileno(), transport.tls_version), (0, -1, ""))
        self.assertIsNone(transport.peer_certificate())
        self.assertFalse(transport.session_reused)
        self.assertEqual(transport.getPeer(), protocol.peer)
        self.assertRaises(OSError, transport.getHost)
        self.assertIsNone(transport.doRead())
        self.assertIsNone(transport.doWrite())
        transport.connectionLost(Failure(ConnectionLost()))
        await turn()
        self.assertEqual(protocol.names.count("lost"), 1)

    async def test_nothing_is_left_behind(self) -> None:
        protocol, client = await self.pair()
        protocol.transport.write(b"x" * 100_000)
        await client.wait_bytes(100_000)
        client.close()
        await protocol.wait("lost")
        await turn()
        self.assertNotIn(self.server.sockets, reactor.getReaders())  # type: ignore[attr-defined]
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        transport = weakref.ref(protocol.transport)
        del protocol.transport
        self.assertIsNone(transport())


class HighMarkTests(TransportTestCase):
    high_water = 8_000_000

    async def test_fault_while_the_kernel_is_full_leaves_nothing_in_the_reactor(self) -> None:
        protocol, client = await self.pair()
        client.pause()
        protocol.on["room"] = lambda p: 1 // 0
        protocol.transport.write(b"x" * self.high_water)
        self.assertFalse(protocol.transport.has_room())
        await protocol.wait("lost")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertNotIn(protocol.transport, self.server.sockets.getWriters())  # type: ignore[attr-defined]  # a SocketSet's


class AuthorityTests(TransportTestCase):
    async def test_new_authority_counts_for_connections_after_the_reload(self) -> None:
        other = CertificateAuthority.create("the next CA")
        Path(self.tls.client_ca).write_bytes(other.issued.certificate_pem)
        await self.pair()
        self.server.contexts.reload()
        await self.pair(client_context(authority(), other.issue_device("phone-1")))
        protocol, _ = await self.refused(client_context(authority(), device_issued("phone-1", "alice")))
        self.assertEqual(protocol.events[1][1], "unknown_ca")


class Wayward(SSL.Connection):
    """OpenSSL when an answer to a key update is under way: reading wants to write, or writing wants to read. No client of ours
    can bring that about, so `script` says what the next calls raise; a connection becomes Wayward by assignment to `__class__`."""

    script: dict[str, list[type[SSL.Error]]]

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        if self.script.get("recv"):
            raise self.script["recv"].pop(0)
        return super().recv(bufsiz, flags)

    def send(self, buf: Any, flags: int = 0) -> int:
        if self.script.get("send"):
            raise self.script["send"].pop(0)
        return super().send(buf, flags)


class SeldomTests(TransportTestCase):
    async def wayward(self, script: dict[str, list[type[SSL.Error]]]) -> tuple[Recorder, Client]:
        protocol, client = await self.pair()
        tls: Any = protocol.transport._tls
        tls.__class__ = Wayward
        tls.script = script
        return protocol, client

    async def test_read_that_wants_to_write_goes_on_when_the_kernel_has_room(self) -> None:
        protocol, client = await self.wayward({"recv": [SSL.WantWriteError]})
        client.write(b"late")
        await protocol.wait_bytes(4)
        await turn()
        self.assertNotIn(protocol.transport, self.server.sockets.getWriters())  # type: ignore[attr-defined]  # a SocketSet's

    async def test_read_that_wants_to_write_and_then_fails_is_a_loss(self) -> None:
        protocol, client = await self.wayward({"recv": [SSL.WantWriteError, SSL.Error]})
        client.write(b"never")
        await protocol.wait("lost")
        self.assertEqual(protocol.events[-1], ("lost", "ConnectionLost"))

    async def test_write_that_wants_to_read_goes_on_when_something_came(self) -> None:
        protocol, client = await self.wayward({"send": [SSL.WantReadError]})
        protocol.transport.write(b"one")
        await turn()
        protocol.transport.write(b"two")
        await turn()
        self.assertEqual((protocol.transport.buffered, bytes(client.received)), (6, b""))
        client.write(b"what it waits for")
        await client.wait_bytes(6)
        self.assertEqual(bytes(client.received), b"onetwo")

    async def test_handshake_waits_for_room_in_the_kernel(self) -> None:
        chain = b"".join(CertificateAuthority.create(f"CA {n}").issued.certificate_pem for n in range(60))
        path = Path(self.tls.certificate)
        path.write_bytes(path.read_bytes() + chain)
        self.server.contexts.reload()

        def narrow(protocol: Recorder) -> None:
            with socket.socket(fileno=socket.dup(protocol.transport.fileno())) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)

        self.prepare = lambda protocol: protocol.on.update(made=narrow)
        accepted = self.server.next_protocol()
        client = self.client()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.pause()
        protocol = await accepted
        await turn()
        await turn()
        self.assertIn(protocol.transport, self.server.sockets.getWriters())  # type: ignore[attr-defined]  # a SocketSet's
        client.resume()
        await protocol.wait("completed")
        self.assertNotIn(protocol.transport, self.server.sockets.getWriters())  # type: ignore[attr-defined]  # a SocketSet's

    async def test_record_that_was_tampered_with_is_a_loss(self) -> None:
        protocol, client = await self.pair()
        client.sock.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        await protocol.wait("lost")
        self.assertEqual(protocol.events[-1], ("lost", "ConnectionLost"))
        self.assertEqual(bytes(protocol.received), b"")

    async def test_reset_behind_the_servers_last_words_is_an_orderly_end(self) -> None:
        protocol, client = await self.pair()
        client.pause()
        protocol.transport.lose_connection()
        await turn()
        client.drop(reset=True)
        await protocol.wait("lost")
        self.assertEqual(protocol.events[-1], ("lost", "ConnectionDone"))

    async def test_client_that_sends_without_end_behind_the_last_words_is_cut(self) -> None:
        protocol, client = await self.pair()
        client.pause()
        protocol.transport.lose_connection()
        await turn()
        client.write(b"x" * 8_000_000)
        await protocol.wait("lost")
        self.assertEqual(protocol.events[-1], ("lost", "ConnectionDone"))
        await client.closed

    async def test_twisteds_names_for_closing(self) -> None:
        protocol, client = await self.pair()
        protocol.transport.abortConnection()
        await protocol.wait("lost")
        self.assertEqual(protocol.events[-1], ("lost", "ConnectionAborted"))
        other, client = await self.pair()
        other.transport.loseConnection()
        await client.closed
        self.assertIsNone(client.error)

"""A StreamPort behind a proxy: real sockets, a reactor that is turned by hand where time matters."""

from __future__ import annotations

import socket
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.internet.main import CONNECTION_DONE
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from streampush.config import AdmissionConfig, ListenConfig, TlsConfig
from streampush.server.admission import Admission
from streampush.server.introductions import (
    NOT_A_PROXY,
    PROXY_HEADER,
    PROXY_TIMEOUT,
    PROXY_WAITING,
    Introductions,
    Proxies,
)
from tests.server.proxy_headers import CHECK, block, text
from tests.server.test_listener import ManualReactor
from tests.server.tls import Client, TlsServer, client_context
from tests.support import authority, device_issued, make_files

CLIENT = "198.51.100.7"
HEADER = block(CLIENT)


class ProxiedTestCase(TestCase):
    timeout = 120

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        files = make_files(directory.name)
        self.tls = TlsConfig(certificate=str(files.server.certificate), key=str(files.server.key), client_ca=str(files.ca))
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self._observe)
        self.addCleanup(globalLogPublisher.removeObserver, self._observe)

    def _observe(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "streampush.connections":
            self.lines.append(formatEvent(event))

    def listen(self, **settings: Any) -> ListenConfig:
        return ListenConfig(
            **{"address": "127.0.0.1", "port": 0, "proxy_protocol": "v2", "proxy_from": ("127.0.0.0/8",), **settings}
        )


class HeaderTests(ProxiedTestCase):
    """The reactor stands still; `turn` does what it would."""

    def server(self, limits: AdmissionConfig | None = None, **settings: Any) -> TlsServer:
        self.manual = ManualReactor()
        self.admission = Admission(limits or AdmissionConfig(), 1000)
        server = TlsServer(self.manual, self.tls, admission=self.admission, listen=self.listen(**settings))
        self.addCleanup(self.end, server)
        return server

    def end(self, server: TlsServer) -> None:
        """Nothing is left in the reactor, and nobody is counted."""
        server.port.connectionLost(Failure(CONNECTION_DONE))  # type: ignore[no-untyped-call]
        for protocol in server.accepted:
            protocol.transport.abort()
        self.manual.advance(0)
        self.assertEqual((self.manual.readers, self.manual.writers, self.manual.getDelayedCalls()), (set(), set(), []))
        self.assertEqual((self.admission.connections, self.admission.handshakes), (0, 0))

    def turn(self) -> None:
        """What waits to be read is read."""
        for reader in tuple(self.manual.readers):
            reader.doRead()  # type: ignore[attr-defined]

    def connect(self, server: TlsServer, data: bytes = b"") -> socket.socket:
        sock = socket.create_connection(server.address, timeout=5)
        self.addCleanup(sock.close)
        sock.sendall(data)
        server.port.doRead()
        self.turn()
        return sock

    def check_refused(self, server: TlsServer, sock: socket.socket, reason: str) -> None:
        self.assertRaises(ConnectionResetError, sock.recv, 1)
        self.assertEqual((server.metrics.reasons, server.accepted), ([reason], []))

    def test_protocol_is_told_the_clients_address(self) -> None:
        server = self.server()
        self.connect(server, HEADER)
        [protocol] = server.accepted
        self.assertEqual((protocol.peer.host, protocol.peer.port, protocol.transport.getPeer()), (CLIENT, 51000, protocol.peer))

    def test_header_may_come_byte_by_byte(self) -> None:
        server = self.server()
        sock = self.connect(server)
        for index in range(len(HEADER)):
            self.assertEqual(server.accepted, [])
            sock.sendall(HEADER[index : index + 1])
            self.turn()
        self.assertEqual(server.accepted[0].peer.host, CLIENT)

    def test_address_that_is_no_proxy_is_refused_whatever_it_says(self) -> None:
        server = self.server(proxy_from=("192.0.2.0/24",))
        self.check_refused(server, self.connect(server, HEADER), NOT_A_PROXY)

    def test_client_without_a_header_is_refused_and_the_log_says_why(self) -> None:
        server = self.server()
        self.check_refused(server, self.connect(server, b"\x16\x03\x01\x02\x00\x01"), PROXY_HEADER)
        self.assertEqual(
            self.lines,
            [
                "127.0.0.1: refused before TLS: proxy_header (it does not begin with a PROXY header), "
                "and 0 others since the last such line"
            ],
        )

    def test_version_that_is_not_allowed_is_refused(self) -> None:
        server = self.server(proxy_protocol="v2")
        self.check_refused(server, self.connect(server, text(CLIENT)), PROXY_HEADER)

    def test_either_version_is_taken_where_any_is(self) -> None:
        server = self.server(proxy_protocol="any")
        self.connect(server, text(CLIENT))
        self.connect(server, block("2001:db8::7"))
        self.assertEqual([protocol.peer.host for protocol in server.accepted], [CLIENT, "2001:db8::7"])

    def test_header_that_does_not_come_ends_with_its_time(self) -> None:
        server = self.server(proxy_timeout=5.0)
        sock = self.connect(server, HEADER[:20])
        self.manual.advance(4.9)
        self.assertEqual(server.metrics.reasons, [])
        self.manual.advance(0.2)
        self.check_refused(server, sock, PROXY_TIMEOUT)

    def test_header_of_a_trickling_proxy_gets_no_more_time(self) -> None:
        server = self.server(proxy_timeout=5.0)
        sock = self.connect(server)
        for index in range(5):
            sock.sendall(HEADER[index : index + 1])
            self.turn()
            self.manual.advance(1.1)
        self.check_refused(server, sock, PROXY_TIMEOUT)

    def test_more_that_wait_than_are_allowed_are_refused_and_the_others_stay(self) -> None:
        server = self.server(proxy_waiting=1)
        first = self.connect(server)
        self.check_refused(server, self.connect(server, HEADER), PROXY_WAITING)
        first.sendall(HEADER)
        self.turn()
        self.connect(server, HEADER)
        self.assertEqual(len(server.accepted), 2)

    def test_check_of_a_proxy_is_no_client(self) -> None:
        server = self.server()
        sock = self.connect(server, CHECK)
        self.assertEqual(sock.recv(1), b"")
        self.assertEqual((server.accepted, server.metrics.reasons, server.metrics.checks), ([], [], 1))

    def test_connect_without_a_word_is_a_check(self) -> None:
        server = self.server()
        for reset in (False, True):
            sock = self.connect(server)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
            self.turn()
        self.assertEqual((server.accepted, server.metrics.reasons, server.metrics.checks), ([], [], 2))

    def test_proxy_that_hangs_up_within_its_header_is_a_fault(self) -> None:
        server = self.server()
        self.connect(server, HEADER[:20]).close()
        self.turn()
        self.assertEqual((server.metrics.reasons, server.metrics.checks), ([PROXY_HEADER], 0))

    def test_limits_per_address_are_the_clients_own(self) -> None:
        server = self.server(AdmissionConfig(max_per_address=1))
        self.connect(server, HEADER)
        self.connect(server, block("198.51.100.8"))
        self.assertEqual(len(server.accepted), 2)
        sock = self.connect(server, HEADER)
        self.assertRaises(ConnectionResetError, sock.recv, 1)
        self.assertEqual((server.metrics.reasons, len(server.accepted)), (["address_limit"], 2))
        self.assertEqual(self.lines, [f"{CLIENT}: refused before TLS: address_limit, and 0 others since the last such line"])

    def test_draining_node_refuses_the_client_and_not_its_proxy(self) -> None:
        server = self.server(AdmissionConfig(max_told=0))
        self.admission.draining = True
        self.assertEqual(self.connect(server, CHECK).recv(1), b"")
        self.check_refused(server, self.connect(server, HEADER), "draining")
        self.assertEqual(server.metrics.checks, 1)

    def test_those_that_wait_are_heard_when_listening_has_stopped(self) -> None:
        server = self.server()
        sock = self.connect(server, HEADER[:20])
        server.port.stopListening()
        sock.sendall(HEADER[20:])
        self.turn()
        self.assertEqual([protocol.peer.host for protocol in server.accepted], [CLIENT])

    def test_those_that_wait_are_closed_with_the_reactor(self) -> None:
        server = self.server()
        sock = self.connect(server, HEADER[:20])
        server.port.connectionLost(Failure(CONNECTION_DONE))  # type: ignore[no-untyped-call]
        self.assertRaises(ConnectionResetError, sock.recv, 1)

    def test_introductions_are_not_made_without_the_protocol(self) -> None:
        config = ListenConfig(proxy_protocol="off")
        with self.assertRaises(ValueError):
            Introductions(ManualReactor(), ManualReactor(), config, introduced=print, refuse=print, checked=print)


class TlsTests(ProxiedTestCase):
    async def test_tls_begins_behind_the_header(self) -> None:
        server = TlsServer(reactor, self.tls, listen=self.listen())
        self.addCleanup(server.stop)
        for header in (HEADER, block(CLIENT, extra=b"\x04\x00\x20" + bytes(32))):
            accepted = server.next_protocol()
            context = client_context(authority(), device_issued("phone-1", "alice"))
            client = Client(reactor, server.address, context, greeting=header)
            protocol = await accepted
            await protocol.wait("completed")
            client.write(b"hello")
            await protocol.wait_bytes(5)
            self.assertEqual((protocol.peer.host, bytes(protocol.received)), (CLIENT, b"hello"))
            client.drop()


class ProxiesTests(TestCase):
    def test_addresses_and_networks_of_both_families_are_known(self) -> None:
        proxies = Proxies(("192.0.2.1", "10.0.0.0/24", "2001:db8::/64"))
        for host in ("192.0.2.1", "10.0.0.255", "2001:db8::1", "::ffff:192.0.2.1"):
            self.assertIn(host, proxies)
        for host in ("192.0.2.2", "10.0.1.0", "2001:db8:0:1::1", "::ffff:192.0.2.2", "fe80::1%eth0"):
            self.assertNotIn(host, proxies)

    def test_link_local_proxy_is_known_on_any_interface(self) -> None:
        self.assertIn("fe80::1%eth0", Proxies(("fe80::/10",)))

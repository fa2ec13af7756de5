"""StreamPort with real sockets and the real reactor."""

from __future__ import annotations

import errno
import os
import resource
import socket
import tempfile
from typing import Any

from twisted.internet import defer, reactor
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, TestCase

from streampush.config import AdmissionConfig, TlsConfig
from streampush.server.admission import Admission
from streampush.server.listener import MAX_ACCEPTS, REST
from tests.server.tls import Client, Recorder, TlsServer, client_context
from tests.support import authority, device_issued, make_files


class Visitor:
    """A plain client socket; `ended` fires with the errno of the reset, or 0 for a FIN."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        self.ended: defer.Deferred[int] = defer.Deferred()
        self.address = address

    def connect(self) -> Visitor:
        self.sock.connect(self.address)
        self.sock.setblocking(False)
        reactor.addReader(self)  # type: ignore[attr-defined]
        return self

    def fileno(self) -> int:
        return self.sock.fileno()

    def logPrefix(self) -> str:
        return "visitor"

    def doRead(self) -> None:
        try:
            self.sock.recv(1)
        except OSError as error:
            self.connectionLost(error.errno)
        else:
            self.connectionLost(0)

    def connectionLost(self, reason: Any) -> None:
        if self.sock.fileno() != -1:
            reactor.removeReader(self)  # type: ignore[attr-defined]
            self.sock.close()
            self.ended.callback(reason if isinstance(reason, int) else errno.ECONNRESET)


class ListenerTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        files = make_files(directory.name)
        self.tls = TlsConfig(certificate=str(files.server.certificate), key=str(files.server.key), client_ca=str(files.ca))
        self.servers: list[TlsServer] = []
        self.visitors: list[Visitor] = []
        self.addCleanup(self.stop)

    def stop(self) -> defer.Deferred[None]:
        return defer.ensureDeferred(self._stop())

    async def _stop(self) -> None:
        for visitor in self.visitors:
            visitor.connectionLost(0)
        for server in self.servers:
            await server.stop()
            self.assertEqual((server.admission.connections, server.admission.handshakes), (0, 0))

    def server(self, cap: int = 1000, address: str = "127.0.0.1", **limits: Any) -> TlsServer:
        config = AdmissionConfig(**{"max_handshakes_per_address": 1000, "max_told": 0, **limits})
        server = TlsServer(reactor, self.tls, admission=Admission(config, cap), address=address)
        self.servers.append(server)
        return server

    def visitor(self, server: TlsServer) -> Visitor:
        visitor = Visitor(server.address)
        self.visitors.append(visitor)
        return visitor

    async def check_refused(self, server: TlsServer, reason: str) -> None:
        accepted = len(server.accepted)
        self.assertEqual(await self.visitor(server).connect().ended, errno.ECONNRESET)
        self.assertEqual(server.metrics.reasons, [reason])
        self.assertEqual(len(server.accepted), accepted)

    async def admit_one(self, server: TlsServer) -> Recorder:
        accepted = server.next_protocol()
        self.visitor(server).connect()
        return await accepted

    async def test_connection_above_the_cap_is_reset_before_tls(self) -> None:
        server = self.server(cap=1)
        await self.admit_one(server)
        await self.check_refused(server, "connection_limit")

    async def test_connection_above_the_limit_of_its_address_is_reset(self) -> None:
        server = self.server(max_per_address=1)
        await self.admit_one(server)
        await self.check_refused(server, "address_limit")

    async def test_connection_above_the_accept_rate_is_reset(self) -> None:
        server = self.server(accept_rate=0.1, accept_burst=1)
        await self.admit_one(server)
        await self.check_refused(server, "accept_rate")

    async def test_connection_above_the_handshake_limit_is_reset(self) -> None:
        server = self.server(max_handshakes=1)
        await self.admit_one(server)
        await self.check_refused(server, "handshake_limit")

    async def test_connection_while_draining_is_reset(self) -> None:
        server = self.server()
        server.admission.draining = True
        await self.check_refused(server, "draining")

    async def test_place_of_a_lost_connection_is_free_again(self) -> None:
        server = self.server(cap=1)
        first = await self.admit_one(server)
        first.transport.abort()
        await first.wait("lost")
        await self.admit_one(server)
        self.assertEqual(server.metrics.reasons, [])

    async def test_more_clients_than_one_turn_accepts_are_all_served(self) -> None:
        server = self.server()
        for _ in range(MAX_ACCEPTS + 10):
            self.visitor(server).connect()
        server.port.doRead()
        self.assertEqual(len(server.accepted), MAX_ACCEPTS)
        server.port.doRead()
        self.assertEqual(len(server.accepted), MAX_ACCEPTS + 10)

    async def test_ipv6_clients_are_served(self) -> None:
        try:
            server = self.server(address="::1")
        except CannotListenError as error:
            raise SkipTest("this machine has no IPv6 loopback") from error
        accepted = server.next_protocol()
        client = Client(reactor, server.address, client_context(authority(), device_issued("phone-1", "alice")))
        protocol = await accepted
        await protocol.wait("completed")
        self.assertEqual((protocol.peer.host, protocol.transport.getHost().host), ("::1", "::1"))
        client.drop()

    async def test_port_that_is_taken_fails_at_start(self) -> None:
        server = self.server()
        with self.assertRaises(CannotListenError) as caught:
            TlsServer(reactor, self.tls, port=server.address[1])
        self.assertIn(str(server.address[1]), str(caught.exception))

    async def test_address_that_is_not_ours_fails_at_start(self) -> None:
        self.assertRaises(CannotListenError, TlsServer, reactor, self.tls, address="192.0.2.1")

    async def test_port_is_free_when_listening_has_stopped(self) -> None:
        server = self.server()
        protocol = await self.admit_one(server)
        address = server.address
        await server.port.stopListening()
        await server.port.stopListening()
        self.assertRaises(ConnectionRefusedError, socket.create_connection, address)
        self.assertEqual(protocol.names, ["made"])  # connections stay
        self.assertRaises(OSError, server.port.getHost)
        again = socket.create_server(address)
        again.close()

    async def test_fault_in_making_a_protocol_ends_that_connection_alone(self) -> None:
        server = self.server()
        server.prepare = lambda protocol: 1 // 0
        self.assertEqual(await self.visitor(server).connect().ended, errno.ECONNRESET)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(server.admission.connections, 0)
        server.prepare = lambda protocol: None
        await self.admit_one(server)

    async def test_fault_in_starting_a_protocol_ends_that_connection_alone(self) -> None:
        server = self.server()
        server.prepare = lambda protocol: protocol.on.update(made=lambda p: 1 // 0)
        self.assertEqual(await self.visitor(server).connect().ended, errno.ECONNRESET)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        await server.accepted[0].wait("lost")

    def by_hand(self, descriptors: int) -> tuple[ManualReactor, TlsServer, socket.socket, NoDescriptors]:
        """A server that finds so many descriptors, and a client that has its own already."""
        TlsServer(ManualReactor(), self.tls).port.stopListening()  # what is imported late is imported now
        client = socket.socket()
        self.addCleanup(client.close)
        nothing = NoDescriptors()
        self.addCleanup(nothing.end)
        nothing.free(descriptors)
        manual = ManualReactor()
        server = TlsServer(manual, self.tls)
        self.addCleanup(server.port.stopListening)
        client.connect(server.address)
        return manual, server, client, nothing

    def test_client_is_told_when_there_is_no_file_descriptor_left(self) -> None:
        manual, server, client, _ = self.by_hand(2)  # its socket and its reserve
        server.port.doRead()
        self.assertRaises(ConnectionResetError, client.recv, 1)
        self.assertEqual(server.metrics.reasons, ["file_descriptors"])
        self.assertIn(server.port, manual.readers)

    def test_accepting_goes_on_when_there_are_descriptors_again(self) -> None:
        manual, server, _, nothing = self.by_hand(2)
        server.port.doRead()
        nothing.end()
        with socket.create_connection(server.address):
            server.port.doRead()
        self.assertEqual(len(server.accepted), 1)
        server.accepted[0].transport.abort()
        manual.advance(0)

    def test_accepting_rests_when_not_even_the_reserve_is_there(self) -> None:
        manual, server, _, nothing = self.by_hand(1)
        server.port.doRead()
        self.assertNotIn(server.port, manual.readers)
        manual.advance(REST / 2)
        self.assertNotIn(server.port, manual.readers)
        nothing.end()
        manual.advance(REST / 2)
        self.assertIn(server.port, manual.readers)
        server.port.doRead()
        self.assertEqual(len(server.accepted), 1)
        server.accepted[0].transport.abort()
        manual.advance(0)

    def test_stopping_while_accepting_rests_leaves_no_timer(self) -> None:
        manual, server, _, _ = self.by_hand(1)
        server.port.doRead()
        self.assertEqual(len(manual.getDelayedCalls()), 1)
        server.port.stopListening()
        self.assertEqual((manual.readers, manual.getDelayedCalls()), (set(), []))


class ManualReactor(Clock):
    """A reactor that a test turns by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[object] = set()
        self.writers: set[object] = set()
        self.addReader, self.removeReader = self.readers.add, self.readers.discard
        self.addWriter, self.removeWriter = self.writers.add, self.writers.discard


class NoDescriptors:
    """Until `end`, the process has no file descriptor left but those that `free` gives back."""

    def __init__(self) -> None:
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        top = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (top + 9, self._limits[1]))
        self._held: list[int] = []
        try:
            while True:
                self._held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            assert error.errno == errno.EMFILE

    def free(self, count: int) -> None:
        for _ in range(count):
            os.close(self._held.pop())

    def end(self) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)
        self.free(len(self._held))

"""A whole node in this process, and clients that speak the wire frame by frame, over real TCP and TLS on loopback."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from streampush.cli.pki import Issued
from streampush.config import Config
from streampush.loading import load_config
from streampush.node_service import StreampushService
from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.framing import FrameDecoder, encode_frame
from tests.store.folders import quick_folder
from tests.support import DevelopmentFiles, authority, device_issued, make_files, publisher_issued

M = TypeVar("M")

LOOK_AGAIN = 0.001
"""Seconds between two looks at what a test waits for. Without a pause the store's threads hardly get the interpreter's lock."""

TOML = """
[node]
name = "test"
[listen]
address = "127.0.0.1"
port = 0
[tls]
certificate = "server.crt"
key = "secrets/server.key"
client_ca = "ca.crt"
[rest]
port = 0
[delivery]
subscribe = ["news/*"]
[publishers.backend]
publish = ["*"]
[publishers.narrow]
publish = ["news/*"]
[probe]
interval = 3600
[session]
drain_timeout = 0.3
"""


class WireClient(Protocol):
    """Frames out, messages in. `closed` fires when the connection is gone, `lost` is why."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, m.Message]] = []
        self.closed: Deferred[None] = Deferred()
        self.lost: Failure | None = None
        self._decoder = FrameDecoder(16 * 1024 * 1024 - 1)
        self._waiting: Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            assert isinstance(frame, bytes), frame
            self.messages.append(codec.decode(frame))
        self._wake()

    def connectionLost(self, reason: Failure) -> None:
        if self.lost is None:  # a TLS transport that is aborted while it reads says it twice
            self.lost = reason
            self.closed.callback(None)
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def send(self, message: m.Message, request_id: int = 0) -> None:
        self.send_payload(codec.encode(message, request_id))

    def send_payload(self, payload: bytes) -> None:
        self.send_bytes(encode_frame(payload))

    def send_bytes(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    async def next(self) -> tuple[int, m.Message]:
        """The next message with its id; an AssertionError if the connection ends instead."""
        while not self.messages:
            if self.lost is not None:
                raise AssertionError(f"connection lost: {self.lost.getErrorMessage()}")
            self._waiting = Deferred()
            await self._waiting
        return self.messages.pop(0)

    async def expect(self, kind: type[M]) -> M:
        """The next message, which must be of this kind; pings and the ends of backlogs are passed over if not asked for."""
        while True:
            _, message = await self.next()
            if isinstance(message, kind):
                return message
            if not isinstance(message, m.Ping | m.BacklogEnd):
                raise AssertionError(f"{kind.__name__} was expected, not {message}")

    async def greet(self, hello: m.Hello | None = None) -> m.Welcome:
        self.send(hello or m.Hello(), 1)
        return await self.expect(m.Welcome)

    def cut(self) -> None:
        """Ends the TCP connection without a word."""
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]  # of the TLS transport


class NodeTestCase(TestCase):
    """Each test has a node of its own; `configure` changes its settings, before `start`."""

    timeout = 120
    """Seconds, by far more than any test takes: the machine may be slow, and be busy with other things."""

    settings: tuple[str, ...] = ()
    toml_extra = ""
    all_clients_are_cut = True
    """No client is left when `clients` are cut, so that nothing may be held for any."""

    counted_as_other: tuple[str, ...] = ()
    """Metrics that are to count something under no label of theirs."""

    with_bystanders = False
    """A device and a publisher are connected from before the test to its end, and must be served then as if nothing had been."""

    def setUp(self) -> Deferred[None]:
        directory = quick_folder()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.files: DevelopmentFiles = make_files(self.root)
        self.files.publisher("narrow")
        self.toml = self.root / "streampush.toml"
        self.toml.write_text(TOML + self.toml_extra)
        self.clients: list[WireClient] = []
        self.node: StreampushService | None = None
        self.is_over = False
        self.bystanders: tuple[WireClient, WireClient] | None = None
        self.start(*self.settings)
        return Deferred.fromCoroutine(self._invite())

    async def _invite(self) -> None:
        if self.with_bystanders:
            self.bystanders = (await self.device("bystander-1"), await self.publisher())

    def system_ns(self) -> int:
        """The wall clock of the node's machine, which a test may set."""
        return time.time_ns()

    def start(self, *settings: str) -> StreampushService:
        def read() -> Config:
            return load_config(str(self.toml), {}, settings)

        self.node = StreampushService(reactor, read(), system_ns=self.system_ns, read_again=read)
        self.node.startService()
        return self.node

    async def restart(self, *settings: str) -> None:
        """A new node with other settings, on another port."""
        await self.stop()
        self.start(*settings)

    async def stop(self) -> None:
        if self.node is not None:
            if self.bystanders is not None:
                await self.still_delivers(*self.bystanders, "device:bystander-1")
                self.bystanders = None
            node, self.node = self.node, None
            for client in self.clients:
                if client.lost is None:
                    client.cut()
            await DeferredList([client.closed for client in self.clients])
            self.clients.clear()
            if self.all_clients_are_cut:
                await self._holds_nothing(node)
            await node.stopService()

    async def _holds_nothing(self, node: StreampushService) -> None:
        """Whatever a test did: when its clients are gone, no count, deadline or follower of theirs is left."""
        await self.until(lambda: not node.node.connections)
        admission = node._parts.admission
        self.assertEqual((admission.connections, admission.handshakes, admission.addresses, len(node.node._wheel)), (0, 0, 0, 0))
        self.assertEqual([name for name in node.service.fanout._channels if not name.startswith("$")], [])
        self.assertEqual(self._without_a_label(node), self.counted_as_other)

    @staticmethod
    def _without_a_label(node: StreampushService) -> tuple[str, ...]:
        """Metrics that counted something under a label nobody gave it a name for."""
        samples = (sample for family in node.registry.collect() for sample in family.samples)
        return tuple(sample.name for sample in samples if "other" in sample.labels.values() and sample.value)

    def tearDown(self) -> Deferred[None]:
        self.is_over = True
        return Deferred.fromCoroutine(self.stop())

    # ----------------------------------------------------------------------------------------------------------- connecting

    async def connect(self, issued: Issued | None, *, ca: Issued | None = None, tls12: bool = False) -> WireClient:
        """A TLS connection with this certificate, or none; the handshake may still fail behind it."""
        assert self.node is not None
        trust = _certificate(ca or authority().issued)
        identity = None if issued is None else _private(issued)
        extra = {"raiseMinimumTo": ssl.TLSVersion.TLSv1_2} if not tls12 else {"lowerMaximumSecurityTo": ssl.TLSVersion.TLSv1_2}
        options = ssl.optionsForClientTLS("localhost", trust, identity, extraCertificateOptions=extra)
        endpoint = wrapClientTLS(options, TCP4ClientEndpoint(reactor, "127.0.0.1", self.node.port))
        client: WireClient = await connectProtocol(endpoint, WireClient())
        self.clients.append(client)
        return client

    async def connect_plain(self, port: int = 0) -> WireClient:
        """TCP and nothing more, to the port for devices or another one."""
        assert self.node is not None
        client: WireClient = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port or self.node.port), _Raw())
        self.clients.append(client)
        return client

    async def device(self, device_id: str = "phone-1", user_id: str = "alice", hello: m.Hello | None = None) -> WireClient:
        """A device that was welcomed."""
        client = await self.connect(device_issued(device_id, user_id))
        await client.greet(hello)
        return client

    async def publisher(self, name: str = "backend") -> WireClient:
        """A publisher that was welcomed."""
        client = await self.connect(publisher_issued(name))
        await client.greet()
        return client

    # -------------------------------------------------------------------------------------------------------------- looking

    def metric(self, name: str, **labels: str) -> float:
        """A sample of the node's metrics; 0.0 if it was never counted."""
        assert self.node is not None
        registry: CollectorRegistry = self.node.registry
        return registry.get_sample_value(name, labels) or 0.0

    async def until(self, condition: Callable[[], bool]) -> None:
        """Lets the reactor run until the condition holds; the test's own timeout bounds it."""
        begun_at_the_end = self.is_over
        while not condition():
            await deferLater(reactor, LOOK_AGAIN)  # type: ignore[arg-type]  # a module stands for the reactor
            if self.is_over and not begun_at_the_end:
                await Deferred()  # trial has given the test up: it must not go on beside the next

    async def counted(self, name: str, value: float = 1, **labels: str) -> None:
        """Waits until the metric has this value: what is counted when a connection is gone comes a turn later."""
        await self.until(lambda: self.metric(name, **labels) == value)

    async def turns(self, seconds: float) -> None:
        """Lets the reactor run for so long: where a peer that is slow is the matter of the test."""
        await deferLater(reactor, seconds)  # type: ignore[arg-type]  # a module stands for the reactor

    async def still_delivers(self, client: WireClient, publisher: WireClient, channel: str = "device:tablet-1") -> None:
        """A bystander still gets what is published for it."""
        publisher.send(m.Publish(channel, b"still there?"), 77)
        await publisher.expect(m.PublishOk)
        delivery = await client.expect(m.Delivery)
        self.assertEqual(delivery.payload, b"still there?")
        client.send(m.Ack(channel, delivery.offset))


class _Raw(WireClient):
    """Bytes are kept as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = b""

    def dataReceived(self, data: bytes) -> None:
        self.raw += data
        self._wake()


def _certificate(issued: Issued) -> ssl.Certificate:
    return ssl.Certificate.loadPEM(issued.certificate_pem)


def _private(issued: Issued) -> ssl.PrivateCertificate:
    return ssl.PrivateCertificate.loadPEM(issued.certificate_pem + issued.key_pem)


def run(test: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], Deferred[None]]:
    """Makes a coroutine function a trial test."""

    def wrapper(self: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(test(self))

    wrapper.__name__ = test.__name__
    wrapper.__doc__ = test.__doc__
    return wrapper

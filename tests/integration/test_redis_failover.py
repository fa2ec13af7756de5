"""A replica of Redis is promoted, with less than its master had: devices are told, live and when they come back."""

from __future__ import annotations

from typing import Any

import msgpack
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.protocols.portforward import ProxyFactory

from streampush.client import ClientTls, Message, Outcome, PositionLost, StreamClient
from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from streampush.protocol.terms import LossReason
from tests.integration.harness import WireClient, run
from tests.integration.redis_nodes import RedisNodesCase
from tests.redis_server import RedisServer, free_port
from tests.support import authority, device_issued


class Relay:
    """A port that leads to the one that `lead` names; a change ends all connections."""

    def __init__(self, port: int) -> None:
        self._connections: list[Any] = []
        self._factory = ProxyFactory("127.0.0.1", port)
        self._factory.noisy = False
        build = self._factory.buildProtocol

        def remembered(address: Any) -> Any:
            protocol = build(address)
            self._connections.append(protocol)
            return protocol

        self._factory.buildProtocol = remembered
        factory: Factory = self._factory
        self._port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.port = self._port.getHost().port

    def lead(self, server: RedisServer) -> None:
        self.lead_to(server.port)

    def lead_to(self, port: int) -> None:
        self._factory.port = port
        self.cut()

    def cut(self) -> None:
        connections, self._connections = self._connections, []
        for protocol in connections:
            protocol.transport.abortConnection()

    async def stop(self) -> None:
        self.cut()
        await self._port.stopListening()


class FailoverCase(RedisNodesCase):
    """A node whose Redis has a replica; the way to them can be turned."""

    def redis(self) -> RedisServer:
        self.master = RedisServer().start()
        self.replica = RedisServer(f"replicaof 127.0.0.1 {self.master.port}").start()
        self.relay = Relay(self.master.port)
        return self.master

    async def stop(self) -> None:
        await super().stop()  # trial's own cleanups come before that, and a node that stops needs its Redis
        await self.relay.stop()
        self.replica.stop()
        self.master.stop()

    def shared(self, name: str) -> tuple[str, ...]:
        return (*super().shared(name), f"store.url=redis://127.0.0.1:{self.relay.port}")

    async def published(self, backend: WireClient, *payloads: bytes) -> list[m.PublishOk]:
        answers = []
        for payload in payloads:
            backend.send(m.Publish("device:phone-1", payload), 7)
            answers.append(await backend.expect(m.PublishOk))
        return answers

    async def taken(self, phone: WireClient, count: int, epoch: str = "") -> list[m.Delivery]:
        """So many deliveries, acknowledged."""
        deliveries = [await self.delivered(phone) for _ in range(count)]
        if deliveries:
            phone.send(m.Ack("device:phone-1", deliveries[-1].offset, epoch=epoch))
        return deliveries

    async def replicated(self, offset: int, acknowledged: int) -> None:
        """The replica has so many publications, of which so many are acknowledged; from now on it hears nothing more."""
        for name, field, wanted in (("log:device:phone-1", "top", offset), ("cur:phone-1", "device:phone-1", acknowledged)):
            while self.on_replica(name, field) != wanted:
                await deferLater(reactor, 0.01)  # type: ignore[arg-type]  # a module stands for the reactor
        self.replica.say("REPLICAOF", "NO", "ONE")

    def on_replica(self, name: str, field: str) -> int:
        found = self.replica.say("HGET", f"{{{self.prefix}}}:{name}", field)
        if found is None or field == "top":
            return int(found or 0)
        cursor: list[Any] = msgpack.unpackb(found, raw=True)
        return int(cursor[1])

    async def delivered(self, phone: WireClient) -> m.Delivery:
        """The next delivery; that other channels go on under another epoch is told as well."""
        while True:
            _, message = await phone.next()
            if isinstance(message, m.Delivery):
                return message

    async def subscribed(self, phone: WireClient, channel: str = "device:phone-1") -> m.Subscribed:
        while True:
            _, message = await phone.next()
            if isinstance(message, m.Subscribed) and message.channel == channel:
                return message


class FailoverTests(FailoverCase):
    @run
    async def test_a_promoted_replica_with_other_messages_at_the_same_offsets_is_noticed(self) -> None:
        phone, backend = await self.device(), await self.publisher()
        answers = await self.published(backend, *(b"%d" % number for number in range(1, 101)))
        await self.taken(phone, 100)
        await self.replicated(100, 100)
        lost = await self.published(backend, *(b"lost %d" % number for number in range(101, 106)))
        assert [one.offset for one in lost] == [101, 102, 103, 104, 105]
        last = (await self.taken(phone, 5))[-1]
        gone = await self.device("phone-2")
        gone.cut()
        self.relay.lead(self.replica)  # and 101 to 105 are gone with the master
        self.master.kill()
        told = await self.subscribed(phone)
        assert told.epoch != answers[0].epoch
        assert (told.recovered, told.loss, told.offset) == (False, LossReason.REWOUND, 100)
        others = await self.published(backend, *(b"other %d" % number for number in range(101, 106)))
        assert [one.offset for one in others] == [101, 102, 103, 104, 105]
        payloads = [one.payload for one in await self.taken(phone, 5, told.epoch)]
        assert payloads == [b"other %d" % number for number in range(101, 106)]
        assert self.metric("streampush_redis_failovers_total") == 1
        phone.cut()
        await phone.closed
        position = m.Position(lost[0].epoch, last.offset, last.message_id)
        phone = await self.connect(device_issued("phone-1", "alice"))
        phone.send(m.Hello(resume=(m.Resume("device:phone-1", position),)), 1)
        welcome = await phone.expect(m.Welcome)
        (answer,) = [one for one in welcome.subscribed if one.channel == "device:phone-1"]
        assert (answer.recovered, answer.loss) == (False, LossReason.ID_MISMATCH)

    @run
    async def test_a_promoted_replica_that_has_everything_costs_nobody_a_message_or_a_repeat(self) -> None:
        phone, backend = await self.device(), await self.publisher()
        await self.published(backend, b"1", b"2", b"3")
        await self.taken(phone, 2)
        third = await phone.expect(m.Delivery)
        await self.replicated(3, 2)
        self.relay.lead(self.replica)
        told = await self.subscribed(phone)
        assert (told.recovered, told.offset, told.loss) == (True, 3, LossReason.UNSPECIFIED)
        phone.send(m.Ack("device:phone-1", third.offset))
        await self.published(backend, b"4")
        assert (await self.delivered(phone)).payload == b"4"

    @run
    async def test_without_redis_nobody_is_cut_and_publishers_are_refused_honestly(self) -> None:
        phone, backend = await self.device(), await self.publisher()
        self.relay.lead_to(free_port())
        assert self.node is not None
        parts = self.node._parts
        await self.until(lambda: bool(parts.keeping.reason(reactor.seconds())))  # type: ignore[attr-defined]
        backend.send(m.Publish("device:phone-1", b"x"), 9)
        self.relay.lead(self.master)
        reply = await backend.next()
        assert isinstance(reply[1], m.PublishOk) or reply[1].code == Code.STORE_UNAVAILABLE  # type: ignore[attr-defined]
        phone.send(m.Ping())
        assert phone.lost is None


class PutOffTests(FailoverCase):
    """The reference client is away while a replica is promoted, and its application has put one message off."""

    def shared(self, name: str) -> tuple[str, ...]:
        soon = ("reconnect.first_jitter=0.1", "reconnect.backoff_initial=0.1", "reconnect.backoff_max=0.2")
        return (*super().shared(name), *soon, "reconnect.degraded_after=1000")

    async def begin(self) -> WireClient:
        """The phone is there; gives a publisher."""
        assert self.node is not None
        self.given: list[bytes] = []
        self.lost: list[PositionLost] = []
        self.came_back = False
        self.way = Relay(self.node.port)
        issued = device_issued("phone-1", "alice")
        tls = ClientTls(authority().issued.certificate_pem, issued.certificate_pem, issued.key_pem)
        address = ("localhost", self.way.port)
        self.phone = StreamClient(reactor, [address], tls, on_message=self.take, on_event=self.hear)  # type: ignore[arg-type]
        self.phone.start()
        await self.phone.connected()
        return await self.publisher()

    async def stop(self) -> None:
        await self.phone.stop()
        await self.way.stop()
        await super().stop()

    async def take(self, message: Message) -> Outcome:
        self.given.append(message.payload)
        return Outcome.RETRY_LATER if message.payload == b"2" and not self.came_back else Outcome.PROCESSED

    def hear(self, event: object) -> None:
        if isinstance(event, PositionLost):
            self.lost.append(event)

    async def failed_over(self) -> None:
        """While the phone is away."""
        self.way.lead_to(free_port())
        self.relay.lead(self.replica)
        self.master.kill()
        await self.counted("streampush_redis_failovers_total")

    async def comes_back(self, *payloads: bytes) -> None:
        """And is given this, and nothing else until all of it is acknowledged."""
        assert self.node is not None
        self.given.clear()
        self.came_back = True
        self.way.lead_to(self.node.port)
        await self.until(lambda: len(self.given) >= len(payloads))
        await self.until(lambda: self.on_replica("cur:phone-1", "device:phone-1") == self.on_replica("log:device:phone-1", "top"))
        self.assertEqual(self.given, list(payloads))
        self.assertEqual(self.lost, [])

    @run
    async def test_what_was_taken_behind_it_is_not_given_again(self) -> None:
        backend = await self.begin()
        await self.published(backend, b"1", b"2", b"3", b"4", b"5")
        await self.until(lambda: len(self.given) == 5)
        await self.replicated(5, 1)
        await self.failed_over()
        await self.published(backend, b"6")
        await self.comes_back(b"2", b"6")

    @run
    async def test_other_messages_at_these_offsets_are_given(self) -> None:
        backend = await self.begin()
        await self.published(backend, b"1", b"2", b"3")
        await self.until(lambda: len(self.given) == 3)
        await self.replicated(3, 1)
        await self.published(backend, b"lost 4", b"lost 5")
        await self.until(lambda: len(self.given) == 5)
        await self.failed_over()
        await self.published(backend, b"4", b"5", b"6")
        await self.comes_back(b"2", b"4", b"5", b"6")


class CutOffTests(RedisNodesCase):
    """The way between one of two nodes and Redis is cut for a while; the other has its own."""

    def redis(self) -> RedisServer:
        server = super().redis()
        self.relay = Relay(server.port)
        return server

    def shared(self, name: str) -> tuple[str, ...]:
        settings = (*super().shared(name), "store.publish_timeout=0.2")
        return (*settings, f"store.url=redis://127.0.0.1:{self.relay.port}") if name == "one" else settings

    async def stop(self) -> None:
        self.relay.lead(self.server)  # a node that stops needs its Redis
        await super().stop()
        await self.relay.stop()

    async def connected(self) -> None:
        assert self.node is not None
        parts = self.node._parts
        await self.until(lambda: not parts.keeping.reason(reactor.seconds()))  # type: ignore[attr-defined]

    @run
    async def test_a_node_that_was_cut_off_delivers_what_was_published_meanwhile_and_lets_go_of_who_went_elsewhere(self) -> None:
        await self.connected()
        stays, goes = await self.device("phone-1"), await self.device("tablet-1")
        other = self.another("two")
        await self.until(lambda: not other._parts.keeping.reason(reactor.seconds()))  # type: ignore[attr-defined]
        self.relay.lead_to(free_port())
        assert self.node is not None
        parts = self.node._parts
        await self.until(lambda: bool(parts.keeping.reason(reactor.seconds())))  # type: ignore[attr-defined]
        with self.on(other):
            backend, elsewhere = await self.publisher(), await self.device("tablet-1")
        backend.send(m.Publish("device:phone-1", b"meanwhile"), 7)
        await backend.expect(m.PublishOk)
        backend.send(m.Publish("device:tablet-1", b"elsewhere"), 8)
        await backend.expect(m.PublishOk)
        assert (await elsewhere.expect(m.Delivery)).payload == b"elsewhere"
        assert (stays.lost, goes.lost) == (None, None)
        self.relay.lead(self.server)
        assert (await stays.expect(m.Delivery)).payload == b"meanwhile"
        while True:
            _, message = await goes.next()
            if isinstance(message, m.GoAway):
                break
        assert message.code == Code.REPLACED
        assert (stays.lost, elsewhere.lost) == (None, None)

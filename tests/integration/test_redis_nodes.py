"""Two nodes on one Redis: what is published at one reaches the devices of the other, and a device is at one of them."""

from __future__ import annotations

from twisted.internet import reactor

from streampush.node_service import StreampushService
from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from streampush.protocol.terms import Durability, Milestone, Outcome
from streampush.push.store_ports import Store
from tests.integration.harness import run
from tests.integration.redis_nodes import OwnRedisCase, RedisNodesCase
from tests.integration.test_receipts import RECEIPTS, ReceiptTestCase
from tests.support import publisher_issued


class TwoNodesTests(RedisNodesCase):
    @run
    async def test_a_message_reaches_a_device_of_the_other_node(self) -> None:
        other = self.another("two")
        phone = await self.device()
        with self.on(other):
            backend = await self.publisher()
        for number in range(5):
            backend.send(m.Publish("device:phone-1", str(number).encode()), 7)
            assert (await backend.expect(m.PublishOk)).durability is Durability.MEMORY
        deliveries = [await phone.expect(m.Delivery) for _ in range(5)]
        assert [one.payload for one in deliveries] == [b"0", b"1", b"2", b"3", b"4"]

    @run
    async def test_a_large_message_reaches_a_device_of_the_other_node(self) -> None:
        other = self.another("two")
        phone = await self.device()
        with self.on(other):
            backend = await self.publisher()
        backend.send(m.Publish("device:phone-1", b"x" * 200_000), 7)
        assert len((await phone.expect(m.Delivery)).payload) == 200_000

    @run
    async def test_what_one_node_stored_for_a_device_that_was_away_the_other_delivers(self) -> None:
        phone = await self.device()
        phone.cut()
        await phone.closed
        backend = await self.publisher()
        backend.send(m.Publish("device:phone-1", b"later"), 7)
        await backend.expect(m.PublishOk)
        with self.on(self.another("two")):
            phone = await self.device()
        assert (await phone.expect(m.Delivery)).payload == b"later"

    @run
    async def test_a_device_that_connects_to_the_other_node_is_replaced_here(self) -> None:
        other = self.another("two")
        older = await self.device()
        with self.on(other):
            newer = await self.device()
        goaway = await older.expect(m.GoAway)
        assert goaway.code == Code.REPLACED
        await older.closed
        with self.on(other):
            backend = await self.publisher()
            await self.still_delivers(newer, backend, "device:phone-1")

    @run
    async def test_both_nodes_are_ready_when_their_probes_have_come_through(self) -> None:
        other = self.another("two", "probe.interval=0.2")
        parts = other._parts
        await self.until(lambda: parts.health.ready(reactor.seconds())[0])  # type: ignore[attr-defined]


class ReceiptsOfNodesTests(RedisNodesCase, ReceiptTestCase):
    """The publisher is at the node one, the device at the other."""

    @run
    async def test_a_publisher_gets_receipts_of_a_device_of_the_other_node(self) -> None:
        with self.on(self.another("two")):
            phone = await self.device()
        backend = await self.connect(publisher_issued("backend"))
        await backend.greet(RECEIPTS)
        backend.send(m.Publish("device:phone-1", b"hello", want_receipt=True), 7)
        published = await backend.expect(m.PublishOk)
        await self.acknowledged(phone, Outcome.PROCESSED)
        milestones = []
        while Milestone.PROCESSED not in milestones:
            receipt = await backend.expect(m.Receipt)
            assert (receipt.message_id, receipt.device_id) == (published.message_id, "phone-1")
            milestones.append(receipt.milestone)
        assert milestones[-2:] == [Milestone.DELIVERED, Milestone.PROCESSED]

    @run
    async def test_events_come_of_a_device_of_the_other_node(self) -> None:
        with self.on(self.another("two")):
            phone = await self.device()
        events = await self.listen(await self.published())
        await self.until(lambda: "written" in events.milestones)
        await self.acknowledged(phone, Outcome.PROCESSED)
        await events.done
        assert events.milestones == ["accepted", "stored", "written", "delivered", "processed"]
        assert events.named("end") == [{"reason": "complete"}]


class RatesOfNodesTests(RedisNodesCase):
    def shared(self, name: str) -> tuple[str, ...]:
        rates = ("publish.publisher_rate=0.1", "publish.publisher_burst=3", "publish.device_rate=0.1", "publish.device_burst=2")
        return (*super().shared(name), *rates)

    async def another_that_counts(self) -> StreampushService:
        """A node without Redis, as each is for a moment at its start, has its own buckets alone."""
        other = self.another("two")
        await self.until(lambda: not other._parts.keeping.reason(reactor.seconds()))  # type: ignore[attr-defined]
        return other

    @run
    async def test_a_publisher_has_one_rate_at_both_nodes(self) -> None:
        await self.device()
        here = await self.publisher()
        with self.on(await self.another_that_counts()):
            there = await self.publisher()
        for number, backend in enumerate((here, there, here), start=1):
            backend.send(m.Publish("device:phone-1", b"let through"), number)
            await backend.expect(m.PublishOk)
        for backend in (there, here):
            backend.send(m.Publish("device:phone-1", b"too much"), 9)
            refused = await backend.expect(m.Error)
            assert refused.code == Code.MESSAGE_RATE_EXCEEDED
            assert 0 < refused.retry_after_ms <= 10_000

    @run
    async def test_a_device_that_goes_to_another_node_takes_its_rate_along(self) -> None:
        phone = await self.device()
        for _ in range(2):
            phone.send(m.State(), 5)
            await phone.expect(m.Ok)
        with self.on(await self.another_that_counts()):
            phone = await self.device()
        phone.send(m.State(), 5)
        assert (await phone.expect(m.Error)).code == Code.MESSAGE_RATE_EXCEEDED


class RedisEmptiedTests(OwnRedisCase):
    @run
    async def test_a_device_that_stays_is_present_again_when_redis_has_lost_everything(self) -> None:
        phone = await self.device()
        assert self.node is not None
        keeping = self.node._parts.keeping
        self.server.kill()
        self.server.start()
        await self.until(lambda: keeping.link.made == 2)
        await self.present(keeping.store)
        session = await keeping.store.session("phone-1")
        assert session is not None and session.node == "one"
        assert phone.lost is None

    @run
    async def test_a_device_that_stays_is_present_again_when_redis_was_emptied_under_its_open_connection(self) -> None:
        phone = await self.device()
        assert self.node is not None
        keeping = self.node._parts.keeping
        await self.present(keeping.store)
        self.server.say("FLUSHALL")
        await keeping._look()  # which it does every few seconds
        await self.present(keeping.store)
        assert (keeping.link.made, phone.lost) == (1, None)

    async def present(self, store: Store) -> None:
        while (await store.channel_presence("device:phone-1", 9)).device_ids != ("phone-1",):
            await self.turns(0.01)


class RedisAwayTests(OwnRedisCase):
    options = ("appendonly yes", "appendfsync always")

    def shared(self, name: str) -> tuple[str, ...]:
        return (*super().shared(name), "store.publish_timeout=0.5")

    @run
    async def test_while_redis_is_away_publishers_are_told_and_devices_stay(self) -> None:
        phone = await self.device()
        backend = await self.publisher()
        backend.send(m.Publish("device:phone-1", b"before"), 7)
        assert (await backend.expect(m.PublishOk)).durability is Durability.LOCAL_FSYNC
        assert (await phone.expect(m.Delivery)).payload == b"before"
        self.server.kill()
        assert self.node is not None
        parts = self.node._parts
        await self.until(lambda: bool(parts.keeping.reason(0.0)))
        backend.send(m.Publish("device:phone-1", b"refused"), 8)
        refused = await backend.expect(m.Error)
        assert refused.code == Code.STORE_UNAVAILABLE
        phone.send(m.Ping())
        await phone.expect(m.Pong)
        self.server.start()
        await self.until(lambda: not parts.keeping.reason(reactor.seconds()))  # type: ignore[attr-defined]
        backend.send(m.Publish("device:phone-1", b"after"), 9)
        await backend.expect(m.PublishOk)
        delivery = await self.next_delivery(phone)
        while delivery.payload != b"after":  # what was not acknowledged may come again, as Redis was started anew
            delivery = await self.next_delivery(phone)
        assert phone.lost is None

    async def next_delivery(self, phone: object) -> m.Delivery:
        while True:
            _, message = await phone.next()  # type: ignore[attr-defined]  # a WireClient
            if isinstance(message, m.Delivery):
                return message

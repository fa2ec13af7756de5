"""Durable subscriptions on a whole node: over reconnects, over a restart on the same SQLite file, and by a backend over REST."""

from __future__ import annotations

from typing import Any

from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from streampush.protocol.terms import Durability, Outcome
from tests.integration.harness import WireClient, run
from tests.integration.test_rest_live import KEYS, RestTestCase
from tests.support import device_issued


class Durable(RestTestCase):
    toml_extra = KEYS.replace('"read",', '"read", "devices",')

    async def greeted(self, device_id: str = "phone-1") -> tuple[WireClient, dict[str, m.Subscribed]]:
        """A device, and what it was told in Welcome by channel."""
        client = await self.connect(device_issued(device_id, "alice"))
        welcome = await client.greet()
        return client, {entry.channel: entry for entry in welcome.subscribed}

    async def left(self, client: WireClient) -> None:
        """The device is gone, and the node knows it."""
        client.cut()
        await client.closed
        assert self.node is not None
        node = self.node
        await self.until(lambda: not node.service.connected_devices())

    async def subscribed(self, client: WireClient, channel: str = "news/a", **wanted: Any) -> m.Subscribed:
        client.send(m.Subscribe(channel, **wanted), 2)
        return await client.expect(m.Subscribed)

    async def published(self, payload: bytes, channel: str = "news/a") -> m.PublishOk:
        publisher = await self.publisher()
        publisher.send(m.Publish(channel, payload), 2)
        return await publisher.expect(m.PublishOk)

    @run
    async def test_durable_channel_is_followed_after_a_reconnect_from_where_the_device_was(self) -> None:
        client, _ = await self.greeted()
        self.assertTrue((await self.subscribed(client, durable=True)).durable)
        first = await self.published(b"one")
        self.assertEqual((await client.expect(m.Delivery)).payload, b"one")
        client.send(m.Ack("news/a", first.offset, Outcome.DELIVERED))
        await self.counted("streampush_acknowledgements_total", outcome="delivered")
        await self.left(client)
        await self.published(b"two")
        client, followed = await self.greeted()
        entry = followed["news/a"]
        self.assertEqual((entry.durable, entry.recovered, entry.offset, entry.top_offset), (True, True, 1, 2))
        self.assertEqual((await client.expect(m.Delivery)).payload, b"two")

    @run
    async def test_durable_channel_is_followed_after_a_restart_of_the_server(self) -> None:
        client, _ = await self.greeted()
        await self.subscribed(client, durable=True)
        await self.left(client)
        answer = await self.published(b"while it was away")
        self.assertEqual(answer.durability, Durability.LOCAL_FSYNC)
        await self.restart()
        client, followed = await self.greeted()
        self.assertEqual((followed["news/a"].durable, followed["news/a"].recovered), (True, True))
        delivery = await client.expect(m.Delivery)
        self.assertEqual((delivery.payload, delivery.message_id), (b"while it was away", answer.message_id))

    @run
    async def test_unsubscribe_ends_it_for_good(self) -> None:
        client, _ = await self.greeted()
        await self.subscribed(client, durable=True)
        client.send(m.Unsubscribe("news/a"), 3)
        await client.expect(m.Ok)
        await self.left(client)
        _, followed = await self.greeted()
        self.assertEqual(set(followed), {"device:phone-1", "user:alice"})

    @run
    async def test_backend_subscribes_a_connected_device_and_ends_it_again(self) -> None:
        client, _ = await self.greeted()
        status, answer = await self.ask("PUT", "/v1/devices/phone-1/subscriptions/news/a")
        self.assertEqual((status, answer), (201, {"added": True}))
        told = await client.expect(m.Subscribed)
        self.assertEqual((told.channel, told.durable, told.code), ("news/a", True, 0))
        await self.published(b"for subscribers")
        self.assertEqual((await client.expect(m.Delivery)).payload, b"for subscribers")
        self.assertEqual(await self.ask("DELETE", "/v1/devices/phone-1/subscriptions/news/a"), (200, {"removed": True}))
        ended = await client.expect(m.Subscribed)
        self.assertEqual((ended.channel, ended.code), ("news/a", Code.NOT_SUBSCRIBED))
        await self.published(b"for others")
        await self.published(b"for all", "user:alice")
        self.assertEqual((await client.expect(m.Delivery)).payload, b"for all")

    @run
    async def test_backend_subscribes_a_device_that_is_away(self) -> None:
        await self.ask("PUT", "/v1/devices/tablet-1", {})
        await self.published(b"before")
        self.assertEqual((await self.ask("PUT", "/v1/devices/tablet-1/subscriptions/news/a"))[0], 201)
        await self.published(b"after")
        _, listed = await self.ask("GET", "/v1/devices/tablet-1/subscriptions")
        self.assertEqual([row["channel"] for row in listed["subscriptions"]], ["news/a"])
        client, followed = await self.greeted("tablet-1")
        self.assertEqual((followed["news/a"].offset, followed["news/a"].durable), (1, True))
        self.assertEqual((await client.expect(m.Delivery)).payload, b"after")

    @run
    async def test_device_that_is_bound_to_another_user_while_connected_is_told_so(self) -> None:
        client = await self.connect(device_issued("phone-2", ""))
        await client.greet()
        for user, channels in (("carol", [("user:carol", 0)]), ("dora", [("user:carol", Code.NOT_SUBSCRIBED), ("user:dora", 0)])):
            self.assertEqual((await self.ask("PUT", "/v1/devices/phone-2", {"user_id": user}))[0], 200)
            told = [await client.expect(m.Subscribed) for _ in channels]
            self.assertEqual([(entry.channel, entry.code) for entry in told], channels)
        await self.published(b"hello", "user:dora")
        self.assertEqual((await client.expect(m.Delivery)).payload, b"hello")

    @run
    async def test_acknowledgement_of_another_epoch_is_ignored(self) -> None:
        client, _ = await self.greeted()
        place = await self.subscribed(client)
        await self.published(b"one")
        delivery = await client.expect(m.Delivery)
        client.send(m.Ack("news/a", delivery.offset, Outcome.DELIVERED, "another"))
        await self.counted("streampush_acknowledgements_ignored_total", reason="other_epoch")
        client.send(m.Ack("news/a", delivery.offset, Outcome.DELIVERED, place.epoch))
        await self.counted("streampush_acknowledgements_total", outcome="delivered")

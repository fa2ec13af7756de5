"""What devices and publishers may ask for, over the wire: subscribe, publish, deliver, acknowledge, recover."""

from __future__ import annotations

from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from streampush.protocol.terms import AppState, Durability, LossReason, Outcome, Start, TokenProvider
from tests.integration.harness import NodeTestCase, WireClient, run
from tests.support import device_issued


class PublishTests(NodeTestCase):
    async def _refused(self, publisher: WireClient, publish: m.Publish, code: Code) -> m.Error:
        publisher.send(publish, 5)
        request_id, error = await publisher.next()
        assert isinstance(error, m.Error)
        self.assertEqual((request_id, error.code, error.channel), (5, code, publish.channel))
        self.assertEqual(self.metric("streampush_refused_total", code=str(int(code))), 1)
        return error

    @run
    async def test_message_to_device_user_and_topic_arrives(self) -> None:
        phone = await self.device("phone-1", "alice")
        tablet = await self.device("tablet-1", "alice")
        publisher = await self.publisher()
        phone.send(m.Subscribe("news/today"), 2)
        await phone.expect(m.Subscribed)
        for number, channel in enumerate(("device:phone-1", "user:alice", "news/today"), 3):
            publisher.send(m.Publish(channel, channel.encode(), "text/plain", {"k": "v"}), number)
            answer = await publisher.expect(m.PublishOk)
            self.assertEqual((answer.channel, answer.offset, answer.durability), (channel, 1, Durability.LOCAL_FSYNC))
            delivery = await phone.expect(m.Delivery)
            self.assertEqual((delivery.channel, delivery.message_id), (channel, answer.message_id))
            self.assertEqual(
                (delivery.payload, delivery.content_type, delivery.headers), (channel.encode(), "text/plain", {"k": "v"})
            )
        self.assertEqual((await tablet.expect(m.Delivery)).channel, "user:alice")

    @run
    async def test_unknown_device_and_user(self) -> None:
        publisher = await self.publisher()
        error = await self._refused(publisher, m.Publish("device:nobody", b"x"), Code.UNKNOWN_RECIPIENT)
        self.assertEqual(error.advice, Advice.UNSPECIFIED)
        publisher.send(m.Publish("user:nobody", b"x"), 6)
        self.assertEqual((await publisher.expect(m.Error)).code, Code.UNKNOWN_RECIPIENT)

    @run
    async def test_channel_outside_the_publishers_rights(self) -> None:
        publisher = await self.publisher("narrow")
        await self._refused(publisher, m.Publish("other/topic", b"x"), Code.FORBIDDEN)

    @run
    async def test_device_may_not_publish_by_default(self) -> None:
        device = await self.device()
        await device.expect(m.BacklogEnd)
        await device.expect(m.BacklogEnd)
        await self._refused(device, m.Publish("news/today", b"x"), Code.FORBIDDEN)

    @run
    async def test_names_of_the_server_are_forbidden(self) -> None:
        await self._refused(await self.publisher(), m.Publish("$probe/test", b"x"), Code.FORBIDDEN)

    @run
    async def test_oversize_payload(self) -> None:
        await self._refused(await self.publisher(), m.Publish("news/a", bytes(256 * 1024 + 1)), Code.PAYLOAD_TOO_LARGE)

    @run
    async def test_more_durability_than_the_store_gives(self) -> None:
        publish = m.Publish("news/a", b"x", durability=Durability.REPLICATED)
        await self._refused(await self.publisher(), publish, Code.FORBIDDEN)

    @run
    async def test_rate_of_a_publisher(self) -> None:
        await self.restart("publish.publisher_rate=0.1", "publish.publisher_burst=1")
        publisher = await self.publisher()
        publisher.send(m.Publish("news/a", b"x"), 4)
        await publisher.expect(m.PublishOk)
        error = await self._refused(publisher, m.Publish("news/a", b"x"), Code.MESSAGE_RATE_EXCEEDED)
        self.assertEqual(error.advice, Advice.SLOW_DOWN)
        self.assertGreater(error.retry_after_ms, 8000)


class DeviceTests(NodeTestCase):
    with_bystanders = True

    @run
    async def test_forbidden_topic_and_foreign_channels(self) -> None:
        device = await self.device()
        for number, channel in enumerate(("secret/plans", "device:tablet-1", "user:bob", "$probe/test"), 2):
            device.send(m.Subscribe(channel), number)
            error = await device.expect(m.Error)
            self.assertEqual((error.code, error.advice, error.channel), (Code.FORBIDDEN, Advice.REAUTHENTICATE, channel))
        self.assertEqual(self.metric("streampush_refused_total", code="3003"), 4)

    @run
    async def test_forbidden_channel_in_hello_is_named_in_welcome(self) -> None:
        device = await self.device(hello=m.Hello(resume=(m.Resume("secret/plans"), m.Resume("news/today"))))
        self.assertIsNone(device.lost)
        publisher = await self.publisher()
        await self.still_delivers(device, publisher, "news/today")

    @run
    async def test_rate_of_a_device(self) -> None:
        await self.restart("publish.device_rate=0.1", "publish.device_burst=2")
        device = await self.device()
        for number in (2, 3, 4):
            device.send(m.State(AppState.BACKGROUND), number)
        await device.expect(m.Ok)
        await device.expect(m.Ok)
        error = await device.expect(m.Error)
        self.assertEqual((error.code, error.advice), (Code.MESSAGE_RATE_EXCEEDED, Advice.SLOW_DOWN))

    @run
    async def test_more_subscriptions_than_allowed(self) -> None:
        await self.restart("delivery.max_subscriptions=3")
        device = await self.device()
        for number in (2, 3):
            device.send(m.Subscribe(f"news/{number}"), number)
        await device.expect(m.Subscribed)
        self.assertEqual((await device.expect(m.Error)).code, Code.QUOTA_EXCEEDED)

    @run
    async def test_unsubscribe_ends_delivery(self) -> None:
        device = await self.device()
        publisher = await self.publisher()
        device.send(m.Subscribe("news/today"), 2)
        await device.expect(m.Subscribed)
        device.send(m.Unsubscribe("news/today"), 3)
        await device.expect(m.Ok)
        device.send(m.Unsubscribe("news/today"), 4)
        self.assertEqual((await device.expect(m.Error)).code, Code.NOT_SUBSCRIBED)
        publisher.send(m.Publish("news/today", b"x"), 5)
        self.assertEqual((await publisher.expect(m.PublishOk)).connections, 0)

    @run
    async def test_state_and_token_are_kept(self) -> None:
        device = await self.device()
        device.send(m.State(AppState.FOREGROUND), 2)
        await device.expect(m.Ok)
        device.send(m.RegisterToken(TokenProvider.APNS, b"\x01" * 32, "com.example.app"), 3)
        await device.expect(m.Ok)
        device.send(m.RegisterToken(TokenProvider.APNS, b"\x01" * 101, "com.example.app"), 4)
        self.assertEqual((await device.expect(m.Error)).code, Code.PAYLOAD_TOO_LARGE)
        device.send(m.RegisterToken(TokenProvider.APNS, b"\x01" * 32), 5)
        self.assertEqual((await device.expect(m.Error)).code, Code.SERIALIZATION_ERROR)
        assert self.node is not None
        status = await self.node.service.describe_device("phone-1")
        self.assertEqual((status.state, status.token_registered), (AppState.FOREGROUND, True))

    @run
    async def test_acknowledgement_of_what_was_never_sent_or_followed(self) -> None:
        device = await self.device()
        device.send(m.Ack("device:phone-1", 7))
        self.assertEqual((await device.expect(m.Error)).code, Code.POSITION_LOST)
        device.send(m.Ack("news/today", 1))
        self.assertEqual((await device.expect(m.Error)).code, Code.NOT_SUBSCRIBED)

    @run
    async def test_publisher_follows_nothing(self) -> None:
        publisher = await self.publisher()
        publisher.send(m.Subscribe("news/today"), 2)
        self.assertEqual((await publisher.expect(m.Error)).code, Code.FORBIDDEN)


class RecoveryTests(NodeTestCase):
    async def _publish(self, publisher: WireClient, channel: str, *payloads: bytes, ttl_ms: int = 0) -> list[m.PublishOk]:
        answers = []
        for payload in payloads:
            publisher.send(m.Publish(channel, payload, ttl_ms=ttl_ms), 9)
            answers.append(await publisher.expect(m.PublishOk))
        return answers

    async def _again(self, position: m.Position) -> tuple[WireClient, m.Subscribed]:
        """The phone is back with this position of news/today; what Welcome says of it."""
        client = await self.connect(device_issued("phone-1", "alice"))
        welcome = await client.greet(m.Hello(resume=(m.Resume("news/today", position),)))
        (result,) = [result for result in welcome.subscribed if result.channel == "news/today"]
        return client, result

    async def _first_visit(self, publisher: WireClient) -> m.Position:
        """One message of news/today arrives, the position behind it is given back; then the connection is cut."""
        device = await self.device()
        device.send(m.Subscribe("news/today"), 2)
        subscribed = await device.expect(m.Subscribed)
        await self._publish(publisher, "news/today", b"1")
        delivery = await device.expect(m.Delivery)
        device.cut()
        await device.closed
        return m.Position(subscribed.epoch, delivery.offset, delivery.message_id)

    @run
    async def test_what_was_published_meanwhile_arrives_once_in_order(self) -> None:
        publisher = await self.publisher()
        position = await self._first_visit(publisher)
        await self._publish(publisher, "news/today", b"2", b"3")
        device, result = await self._again(position)
        self.assertEqual((result.recovered, result.loss, result.offset, result.top_offset), (True, LossReason.UNSPECIFIED, 1, 3))
        self.assertEqual([(await device.expect(m.Delivery)).payload for _ in range(2)], [b"2", b"3"])
        await self.still_delivers(device, publisher, "news/today")

    @run
    async def test_position_of_another_epoch(self) -> None:
        publisher = await self.publisher()
        position = await self._first_visit(publisher)
        _, result = await self._again(m.Position("other", position.offset, position.last_message_id))
        self.assertEqual((result.recovered, result.loss), (False, LossReason.EPOCH_CHANGED))
        self.assertEqual(self.metric("streampush_positions_lost_total", reason="epoch_changed"), 1)

    @run
    async def test_position_from_the_future(self) -> None:
        publisher = await self.publisher()
        position = await self._first_visit(publisher)
        _, result = await self._again(m.Position(position.epoch, 99, "x"))
        self.assertEqual((result.recovered, result.loss), (False, LossReason.REWOUND))

    @run
    async def test_position_with_another_message(self) -> None:
        publisher = await self.publisher()
        position = await self._first_visit(publisher)
        _, result = await self._again(m.Position(position.epoch, 1, "somebody else's"))
        self.assertEqual((result.recovered, result.loss), (False, LossReason.ID_MISMATCH))

    @run
    async def test_trimmed_history_names_how_much_is_lost(self) -> None:
        await self.restart("store.history_messages=2")
        publisher = await self.publisher()
        position = await self._first_visit(publisher)
        await self._publish(publisher, "news/today", b"2", b"3", b"4", b"5")
        device, result = await self._again(position)
        self.assertEqual((result.recovered, result.loss, result.lost_at_most), (False, LossReason.TRIMMED, 2))
        self.assertEqual([(await device.expect(m.Delivery)).payload for _ in range(2)], [b"4", b"5"])

    @run
    async def test_expired_messages_are_not_delivered_and_named(self) -> None:
        publisher = await self.publisher()
        position = await self._first_visit(publisher)
        await self._publish(publisher, "news/today", b"2", ttl_ms=1)
        await self._publish(publisher, "news/today", b"3")
        await self.turns(0.01)
        device, result = await self._again(position)
        self.assertEqual((result.recovered, result.loss, result.lost_at_most), (False, LossReason.EXPIRED, 1))
        self.assertEqual((await device.expect(m.Delivery)).payload, b"3")

    @run
    async def test_message_for_a_device_that_is_away_waits_for_it(self) -> None:
        publisher = await self.publisher()
        (await self.device()).cut()
        await self.until(lambda: self.node.service.connected_devices() == 0)  # type: ignore[union-attr]
        await self._publish(publisher, "device:phone-1", b"1", b"2")
        device = await self.device()
        for payload in (b"1", b"2"):
            delivery = await device.expect(m.Delivery)
            self.assertEqual(delivery.payload, payload)
        device.send(m.Ack("device:phone-1", 1, Outcome.PROCESSED))
        device.send(m.Ack("device:phone-1", 2, Outcome.RETRY_LATER))
        await self.counted("streampush_acknowledgements_total", outcome="retry_later")
        device.cut()
        await device.closed
        again = await self.device()
        self.assertEqual((await again.expect(m.Delivery)).payload, b"2")

    @run
    async def test_earliest_reads_the_whole_log(self) -> None:
        publisher = await self.publisher()
        await self._publish(publisher, "news/today", b"1", b"2")
        device = await self.device()
        device.send(m.Subscribe("news/today", start=Start.EARLIEST), 2)
        await device.expect(m.Subscribed)
        self.assertEqual([(await device.expect(m.Delivery)).payload for _ in range(2)], [b"1", b"2"])
        self.assertEqual((await device.expect(m.BacklogEnd)).offset, 2)

    @run
    async def test_receive_window_holds_back_until_acknowledged(self) -> None:
        publisher = await self.publisher()
        device = await self.device(hello=m.Hello(receive_window_messages=2))
        await self._publish(publisher, "device:phone-1", b"1", b"2", b"3", b"4", b"5")
        self.assertEqual([(await device.expect(m.Delivery)).offset for _ in range(2)], [1, 2])
        publisher.send(m.Ping(), 1)
        await publisher.expect(m.Pong)
        self.assertEqual([message for _, message in device.messages if isinstance(message, m.Delivery)], [])
        device.send(m.Ack("device:phone-1", 2))
        self.assertEqual([(await device.expect(m.Delivery)).offset for _ in range(2)], [3, 4])
        device.send(m.Credit(3))
        self.assertEqual((await device.expect(m.Delivery)).offset, 5)

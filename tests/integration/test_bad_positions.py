"""Acknowledgements and positions that cannot be true, and devices that follow, hold or refuse too much."""

from __future__ import annotations

from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from streampush.protocol.terms import LossReason, Outcome, Start
from tests.integration.attacking import LARGEST, BadRequestCase
from tests.integration.harness import WireClient, run
from tests.support import device_issued

OFFSETS = (0, 1, 2, 1 << 32, (1 << 39) + 1, (1 << 63) - 1, 1 << 63, LARGEST)
"""What the wire can carry: also what overflows the numbers of a store."""


class DeviceCase(BadRequestCase):
    async def take(self, device: WireClient, number: int = 1) -> list[m.Delivery]:
        return [await device.expect(m.Delivery) for _ in range(number)]

    async def pinged(self, device: WireClient) -> None:
        """Everything that the device has sent so far was read."""
        device.send(m.Ping(), 999)
        await device.expect(m.Pong)

    def unheard(self, device: WireClient) -> list[m.Message]:
        """What came and was not expected, but for pings and the ends of backlogs."""
        return [message for _, message in device.messages if not isinstance(message, m.Ping | m.BacklogEnd)]

    async def cursors(self, device_id: str = "phone-1") -> dict[str, int]:
        """Where the store has the device's cursors, once everything is stored."""
        assert self.node is not None
        writer = self.node.service._cursors
        await self.until(lambda: not writer._begun)
        return {channel: cursor.offset for channel, cursor in (await self.node.store.cursors(device_id)).items()}

    async def cursor(self, device_id: str, channel: str) -> int:
        """The same of one channel."""
        return (await self.cursors(device_id))[channel]


class AcknowledgementTests(DeviceCase):
    @run
    async def test_an_acknowledgement_of_what_was_never_sent_is_3010_and_moves_nothing(self) -> None:
        device = await self.device()
        await self.published(device="phone-1")
        await self.take(device)
        for offset in OFFSETS[2:]:
            for outcome in (Outcome.DELIVERED, Outcome.PROCESSED, Outcome.RETRY_LATER, Outcome.REJECTED):
                error = await self.refused(device, m.Ack("device:phone-1", offset, outcome), Code.POSITION_LOST, counter="faults")
                self.assertEqual(error.channel, "device:phone-1")
        self.assertEqual(await self.cursor("phone-1", "device:phone-1"), 0)

    @run
    async def test_an_acknowledgement_of_a_foreign_channel_is_3002_and_moves_nothing(self) -> None:
        device = await self.device()
        await self.published(device="bystander-1", payload="not yours")
        for channel in ("device:bystander-1", "user:bob", "news/a", "$probe/test", "", "x" * 300, "nul\0"):
            await self.refused(device, m.Ack(channel, 1), Code.NOT_SUBSCRIBED, counter="faults")
        self.assertEqual(await self.cursor("bystander-1", "device:bystander-1"), 0)
        assert self.bystanders is not None
        self.assertEqual((await self.bystanders[0].expect(m.Delivery)).payload, b"not yours")

    @run
    async def test_an_acknowledgement_of_a_publisher_is_3002(self) -> None:
        await self.refused(await self.publisher(), m.Ack("device:bystander-1", 1), Code.NOT_SUBSCRIBED, counter="faults")

    @run
    async def test_an_acknowledgement_behind_the_cursor_is_ignored_and_counted(self) -> None:
        device = await self.device()
        for _ in range(3):
            await self.published(device="phone-1")
        await self.take(device, 3)
        device.send(m.Ack("device:phone-1", 3))
        for offset in (2, 1, 0, 3):
            device.send(m.Ack("device:phone-1", offset))
        await self.counted("streampush_acknowledgements_ignored_total", 4, reason="older")
        self.assertEqual(await self.cursor("phone-1", "device:phone-1"), 3)
        self.assertEqual(self.unheard(device), [])

    @run
    async def test_an_acknowledgement_of_another_epoch_is_ignored_and_counted(self) -> None:
        device = await self.device()
        await self.published(device="phone-1")
        await self.take(device)
        for epoch in ("other", "\0", "x" * 100_000):
            device.send(m.Ack("device:phone-1", 1, epoch=epoch))
        await self.counted("streampush_acknowledgements_ignored_total", 3, reason="other_epoch")
        self.assertEqual(await self.cursor("phone-1", "device:phone-1"), 0)
        device.cut()
        await device.closed
        await self.take(await self.device())

    @run
    async def test_rejecting_everything_moves_the_cursor_and_keeps_no_letter(self) -> None:
        device = await self.device()
        for number in range(20):
            await self.published(device="phone-1", payload=str(number))
        for delivery in await self.take(device, 20):
            device.send(m.Ack(delivery.channel, delivery.offset, Outcome.REJECTED))
        await self.counted("streampush_acknowledgements_total", 20, outcome="rejected")
        self.assertEqual(await self.cursor("phone-1", "device:phone-1"), 20)
        self.assertEqual(self.rows()["dead_letters"], 0)

    @run
    async def test_a_flood_of_false_acknowledgements_is_answered_one_by_one_and_costs_the_store_nothing(self) -> None:
        device = await self.device()
        operations = self.metric("streampush_store_operations_total")
        for _ in range(2_000):
            device.send(m.Ack("news/a", 7))
        for _ in range(2_000):
            await device.expect(m.Error)
        self.assertEqual(self.metric("streampush_faults_total", code="3002"), 2_000)
        self.assertLess(self.metric("streampush_store_operations_total") - operations, 20)


class PositionTests(DeviceCase):
    async def log(self) -> m.Position:
        """Two messages in news/a; the position at the second."""
        await self.published(topic="news/a", payload="1")
        answer = await self.published(topic="news/a", payload="2")
        return m.Position(answer["epoch"], 2, answer["message_id"])

    async def resumed(self, position: m.Position) -> m.Subscribed:
        """What a device with this position is told."""
        client = await self.connect(device_issued("phone-1", "alice"))
        welcome = await client.greet(m.Hello(resume=(m.Resume("news/a", position),)))
        (subscribed,) = (each for each in welcome.subscribed if each.channel == "news/a")
        client.cut()
        await client.closed
        return subscribed

    @run
    async def test_a_position_in_the_future_is_rewound_and_everything_is_delivered_again(self) -> None:
        position = await self.log()
        for number, offset in enumerate(OFFSETS[3:], 1):
            told = await self.resumed(m.Position(position.epoch, offset, position.last_message_id))
            self.assertEqual((told.recovered, told.loss, told.offset, told.top_offset), (False, LossReason.REWOUND, 0, 2))
            self.assertEqual(self.metric("streampush_positions_lost_total", reason="rewound"), number)

    @run
    async def test_a_position_of_another_epoch_is_told_so_and_everything_is_delivered_again(self) -> None:
        await self.log()
        for number, epoch in enumerate(("other", "\0", "\U0001f600" * 1000, "x" * 100_000), 1):
            told = await self.resumed(m.Position(epoch, LARGEST, "x" * 1000))
            self.assertEqual((told.recovered, told.loss, told.offset), (False, LossReason.EPOCH_CHANGED, 0))
            self.assertEqual(self.metric("streampush_positions_lost_total", reason="epoch_changed"), number)

    @run
    async def test_a_position_at_another_message_is_no_proof(self) -> None:
        position = await self.log()
        for message_id in ("", "\0", "x" * 100_000, "\u2028"):
            told = await self.resumed(m.Position(position.epoch, 2, message_id))
            self.assertEqual((told.recovered, told.loss), (False, LossReason.ID_MISMATCH))

    @run
    async def test_a_false_position_does_not_move_the_stored_cursor(self) -> None:
        position = await self.log()
        device = await self.device()
        device.send(m.Subscribe("news/a", start=Start.EARLIEST), 2)
        await self.take_up_to(device, 2)
        device.cut()
        await device.closed
        await self.resumed(m.Position(position.epoch, LARGEST, "x"))
        self.assertEqual(await self.cursor("phone-1", "news/a"), 2)

    async def take_up_to(self, device: WireClient, offset: int) -> None:
        await device.expect(m.Subscribed)
        await self.take(device, offset)
        device.send(m.Ack("news/a", offset))
        await self.counted("streampush_acknowledgements_total", outcome="delivered")

    @run
    async def test_a_position_for_a_channel_without_a_log_begins_nothing(self) -> None:
        async def attack() -> None:
            told = await self.resumed(m.Position("other", 7, "x"))
            self.assertEqual((told.recovered, told.loss), (False, LossReason.EPOCH_CHANGED))

        (await self.device()).cut()
        await self.unchanged(attack)

    @run
    async def test_a_channel_named_twice_in_hello_closes_with_2002(self) -> None:
        client = await self.connect(device_issued("phone-1", "alice"))
        client.send(m.Hello(resume=(m.Resume("news/a"), m.Resume("news/a"))), 1)
        self.assertEqual((await client.expect(m.GoAway)).code, Code.SERIALIZATION_ERROR)

    @run
    async def test_names_that_no_channel_can_have_are_refused_one_by_one_in_welcome(self) -> None:
        names = ("", "nul\0", "a b", "x" * 300, "device:", "device:bystander-1", "$probe/test", "user:bob", "secret/a")
        client = await self.connect(device_issued("phone-1", "alice"))
        welcome = await client.greet(m.Hello(resume=tuple(map(m.Resume, names))))
        codes = [int(each.code) for each in welcome.subscribed]
        self.assertEqual(codes, [0, 0] + [3006] * 5 + [3003] * 4)
        self.assertEqual(self.metric("streampush_refused_total", code="3006"), 5)


class SubscriptionTests(DeviceCase):
    settings = ("publish.device_rate=100000", "publish.device_burst=100000")

    @run
    async def test_subscriptions_beyond_the_limit_are_3007_and_those_in_front_stand(self) -> None:
        device = await self.device()
        for number in range(1_200):
            device.send(m.Subscribe(f"news/{number}"), number + 1)
        answers = []
        while len(answers) < 1_200:
            message = (await device.next())[1]
            if isinstance(message, m.Subscribed | m.Error):
                answers.append(message)
        refused = [answer for answer in answers if isinstance(answer, m.Error)]
        self.assertEqual({(error.code, error.advice) for error in refused}, {(Code.QUOTA_EXCEEDED, Advice.SLOW_DOWN)})
        self.assertEqual(len(refused), 1_200 - 998)  # its own two channels count
        self.assertEqual(self.metric("streampush_refused_total", code="3007"), len(refused))
        self.assertLessEqual(len(await self.cursors()), 1_000)

    @run
    async def test_a_hello_with_100_000_channels_closes_with_2002_and_leaves_nothing(self) -> None:
        await self.restart("session.max_frame=8000000")

        async def attack() -> None:
            client = await self.connect(device_issued("phone-1", "alice"))
            client.send(m.Hello(resume=tuple(m.Resume(f"news/{number}") for number in range(100_000))), 1)
            self.assertEqual((await client.expect(m.GoAway)).code, Code.SERIALIZATION_ERROR)
            await client.closed

        await self.unchanged(attack)
        await self.counted("streampush_closes_total", code="2002", by="server")

    @run
    async def test_a_hello_with_100_000_channels_in_a_frame_above_the_limit_is_cut_while_it_comes(self) -> None:
        client = await self.connect(device_issued("phone-1", "alice"))
        client.send(m.Hello(resume=tuple(m.Resume(f"news/{number}") for number in range(100_000))), 1)
        await client.closed
        await self.counted("streampush_closes_total", code="2004", by="server")

    @run
    async def test_a_device_that_follows_ever_new_channels_keeps_a_bounded_number_of_cursors(self) -> None:
        for visit in range(3):
            device = await self.device(hello=m.Hello(resume=tuple(m.Resume(f"news/{visit}/{n}") for n in range(600))))
            device.cut()
            await device.closed
        cursors = await self.cursors()
        self.assertEqual(len(cursors), 1_000)
        self.assertTrue({f"news/2/{number}" for number in range(600)} < set(cursors))

    @run
    async def test_subscribing_and_unsubscribing_without_end_leaves_nothing(self) -> None:
        device = await self.device()

        async def attack() -> None:
            for number in range(300):
                device.send(m.Subscribe(f"news/{number}"), 2 * number + 1)
                await device.expect(m.Subscribed)
                device.send(m.Unsubscribe(f"news/{number}"), 2 * number + 2)
                await device.expect(m.Ok)

        await self.unchanged(attack)
        self.assertEqual(set(await self.cursors()), {"device:phone-1", "user:alice"})


class ObstinateTests(DeviceCase):
    settings = ("delivery.ack_timeout=0.1", "delivery.redelivery_max_interval=0.1", "delivery.max_attempts=2")

    def dead_letters(self, reason: str) -> float:
        return self.metric("streampush_dead_letters_total", reason=reason)

    async def start_with(self, *settings: str) -> None:
        await self.restart(*self.settings, *settings)

    @run
    async def test_a_device_that_never_answers_gets_each_message_so_often_then_dead_letters_it_and_gets_the_next(self) -> None:
        device = await self.device(hello=m.Hello(receive_window_messages=1))
        for payload in ("1", "2"):
            await self.published(device="phone-1", payload=payload)
        deliveries = [delivery.payload for delivery in await self.take(device, 4)]
        self.assertEqual(deliveries, [b"1", b"1", b"2", b"2"])
        await self.settled("dead_letters", 2)
        self.assertEqual(self.metric("streampush_dead_letters_total", reason="timeout"), 2)

    @run
    async def test_retry_later_for_ever_ends_in_dead_letters_of_which_a_bounded_number_is_kept(self) -> None:
        await self.start_with("delivery.max_dead_letters=3", "delivery.max_held=4")
        device = await self.device()
        for number in range(10):
            await self.published(device="phone-1", payload=str(number))
        for _ in range(20):
            delivery = await device.expect(m.Delivery)
            device.send(m.Ack(delivery.channel, delivery.offset, Outcome.RETRY_LATER))
        await self.until(lambda: sum(map(self.dead_letters, ("retry_later", "timeout"))) == 10)  # on a slow machine some time out
        await self.settled("dead_letters", 3)
        self.assertEqual(await self.cursor("phone-1", "device:phone-1"), 10)

    @run
    async def test_an_outcome_that_is_unknown_is_taken_for_delivered(self) -> None:
        device = await self.device()
        await self.published(device="phone-1")
        await self.take(device)
        device.send_payload(_outcome(77))
        await self.counted("streampush_acknowledgements_total", outcome="delivered")


def _outcome(value: int) -> bytes:
    """An Ack with this outcome."""
    payload = codec.encode(m.Ack("device:phone-1", 1, Outcome.REJECTED))
    assert payload[-1] == Outcome.REJECTED
    return payload[:-1] + bytes([value])

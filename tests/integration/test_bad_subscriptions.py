"""Durable subscriptions without end, without a right, and to what is no channel: of devices and of backends."""

from __future__ import annotations

from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from tests.integration.attacking import BadRequestCase
from tests.integration.harness import run
from tests.support import device_issued

LIMIT = 20
OWN = 2
"""Channels that a device of a user follows by itself."""


class DurableTests(BadRequestCase):
    settings = (f"delivery.max_subscriptions={LIMIT}", "publish.device_rate=100000", "publish.device_burst=100000")

    async def put(self, channel: str, device_id: str = "phone-1") -> tuple[int, int | None]:
        """Status and code of a backend's subscription."""
        status, answer = await self.ask("PUT", f"/v1/devices/{device_id}/subscriptions/{channel}")
        return status, answer.get("code")

    @run
    async def test_durable_subscriptions_of_a_device_end_at_the_limit_with_3007_however_many_are_asked_for_at_once(self) -> None:
        device = await self.device()
        for number in range(100):
            device.send(m.Subscribe(f"news/{number}", durable=True), number + 1)
        answers: list[m.Message] = []
        while len(answers) < 100:
            message = (await device.next())[1]
            if isinstance(message, m.Subscribed | m.Error):
                answers.append(message)
        errors = {(error.code, error.advice) for error in answers if isinstance(error, m.Error)}
        self.assertEqual(errors, {(Code.QUOTA_EXCEEDED, Advice.SLOW_DOWN)})
        subscribed = {answer.channel for answer in answers if isinstance(answer, m.Subscribed)}
        _, document = await self.ask("GET", "/v1/devices/phone-1/subscriptions")
        self.assertEqual({row["channel"] for row in document["subscriptions"]}, subscribed)
        self.assertEqual(self.rows()["subscriptions"], LIMIT - OWN)
        self.assertEqual(self.metric("streampush_refused_total", code="3007"), 100 - (LIMIT - OWN))

    @run
    async def test_what_was_refused_at_the_limit_is_not_followed_after_a_reconnect(self) -> None:
        for number in range(LIMIT + 5):
            await self.ask("PUT", "/v1/devices/phone-1", {"user_id": "alice"})
            await self.put(f"news/{number}")
        client = await self.connect(device_issued("phone-1", "alice"))
        welcome = await client.greet()
        self.assertEqual({int(each.code) for each in welcome.subscribed}, {0})
        self.assertEqual(len(welcome.subscribed), LIMIT)

    @run
    async def test_subscriptions_of_a_backend_end_at_the_limit_with_3007_and_507(self) -> None:
        await self.ask("PUT", "/v1/devices/phone-1", {"user_id": "alice"})
        answers = [await self.put(f"news/{number}") for number in range(LIMIT + 5)]
        self.assertEqual(answers, [(201, None)] * (LIMIT - OWN) + [(507, 3007)] * (OWN + 5))
        self.assertEqual(self.metric("streampush_refused_total", code="3007"), OWN + 5)

        async def attack() -> None:
            self.assertEqual(await self.put("news/0"), (200, None))

        await self.unchanged(attack)

    @run
    async def test_a_backend_cannot_subscribe_a_device_to_what_is_no_topic_of_its_own(self) -> None:
        await self.ask("PUT", "/v1/devices/phone-1", {})

        async def attack() -> None:
            for channel in ("secret/plans", "device:bystander-1", "device:phone-1", "user:bob", "$probe/test"):
                self.assertEqual(await self.put(channel), (403, 3003), channel)
            for channel in ("%00", "a%20b", "x" * 256, "device:", "%E2%80%A8"):
                self.assertEqual(await self.put(channel), (404, 3006), channel)
            self.assertEqual(await self.put("news/a", "nobody"), (404, 3006))

        await self.unchanged(attack)
        self.assertEqual(self.metric("streampush_refused_total", code="3003"), 5)

    @run
    async def test_a_subscription_that_never_was_is_ended_without_harm(self) -> None:
        await self.ask("PUT", "/v1/devices/phone-1", {})

        async def attack() -> None:
            for channel in ("news/a", "secret/plans", "device:phone-1", "%00"):
                status, answer = await self.ask("DELETE", f"/v1/devices/phone-1/subscriptions/{channel}")
                self.assertIn((status, answer.get("removed"), answer.get("code")), ((200, False, None), (404, None, 3006)))

        await self.unchanged(attack)

    @run
    async def test_subscribing_and_ending_from_both_sides_at_once_leaves_both_agreed(self) -> None:
        device = await self.device()
        for number in range(40):
            device.send(m.Subscribe("news/a", durable=True), 3 * number + 1)
            device.send(m.Unsubscribe("news/a"), 3 * number + 2)
            await self.ask("DELETE" if number % 2 else "PUT", "/v1/devices/phone-1/subscriptions/news/a")
        device.send(m.Subscribe("news/a", durable=True), 999)
        while (await device.next())[0] != 999:
            pass
        self.assertEqual(self.rows()["subscriptions"], 1)
        await self.published(topic="news/a", payload="for good")
        while not isinstance(message := (await device.next())[1], m.Delivery):
            pass
        self.assertEqual(message.payload, b"for good")

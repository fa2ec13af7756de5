"""Requests to publish that cannot be done: over frames and over REST the same code, a counter, and nothing stored or disturbed."""

from __future__ import annotations

import time
from typing import Any

from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from tests.integration.attacking import LARGEST, BadRequestCase
from tests.integration.harness import run

DAY_MS = 86_400_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class RecipientTests(BadRequestCase):
    @run
    async def test_an_unknown_device_or_user_is_3006_and_404(self) -> None:
        for channel in ("device:nobody", "user:nobody"):
            await self.refused_publish(Code.UNKNOWN_RECIPIENT, 404, {"channel": channel, "payload": "x"}, m.Publish(channel, b"x"))

    @run
    async def test_a_name_that_no_channel_can_have_is_3006_and_404(self) -> None:
        for channel in ("a b", "nul\0", "line\nbreak", "x" * 256, "\u2028", "device:", "device:\0", "device:" + "x" * 249):
            await self.refused_publish(Code.UNKNOWN_RECIPIENT, 404, {"channel": channel, "payload": "x"}, m.Publish(channel, b"x"))

    @run
    async def test_an_id_that_no_device_can_have_is_3006_and_404(self) -> None:
        for device_id in ("../etc", "%00", "a'; DROP TABLE devices; --", "\U0001f600"):
            channel = "device:" + device_id.replace(" ", "_")
            await self.refused_publish(Code.UNKNOWN_RECIPIENT, 404, {"channel": channel, "payload": "x"}, m.Publish(channel, b"x"))

    @run
    async def test_a_name_that_is_not_utf8_is_2002_and_the_connection_goes_on(self) -> None:
        publisher = await self.publisher()

        async def attack() -> None:
            payload = codec.encode(m.Publish("news/MARK", b"x"), 5)
            publisher.send_payload(payload.replace(b"MARK", b"\xff\xfe\xc0\x80"))
            self.assertEqual((await publisher.expect(m.Error)).code, Code.SERIALIZATION_ERROR)
            self.assertEqual(self.metric("streampush_faults_total", code="2002"), 1)
            await self.malformed(b'{"topic":"news/\xff\xfe","payload":"x"}', "")
            await self.malformed({"topic": "news/\ud800", "payload": "x"}, "topic")

        await self.unchanged(attack)
        publisher.send(m.Publish("news/a", b"x"), 6)
        await publisher.expect(m.PublishOk)


class TimeTests(BadRequestCase):
    async def expired(self, fields: dict[str, Any], message: m.Publish) -> None:
        await self.refused_publish(Code.MESSAGE_EXPIRED, 400, {"topic": "news/a", "payload": "x"} | fields, message)

    @run
    async def test_expired_on_arrival_is_3005_and_400(self) -> None:
        past = now_ms() - 1_000
        await self.expired({"expires_at": past}, m.Publish("news/a", b"x", expires_at_ms=past))

    @run
    async def test_expired_before_it_is_due_is_3005_and_400(self) -> None:
        due = now_ms() + 60_000
        fields = {"deliver_at": due, "expires_at": due}
        await self.expired(fields, m.Publish("news/a", b"x", deliver_at_ms=due, expires_at_ms=due))

    @run
    async def test_due_in_the_past_is_3005_and_400(self) -> None:
        for due in (1, now_ms() - 1_000):
            await self.expired({"deliver_at": due}, m.Publish("news/a", b"x", deliver_at_ms=due))

    @run
    async def test_due_too_far_ahead_is_3005_and_400(self) -> None:
        for due in (now_ms() + 31 * DAY_MS, (1 << 63) - 1):
            await self.expired({"deliver_at": due}, m.Publish("news/a", b"x", deliver_at_ms=due))

    @run
    async def test_a_life_that_is_too_long_is_3005_and_400(self) -> None:
        far = now_ms() + 31 * DAY_MS
        await self.expired({"expires_at": far}, m.Publish("news/a", b"x", expires_at_ms=far))
        await self.expired({"ttl": 1e300}, m.Publish("news/a", b"x", ttl_ms=LARGEST))

    @run
    async def test_times_of_64_bits_are_refused_like_any_that_are_too_far(self) -> None:
        publisher = await self.publisher()
        for message in (m.Publish("news/a", b"x", expires_at_ms=LARGEST), m.Publish("news/a", b"x", deliver_at_ms=LARGEST)):
            await self.refused(publisher, message, Code.MESSAGE_EXPIRED)
        for field in ("deliver_at", "expires_at"):
            await self.malformed({"topic": "news/a", "payload": "x", field: LARGEST}, field)


class LimitTests(BadRequestCase):
    async def too_large(self, fields: dict[str, Any], message: m.Publish) -> None:
        fields = {"topic": "news/a", "payload": "x"} | fields
        await self.refused_publish(Code.PAYLOAD_TOO_LARGE, 413, fields, message)

    @run
    async def test_a_payload_above_the_limit_is_3004_and_413(self) -> None:
        payload = "x" * (256 * 1024 + 1)
        await self.too_large({"payload": payload}, m.Publish("news/a", payload.encode()))

    @run
    async def test_headers_above_a_limit_are_3004_and_413(self) -> None:
        for headers in ({str(number): "" for number in range(33)}, {"name": "x" * 8192}):
            await self.too_large({"headers": headers}, m.Publish("news/a", b"x", headers=headers))

    @run
    async def test_a_content_type_above_its_limit_is_3004_and_413(self) -> None:
        await self.too_large({"content_type": "x" * 129}, m.Publish("news/a", b"x", "x" * 129))

    @run
    async def test_a_collapse_key_above_its_limit_is_3004_and_413(self) -> None:
        await self.too_large({"collapse_key": "\u00e9" * 33}, m.Publish("news/a", b"x", collapse_key="\u00e9" * 33))

    @run
    async def test_an_idempotency_key_above_its_limit_is_3004_and_413(self) -> None:
        await self.too_large({"idempotency_key": "x" * 129}, m.Publish("news/a", b"x", idempotency_key="x" * 129))

    @run
    async def test_a_body_above_its_limit_is_413_before_it_is_read(self) -> None:
        status, problem = await self.ask("POST", "/v1/publish", b" " * (4 * 1024 * 1024 + 1))
        self.assertEqual((status, problem["code"]), (413, Code.PAYLOAD_TOO_LARGE))
        assert self.node is not None
        site = self.node.ports.rest_site
        assert site is not None
        await self.until(lambda: not site.intake._connections)  # its client may go on sending for a while


class SenseTests(BadRequestCase):
    @run
    async def test_a_version_of_64_bits_is_2002_and_400(self) -> None:
        for version in (1 << 63, LARGEST):
            await self.refused(await self.publisher(), m.Publish("news/a", b"x", version=version), Code.SERIALIZATION_ERROR)
            await self.malformed({"topic": "news/a", "payload": "x", "version": version}, "version")

    @run
    async def test_the_largest_version_is_stored_and_nothing_comes_behind_it(self) -> None:
        for payload, superseded in (("first", False), ("second", True)):
            answer = await self.published(topic="news/a", payload=payload, version=(1 << 63) - 1)
            self.assertEqual((answer["superseded"], answer["offset"]), (superseded, 1))

    @run
    async def test_a_priority_that_is_unknown_is_normal_on_the_wire_and_400_over_rest(self) -> None:
        publisher = await self.publisher()
        payload = codec.encode(m.Publish("news/a", b"x", collapse_key="MARK"), 5)
        publisher.send_payload(payload + _priority(99))
        answer = await publisher.expect(m.PublishOk)
        _, document = await self.ask("GET", f"/v1/messages/{answer.message_id}")
        self.assertEqual(document["priority"], "NORMAL")
        for priority in ("URGENT", 3, None, True):
            await self.malformed({"topic": "news/a", "payload": "x", "priority": priority}, "priority")

    @run
    async def test_a_key_that_is_not_printable_is_2002_and_400(self) -> None:
        for key in ("nul\0", "\u00e9", "two\nlines", " in front", "behind ", "\x7f"):
            fields = {"topic": "news/a", "payload": "x", "idempotency_key": key}
            await self.refused_publish(Code.SERIALIZATION_ERROR, 400, fields, m.Publish("news/a", b"x", idempotency_key=key))

    @run
    async def test_ttl_beside_expires_at_is_2002_and_400(self) -> None:
        later = now_ms() + 5_000
        await self.refused(
            await self.publisher(), m.Publish("news/a", b"x", ttl_ms=5, expires_at_ms=later), Code.SERIALIZATION_ERROR
        )
        await self.malformed({"topic": "news/a", "payload": "x", "ttl": 5, "expires_at": later}, "expires_at")

    @run
    async def test_clearing_on_what_is_no_users_channel_is_2002_and_400(self) -> None:
        for channel in ("news/a", "device:bystander-1"):
            fields = {"channel": channel, "payload": "x", "clear_on_processed": True}
            await self.refused_publish(Code.SERIALIZATION_ERROR, 400, fields, m.Publish(channel, b"x", clear_on_processed=True))

    @run
    async def test_nul_in_collapse_key_headers_content_type_and_payload_arrives_as_it_was_sent(self) -> None:
        device = await self.device()
        fields = {"collapse_key": "a\0b", "headers": {"n\0": "\0"}, "content_type": "t\0", "payload": "\0x\0"}
        for _ in range(2):
            await self.published(device="phone-1", **fields)
            delivery = await device.expect(m.Delivery)
            self.assertEqual((delivery.collapse_key, delivery.headers, delivery.content_type), ("a\0b", {"n\0": "\0"}, "t\0"))
            self.assertEqual(delivery.payload, b"\0x\0")
        device.cut()
        await device.closed
        for payload in ("1", "2"):
            await self.published(device="phone-1", payload=payload, collapse_key="a\0c")
        again = await self.device()
        self.assertEqual([(await again.expect(m.Delivery)).payload for _ in range(2)], [b"\0x\0", b"2"])


def _priority(value: int) -> bytes:
    """A Publish with nothing but this priority, which protobuf merges with the one in front of it."""
    marked = codec.encode(m.Publish("", b"", priority=m.Priority.HIGH))
    assert marked[-1] == m.Priority.HIGH
    return marked[:-1] + bytes([value])

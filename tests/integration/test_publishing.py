"""Idempotency, schedule, collapse, versions and recall on a whole node, over REST and over the wire."""

from __future__ import annotations

import time
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.web.client import Agent

from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from streampush.protocol.terms import Outcome
from tests.integration.harness import WireClient, run
from tests.integration.test_rest_live import KEY, KEYS, RestTestCase
from tests.support import device_issued


def soon(milliseconds: int = 200) -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000 + milliseconds


class Publishing(RestTestCase):
    toml_extra = KEYS.replace('"news/*"]', '"news/*", "user:*"]')

    async def publish(self, **fields: Any) -> Any:
        status, answer = await self.ask("POST", "/v1/publish", fields)
        self.assertEqual(status, 200, answer)
        return answer

    async def following(self, client: WireClient, channel: str = "news/a") -> WireClient:
        client.send(m.Subscribe(channel), 2)
        await client.expect(m.Subscribed)
        return client

    @run
    async def test_repeat_over_rest_gets_the_first_answer_and_the_device_one_message(self) -> None:
        device = await self.following(await self.device())
        bodies = []
        for payload in (b"once", b"once", b"other"):
            response = await HTTPClient(Agent(reactor)).request(
                "POST",
                f"http://127.0.0.1:{self.node.rest_port}/v1/publish" if self.node else "",
                headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "Idempotency-Key": '"order-17"'},
                data=b'{"topic":"news/a","payload":"' + payload + b'"}',
            )
            bodies.append((response.code, await response.json()))
        (first_status, first), (again_status, again), (other_status, other) = bodies
        self.assertEqual((first_status, again_status, other_status), (200, 200, 409))
        self.assertEqual(again, {**first, "duplicate": True})
        self.assertEqual(other["code"], 3009)
        self.assertEqual((await device.expect(m.Delivery)).payload, b"once")
        await self.publish(topic="news/a", payload="next")
        self.assertEqual((await device.expect(m.Delivery)).payload, b"next")

    @run
    async def test_framed_repeat_on_another_connection_gets_the_first_answer(self) -> None:
        message = m.Publish("news/a", b"once", idempotency_key="order-17")
        answers = []
        for _ in range(2):
            publisher = await self.publisher()
            publisher.send(message, 2)
            answers.append(await publisher.expect(m.PublishOk))
            publisher.cut()
        self.assertEqual([answer.duplicate for answer in answers], [False, True])
        self.assertEqual(answers[0].message_id, answers[1].message_id)

    @run
    async def test_scheduled_message_arrives_when_its_time_has_come(self) -> None:
        device = await self.following(await self.device())
        due = soon(2_000)
        answer = await self.publish(topic="news/a", payload="later", deliver_at=due)
        self.assertEqual((answer["offset"], answer["deliver_at"]), (0, due))
        await self.publish(topic="news/a", payload="now")
        self.assertEqual((await device.expect(m.Delivery)).payload, b"now")
        later = await device.expect(m.Delivery)
        self.assertEqual((later.payload, later.message_id), (b"later", answer["message_id"]))
        self.assertGreaterEqual(later.published_at_ms, due)

    @run
    async def test_times_that_make_no_sense_are_refused_with_their_code(self) -> None:
        for fields in ({"deliver_at": soon(-5_000)}, {"expires_at": soon(-1)}, {"deliver_at": soon(40 * 86_400_000)}):
            status, problem = await self.ask("POST", "/v1/publish", {"topic": "news/a", "payload": "x", **fields})
            self.assertEqual((status, problem["code"]), (400, int(Code.MESSAGE_EXPIRED)))
        publisher = await self.publisher()
        publisher.send(m.Publish("news/a", b"x", ttl_ms=5, expires_at_ms=soon()), 2)
        self.assertEqual((await publisher.expect(m.Error)).code, Code.SERIALIZATION_ERROR)

    @run
    async def test_device_that_was_away_gets_the_newest_of_a_key_and_nothing_is_lost(self) -> None:
        device = await self.following(await self.device())
        await self.publish(topic="news/a", payload="0", collapse_key="score")
        first = await device.expect(m.Delivery)
        device.send(m.Ack("news/a", first.offset))
        epoch = (await self.publish(topic="news/a", payload="1", collapse_key="score"))["epoch"]
        second = await device.expect(m.Delivery)
        device.send(m.Ack("news/a", second.offset))
        device.cut()
        for payload in ("2", "3"):
            await self.publish(topic="news/a", payload=payload, collapse_key="score")
        await self.publish(topic="news/a", payload="plain")
        resume = m.Resume("news/a", m.Position(epoch, second.offset, second.message_id))
        device = await self.connect_again(m.Hello(resume=(resume,)))
        self.assertEqual([(await device.expect(m.Delivery)).payload for _ in range(2)], [b"3", b"plain"])

    async def connect_again(self, hello: m.Hello) -> WireClient:
        client = await self.connect(device_issued("phone-1", "alice"))
        welcome = await client.greet(hello)
        (subscribed,) = (each for each in welcome.subscribed if each.channel == "news/a")
        self.assertEqual((subscribed.recovered, subscribed.loss), (True, 0))
        return client

    @run
    async def test_older_version_is_not_delivered(self) -> None:
        device = await self.following(await self.device())
        for version in (2, 1, 3):
            answer = await self.publish(topic="news/a", payload=str(version), collapse_key="score", version=version)
            self.assertEqual(answer["superseded"], version == 1)
        self.assertEqual([(await device.expect(m.Delivery)).payload for _ in range(2)], [b"2", b"3"])

    @run
    async def test_recalled_message_is_followed_by_its_notice(self) -> None:
        device = await self.following(await self.device())
        message_id = (await self.publish(topic="news/a", payload="oops"))["message_id"]
        self.assertEqual((await device.expect(m.Delivery)).payload, b"oops")
        status, answer = await self.ask("DELETE", f"/v1/messages/{message_id}")
        self.assertEqual((status, answer["was"], answer["notice_offset"]), (200, "stored", 2))
        notice = await device.expect(m.Delivery)
        self.assertEqual((notice.recalls, notice.payload, notice.offset), (message_id, b"", 2))
        self.assertEqual(notice.message_id, answer["notice_id"])
        status, answer = await self.ask("DELETE", f"/v1/messages/{message_id}")
        self.assertEqual((status, answer["was"]), (200, "recalled"))
        status, problem = await self.ask("DELETE", "/v1/messages/nothing")
        self.assertEqual((status, problem["code"]), (404, 3006))

    @run
    async def test_what_one_device_has_processed_is_taken_back_from_the_others(self) -> None:
        phone, tablet = await self.device("phone-1", "alice"), await self.device("tablet-1", "alice")
        answer = await self.publish(user="alice", payload="read me", clear_on_processed=True)
        for device in (phone, tablet):
            self.assertEqual((await device.expect(m.Delivery)).payload, b"read me")
        phone.send(m.Ack("user:alice", answer["offset"], Outcome.PROCESSED))
        self.assertEqual((await tablet.expect(m.Delivery)).recalls, answer["message_id"])

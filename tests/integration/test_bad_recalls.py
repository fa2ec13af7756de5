"""Questions about messages and devices that lead nowhere, recalls that come too late, and listeners that do not listen."""

from __future__ import annotations

import socket
import time
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from streampush.protocol.terms import Feature
from tests.integration.attacking import NARROW_KEY, BadRequestCase
from tests.integration.harness import WireClient, run
from tests.integration.test_rest_live import KEY
from tests.support import publisher_issued

IDS = ("nothing", "%00", "%0A", "..", "x" * 5_000, "%F0%9F%98%80", "a%2Fb", "'%3B--", "%E2%80%A8")
"""What stands in a path where an id belongs."""


def soon(milliseconds: int) -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000 + milliseconds


class MessageIdTests(BadRequestCase):
    async def unknown(self, method: str, path: str, codes: tuple[int | None, ...] = (3006,)) -> None:
        before = self.metric("streampush_rest_requests_total", status="404")
        status, problem = await self.ask(method, path)
        self.assertEqual(status, 404, (path, problem))
        self.assertIn(problem.get("code"), codes)
        self.assertEqual(self.metric("streampush_rest_requests_total", status="404"), before + 1)

    @run
    async def test_a_message_that_never_was_is_404_for_every_question(self) -> None:
        async def attack() -> None:
            for message_id in IDS:
                codes = (3006, None) if message_id in ("..", "a%2Fb") else (3006,)
                await self.unknown("GET", f"/v1/messages/{message_id}", codes)
                await self.unknown("GET", f"/v1/messages/{message_id}/events", codes)
                await self.unknown("DELETE", f"/v1/messages/{message_id}", codes)

        await self.unchanged(attack)
        assert self.node is not None
        self.assertEqual((self.node.service.receipts.watched, self.metric("streampush_event_streams")), (0, 0))

    @run
    async def test_a_device_that_never_was_is_404_for_every_question(self) -> None:
        async def attack() -> None:
            for device_id in IDS:
                codes = (3006, None)
                for path in ("", "/backlog", "/subscriptions", "/backlog?channel=news/a"):
                    await self.unknown("GET", f"/v1/devices/{device_id}{path}", codes)
                await self.unknown("GET", f"/v1/presence/users/{device_id}", codes)

        await self.unchanged(attack)

    @run
    async def test_a_path_that_is_not_utf8_is_400(self) -> None:
        for path in ("/v1/messages/%FF", "/v1/devices/%ED%A0%80", "/v1/channels/%C0%80"):
            for method in ("GET", "DELETE"):
                self.assertEqual((await self.ask(method, path))[0], 400)

    @run
    async def test_a_device_whose_id_none_can_have_is_not_made(self) -> None:
        async def attack() -> None:
            for device_id in ("%00", "a%20b", "x" * 129, "%F0%9F%98%80", "'%3B--"):
                status, problem = await self.ask("PUT", f"/v1/devices/{device_id}", {})
                self.assertEqual((status, problem["field"]), (400, "id"))
            for body in ({"user_id": "\0"}, {"user_id": "x" * 129}, {"attributes": {"a": "x" * 257}}, {"attributes": {"": "x"}}):
                self.assertEqual((await self.ask("PUT", "/v1/devices/good", body))[0], 400)
            too_many = {str(number): "" for number in range(33)}
            self.assertEqual((await self.ask("PUT", "/v1/devices/good", {"attributes": too_many}))[0], 400)

        await self.unchanged(attack)


class BacklogTests(BadRequestCase):
    settings = ("store.history_messages=3000", "delivery.page_bytes=4096")

    async def waiting(self, number: int, payload: str = "x") -> None:
        """So many messages wait for phone-1."""
        assert (await self.ask("PUT", "/v1/devices/phone-1", {}))[0] == 201
        publisher = await self.publisher()
        for _ in range(number):
            publisher.send(m.Publish("device:phone-1", payload.encode()), 1)
        for _ in range(number):
            await publisher.expect(m.PublishOk)

    async def page(self, query: str) -> dict[str, Any]:
        status, answer = await self.ask("GET", f"/v1/devices/phone-1/backlog?channel=device:phone-1{query}")
        self.assertEqual(status, 200, answer)
        return dict(answer)

    @run
    async def test_a_backlog_without_end_comes_in_pages_that_each_are_bounded_and_miss_nothing(self) -> None:
        await self.waiting(3_000, "x" * 100)
        found: list[int] = []
        after: int | None = 0
        while after is not None:
            page = await self.page(f"&limit=1000&after={after}")
            self.assertLessEqual(len(page["entries"]), 4096 // 100 + 1)
            found += [entry["offset"] for entry in page["entries"]]
            after = page["next"]
        self.assertEqual(found, list(range(1, 3_001)))

    @run
    async def test_limits_and_places_that_are_none_are_400(self) -> None:
        await self.waiting(1)
        for query in ("limit=0", "limit=1001", "limit=-1", "limit=1e3", "limit=%00", "limit=" + "9" * 5_000, "limit=1&limit=2"):
            status, _ = await self.ask("GET", f"/v1/devices/phone-1/backlog?channel=device:phone-1&{query}")
            self.assertEqual(status, 400, query)
        for query in ("after=-1", "after=18446744073709551615", "after=1.0", "after=", "after=%D9%A3"):
            status, problem = await self.ask("GET", f"/v1/devices/phone-1/backlog?channel=device:phone-1&{query}")
            self.assertEqual((status, problem["field"]), (400, "after"))

    @run
    async def test_a_place_behind_the_end_is_an_empty_page(self) -> None:
        await self.waiting(1)
        for after in (1, 1 << 39, 10**18 - 1):
            page = await self.page(f"&after={after}")
            self.assertEqual((page["entries"], page["next"]), ([], None))

    @run
    async def test_the_backlog_of_a_channel_that_the_device_has_no_place_in_is_3002_and_409(self) -> None:
        await self.waiting(1)
        for channel in ("news/a", "device:bystander-1", "user:bob"):
            status, problem = await self.ask("GET", f"/v1/devices/phone-1/backlog?channel={channel}")
            self.assertEqual((status, problem["code"]), (409, Code.NOT_SUBSCRIBED))


class RecallTests(BadRequestCase):
    async def recall(self, message_id: str, key: str = KEY) -> tuple[int, dict[str, Any]]:
        return await self.ask("DELETE", f"/v1/messages/{message_id}", key=key)

    @run
    async def test_a_recall_of_anothers_message_is_3003_and_403_and_the_message_stays(self) -> None:
        answer = await self.published(device="bystander-1", payload="stays")
        await self.settled("receipts", 1)  # it was written

        async def attack() -> None:
            status, problem = await self.recall(answer["message_id"], NARROW_KEY)
            self.assertEqual((status, problem["code"]), (403, Code.FORBIDDEN))

        await self.unchanged(attack)
        assert self.bystanders is not None
        self.assertEqual((await self.bystanders[0].expect(m.Delivery)).payload, b"stays")

    @run
    async def test_a_second_recall_stores_no_second_notice(self) -> None:
        answer = await self.published(topic="news/a")
        self.assertEqual((await self.recall(answer["message_id"]))[1]["was"], "stored")

        async def attack() -> None:
            for _ in range(5):
                status, again = await self.recall(answer["message_id"])
                self.assertEqual((status, again["was"]), (200, "recalled"))

        await self.unchanged(attack)
        self.assertEqual(self.metric("streampush_recalled_total", was="recalled"), 5)

    @run
    async def test_recalls_under_way_together_store_one_notice(self) -> None:
        answer = await self.published(topic="news/a")
        recalls = [Deferred.fromCoroutine(self.recall(answer["message_id"])) for _ in range(10)]
        was = sorted(document["was"] for _, document in await gatherResults(recalls))
        self.assertEqual(was, ["recalled"] * 9 + ["stored"])
        self.assertEqual((await self.ask("GET", "/v1/channels/news/a"))[1]["top_offset"], 2)

    @run
    async def test_a_notice_cannot_be_recalled(self) -> None:
        answer = await self.published(topic="news/a")
        _, recalled = await self.recall(answer["message_id"])

        async def attack() -> None:
            status, problem = await self.recall(recalled["notice_id"])
            self.assertEqual((status, problem["code"]), (404, Code.UNKNOWN_RECIPIENT))

        await self.unchanged(attack)

    @run
    async def test_a_recall_of_what_has_expired_is_harmless(self) -> None:
        answer = await self.published(topic="news/a", ttl=0.05)
        await self.turns(0.06)
        status, _ = await self.recall(answer["message_id"])
        self.assertEqual(status, 200)
        device = await self.device()
        device.send(m.Subscribe("news/a", start=m.Start.EARLIEST), 2)
        await device.expect(m.Subscribed)
        self.assertEqual((await device.expect(m.Delivery)).recalls, answer["message_id"])

    @run
    async def test_a_scheduled_message_is_recalled_once_and_unknown_then(self) -> None:
        async def attack() -> None:
            answer = await self.published(topic="news/a", deliver_at=soon(60_000))
            self.assertEqual((await self.recall(answer["message_id"]))[1]["was"], "scheduled")
            status, problem = await self.recall(answer["message_id"])
            self.assertEqual((status, problem["code"]), (404, Code.UNKNOWN_RECIPIENT))

        await self.unchanged(attack)


class ScheduleTests(BadRequestCase):
    settings = ("store.history_messages=4",)

    async def following(self) -> WireClient:
        device = await self.device()
        device.send(m.Subscribe("news/a"), 2)
        await device.expect(m.Subscribed)
        return device

    @run
    async def test_recalls_at_the_moment_of_going_out_each_stop_the_message_or_follow_it(self) -> None:
        await self.restart("store.history_messages=1000")
        device = await self.following()
        due = soon(1_000)
        publisher = await self.publisher()
        for number in range(60):
            publisher.send(m.Publish("news/a", b"%d" % number, deliver_at_ms=due), number + 1)
        ids = [(await publisher.expect(m.PublishOk)).message_id for _ in range(60)]
        await self.until(lambda: soon(0) >= due - 5)
        recalls = []
        for message_id in ids:
            recalls.append(Deferred.fromCoroutine(self.ask("DELETE", f"/v1/messages/{message_id}")))
            await self.turns(0)
        was = {message_id: answer["was"] for message_id, (_, answer) in zip(ids, await gatherResults(recalls), strict=True)}
        await self.published(topic="news/a", payload="end")
        seen: list[str] = []
        while (delivery := await device.expect(m.Delivery)).payload != b"end":
            seen.append(f"-{delivery.recalls}" if delivery.recalls else delivery.message_id)
            device.send(m.Ack("news/a", delivery.offset))
        for message_id, before in was.items():
            with self.subTest(message_id):
                if before == "scheduled":
                    self.assertNotIn(message_id, seen)
                else:
                    self.assertEqual(before, "stored")
                    self.assertIn(f"-{message_id}", seen)
                    self.assertNotIn(message_id, seen[seen.index(f"-{message_id}") :])
        await self.settled("scheduled", 0)

    @run
    async def test_a_scheduled_message_goes_out_behind_whatever_was_trimmed_meanwhile(self) -> None:
        device = await self.following()
        answer = await self.published(topic="news/a", payload="late", deliver_at=soon(2_000))
        for number in range(12):
            await self.published(topic="news/a", payload=str(number))
        delivery = await device.expect(m.Delivery)
        while delivery.payload != b"late":
            device.send(m.Ack("news/a", delivery.offset))
            delivery = await device.expect(m.Delivery)
        self.assertEqual((delivery.offset, delivery.message_id), (13, answer["message_id"]))

    @run
    async def test_a_scheduled_message_whose_device_was_forgotten_is_dropped(self) -> None:
        await self.ask("PUT", "/v1/devices/phone-1", {})
        await self.published(device="phone-1", deliver_at=soon(2_000))
        self.assertEqual((await self.ask("DELETE", "/v1/devices/phone-1"))[0], 200)
        await self.settled("scheduled", 0)
        self.assertEqual((await self.ask("GET", "/v1/channels/device:phone-1"))[0], 404)


class ListenerTests(BadRequestCase):
    settings = ("rest.max_event_streams=8", "rest.max_event_streams_per_key=6", "publish.max_watched_per_connection=10")

    def listener(self, message_id: str) -> socket.socket:
        """A client that asks for events, and reads nothing."""
        assert self.node is not None
        client = socket.create_connection(("127.0.0.1", self.node.rest_port))
        self.addCleanup(client.close)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = f"GET /v1/messages/{message_id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        client.sendall(head.encode())
        return client

    @run
    async def test_listeners_that_do_not_read_are_counted_bounded_and_leave_nothing(self) -> None:
        await self.ask("PUT", "/v1/devices/phone-1", {})
        message_id = (await self.published(device="phone-1"))["message_id"]
        before = self.metric("streampush_rest_requests_total", status="503")
        clients = [self.listener(message_id) for _ in range(20)]
        await self.counted("streampush_rest_requests_total", before + 14, status="503")
        self.assertEqual(self.metric("streampush_event_streams"), 6)
        assert self.node is not None
        self.assertEqual(self.node.service.receipts.watched, 1)
        status, problem = await self.ask("GET", f"/v1/messages/{message_id}/events")
        self.assertEqual((status, problem["code"]), (503, Code.OVERLOADED))
        for client in clients:
            client.close()
        await self.counted("streampush_event_streams", 0)
        self.assertEqual(self.node.service.receipts.watched, 0)

    @run
    async def test_a_publisher_that_watches_without_end_is_told_of_the_newest(self) -> None:
        await self.ask("PUT", "/v1/devices/phone-1", {})
        publisher = await self.connect(publisher_issued("backend"))
        await publisher.greet(m.Hello(features=int(Feature.RECEIPTS)))
        for number in range(100):
            publisher.send(m.Publish("device:phone-1", b"x", want_receipt=True), number + 1)
        for _ in range(100):
            await publisher.expect(m.PublishOk)
        assert self.node is not None
        self.assertEqual(self.node.service.receipts.watched, 10)
        self.assertEqual(self.metric("streampush_receipts_dropped_total"), 90)
        publisher.cut()
        receipts = self.node.service.receipts
        await self.until(lambda: receipts.watched == 0)

    @run
    async def test_a_node_that_watches_enough_refuses_another_listener_and_publishes_on(self) -> None:
        await self.restart("publish.max_watched=3")
        await self.ask("PUT", "/v1/devices/phone-1", {})
        publisher = await self.connect(publisher_issued("backend"))
        await publisher.greet(m.Hello(features=int(Feature.RECEIPTS)))
        for number in range(5):
            publisher.send(m.Publish("device:phone-1", b"x", want_receipt=True), number + 1)
            answer = await publisher.expect(m.PublishOk)
        status, problem = await self.ask("GET", f"/v1/messages/{answer.message_id}/events")
        self.assertEqual((status, problem["code"]), (503, Code.OVERLOADED))
        self.assertEqual(self.metric("streampush_receipts_dropped_total"), 2)

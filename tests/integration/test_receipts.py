"""What becomes of a message, from the device's acknowledgement to whoever published it: over REST, as events, as frames."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.web.client import Agent

from streampush.protocol import messages as m
from streampush.protocol.terms import Feature, Milestone, Outcome
from tests.integration.harness import WireClient, run
from tests.integration.test_rest_live import KEY, RestTestCase
from tests.support import device_issued, publisher_issued

RECEIPTS = m.Hello(features=int(Feature.RECEIPTS))


@dataclass
class Events:
    """A client of an event stream. `transport` is its connection."""

    status: int = 0
    text: str = ""
    ended: bool = False
    transport: Any = None
    done: Deferred[None] = field(default_factory=Deferred)

    def take(self, data: bytes) -> None:
        self.text += data.decode()

    def over(self, result: object) -> None:
        self.ended = True
        self.done.callback(None)

    def named(self, name: str) -> list[dict[str, Any]]:
        blocks = self.text.split("\n\n")[:-1]
        return [json.loads(block.split("data: ", 1)[1]) for block in blocks if block.startswith(f"event: {name}\n")]

    @property
    def milestones(self) -> list[str]:
        return [event["milestone"] for event in self.named("milestone")]

    @property
    def last_id(self) -> str:
        return self.text.rsplit("\nid: ", 1)[1].split("\n", 1)[0]


class ReceiptTestCase(RestTestCase):
    async def listen(self, message_id: str, **headers: str) -> Events:
        """A stream of events, once its head is there."""
        assert self.node is not None
        names = {"Authorization": f"Bearer {KEY}"} | {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://127.0.0.1:{self.node.rest_port}/v1/messages/{message_id}/events"
        response = await HTTPClient(Agent(reactor)).get(url, headers=names, unbuffered=True)
        events = Events(response.code)
        events.transport = response.original._transport
        response.collect(events.take).addBoth(events.over)
        return events

    async def published(self, **fields: Any) -> str:
        """The id of a message to phone-1."""
        status, answer = await self.ask("POST", "/v1/publish", {"device": "phone-1", "payload": "hello"} | fields)
        assert status == 200, answer
        return str(answer["message_id"])

    async def acknowledged(self, device: WireClient, outcome: Outcome = Outcome.DELIVERED) -> None:
        delivery = await device.expect(m.Delivery)
        device.send(m.Ack(delivery.channel, delivery.offset, outcome))


class RestTests(ReceiptTestCase):
    @run
    async def test_a_message_has_a_row_with_the_milestones_of_its_device(self) -> None:
        device = await self.device()
        message_id = await self.published()
        await self.acknowledged(device)
        document: dict[str, Any] = {"devices": [{"state": "waiting"}]}
        while document["devices"][0]["state"] != "delivered":
            _, document = await self.ask("GET", f"/v1/messages/{message_id}")
        (row,) = document["devices"]
        self.assertEqual((row["device_id"], row["state"]), ("phone-1", "delivered"))
        self.assertLessEqual({"accepted", "stored", "delivered"}, set(row["milestones_ms"]))
        times = list(row["milestones_ms"].values())
        self.assertEqual(times, sorted(times))

    @run
    async def test_a_message_of_nobody_is_404(self) -> None:
        for path in ("/v1/messages/nothing", "/v1/messages/nothing/events"):
            status, answer = await self.ask("GET", path)
            self.assertEqual((status, answer["code"]), (404, 3006))


class EventTests(ReceiptTestCase):
    @run
    async def test_events_come_while_it_happens_and_end_with_the_time_of_the_message(self) -> None:
        device = await self.device()
        message_id = await self.published(ttl=3)
        events = await self.listen(message_id)
        self.assertEqual(events.status, 200)
        await self.until(lambda: "stored" in events.milestones)
        self.assertFalse(events.ended)
        await self.acknowledged(device)
        await events.done
        self.assertEqual([name for name in events.milestones if name != "written"], ["accepted", "stored", "delivered"])
        self.assertEqual(events.named("end"), [{"reason": "expired"}])
        self.assertEqual(self.metric("streampush_event_streams"), 0)

    @run
    async def test_a_stream_ends_when_every_device_is_at_an_end(self) -> None:
        device = await self.device()
        events = await self.listen(await self.published())
        await self.acknowledged(device, Outcome.PROCESSED)
        await events.done
        self.assertEqual(events.milestones, ["accepted", "stored", "written", "delivered", "processed"])
        self.assertEqual(events.named("end"), [{"reason": "complete"}])

    @run
    async def test_a_stream_that_broke_is_resumed_without_a_gap_or_a_repeat(self) -> None:
        device = await self.device()
        message_id = await self.published()
        first = await self.listen(message_id)
        await self.until(lambda: "stored" in first.milestones)
        first.transport.loseConnection()
        await self.counted("streampush_event_streams", 0)
        await self.acknowledged(device)
        second = await self.listen(message_id, Last_Event_ID=first.last_id)
        await self.until(lambda: "delivered" in second.milestones)
        told = [name for name in first.milestones + second.milestones if name != "written"]
        self.assertEqual(told, ["accepted", "stored", "delivered"])
        second.transport.loseConnection()
        await self.counted("streampush_event_streams", 0)

    @run
    async def test_a_recalled_message_ends_its_stream(self) -> None:
        await self.device()
        message_id = await self.published()
        events = await self.listen(message_id)
        await self.until(lambda: "stored" in events.milestones)
        status, answer = await self.ask("DELETE", f"/v1/messages/{message_id}")
        self.assertEqual(status, 200, answer)
        await events.done
        self.assertEqual((events.milestones[-1], events.named("state")[-1]), ("recalled", {"state": "recalled"}))

    @run
    async def test_a_client_that_goes_away_leaves_nothing(self) -> None:
        await self.device()
        message_id = await self.published()
        events = await self.listen(message_id)
        await self.until(lambda: "stored" in events.milestones)
        assert self.node is not None
        self.assertEqual((self.metric("streampush_event_streams"), self.node.service.receipts.watched), (1, 1))
        events.transport.loseConnection()
        await self.counted("streampush_event_streams", 0)
        self.assertEqual(self.node.service.receipts.watched, 0)

    @run
    async def test_a_stop_of_the_node_ends_a_stream_with_its_reason(self) -> None:
        await self.device()
        events = await self.listen(await self.published())
        await self.stop()
        await events.done
        self.assertEqual(events.named("end"), [{"reason": "draining"}])

    @run
    async def test_an_expired_message_ends_its_stream(self) -> None:
        device = await self.device()
        device.cut()
        await device.closed
        events = await self.listen(await self.published(ttl=1))
        await events.done
        self.assertEqual(events.milestones[-1], "expired")
        self.assertEqual(events.named("state")[-1], {"state": "expired"})


class FrameTests(ReceiptTestCase):
    async def receipts(self, publisher: WireClient, last: Milestone) -> list[m.Receipt]:
        """The receipts up to that milestone."""
        found = [await publisher.expect(m.Receipt)]
        while found[-1].milestone is not last:
            found.append(await publisher.expect(m.Receipt))
        return found

    async def asking_publisher(self) -> WireClient:
        client = await self.connect(publisher_issued("backend"))
        welcome = await client.greet(RECEIPTS)
        self.assertEqual(welcome.features, Feature.RECEIPTS)
        return client

    @run
    async def test_a_publisher_that_asked_is_told_each_milestone(self) -> None:
        device, publisher = await self.device(), await self.asking_publisher()
        publisher.send(m.Publish("device:phone-1", b"hello", want_receipt=True), 5)
        answer = await publisher.expect(m.PublishOk)
        await self.acknowledged(device, Outcome.PROCESSED)
        receipts = await self.receipts(publisher, Milestone.PROCESSED)
        self.assertEqual([one.milestone for one in receipts], [Milestone.WRITTEN, Milestone.DELIVERED, Milestone.PROCESSED])
        for one in receipts:
            self.assertEqual(
                (one.message_id, one.channel, one.offset, one.device_id), (answer.message_id, "device:phone-1", 1, "phone-1")
            )

    @run
    async def test_what_a_device_rejects_is_told(self) -> None:
        device, publisher = await self.device(), await self.asking_publisher()
        publisher.send(m.Publish("device:phone-1", b"hello", want_receipt=True), 5)
        await publisher.expect(m.PublishOk)
        await self.acknowledged(device, Outcome.REJECTED)
        receipts = await self.receipts(publisher, Milestone.REJECTED)
        self.assertEqual([one.milestone for one in receipts], [Milestone.WRITTEN, Milestone.DELIVERED, Milestone.REJECTED])
        assert self.node is not None
        self.assertEqual(self.node.service.receipts.watched, 0)

    @run
    async def test_only_messages_that_want_receipts_get_them(self) -> None:
        device, publisher = await self.device(), await self.asking_publisher()
        for want_receipt, request_id in ((False, 5), (True, 0), (True, 6)):
            publisher.send(m.Publish("device:phone-1", b"hello", want_receipt=want_receipt), request_id)
        await publisher.expect(m.PublishOk)
        answer = await publisher.expect(m.PublishOk)
        for _ in range(3):
            await self.acknowledged(device)
        receipts = await self.receipts(publisher, Milestone.DELIVERED)
        self.assertEqual({one.message_id for one in receipts}, {answer.message_id})

    @run
    async def test_a_publisher_that_did_not_ask_and_a_device_have_no_receipts(self) -> None:
        device = await self.device(hello=RECEIPTS)
        publisher = await self.publisher()
        publisher.send(m.Publish("device:phone-1", b"hello", want_receipt=True), 5)
        await publisher.expect(m.PublishOk)
        await self.acknowledged(device)
        assert self.node is not None
        self.assertEqual(self.node.service.receipts.watched, 0)

    @run
    async def test_a_device_that_asks_is_told_that_it_gets_none(self) -> None:
        client = await self.connect(device_issued("phone-1", "alice"))
        self.assertEqual((await client.greet(RECEIPTS)).features, 0)

    @run
    async def test_a_publisher_that_goes_leaves_nothing(self) -> None:
        await self.device()
        publisher = await self.asking_publisher()
        publisher.send(m.Publish("device:phone-1", b"hello", want_receipt=True, ttl_ms=60_000), 5)
        await publisher.expect(m.PublishOk)
        assert self.node is not None
        self.assertEqual(self.node.service.receipts.watched, 1)
        publisher.cut()
        await publisher.closed
        watched = self.node.service.receipts
        await self.until(lambda: watched.watched == 0)

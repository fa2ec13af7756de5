"""Redelivery on a whole node: a poison message, RETRY_LATER, a device that dies of a message, and the count over a restart."""

from __future__ import annotations

from typing import Any

from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from streampush.protocol.terms import Outcome
from tests.integration.harness import WireClient, run
from tests.integration.test_devices import KEYS
from tests.integration.test_rest_live import RestTestCase

OWN = "device:phone-1"
QUICK_AGAIN = "delivery.redelivery_max_interval=0.1"
SOON_AGAIN = "delivery.ack_timeout=1"
"""Of what is wanted later. The tests have that long to say so."""

QUICK = ("delivery.ack_timeout=0.1", QUICK_AGAIN)


class Redelivery(RestTestCase):
    toml_extra = KEYS
    settings = (*QUICK, "delivery.max_attempts=3")

    async def published(self, *payloads: bytes) -> list[m.PublishOk]:
        publisher = await self.publisher()
        answers = []
        for payload in payloads:
            publisher.send(m.Publish(OWN, payload, want_receipt=True), 2)
            answers.append(await publisher.expect(m.PublishOk))
        return answers

    async def offsets(self, client: WireClient, count: int) -> list[int]:
        return [(await client.expect(m.Delivery)).offset for _ in range(count)]

    async def letters(self) -> list[tuple[str, int, str]]:
        status, answer = await self.ask("GET", f"/v1/devices/phone-1/dead-letters?limit={10}")
        self.assertEqual(status, 200, answer)
        return [(row["message_id"], row["attempts"], row["reason"]) for row in answer["dead_letters"]]

    async def given_up(self, reason: str = "timeout") -> list[tuple[str, int, str]]:
        """The dead letters, when there are any."""
        await self.until(lambda: self.metric("streampush_dead_letters_total", reason=reason) >= 1)
        while not (found := await self.letters()):  # it is stored a moment later
            pass
        return found

    async def died(self, client: WireClient) -> None:
        """The device crashes, and the node has noticed."""
        client.cut()
        await client.closed
        assert self.node is not None
        node = self.node
        await self.until(lambda: not node.service.connected_devices())

    @run
    async def test_message_without_an_answer_is_written_again_and_given_up_and_those_behind_it_flow(self) -> None:
        await self.died(await self.device())
        poison, _, _ = await self.published(b"poison", b"two", b"three")  # before it is there: then it gets two at once
        client = await self.device(hello=m.Hello(receive_window_messages=2))
        self.assertEqual(await self.offsets(client, 4), [1, 2, 1, 1])
        behind = await client.expect(m.Delivery)
        while behind.offset == 2:  # now in front, and repeated in its turn
            behind = await client.expect(m.Delivery)
        self.assertEqual(behind.offset, 3)  # the room of the first one came back
        client.send(m.Ack(OWN, 3, Outcome.PROCESSED))
        self.assertIn((poison.message_id, 3, "not acknowledged"), await self.given_up())
        _, message = await self.ask("GET", f"/v1/messages/{poison.message_id}")
        (row,) = message["devices"]
        self.assertIn("dead_lettered", row["milestones_ms"])
        self.assertNotIn("delivered", row["milestones_ms"])

    @run
    async def test_message_that_the_device_wants_later_comes_again_while_others_pass(self) -> None:
        await self.restart(SOON_AGAIN)
        client = await self.device()
        await self.published(b"later", b"two")
        self.assertEqual(await self.offsets(client, 2), [1, 2])
        client.send(m.Ack(OWN, 1, Outcome.RETRY_LATER))
        client.send(m.Ack(OWN, 2, Outcome.PROCESSED))
        again = await client.expect(m.Delivery)
        self.assertEqual((again.offset, again.payload), (1, b"later"))
        client.send(m.Ack(OWN, 1, Outcome.PROCESSED))
        await self.until(lambda: self.acknowledged() == 2)
        self.assertEqual(self.metric("streampush_redelivered_total", reason="retry_later"), 1)

    def acknowledged(self) -> int:
        """How far the device is, as far as its connection knows."""
        assert self.node is not None
        connected = self.node.service.connections.get("phone-1")
        assert connected is not None
        return connected.attachment.feeds[OWN].place()[0]

    @run
    async def test_message_that_is_always_wanted_later_is_given_up_in_the_end(self) -> None:
        await self.restart(SOON_AGAIN, "delivery.max_attempts=3")
        client = await self.device()
        (answer,) = await self.published(b"never")
        for _ in range(3):
            self.assertEqual((await client.expect(m.Delivery)).offset, 1)
            client.send(m.Ack(OWN, 1, Outcome.RETRY_LATER))
        self.assertEqual(await self.given_up("retry_later"), [(answer.message_id, 3, "the device could not take it")])

    @run
    async def test_device_that_dies_of_a_message_each_time_gets_what_is_behind_it_also_over_a_restart(self) -> None:
        await self.restart("delivery.max_attempts=3")  # nothing is repeated on one connection
        client = await self.device()
        poison, _ = await self.published(b"poison", b"behind")
        for attempt in range(3):
            self.assertEqual(await self.offsets(client, 2), [1, 2])
            await self.died(client)
            if attempt == 1:
                await self.restart("delivery.max_attempts=3")
            client = await self.device()
        self.assertEqual(await self.offsets(client, 1), [2])
        self.assertEqual(await self.given_up(), [(poison.message_id, 3, "not acknowledged")])

    @run
    async def test_dead_letter_is_published_again_when_a_backend_says_so(self) -> None:
        client = await self.device()
        (answer,) = await self.published(b"take me")
        self.assertEqual(await self.offsets(client, 3), [1, 1, 1])
        await self.given_up()
        status, replayed = await self.ask("POST", f"/v1/devices/phone-1/dead-letters/{answer.message_id}/replay")
        self.assertEqual((status, replayed["offset"]), (200, 2))
        delivery = await client.expect(m.Delivery)
        self.assertEqual((delivery.offset, delivery.payload), (2, b"take me"))
        self.assertNotIn(answer.message_id, [message_id for message_id, _, _ in await self.letters()])

    async def error_for(self, client: WireClient, ack: m.Ack) -> m.Error:
        client.send(ack)
        return await client.expect(m.Error)

    @run
    async def test_acknowledgements_that_make_no_sense_are_answered_and_counted(self) -> None:
        await self.restart()
        client = await self.device()
        await self.published(b"one")
        await self.offsets(client, 1)
        cases: list[tuple[Any, Code]] = [
            (m.Ack(OWN, 2), Code.POSITION_LOST),
            (m.Ack(OWN, 2**63), Code.POSITION_LOST),
            (m.Ack(OWN, 2, Outcome.RETRY_LATER), Code.POSITION_LOST),
            (m.Ack("news/a", 1), Code.NOT_SUBSCRIBED),
            (m.Ack("device:other", 1), Code.NOT_SUBSCRIBED),
        ]
        for ack, code in cases:
            error = await self.error_for(client, ack)
            self.assertEqual((error.code, error.channel), (code, ack.channel))
        for code, count in ((Code.POSITION_LOST, 3), (Code.NOT_SUBSCRIBED, 2)):
            self.assertEqual(self.metric("streampush_faults_total", code=str(int(code))), count)
        client.send(m.Ack(OWN, 1, Outcome.DELIVERED))
        client.send(m.Ack(OWN, 1, Outcome.DELIVERED))
        client.send(m.Ack(OWN, 0, Outcome.PROCESSED))
        await self.counted("streampush_acknowledgements_ignored_total", 2, reason="older")
        self.assertEqual(self.acknowledged(), 1)

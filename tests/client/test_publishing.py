"""Publishing over connections that come and go, what may be said of a publication, and its receipts."""

from __future__ import annotations

from typing import Any

from streampush.client import (
    ClientError,
    ConnectionLost,
    Durability,
    Milestone,
    NotConnected,
    Priority,
    ReceiptArrived,
    RequestTimeout,
    TooManyRequests,
)
from streampush.client.publishing import publish
from streampush.protocol import messages as m
from streampush.protocol.terms import Feature
from tests.client.test_stream import StageCase

AT_ONCE = m.ReconnectPolicy(first_jitter_ms=0)
OK = m.PublishOk("id1", "news", 1, "e1", Durability.LOCAL_FSYNC)


class PublishCase(StageCase):
    def setUp(self) -> None:
        self.it = self.stage(request_timeout=5, max_requests=1)
        self.it.greet_with(reconnect=AT_ONCE)
        self.it.start()

    def publish(self, **options: Any) -> list[m.PublishOk | ClientError]:
        return self.it.run(self.it.client.publish("news", b"hi", **options))

    def answer(self) -> None:
        self.it.peer.say(OK, self.it.peer.received[-1][0])
        self.it.network.pump()

    def cut(self) -> None:
        self.it.peer.cut()
        self.it.advance(0.1)

    @property
    def asked(self) -> m.Publish:
        """The one Publish of the newest connection."""
        [request] = self.it.peer.messages(m.Publish)
        publish: m.Publish = request
        return publish


class OptionTests(PublishCase):
    def test_every_option_has_its_field(self) -> None:
        self.publish(
            content_type="text/plain",
            headers={"a": "b"},
            ttl=1.5,
            expires_at=1_790_000_001.5,
            durability=Durability.MEMORY,
            priority=Priority.HIGH,
            collapse_key="c",
            deliver_at=1_790_000_000.25,
            want_receipt=True,
            clear_on_processed=True,
            version=7,
            alert=m.Alert("Hello"),
            idempotency_key="k",
        )
        expected = m.Publish(
            "news",
            b"hi",
            alert=m.Alert("Hello"),
            content_type="text/plain",
            headers={"a": "b"},
            ttl_ms=1_500,
            expires_at_ms=1_790_000_001_500,
            durability=Durability.MEMORY,
            priority=Priority.HIGH,
            collapse_key="c",
            deliver_at_ms=1_790_000_000_250,
            want_receipt=True,
            clear_on_processed=True,
            version=7,
            idempotency_key="k",
        )
        self.assertEqual(self.asked, expected)

    def test_every_publication_has_a_key_of_its_own(self) -> None:
        self.publish()
        self.answer()
        self.publish()
        first, second = (request.idempotency_key for request in self.it.peer.messages(m.Publish))
        self.assertNotEqual(first, second)
        self.assertGreaterEqual(len(first), 16)

    def test_the_key_is_in_no_repr(self) -> None:
        self.publish(idempotency_key="hush")
        self.assertNotIn("hush", repr(self.asked))


class AgainTests(PublishCase):
    def test_after_a_lost_connection_the_same_is_sent_on_the_next(self) -> None:
        result = self.publish()
        first = self.asked
        self.cut()
        self.assertEqual(self.asked, first)
        self.answer()
        self.assertEqual(result, [OK])

    def test_it_survives_more_than_one_lost_connection(self) -> None:
        result = self.publish()
        self.cut()
        self.it.peer.cut()
        self.it.advance(2)  # the second try waits for a step of the backoff
        self.answer()
        self.assertEqual(result, [OK])

    def test_without_a_key_it_is_sent_once(self) -> None:
        result = self.publish(idempotency_key="")
        self.cut()
        self.assertIsInstance(result[0], ConnectionLost)
        self.assertEqual(self.it.peer.messages(m.Publish), [])

    def test_the_timeout_holds_for_all_tries_together(self) -> None:
        result = self.publish(timeout=3)
        self.it.advance(2)
        self.cut()
        self.it.advance(0.8)
        self.assertEqual(result, [])
        self.it.advance(0.2)
        self.assertIsInstance(result[0], RequestTimeout)

    def test_no_connection_in_time_is_a_lost_one(self) -> None:
        result = self.publish(timeout=3)
        self.it.network.reachable = False
        self.cut()
        self.it.advance(2.8)
        self.assertEqual(result, [])
        self.it.advance(0.2)
        self.assertIsInstance(result[0], ConnectionLost)

    def test_a_client_that_stops_gives_up(self) -> None:
        result = self.publish()
        self.it.network.reachable = False
        self.cut()
        self.it.run(self.it.client.stop())
        self.assertIsInstance(result[0], ConnectionLost)

    def test_no_room_for_the_second_try_is_a_lost_connection(self) -> None:
        outcomes: list[type[ClientError]] = [ConnectionLost, TooManyRequests]

        async def ask(request: m.Publish, timeout: float) -> m.PublishOk:
            raise outcomes.pop(0)("said so")

        async def connected() -> m.Welcome:
            return m.Welcome()

        result = self.it.run(publish(self.it.clock, m.Publish("news", b"", idempotency_key="k"), 5.0, ask, connected))
        self.assertIsInstance(result[0], ConnectionLost)

    def test_without_a_connection_at_first_nothing_is_tried(self) -> None:
        self.it.network.reachable = False
        self.cut()
        self.assertIsInstance(self.publish()[0], NotConnected)


class ReceiptTests(StageCase):
    RECEIPT = m.Receipt("id1", "device:d1", 3, "d1", Milestone.DELIVERED, 1_790_000_000_000)

    def test_a_client_that_wants_receipts_says_so(self) -> None:
        [hello] = self.stage(receipts=True).start().messages(m.Hello)
        self.assertEqual(hello.features, Feature.RECEIPTS)

    def test_others_do_not(self) -> None:
        [hello] = self.stage().start().messages(m.Hello)
        self.assertEqual(hello.features, Feature.NONE)

    def test_a_receipt_is_an_event(self) -> None:
        stage = self.stage(receipts=True)
        stage.start().say(self.RECEIPT)
        stage.network.pump()
        self.assertEqual(stage.heard(ReceiptArrived), [ReceiptArrived(self.RECEIPT)])

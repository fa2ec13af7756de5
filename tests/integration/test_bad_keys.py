"""Idempotency keys, collapse keys and versions that are used in ways nobody meant: one message, one answer, bounded memory."""

from __future__ import annotations

import json
import time
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.web.client import Agent

from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from tests.integration.attacking import NARROW_KEY, OTHER_KEY, BadRequestCase
from tests.integration.harness import run
from tests.integration.test_rest_live import KEY

BODY = {"topic": "news/a", "payload": "once"}

PROBE = 1
"""Entries of the node's own."""


class KeyTests(BadRequestCase):
    async def keyed(self, key: str, body: dict[str, Any], rest_key: str = KEY) -> tuple[int, dict[str, Any]]:
        """A publish with the header Idempotency-Key."""
        assert self.node is not None
        headers = {"Authorization": f"Bearer {rest_key}", "Content-Type": "application/json", "Idempotency-Key": key}
        url = f"http://127.0.0.1:{self.node.rest_port}/v1/publish"
        response = await HTTPClient(Agent(reactor)).post(url, headers=headers, data=json.dumps(body).encode())
        return response.code, await response.json()

    async def at_once(self, *bodies: dict[str, Any], rest_key: str = KEY) -> list[tuple[int, dict[str, Any]]]:
        """Publishes with one key that are all under way before the first is answered."""
        asked = [Deferred.fromCoroutine(self.keyed("order-17", body, rest_key)) for body in bodies]
        return list(await gatherResults(asked))

    @run
    async def test_the_same_request_gets_the_first_answer_and_stores_nothing(self) -> None:
        _, first = await self.keyed("order-17", BODY)

        async def attack() -> None:
            status, again = await self.keyed("order-17", BODY)
            self.assertEqual((status, again), (200, first | {"duplicate": True}))

        await self.unchanged(attack)
        self.assertEqual(self.metric("streampush_not_published_total", reason="duplicate"), 1)

    @run
    async def test_another_request_with_the_key_is_3009_and_409(self) -> None:
        await self.keyed("order-17", BODY)

        async def attack() -> None:
            for change in ({"payload": "twice"}, {"topic": "news/b"}, {"ttl": 5}, {"headers": {"a": "b"}}, {"want_receipt": True}):
                status, problem = await self.keyed("order-17", BODY | change)
                self.assertEqual((status, problem["code"], problem["type"]), (409, 3009, "urn:streampush:code:3009"))

        await self.unchanged(attack)
        self.assertEqual(self.metric("streampush_refused_total", code="3009"), 5)

    @run
    async def test_a_refusal_does_not_show_what_the_key_was_used_for(self) -> None:
        await self.keyed("order-17", BODY | {"payload": "a secret"})
        _, problem = await self.keyed("order-17", BODY)
        self.assertNotIn("secret", json.dumps(problem))

    @run
    async def test_another_publisher_has_keys_of_its_own(self) -> None:
        answers = [await self.keyed("order-17", BODY, key) for key in (KEY, OTHER_KEY, NARROW_KEY)]
        for name in ("backend", "narrow"):
            publisher = await self.publisher(name)
            publisher.send(m.Publish("news/a", b"once", idempotency_key="order-17"), 2)
            self.assertFalse((await publisher.expect(m.PublishOk)).duplicate)
        self.assertEqual([answer["offset"] for _, answer in answers], [1, 2, 3])
        self.assertEqual(self.rows()["idempotency"], 5)

    @run
    async def test_a_known_key_opens_no_channel_to_which_there_is_no_right(self) -> None:
        await self.keyed("order-17", BODY | {"topic": "other"})
        status, problem = await self.keyed("order-17", BODY | {"topic": "other"}, NARROW_KEY)
        self.assertEqual((status, problem["code"]), (403, Code.FORBIDDEN))

    @run
    async def test_repeats_that_are_under_way_together_are_one_message(self) -> None:
        answers = await self.at_once(*[BODY] * 20)
        self.assertEqual(
            {(status, answer["message_id"], answer["offset"]) for status, answer in answers},
            {(200, answers[0][1]["message_id"], 1)},
        )
        self.assertEqual(sorted(answer["duplicate"] for _, answer in answers), [False] + [True] * 19)
        self.assertEqual(self.metric("streampush_published_total", kind="key"), 1)

    @run
    async def test_different_requests_with_a_key_that_are_under_way_together_are_one_message(self) -> None:
        answers = await self.at_once(*[BODY | {"payload": str(number)} for number in range(20)])
        self.assertEqual(sorted(status for status, _ in answers), [200] + [409] * 19)

    @run
    async def test_repeats_over_both_ways_under_way_together_are_two_messages_one_of_each_publisher(self) -> None:
        publisher = await self.publisher()
        for number in range(2, 12):
            publisher.send(m.Publish("news/a", b"once", idempotency_key="order-17"), number)
        over_rest = await self.at_once(*[BODY] * 10)
        framed = [await publisher.expect(m.PublishOk) for _ in range(10)]
        self.assertEqual(len({answer.message_id for answer in framed}), 1)
        self.assertEqual(len({answer["message_id"] for _, answer in over_rest}), 1)
        self.assertEqual({framed[0].offset, over_rest[0][1]["offset"]}, {1, 2})

    @run
    async def test_a_key_is_known_after_a_restart(self) -> None:
        _, first = await self.keyed("order-17", BODY)
        await self.restart()
        _, again = await self.keyed("order-17", BODY)
        self.assertEqual((again["message_id"], again["offset"], again["duplicate"]), (first["message_id"], 1, True))
        self.assertEqual((await self.keyed("order-17", BODY | {"payload": "twice"}))[0], 409)

    @run
    async def test_a_request_that_was_refused_leaves_its_key_free(self) -> None:
        status, _ = await self.keyed("order-17", {"device": "nobody", "payload": "x"})
        self.assertEqual(status, 404)
        self.assertEqual(self.rows()["idempotency"], 0)
        status, answer = await self.keyed("order-17", BODY)
        self.assertEqual((status, answer["duplicate"]), (200, False))


class FloodTests(BadRequestCase):
    settings = ("store.max_idempotency_keys=50", "store.history_messages=20", "store.max_scheduled=5")

    async def publishes(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A batch over REST; the answers."""
        status, answer = await self.ask("POST", "/v1/publish/batch", {"messages": messages})
        assert status == 200, answer
        return list(answer["results"])

    @run
    async def test_a_flood_of_keys_is_bounded_and_the_newest_are_known(self) -> None:
        await self.publishes([BODY | {"idempotency_key": f"key-{number}"} for number in range(1_000)])
        self.assertEqual(self.rows()["idempotency"], 50)
        results = await self.publishes([BODY | {"idempotency_key": f"key-{number}"} for number in (999, 949)])
        self.assertEqual([result["ok"]["duplicate"] for result in results], [True, False])

    @run
    async def test_a_flood_of_one_publisher_does_not_drive_out_the_keys_of_another(self) -> None:
        publisher = await self.publisher()
        message = m.Publish("news/b", b"once", idempotency_key="order-17")
        publisher.send(message, 2)
        await publisher.expect(m.PublishOk)
        await self.publishes([BODY | {"idempotency_key": f"key-{number}"} for number in range(200)])
        publisher.send(message, 3)
        self.assertTrue((await publisher.expect(m.PublishOk)).duplicate)

    @run
    async def test_a_flood_of_collapse_keys_is_bounded_by_the_history(self) -> None:
        await self.publishes([BODY | {"collapse_key": f"key-{number}", "version": number + 1} for number in range(1_000)])
        rows = self.rows()
        self.assertEqual((rows["collapses"], rows["entries"] - PROBE), (20, 20))

    @run
    async def test_a_flood_of_scheduled_messages_is_3007_and_507_and_leaves_the_others(self) -> None:
        due = {"deliver_at": time.time_ns() // 1_000_000 + 3_600_000}
        results = await self.publishes([BODY | due for _ in range(8)])
        self.assertEqual([result.get("problem", {}).get("code") for result in results], [None] * 5 + [3007] * 3)
        self.assertEqual([result.get("problem", {}).get("status") for result in results[5:]], [507] * 3)
        self.assertEqual(self.rows()["scheduled"], 5)
        self.assertEqual(self.metric("streampush_refused_total", code="3007"), 3)

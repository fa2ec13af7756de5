"""Pushes of nodes that share a Redis: what waits at one node for Apple, and is acknowledged at another."""

from __future__ import annotations

import os
from itertools import count
from unittest import SkipTest

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from streampush.loading import load_config
from streampush.node_service import StreampushService
from streampush.protocol import messages as m
from streampush.protocol.terms import Outcome
from tests.integration.harness import run
from tests.integration.test_apple_pushes import AppleTestCase
from tests.redis_server import NOT_HERE, PROGRAM, free_port, shared_server

_NUMBERS = count(1)


class WaitingPushTests(AppleTestCase):
    """Apple cannot be reached."""

    def setUp(self) -> Deferred[None]:
        if PROGRAM is None:
            raise SkipTest(NOT_HERE)
        prefix = f"pushes-{os.getpid()}-{next(_NUMBERS)}"
        store = ("store.backend=redis", f"store.url={shared_server().url}", f"store.prefix={prefix}", "store.publish_timeout=30")
        self.settings = ("node.name=one", *store)
        return super().setUp()

    def app(self) -> str:
        return super().app().replace(f"port = {self.server.port}", f"port = {free_port()}")

    def another(self) -> StreampushService:
        """A second node, which has no app of Apple's: what is due stays with the first."""
        toml = self.root / "two.toml"
        toml.write_text(self.toml.read_text().partition("[[apns.apps]]")[0])
        node = StreampushService(reactor, load_config(str(toml), {}, ("node.name=two", *self.settings[1:])))
        node.startService()
        self.addCleanup(node.stopService)
        return node

    @run
    async def test_a_push_that_waits_for_apple_is_taken_back_when_the_device_acknowledges_at_another_node(self) -> None:
        await self.gone(await self.registered())
        message_id = await self.publish(alert={"title": "Your parcel"})
        one = self.node
        assert one is not None
        follow_ups = one.service.follow_ups
        assert follow_ups is not None
        await self.until(lambda: follow_ups.in_flight == 1)
        self.node = self.another()
        phone = await self.device("phone-1")
        delivery = await phone.expect(m.Delivery)
        phone.send(m.Ack(delivery.channel, delivery.offset, Outcome.DELIVERED))
        self.node = one
        result = await self.result(message_id)
        self.assertEqual((result["outcome"], result["reason"]), ("cancelled", "acknowledged"))
        phone.cut()
        await phone.closed

"""What happens to those who go on asking, and to publishers of a node that stops."""

from __future__ import annotations

from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from streampush.protocol.terms import AppState
from tests.integration.harness import NodeTestCase, run


class PersistenceTests(NodeTestCase):
    settings = ("publish.device_rate=0.1", "publish.device_burst=1", "session.send_buffer=262144")

    @run
    async def test_a_device_that_goes_on_above_its_rate_is_cut_and_others_are_not(self) -> None:
        publisher = await self.publisher()
        tablet = await self.device("tablet-1", "alice")
        device = await self.device()
        for number in range(1, 1003):
            device.send(m.State(AppState.FOREGROUND), number)
        refused = 0
        while not isinstance(message := (await device.next())[1], m.GoAway):
            refused += isinstance(message, m.Error)
        self.assertEqual((message.code, message.advice, refused), (Code.MESSAGE_RATE_EXCEEDED, Advice.SLOW_DOWN, 1001))
        await device.closed
        await self.counted("streampush_closes_total", code="3001", by="server")
        await self.still_delivers(tablet, publisher)


class StoppingTests(NodeTestCase):
    @run
    async def test_a_node_that_stops_takes_no_publications_any_more(self) -> None:
        await self.device()
        publisher = await self.publisher()
        assert self.node is not None
        node, self.node = self.node, None
        stopped = node.stopService()
        publisher.send(m.Publish("device:phone-1", b"x"), 5)
        await publisher.expect(m.GoAway)
        error = await publisher.expect(m.Error)
        self.assertEqual((error.code, error.advice), (Code.DRAINING, Advice.RECONNECT_ELSEWHERE))
        await stopped


class AwayTests(NodeTestCase):
    @run
    async def test_a_device_that_is_away_is_described_with_its_lag(self) -> None:
        publisher = await self.publisher()
        device = await self.device()
        publisher.send(m.Publish("device:phone-1", b"1"), 5)
        await publisher.expect(m.PublishOk)
        delivery = await device.expect(m.Delivery)
        device.send(m.Ack("device:phone-1", delivery.offset))
        await self.counted("streampush_acknowledgements_total", outcome="delivered")
        device.cut()
        await self.until(lambda: self.node.service.connected_devices() == 0)  # type: ignore[union-attr]
        publisher.send(m.Publish("device:phone-1", b"2"), 6)
        await publisher.expect(m.PublishOk)
        assert self.node is not None
        status = await self.node.service.describe_device("phone-1")
        rows = {row.channel: (row.acknowledged, row.top) for row in status.channels}
        self.assertEqual((status.connected, rows["device:phone-1"]), (False, (1, 2)))

"""A small storm on real sockets: reference clients, a node that stops, and one that takes its place."""

from __future__ import annotations

from streampush.client import ClientTls, Connected, Disconnected, StreamClient
from streampush.protocol.codes import Code
from streampush.server.governor import RESTART_PAUSE
from tests.integration.harness import NodeTestCase, reactor, run
from tests.server.storm import busiest
from tests.support import authority, device_issued

CLIENTS = 30
RATE = 20.0


class StormTests(NodeTestCase):
    settings = (f"admission.accept_rate={RATE}",)
    all_clients_are_cut = False

    def reference(self, number: int, came: list[float], told: list[Disconnected]) -> StreamClient:
        assert self.node is not None
        issued = device_issued(f"storm-{number}")
        tls = ClientTls(authority().issued.certificate_pem, issued.certificate_pem, issued.key_pem)

        def event(event: object) -> None:
            if isinstance(event, Connected):
                came.append(reactor.seconds())  # type: ignore[attr-defined]
            elif isinstance(event, Disconnected):
                told.append(event)

        return StreamClient(reactor, [("localhost", self.node.port)], tls, on_event=event)  # type: ignore[arg-type]

    @run
    async def test_clients_of_a_node_that_was_restarted_come_back_one_by_one_at_its_rate(self) -> None:
        came: list[float] = []
        told: list[Disconnected] = []
        clients = [self.reference(number, came, told) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        await self.until(lambda: len(came) == CLIENTS)
        assert self.node is not None
        node, self.node, port = self.node, None, self.node.port
        came.clear()
        stopping = reactor.seconds()  # type: ignore[attr-defined]
        await node.stopService()
        self.start(*self.settings, f"listen.port={port}")
        await self.until(lambda: len(came) == CLIENTS)
        self.assertEqual({event.code for event in told}, {Code.DRAINING})
        self.assertEqual(len(told), CLIENTS)  # each came once, at its slot
        self.assertGreaterEqual(min(came) - stopping, RESTART_PAUSE)
        self.assertLessEqual(max(came) - stopping, RESTART_PAUSE + CLIENTS / RATE + 10.0)  # the machine may be busy
        slots = [event.next_try_in or 0.0 for event in told]
        self.assertLessEqual(busiest(slots, 0.5), RATE * 0.5 + 4)
        self.assertGreaterEqual(max(slots) - min(slots), (CLIENTS - 1) / RATE - 0.5)
        for client in clients:
            await client.stop()

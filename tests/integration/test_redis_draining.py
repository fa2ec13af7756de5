"""Two nodes on one Redis, and reference clients that know both: a drain under load, and a fair share afterwards."""

from __future__ import annotations

from collections import defaultdict

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from streampush.client import ClientTls, Connected, Message, StreamClient
from streampush.node_service import StreampushService
from streampush.protocol import messages as m
from streampush.push.values import NodeState
from streampush.server.leaving import LEAD
from tests.integration.harness import WireClient, run
from tests.integration.redis_nodes import RedisNodesCase
from tests.server.storm import busiest
from tests.support import authority, device_issued

CLIENTS = 20
RATE = 10.0
ROUNDS = 60


class DrainUnderLoadTests(RedisNodesCase):
    all_clients_are_cut = False

    def shared(self, name: str) -> tuple[str, ...]:
        return (*super().shared(name), f"admission.accept_rate={RATE}", "probe.interval=0.2")

    async def reference_clients(self, *nodes: StreampushService) -> list[StreamClient]:
        """All are connected to the first of the nodes."""
        self.got: dict[str, list[str]] = defaultdict(list)
        self.came: list[float] = []
        addresses = [("localhost", node.port) for node in nodes]
        clients = []
        for number in range(CLIENTS):
            issued = device_issued(f"load-{number}")
            tls = ClientTls(authority().issued.certificate_pem, issued.certificate_pem, issued.key_pem)
            client = StreamClient(reactor, addresses, tls, on_message=self.take, on_event=self.event)  # type: ignore[arg-type]
            client.start()
            await client.connected()
            clients.append(client)
        return clients

    async def take(self, message: Message) -> None:
        self.got[message.channel].append(message.payload.decode())

    def event(self, event: object) -> None:
        if isinstance(event, Connected):
            self.came.append(reactor.seconds())  # type: ignore[attr-defined]

    async def publish(self, backend: WireClient, rounds: int) -> None:
        """A message to each device in each round, one after the other, as fast as they are stored."""
        for number in range(rounds):
            for device in range(CLIENTS):
                backend.send(m.Publish(f"device:load-{device}", f"{number}".encode()), 1 + number * CLIENTS + device)
                await backend.expect(m.PublishOk)
            await self.turns(0.02)

    async def know_each_other(self, *nodes: StreampushService) -> None:
        for node in nodes:
            await self.until(lambda node=node: bool(node._parts.governor.takers()))  # type: ignore[misc]

    @run
    async def test_a_drain_loses_nothing_refuses_nobody_and_keeps_to_the_rate_of_the_other_node(self) -> None:
        one, two = self.node, self.another("two")
        assert one is not None
        with self.on(two):
            backend = await self.publisher()
        clients = await self.reference_clients(one, two)
        await self.know_each_other(one, two)
        self.came.clear()
        publishing = Deferred.fromCoroutine(self.publish(backend, ROUNDS))
        began = reactor.seconds()  # type: ignore[attr-defined]
        await two._parts.nodes.drain("one")
        await self.until(lambda: len(self.came) == CLIENTS)
        self.assertLessEqual(self.came[-1] - began, 2.5 + CLIENTS / RATE + LEAD + 10.0)  # it hears of it; slots; a busy machine
        self.assertLessEqual(busiest(self.came, 1.0), 2 * RATE - 4)
        self.assertEqual((len(one.node.connections), len(two.node.connections)), (0, CLIENTS + 1))
        refused = two.registry.get_sample_value("streampush_refused_connections_total", {"reason": "accept_rate"})
        self.assertEqual(refused, 0)
        await publishing
        everything = [str(number) for number in range(ROUNDS)]
        await self.until(lambda: all(len(self.got[f"device:load-{device}"]) >= ROUNDS for device in range(CLIENTS)))
        for device in range(CLIENTS):
            self.assertEqual(self.got[f"device:load-{device}"], everything)
        for client in clients:
            await client.stop()

    @run
    async def test_a_node_that_serves_again_gets_its_share_by_a_rebalance(self) -> None:
        one, two = self.node, self.another("two")
        assert one is not None
        clients = await self.reference_clients(two, one)
        await self.know_each_other(one, two)
        await self.until(lambda: any(node.connections == CLIENTS for node in one._parts.governor.others))
        self.assertEqual([move.connections for move in await one._parts.nodes.rebalance(dry_run=False)], [CLIENTS // 2])
        await self.until(lambda: len(one.node.connections) == CLIENTS // 2)
        await self.until(lambda: len(two.node.connections) == CLIENTS // 2)
        self.assertEqual(two._parts.membership._member.describe().state, NodeState.SERVING)
        await one._parts.nodes.rebalance(dry_run=False)  # in haste: what the nodes say of themselves is not of now
        await self.turns(3.0)
        self.assertEqual((len(one.node.connections), len(two.node.connections)), (CLIENTS // 2, CLIENTS // 2))
        for client in clients:
            await client.stop()

"""A node that is drained and serves again without being stopped, and one that makes room; the other node is what it announces."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from hashlib import sha256

from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from streampush.push.values import NodeOrder, NodeRecord, NodeState
from streampush.server.leaving import LEAD
from tests.cli.commands import run_command, where
from tests.integration.harness import NodeTestCase, WireClient, run
from tests.rest.test_openapi import SCHEMAS, check
from tests.support import device_issued

KEY = "an-operators-key"
OTHER = NodeRecord("other", 1, cap=100, handshakes_per_second=50.0, free_per_second=50.0, is_measured=True)


class Draining(NodeTestCase):
    """A node with a key for operators."""

    timeout = 120

    toml_extra = """
[[rest.keys]]
name = "operator"
sha256 = "SHA256"
scopes = ["nodes"]
""".replace("SHA256", sha256(KEY.encode()).hexdigest())

    async def order(self, order: NodeOrder, *others: NodeRecord) -> None:
        """What the node hears the next time that it announces itself."""
        assert self.node is not None
        member = self.node._parts.membership._member
        member.heard(others)
        member.obey(order)

    def state(self) -> NodeState:
        assert self.node is not None
        return self.node._parts.membership._member.describe().state

    async def told(self, client: WireClient) -> m.GoAway:
        goaway = await client.expect(m.GoAway)
        self.assertEqual((goaway.code, goaway.advice), (Code.DRAINING, Advice.RECONNECT_ELSEWHERE))
        self.assertEqual(goaway.jitter_ms, 0)
        return goaway

    def ready(self) -> bool:
        assert self.node is not None
        return "draining" not in str(self.node._parts.health.ready(0.0)[1])


class DrainingTests(Draining):
    @run
    async def test_each_device_is_told_its_own_moment_and_the_node_is_not_ready(self) -> None:
        clients = [await self.device(f"phone-{number}") for number in range(5)]
        await self.order(NodeOrder(drain=True), OTHER)
        slots = sorted([(await self.told(client)).retry_after_ms for client in clients])
        self.assertEqual(len(set(slots)), 5)
        self.assertLessEqual(slots[-1], LEAD * 1000)
        self.assertFalse(self.ready())
        self.assertEqual(self.metric("streampush_sent_elsewhere_total", why="drain"), 5)
        self.assertEqual(self.metric("streampush_node_draining"), 1)

    @run
    async def test_who_comes_to_a_drained_node_is_told_to_go_elsewhere_and_when(self) -> None:
        await self.order(NodeOrder(drain=True), OTHER)
        client = await self.connect(device_issued("phone-1"))
        goaway = await self.told(client)
        self.assertGreaterEqual(goaway.retry_after_ms, 999)
        await client.closed

    @run
    async def test_without_another_node_devices_stay_and_a_node_that_serves_again_takes_new_ones(self) -> None:
        stays = await self.device("tablet-1")
        publisher = await self.publisher()
        await self.order(NodeOrder(drain=True))
        self.assertEqual(self.state(), NodeState.DRAINING)
        await self.still_delivers(stays, publisher)
        await self.order(NodeOrder())
        self.assertTrue(self.ready())
        await self.still_delivers(await self.device("phone-1"), publisher, "device:phone-1")

    @run
    async def test_what_was_under_way_is_acknowledged_before_a_device_leaves(self) -> None:
        device, publisher = await self.device(), await self.publisher()
        publisher.send(m.Publish("device:phone-1", b"last words"), 1)
        await publisher.expect(m.PublishOk)
        delivery = await device.expect(m.Delivery)
        await self.order(NodeOrder(drain=True), OTHER)
        await self.told(device)
        device.send(m.Ack("device:phone-1", delivery.offset))
        device.send(m.GoAway(0))
        await device.closed
        await self.counted("streampush_acknowledgements_total", outcome="delivered")

    @run
    async def test_a_move_sends_its_number_and_no_more(self) -> None:
        clients = [await self.device(f"phone-{number}") for number in range(5)]
        await self.order(NodeOrder(move_id="m1", keep=3), OTHER)
        await self.until(lambda: self.metric("streampush_sent_elsewhere_total", why="rebalance") == 2)
        await self.turns(0.3)
        told = [client for client in clients if any(isinstance(message, m.GoAway) for _, message in client.messages)]
        self.assertEqual(len(told), 2)
        self.assertNotEqual(self.state(), NodeState.DRAINING)

    @run
    async def test_a_handshake_is_measured(self) -> None:
        before = time.thread_time()
        for number in range(20):
            (await self.connect(device_issued(f"phone-{number % 3}"))).send(m.Hello(), 1)
        await self.counted("streampush_handshakes_total", 20, result="ok")
        cost = self.metric("streampush_handshake_cpu_seconds", kind="full")
        self.assertGreater(cost, 0.00005)
        self.assertLess(cost * 20, time.thread_time() - before)  # the clients' side is in that, too
        rest = self.metric("streampush_handshake_cpu_seconds", kind="rest")
        self.assertGreater(rest, 0.0)
        self.assertAlmostEqual(self.metric("streampush_handshake_capacity"), min(500.0, 0.5 / (cost + rest)), places=1)


class OrderTests(Draining):
    """Through store, REST API and commands, in processes of their own."""

    async def command(self, *arguments: str) -> tuple[str, str, int]:
        assert self.node is not None
        return await run_command(*arguments, *where(self.node.rest_port, self.root, KEY))

    async def with_other(self) -> None:
        assert self.node is not None
        await self.until(lambda: bool(self.node.store._nodes))  # type: ignore[union-attr]
        await self.node.store.announce_node(replace(OTHER, connections=7), int(time.time() * 1000) + 600_000)

    @run
    async def test_a_node_is_drained_and_serves_again_by_commands(self) -> None:
        client = await self.device()
        await self.with_other()
        out, err, code = await self.command("drain", "test")
        self.assertEqual((err, code), ("", 0))
        self.assertRegex(out, r"^test is told to drain [01] connections?\nthe others take 50 a second: about 1 s\n$")
        await self.told(client)
        await self.until(lambda: self.state() is NodeState.DRAINING)
        out, err, code = await self.command("undrain", "test")
        self.assertEqual((out, err, code), ("test is told to serve\n", "", 0))
        await self.until(lambda: self.state() is not NodeState.DRAINING)
        await self.device("phone-2")

    @run
    async def test_the_workers_of_a_machine_are_told_together(self) -> None:
        await self.with_other()
        for name in ("big-1", "big-2"):
            await self.node.store.announce_node(replace(OTHER, name=name, connections=9), int(time.time() * 1000) + 600_000)  # type: ignore[union-attr]
        out, err, code = await self.command("drain", "big-*")
        self.assertEqual((err, code), ("", 0))
        told = ["big-1 is told to drain 9 connections", "big-2 is told to drain 9 connections"]
        self.assertEqual(out.splitlines()[:2], told)
        self.assertEqual(len(out.splitlines()), 3)
        out, err, code = await self.command("undrain", "b*")
        self.assertEqual((out, err, code), ("big-1 is told to serve\nbig-2 is told to serve\n", "", 0))
        out, err, code = await self.command("drain", "nobody-*")
        self.assertEqual((out, err, code), ("", "Error: no node is named like nobody-*\n", 1))

    @run
    async def test_nodes_are_listed_by_a_command(self) -> None:
        await self.with_other()
        out, err, code = await self.command("nodes")
        self.assertEqual((err, code), ("", 0))
        head, other, this = out.splitlines()
        self.assertEqual(head.split()[:3], ["name", "state", "connections"])
        self.assertEqual(other.split(), ["other", "serving", "7", "100", "0", "50", "50"])
        self.assertRegex(this, r"^test +(starting|serving) +0 ")
        self.assertTrue(this.split()[5].endswith("*"))
        self.assertEqual(this.split()[-1], f"127.0.0.1:{self.node.port}")  # type: ignore[union-attr]
        out, _, _ = await self.command("nodes", "--json")
        check(json.loads(out), SCHEMAS["Nodes"])

    @run
    async def test_a_typing_error_in_a_name_is_one_line_with_the_name_that_was_meant(self) -> None:
        await self.with_other()
        out, err, code = await self.command("drain", "tset")
        self.assertEqual((out, code), ("", 1))
        self.assertIn("did you mean test?", err)
        self.assertEqual(err.count("\n"), 1)

    @run
    async def test_a_rebalance_with_nothing_to_do_says_so(self) -> None:
        out, err, code = await self.command("rebalance", "--dry-run")
        self.assertEqual((out, err, code), ("each node has its share: nothing to move\n", "", 0))

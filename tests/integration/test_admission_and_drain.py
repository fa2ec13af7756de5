"""Caps in front of TLS, a replaced connection, resumption, draining."""

from __future__ import annotations

import contextlib
import sys

from twisted.internet.error import ConnectError

from streampush.node_service import SWITCH_INTERVAL
from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from streampush.server.governor import RESTART_PAUSE
from tests.integration.harness import NodeTestCase, run
from tests.integration.resuming import ResumingClient
from tests.support import device_issued


class AdmissionTests(NodeTestCase):
    async def _refused(self, reason: str) -> None:
        """The reset comes at once: in time for the client's connect to see it, or right behind."""
        with contextlib.suppress(ConnectError):
            await (await self.connect_plain()).closed
        await self.counted("streampush_refused_connections_total", reason=reason)

    @run
    async def test_connection_above_the_cap_is_refused_at_once_and_others_stay(self) -> None:
        await self.restart("admission.max_connections=2", "admission.max_told=0")
        tablet = await self.device("tablet-1")
        publisher = await self.publisher()
        await self._refused("connection_limit")
        await self.still_delivers(tablet, publisher)

    @run
    async def test_one_above_the_cap_is_told_when_to_come_back(self) -> None:
        await self.restart("admission.max_connections=1")
        await self.device("tablet-1")
        slots = []
        for _ in range(3):
            client = await self.connect(device_issued("phone-1"))
            client.send(m.Hello(), 1)
            goaway = await client.expect(m.GoAway)
            self.assertEqual((goaway.code, goaway.advice), (Code.CONNECTION_LIMIT, Advice.RECONNECT_ELSEWHERE))
            slots.append(goaway.retry_after_ms)
            await client.closed
        self.assertTrue(all(slot >= 999 for slot in slots), slots)
        await self.counted("streampush_closes_total", 3, code="1003", by="server")

    @run
    async def test_a_stranger_is_told_no_slot(self) -> None:
        await self.restart("admission.max_connections=1")
        await self.device("tablet-1")
        client = await self.connect(None)
        await client.closed
        self.assertEqual(client.messages, [])
        self.assertEqual(self.metric("streampush_slots_promised"), 0)

    @run
    async def test_one_above_the_accept_rate_is_told_when_to_come_back(self) -> None:
        await self.restart("admission.accept_rate=0.1", "admission.accept_burst=1")
        await self.device()
        client = await self.connect(device_issued("phone-2"))
        goaway = await client.expect(m.GoAway)
        self.assertEqual((goaway.code, goaway.advice), (Code.ACCEPT_RATE_LIMIT, Advice.RECONNECT))
        self.assertGreaterEqual(goaway.retry_after_ms, 999)

    @run
    async def test_a_place_is_free_again_when_a_connection_is_gone(self) -> None:
        await self.restart("admission.max_connections=1")
        first = await self.device()
        first.cut()
        await self.until(lambda: not self.node.node.connections)  # type: ignore[union-attr]
        await self.device()

    @run
    async def test_connection_above_the_cap_of_its_address_is_refused(self) -> None:
        await self.restart("admission.max_per_address=1")
        await self.device()
        await self._refused("address_limit")

    @run
    async def test_connection_above_the_accept_rate_is_refused(self) -> None:
        await self.restart("admission.accept_rate=0.1", "admission.accept_burst=1", "admission.max_told=0")
        await self.device()
        await self._refused("accept_rate")

    @run
    async def test_handshake_above_the_concurrent_ones_is_refused(self) -> None:
        await self.restart("admission.max_handshakes=1")
        await self.connect_plain()
        await self.until(lambda: self.metric("streampush_connections", state="await_tls") == 1)
        await self._refused("handshake_limit")

    @run
    async def test_nothing_is_left_of_a_connection(self) -> None:
        client = await self.device()
        client.cut()
        await self.counted("streampush_closes_total", code="1001", by="network")
        assert self.node is not None
        self.assertEqual(len(self.node.node._wheel), 0)
        self.assertEqual(self.node.service.connected_devices(), 0)
        for state in ("await_tls", "await_hello", "established", "draining"):
            self.assertEqual(self.metric("streampush_connections", state=state), 0)


class ReplacementTests(NodeTestCase):
    @run
    async def test_second_connection_of_a_device_replaces_the_first(self) -> None:
        publisher = await self.publisher()
        first = await self.device()
        second = await self.device()
        goaway = await first.expect(m.GoAway)
        self.assertEqual((goaway.code, goaway.advice), (Code.REPLACED, Advice.DO_NOT_RECONNECT))
        await first.closed
        await self.counted("streampush_closes_total", code="1006", by="server")
        await self.still_delivers(second, publisher, "device:phone-1")


class ResumptionTests(NodeTestCase):
    @run
    async def test_session_is_resumed(self) -> None:
        client = ResumingClient(self.node, device_issued("phone-1"))
        await client.visit()
        await client.visit()
        await self.counted("streampush_handshakes_total", result="resumed")

    @run
    async def test_deny_list_is_asked_after_a_resumed_handshake_too(self) -> None:
        denied = self.root / "denied.txt"
        denied.write_text("")
        await self.restart(f"tls.deny_list={denied}")
        client = ResumingClient(self.node, device_issued("phone-1"))
        await client.visit()
        assert self.node is not None
        # the lists alone, so that the context and with it the tickets stay good
        gate = self.node._parts.gate
        gate.revocations = type(gate.revocations)(frozenset(), frozenset({"phone-1"}), frozenset(), ())
        last = await client.visit()
        self.assertIsInstance(last, m.GoAway)
        await self.counted("streampush_handshakes_total", result="denied")

    @run
    async def test_resumption_can_be_switched_off(self) -> None:
        await self.restart("tls.resumption=false")
        client = ResumingClient(self.node, device_issued("phone-1"))
        await client.visit()
        await client.visit()
        await self.counted("streampush_handshakes_total", 2, result="ok")


class ProcessTests(NodeTestCase):
    @run
    async def test_threads_take_turns_more_often_while_a_node_runs(self) -> None:
        self.assertAlmostEqual(sys.getswitchinterval(), SWITCH_INTERVAL)
        await self.stop()
        self.assertAlmostEqual(sys.getswitchinterval(), 0.005)


class DrainTests(NodeTestCase):
    @run
    async def test_stop_asks_to_leave_and_waits_for_who_does(self) -> None:
        client = await self.device()
        assert self.node is not None
        node, self.node = self.node, None
        stopped = node.stopService()
        goaway = await client.expect(m.GoAway)
        self.assertEqual((goaway.code, goaway.advice), (Code.DRAINING, Advice.RECONNECT_ELSEWHERE))
        self.assertGreaterEqual(goaway.retry_after_ms, RESTART_PAUSE * 1000)
        client.send(m.GoAway(0))
        await stopped
        await client.closed

    @run
    async def test_stop_cuts_who_does_not_leave(self) -> None:
        client = await self.device()
        assert self.node is not None
        node, self.node = self.node, None
        await node.stopService()
        await client.closed
        self.assertEqual(node.registry.get_sample_value("streampush_closes_total", {"code": "1004", "by": "server"}), 1)

    @run
    async def test_the_probe_does_not_fail_while_the_node_drains(self) -> None:
        await self.restart("probe.interval=0.05", "session.drain_timeout=0.5")
        await self.until(lambda: self.metric("streampush_probes_total", result="ok") >= 2)
        await self.device()
        assert self.node is not None
        before = self.metric("streampush_probes_total", result="failed")  # a slow disk may have failed some
        node, self.node = self.node, None
        await node.stopService()
        self.assertEqual(node.registry.get_sample_value("streampush_probes_total", {"result": "failed"}), before)
        self.assertEqual(node.registry.get_sample_value("streampush_refused_total", {"code": "1004"}), 0)

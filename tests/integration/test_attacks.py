"""What hostile and broken clients do to a node, and that it holds: counts stay right, others are served, nothing leaks."""

from __future__ import annotations

import json
import signal
import socket
import ssl

from twisted.logger import formatEvent, globalLogPublisher

from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from streampush.protocol.framing import encode_frame
from tests.integration.harness import NodeTestCase, run
from tests.integration.test_startup import TIMEOUT, LaunchTestCase
from tests.support import device_issued, publisher_issued

ALMOST_A_FRAME = 1024 * 1024 - 20
"""Bytes of a channel's name that leave just enough of a frame to ask with, and too little to answer with."""


class LongNameTests(NodeTestCase):
    @run
    async def test_an_acknowledgement_of_a_name_as_long_as_a_frame_is_an_error(self) -> None:
        client = await self.device()
        client.send(m.Ack("x" * ALMOST_A_FRAME, 1))
        error = await client.expect(m.Error)
        self.assertEqual((error.code, error.channel), (Code.NOT_SUBSCRIBED, ""))

    @run
    async def test_unsubscribing_from_a_name_as_long_as_a_frame_is_an_error(self) -> None:
        client = await self.device()
        client.send(m.Unsubscribe("x" * ALMOST_A_FRAME), 5)
        error = await client.expect(m.Error)
        self.assertEqual((error.code, error.channel), (Code.NOT_SUBSCRIBED, ""))


class CountTests(NodeTestCase):
    def connections(self) -> dict[str, float]:
        """The gauge of connections, by state, without those that are 0."""
        assert self.node is not None
        families = {family.name: family for family in self.node.registry.collect()}
        return {sample.labels["state"]: sample.value for sample in families["streampush_connections"].samples if sample.value}

    @run
    async def test_a_rejected_certificate_leaves_the_gauge_of_connections_as_it_was(self) -> None:
        for _ in range(2):
            client = await self.connect(publisher_issued("stranger"))
            await client.expect(m.GoAway)
            await client.closed
        await self.counted("streampush_closes_total", 2, code="3003", by="server")
        self.assertEqual(self.connections(), {})

    @run
    async def test_a_handshake_that_the_drain_cut_is_not_counted_as_timed_out(self) -> None:
        client = await self.connect_plain()
        await self.until(lambda: self.connections() == {"await_tls": 1})
        assert self.node is not None
        await self.node.node.drain("the server stops")
        await client.closed
        self.assertEqual(self.metric("streampush_handshakes_total", result="timeout"), 0)
        self.assertEqual(self.metric("streampush_handshakes_total", result="aborted"), 1)


class PeerTextTests(NodeTestCase):
    HOSTILE = "bye\n\x1b[31m12:00:00 forged line" + "x" * 100_000

    @run
    async def test_the_last_words_of_a_device_are_kept_short_and_printable(self) -> None:
        client = await self.device()
        client.send(m.GoAway(0, Advice.UNSPECIFIED, self.HOSTILE))
        await client.closed
        assert self.node is not None
        await self.until(lambda: self.node is not None and not self.node.node.connections)
        detail = ""
        while not detail:  # it is stored a moment after the connection is gone
            detail = (await self.node.service.describe_device("phone-1")).last_close_detail
        self.assertTrue(detail.startswith("bye??[31m12:00:00 forged line"), detail[:60])
        self.assertEqual((len(detail), detail.isprintable()), (200, True))

    @run
    async def test_what_a_peer_reports_or_says_at_the_end_reaches_the_log_short_and_printable(self) -> None:
        details: list[str] = []
        observer = lambda event: details.append(event["detail"]) if "detail" in event else None  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        client = await self.device()
        client.send(m.Error(Code.SERIALIZATION_ERROR, Advice.UNSPECIFIED, self.HOSTILE))
        client.send(m.GoAway(0, Advice.UNSPECIFIED, self.HOSTILE))
        await client.closed
        await self.until(lambda: len(details) >= 2)
        self.assertTrue(all(detail.isprintable() and len(detail) <= 200 for detail in details), details)

    @run
    async def test_the_log_says_how_a_device_left_in_words_and_code_and_advice_as_far_as_it_gave_them(self) -> None:
        lines: list[str] = []
        observer = lambda event: lines.append(formatEvent(event)) if "ending" in event else None  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for goaway in (m.GoAway(0, Advice.UNSPECIFIED, ""), m.GoAway(Code.OVERLOADED, Advice.RETRY, "battery is low")):
            client = await self.device()
            client.send(goaway)
            await client.closed
        await self.until(lambda: len(lines) >= 2)
        said = [line.partition(" ")[2] for line in lines]
        self.assertEqual(
            said,
            [
                "device phone-1: closed by peer: it left by itself",
                "device phone-1: closed by peer: 1008 battery is low, advice RETRY",
            ],
        )


class FaultyConnectionTests(NodeTestCase):
    @run
    async def test_a_connection_whose_drain_fails_does_not_keep_the_others_from_being_told(self) -> None:
        clients = {name: await self.device(name) for name in ("phone-1", "phone-2", "phone-3")}
        assert self.node is not None
        first = next(iter(self.node.node.connections))
        first.session._close_deadline = None  # type: ignore[assignment]  # a fault of ours, whatever it is
        assert first.principal is not None
        cut = clients.pop(first.principal.name)
        drained = self.node.node.drain("the server stops")
        for client in clients.values():
            goaway = await client.expect(m.GoAway)
            self.assertEqual(goaway.code, Code.DRAINING)
            client.cut()
        await cut.closed
        await drained
        self.assertEqual(len(self.flushLoggedErrors()), 1)


class FloodTests(NodeTestCase):
    @run
    async def test_a_storm_of_one_certificate_leaves_one_connection(self) -> None:
        clients = []
        for _ in range(20):
            client = await self.connect(device_issued("phone-1", "alice"))
            client.send(m.Hello(), 1)
            clients.append(client)
        for client in clients[:-1]:
            await client.closed
        await clients[-1].expect(m.Welcome)
        await self.counted("streampush_closes_total", 19, code="1006", by="server")
        assert self.node is not None
        self.assertEqual(len(self.node.node.connections), 1)


class SecondSignalTests(LaunchTestCase):
    def test_a_second_signal_ends_the_drain_at_once_and_logs_no_failure(self) -> None:
        process = self.launch("--set", "session.drain_timeout=600")
        assert process.stdout is not None
        records = (json.loads(line) for line in process.stdout)
        port = next(record for record in records if "rest" in record)["port"]
        context = ssl.create_default_context(cafile=str(self.files.ca))
        device = self.files.device("phone-1", "alice")
        context.load_cert_chain(device.certificate, device.key)
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port), TIMEOUT), server_hostname="localhost") as client:
            client.sendall(encode_frame(codec.encode(m.Hello(), 1)))
            self.assertTrue(client.recv(65536))
            process.terminate()
            self.assertEqual(next(record for record in records if "draining" in record["event"])["connections"], 1)
            process.terminate()
            rest = list(records)
        self.assertEqual(process.wait(TIMEOUT), -signal.SIGTERM)
        self.assertEqual([record for record in rest if "traceback" in record], [])
        self.assertIn("stopped", [record["event"] for record in rest])

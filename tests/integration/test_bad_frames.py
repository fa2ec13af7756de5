"""Damaged, illegal and slow input: the code and advice that go out, the counter that moves, and others that do not notice."""

from __future__ import annotations

from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.codes import CODES, Advice, Code
from streampush.protocol.framing import encode_frame
from tests.integration.harness import NodeTestCase, WireClient, run
from tests.support import device_issued

GOOD = encode_frame(codec.encode(m.Ping(), 9))


class WrongProtocolTests(NodeTestCase):
    with_bystanders = True

    @run
    async def test_plain_http_on_the_tls_port_is_cut_and_counted(self) -> None:
        client = await self.connect_plain()
        client.send_bytes(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await client.closed
        await self.counted("streampush_handshakes_total", result="not_tls")

    @run
    async def test_frames_without_tls_are_cut_and_counted(self) -> None:
        client = await self.connect_plain()
        client.send_bytes(GOOD)
        await client.closed
        await self.counted("streampush_handshakes_total", result="not_tls")

    @run
    async def test_a_tls_record_inside_the_stream_is_named(self) -> None:
        client = await self.device()
        client.send_bytes(bytes.fromhex("160301020001"))
        error = await client.expect(m.Error)
        self.assertEqual(error.code, Code.FRAME_TOO_LARGE)
        self.assertIn("TLS", error.detail)


class FrameTests(NodeTestCase):
    async def _bad(self, data: bytes, code: Code) -> None:
        """A damage is answered, counted and survived; the good frame behind it is taken; a bystander notices nothing."""
        tablet = await self.device("tablet-1")
        publisher = await self.publisher()
        client = await self.device()
        client.send_bytes(data + GOOD)
        error = await client.expect(m.Error)
        self.assertEqual((error.code, error.advice), (code, CODES[code].advice))
        await client.expect(m.Pong)
        self.assertEqual(self.metric("streampush_faults_total", code=str(int(code))), 1)
        await self.still_delivers(tablet, publisher)

    @run
    async def test_length_zero(self) -> None:
        await self._bad(bytes(8), Code.EMPTY_FRAME)

    @run
    async def test_length_above_the_limit(self) -> None:
        await self._bad((1024 * 1024 + 1).to_bytes(4, "big"), Code.FRAME_TOO_LARGE)

    @run
    async def test_length_that_looks_negative(self) -> None:
        await self._bad(b"\xff\xff\xff\xff", Code.FRAME_TOO_LARGE)

    @run
    async def test_wrong_checksum(self) -> None:
        await self._bad(GOOD[:-1] + bytes([GOOD[-1] ^ 1]), Code.CHECKSUM_MISMATCH)

    @run
    async def test_right_checksum_around_garbage(self) -> None:
        await self._bad(encode_frame(b"\xff\xff garbage"), Code.SERIALIZATION_ERROR)

    @run
    async def test_unknown_message(self) -> None:
        await self._bad(encode_frame(bytes.fromhex("f20600")), Code.UNEXPECTED_MESSAGE)

    @run
    async def test_more_damages_in_a_row_than_borne_close(self) -> None:
        tablet = await self.device("tablet-1")
        publisher = await self.publisher()
        client = await self.device()
        client.send_bytes(encode_frame(b"\xff") * 9)
        for _ in range(8):
            self.assertEqual((await client.expect(m.Error)).code, Code.SERIALIZATION_ERROR)
        goaway = await client.expect(m.GoAway)
        self.assertEqual((goaway.code, goaway.advice), (Code.SERIALIZATION_ERROR, Advice.UPGRADE))
        await client.closed
        await self.counted("streampush_closes_total", code="2002", by="server")
        await self.still_delivers(tablet, publisher)

    @run
    async def test_no_frame_within_the_resynchronisation_window_closes(self) -> None:
        client = await self.device()
        client.send_bytes(b"\xff" * (64 * 1024 + 100))
        self.assertEqual((await client.expect(m.Error)).code, Code.FRAME_TOO_LARGE)
        self.assertEqual((await client.expect(m.GoAway)).code, Code.FRAME_TOO_LARGE)
        await client.closed
        await self.counted("streampush_closes_total", code="2004", by="server")


class StateTests(NodeTestCase):
    with_bystanders = True

    async def _closes(self, client: WireClient, code: Code, advice: Advice) -> None:
        goaway = await client.expect(m.GoAway)
        self.assertEqual((goaway.code, goaway.advice), (code, advice))
        await client.closed
        await self.counted("streampush_closes_total", code=str(int(code)), by="server")

    @run
    async def test_message_before_hello(self) -> None:
        client = await self.connect(device_issued("phone-1"))
        client.send(m.Subscribe("news/today"), 1)
        await self._closes(client, Code.UNEXPECTED_MESSAGE, Advice.UPGRADE)

    @run
    async def test_hello_twice(self) -> None:
        client = await self.device()
        client.send(m.Hello(), 2)
        await self._closes(client, Code.UNEXPECTED_MESSAGE, Advice.UPGRADE)

    @run
    async def test_message_of_the_server_from_a_client(self) -> None:
        client = await self.device()
        client.send(m.Delivery("news/today", 1, "x", b""))
        await self._closes(client, Code.UNEXPECTED_MESSAGE, Advice.UPGRADE)

    @run
    async def test_version_that_is_not_spoken(self) -> None:
        client = await self.connect(device_issued("phone-1"))
        client.send(m.Hello(protocol_min=2, protocol_max=3), 1)
        await self._closes(client, Code.UNSUPPORTED_VERSION, Advice.UPGRADE)

    @run
    async def test_hello_with_a_name_that_is_too_long(self) -> None:
        client = await self.connect(device_issued("phone-1"))
        client.send(m.Hello(app="x" * 129), 1)
        await self._closes(client, Code.SERIALIZATION_ERROR, Advice.UPGRADE)


class SlowTests(NodeTestCase):
    """Each test shortens the one time that it is about: what else has a deadline must not come first on a slow machine."""

    async def _closed_with(self, client: WireClient, code: Code, *, answer: bool = True) -> None:
        while not isinstance(message := (await client.next())[1], m.GoAway):
            if isinstance(message, m.Ping) and answer:
                client.send(m.Pong())
        self.assertEqual(message.code, code)
        await client.closed
        await self.counted("streampush_closes_total", code=str(int(code)), by="server")

    @run
    async def test_handshake_that_never_comes(self) -> None:
        await self.restart("session.handshake_timeout=0.3")
        client = await self.connect_plain()
        await client.closed
        await self.counted("streampush_handshakes_total", result="timeout")
        await self.counted("streampush_closes_total", code="1001", by="server")

    @run
    async def test_hello_that_never_comes(self) -> None:
        await self.restart("session.hello_timeout=0.3")
        client = await self.connect(device_issued("phone-1"))
        await self._closed_with(client, Code.HELLO_TIMEOUT)

    @run
    async def test_started_frame_that_never_ends(self) -> None:
        await self.restart("session.frame_timeout=0.4")
        client = await self.device()
        client.send_bytes(GOOD[:3])
        await self._closed_with(client, Code.FRAME_TIMEOUT, answer=False)

    @run
    async def test_frame_that_trickles_in_byte_by_byte(self) -> None:
        """Bytes come, a frame never does: each byte must not buy new time."""
        await self.restart("session.frame_timeout=0.4")
        client = await self.device()
        frame = iter(encode_frame(b"x" * 200))
        while client.lost is None and not any(isinstance(message, m.GoAway) for _, message in client.messages):
            client.send_bytes(bytes([next(frame)]))
            await self.turns(0.02)
        await self._closed_with(client, Code.FRAME_TIMEOUT, answer=False)

    @run
    async def test_connection_with_nothing_but_heartbeats_is_idle(self) -> None:
        await self.restart("session.idle_timeout=1", "heartbeat.interval=0.3", "heartbeat.reply_timeout=0.3", "heartbeat.misses=20")
        client = await self.device()
        await self._closed_with(client, Code.CONNECTION_TIMED_OUT)

    @run
    async def test_peer_that_answers_no_ping_is_lost(self) -> None:
        await self.restart("heartbeat.interval=0.5", "heartbeat.reply_timeout=0.25")
        client = await self.device()
        while not isinstance(message := (await client.next())[1], m.GoAway):
            pass
        self.assertEqual((message.code, message.advice), (Code.HEARTBEAT_LOST, Advice.RECONNECT))
        self.assertEqual(self.metric("streampush_heartbeat_jitter_total"), 1)
        self.assertGreaterEqual(self.metric("streampush_pings_missed_total"), 3)

    @run
    async def test_maximum_age_drains(self) -> None:
        await self.restart("session.max_age=1")
        client = await self.device()
        goaway = await client.expect(m.GoAway)
        self.assertEqual((goaway.code, goaway.advice), (Code.MAXIMUM_AGE, Advice.RECONNECT))
        self.assertGreater(goaway.close_after_ms, 0)


class PingTests(NodeTestCase):
    @run
    async def test_pings_too_fast_are_told_then_cut(self) -> None:
        tablet = await self.device("tablet-1")
        publisher = await self.publisher()
        client = await self.device()
        for number in range(1, 6):
            client.send(m.Ping(), number)
        codes = []
        while not isinstance(message := (await client.next())[1], m.GoAway):
            if isinstance(message, m.Error):
                codes.append((message.code, message.advice))
        self.assertEqual(codes, [(Code.TOO_MANY_PINGS, Advice.SLOW_DOWN)] * 3)
        self.assertEqual(message.code, Code.TOO_MANY_PINGS)
        await client.closed
        self.assertEqual(self.metric("streampush_faults_total", code="2008"), 3)
        await self.counted("streampush_closes_total", code="2008", by="server")
        await self.still_delivers(tablet, publisher)


class UnreadTests(NodeTestCase):
    settings = (
        "session.send_buffer=65536",
        "session.send_buffer_max=131072",
        "session.send_stall_timeout=0.5",
        "session.max_frame=65536",
        "publish.max_payload=32768",
        "delivery.receive_window_bytes=67108864",
        "delivery.receive_window_messages=60000",
        "store.history_messages=2000",
        "store.history_bytes=100000000",
    )

    @run
    async def test_peer_that_does_not_read_is_bounded_and_cut(self) -> None:
        tablet = await self.device("tablet-1")
        publisher = await self.publisher()
        client = await self.device()
        assert client.transport is not None
        client.transport.pauseProducing()  # type: ignore[attr-defined]
        assert self.node is not None
        (stuck,) = [c for c in self.node.node.connections if c.principal is not None and c.principal.name == "phone-1"]
        for number in range(400):
            publisher.send(m.Publish("device:phone-1", b"x" * 30000), number + 1)
            await publisher.expect(m.PublishOk)
        self.assertLess(stuck._transport.buffered, 131072 + 32768)
        await self.still_delivers(tablet, publisher)
        await self.until(lambda: stuck.session.closed)
        client.transport.resumeProducing()  # type: ignore[attr-defined]
        while not isinstance(message := (await client.next())[1], m.GoAway):
            pass
        self.assertEqual((message.code, message.advice), (Code.SLOW_CONSUMER, Advice.RECONNECT))
        await client.closed
        await self.counted("streampush_closes_total", code="1005", by="server")

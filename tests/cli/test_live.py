"""`listen` and `publish` against a whole node on loopback."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from streampush.cli.exits import BadCredentials, Failure, NoConnection, RefusedByServer
from streampush.cli.link import open_tls
from streampush.cli.listen import Listener, Listening
from streampush.cli.outgoing import Outgoing, PublishRefused
from streampush.cli.rest_publisher import RestPublisher
from streampush.cli.stream_publisher import StreamPublisher
from streampush.cli.target import Target, find_target
from streampush.protocol.codes import Advice, Code
from streampush.protocol.terms import Outcome, Start
from tests.cli.commands import run_command
from tests.integration.harness import NodeTestCase
from tests.support import authority

KEY = "sp_test"
KEYS = f'rest.keys=[{{name = "web", sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}", publish = ["news/*"]}}]'


class LiveTestCase(NodeTestCase):
    """Every publisher that a test makes is closed behind it."""

    all_clients_are_cut = False  # the commands' own clients end in clean-ups, behind the node

    settings = (KEYS,)

    @property
    def target(self) -> Target:
        assert self.node is not None
        return find_target(self.root, "127.0.0.1", self.node.port, f"http://127.0.0.1:{self.node.rest_port}")

    def publisher(self, name: str = "backend") -> StreamPublisher:
        publisher = StreamPublisher.of_target(reactor, self.target, name)
        self.addCleanup(lambda: Deferred.fromCoroutine(publisher.close()))
        return publisher

    async def publish(self, channel: str, *payloads: bytes) -> None:
        publisher = self.publisher()
        for payload in payloads:
            await publisher.publish(Outgoing(channel, payload))
        await publisher.close()


class ListenTestCase(LiveTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.shown: list[str] = []
        self.told: list[str] = []
        self.awaited: list[tuple[str, Deferred[None]]] = []

    def listen(self, device: str = "phone-1", **options: Any) -> Deferred[None]:
        target = self.target
        tls = options.pop("tls", None) or open_tls(target, self.files.device(device))
        listening = Listening(target.host, target.port, tls, show=self.shown.append, tell=self.tell, **options)
        return Deferred.fromCoroutine(Listener(reactor, listening).work())

    def tell(self, line: str) -> None:
        self.told.append(line)
        for pair in [pair for pair in self.awaited if line.startswith(pair[0])]:
            self.awaited.remove(pair)
            pair[1].callback(None)

    async def until(self, start: str) -> None:
        """Waits for a line about the connection that begins so."""
        if not any(line.startswith(start) for line in self.told):
            told: Deferred[None] = Deferred()
            self.awaited.append((start, told))
            await told


class ListenTests(ListenTestCase):
    async def test_messages_of_every_address_are_shown_in_order_of_their_channels(self) -> None:
        listening = self.listen(channels=("news/a",), count=3)
        await self.until("following news/a")
        await self.publish("news/a", b"one")
        await self.publish("user:alice", b"two")
        await self.publish("device:phone-1", b"\x00\xff")
        await listening
        self.assertEqual(self.shown, ["news/a #1  one", "user:alice #1  two", "device:phone-1 #1  (2 bytes) 00ff"])
        self.assertTrue(self.told[0].startswith("connected to test as phone-1 of alice, session "))

    async def test_what_was_shown_is_acknowledged_and_the_next_run_goes_on_behind_it(self) -> None:
        await self.publish("news/a", b"1", b"2", b"3", b"4")
        await self.listen(channels=("news/a",), start=Start.EARLIEST, count=2)
        await self.listen(channels=("news/a",), count=2)
        self.assertEqual(self.shown, [f"news/a #{number}  {number}" for number in (1, 2, 3, 4)])

    async def test_json_holds_the_whole_message(self) -> None:
        publisher = self.publisher()
        sent = await publisher.publish(Outgoing("news/a", b"hi", "text/plain", {"a": "b"}))
        await publisher.publish(Outgoing("news/a", b"\xff"))
        await self.listen(channels=("news/a",), start=Start.EARLIEST, count=2, as_json=True)
        first, second = (json.loads(line) for line in self.shown)
        self.assertGreater(first.pop("published_at_ms"), 0)
        expected = {"channel": "news/a", "offset": 1, "message_id": sent.message_id, "payload": "hi"}
        self.assertEqual(first, {**expected, "content_type": "text/plain", "headers": {"a": "b"}})
        self.assertEqual(second["payload_base64"], "/w==")

    async def test_control_characters_do_not_reach_the_terminal(self) -> None:
        await self.publish("news/a", b"\x1b[2Jgone")
        await self.listen(channels=("news/a",), start=Start.EARLIEST, count=1)
        self.assertEqual(self.shown, ['news/a #1  "\\u001b[2Jgone"'])

    async def test_a_channel_that_it_may_not_follow_ends_it_with_its_name_and_the_code(self) -> None:
        with self.assertRaises(RefusedByServer) as caught:
            await self.listen(channels=("news/a", "secret"))
        self.assertTrue(str(caught.exception).startswith("secret: refused: 3003 "))

    async def test_a_second_listener_of_the_device_ends_the_first_one(self) -> None:
        first = self.listen()
        await self.until("connected")
        self.told.clear()
        second = self.listen(count=1)
        with self.assertRaises(RefusedByServer) as caught:
            await first
        self.assertTrue(str(caught.exception).startswith("the server closed: 1006 "))
        await self.until("connected")
        await self.publish("device:phone-1", b"x")
        await second

    async def test_too_few_messages_in_time_are_a_failure(self) -> None:
        with self.assertRaises(Failure) as caught:
            await self.listen(count=2, timeout=0.3)
        self.assertEqual(str(caught.exception), "gave up after 0.3 s, 2 messages are missing")

    async def test_a_server_that_comes_back_is_found_again(self) -> None:
        listening = self.listen(count=1)
        await self.until("connected")
        assert self.node is not None
        port = self.node.port
        await self.restart(KEYS, f"listen.port={port}")
        await self.until("disconnected: 1004 ")
        self.told.clear()
        await self.until("connected")
        await self.publish("device:phone-1", b"back")
        await listening
        self.assertEqual(self.shown, ["device:phone-1 #1  back"])

    test_a_server_that_comes_back_is_found_again.timeout = 60  # type: ignore[attr-defined]  # trial reads it

    async def test_without_a_server_it_ends_and_promises_no_further_try(self) -> None:
        target = self.target
        tls = open_tls(target, self.files.device("phone-1"))
        await self.stop()
        with self.assertRaises(NoConnection) as caught:
            await Listener(reactor, Listening(target.host, target.port, tls, show=self.shown.append, tell=self.tell)).work()
        self.assertTrue(str(caught.exception).endswith("is the server running?"))
        self.assertEqual(self.told, [])

    async def test_a_server_of_another_ca_is_not_trusted(self) -> None:
        self.files.ca.write_bytes(authority("another CA").issued.certificate_pem)
        with self.assertRaises(BadCredentials) as caught:
            await self.listen()
        self.assertEqual(str(caught.exception), "refused: the server's certificate is not trusted")

    async def test_a_certificate_of_another_ca_is_refused(self) -> None:
        stranger = self.files.write("stranger", authority("another CA").issue_device("phone-1"))
        with self.assertRaises(BadCredentials):
            await self.listen(tls=open_tls(self.target, stranger))


class AnswerTests(ListenTestCase):
    settings = (KEYS, "delivery.ack_timeout=0.2")

    async def test_what_is_answered_with_retry_later_is_shown_again(self) -> None:
        await self.publish("news/a", b"x")
        await self.listen(channels=("news/a",), start=Start.EARLIEST, count=2, outcome=Outcome.RETRY_LATER)
        self.assertEqual(self.shown, ["news/a #1  x"] * 2)

    async def test_what_was_rejected_is_not(self) -> None:
        await self.publish("news/a", b"x", b"y")
        await self.listen(channels=("news/a",), start=Start.EARLIEST, count=1, outcome=Outcome.REJECTED)
        await self.listen(channels=("news/a",), count=1)
        self.assertEqual(self.shown, ["news/a #1  x", "news/a #2  y"])


class PublishTests(LiveTestCase):
    async def test_a_message_goes_over_the_framed_protocol(self) -> None:
        publisher = self.publisher()
        first = await publisher.publish(Outgoing("news/a", b"x"))
        second = await publisher.publish(Outgoing("news/a", b"x"))
        self.assertEqual((first.channel, first.offset, second.offset, first.connections), ("news/a", 1, 2, 0))
        self.assertNotEqual(first.message_id, second.message_id)

    async def test_a_channel_without_rights_is_refused_with_code_and_advice(self) -> None:
        with self.assertRaises(PublishRefused) as caught:
            await self.publisher("narrow").publish(Outgoing("private", b"x"))
        self.assertEqual((caught.exception.code, caught.exception.advice), (Code.FORBIDDEN, Advice.REAUTHENTICATE))

    async def test_a_payload_over_the_announced_limit_is_not_sent(self) -> None:
        with self.assertRaises(Failure) as caught:
            await self.publisher().publish(Outgoing("news/a", bytes(262145)))
        self.assertEqual(str(caught.exception), "the payload is 262145 bytes, the server takes at most 262144")

    async def test_no_server_is_no_connection(self) -> None:
        publisher = self.publisher()
        await self.stop()
        with self.assertRaises(NoConnection) as caught:
            await publisher.publish(Outgoing("news/a", b"x"))
        self.assertIn("Connection was refused", str(caught.exception))

    async def test_a_message_goes_over_rest(self) -> None:
        publisher = RestPublisher(reactor, self.target.rest_url, KEY, b"")
        self.addCleanup(lambda: Deferred.fromCoroutine(publisher.close()))
        sent = await publisher.publish(Outgoing("news/a", b"x", "text/plain", {"a": "b"}, 5.0))
        self.assertEqual((sent.channel, sent.offset), ("news/a", 1))
        with self.assertRaises(PublishRefused) as caught:
            await publisher.publish(Outgoing("private", b"x"))
        self.assertEqual(caught.exception.code, Code.FORBIDDEN)


class CommandTests(LiveTestCase):
    """The real command in a process of its own."""

    def where(self) -> list[str]:
        return ["--dir", str(self.root), "--host", "127.0.0.1", "--port", str(self.target.port)]

    async def test_one_process_publishes_and_another_one_listens(self) -> None:
        out, err, code = await run_command("publish", *self.where(), "--publisher", "backend", "news/a", "hi")
        self.assertEqual((err, code), ("", 0))
        self.assertRegex(out, r"^published \w+ to news/a, offset 1, 0 connections\n$")
        options = ["--device", "phone-1", "--subscribe", "news/a", "--start", "earliest", "--count", "1"]
        out, err, code = await run_command("listen", *self.where(), *options)
        self.assertEqual((out, code), ("news/a #1  hi\n", 0))
        self.assertIn("following news/a behind offset 0, stored: 1\n", err)

    async def test_many_messages_are_summed_up(self) -> None:
        key = self.files.directory.rest_key
        key.write_text(KEY)
        where = ["--dir", str(self.root), "--rest-url", self.target.rest_url]
        out, _, code = await run_command("publish", *where, "--repeat", "20", "news/a", "hi")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"^published 20 messages to news/a, offsets 1 to 20, \d+ a second\n$")

    async def test_a_refusal_is_one_line_with_status_3(self) -> None:
        out, err, code = await run_command("publish", *self.where(), "--publisher", "narrow", "private", "x")
        self.assertEqual((out, code), ("", 3))
        self.assertRegex(err, r"^Error: refused: 3003 .*; advice: reauthenticate\n$")

    async def test_a_missing_certificate_is_one_line_with_status_5(self) -> None:
        shutil.rmtree(self.root / "secrets")
        out, err, code = await run_command("listen", *self.where(), "--device", "phone-1")
        self.assertEqual((out, code), ("", 5))
        self.assertEqual(err.count("\n"), 1)

"""One process follows another on its listening sockets: nobody is refused, nothing is lost, and whoever fails leaves no harm."""

from __future__ import annotations

import os
import signal
import socket
import unittest

from streampush.handover.wire import encode
from streampush.store.sqlite.file import FileLock
from tests.integration.handing_over import HandoverTestCase, Listening, Publisher
from tests.redis_server import NOT_HERE, PROGRAM, RedisServer


class SuccessionTests(HandoverTestCase):
    def test_under_load_nobody_is_refused_and_nothing_is_lost(self) -> None:
        first = self.node()
        port, rest = first.until_it_serves()
        device = self.device("phone-1", port)
        publisher = Publisher(rest, "device:phone-1")
        publisher.start()
        second = self.node()
        self.assertEqual(second.until("taken over from")["pid"], first.pid)
        self.assertEqual(first.ended(), 0)
        while len(publisher.stored) < 50:
            self.shake_hands(port)
        self.nothing_was_lost(publisher, device)
        self.assertIsNone(second.process.poll())

    def test_the_next_one_follows_too(self) -> None:
        processes = [self.node()]
        ports = processes[0].until_it_serves()
        for _ in range(2):
            processes.append(self.node())
            processes[-1].until("taken over from")
            self.assertEqual(processes[-2].ended(), 0)
        self.healthy(ports[1])
        self.shake_hands(ports[0])

    def test_without_a_predecessor_the_file_of_a_killed_one_is_replaced(self) -> None:
        first = self.node()
        first.until_it_serves()
        self.kill(first)
        self.assertTrue(os.path.exists(self.path))
        second = self.node()
        _, rest = second.until_it_serves()
        self.healthy(rest)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        second.process.terminate()
        second.ended()
        self.assertFalse(os.path.exists(self.path))

    def test_a_port_that_was_changed_is_bound_anew_and_the_other_socket_is_taken(self) -> None:
        first = self.node()
        port, _ = first.until_it_serves()
        with socket.create_server(("127.0.0.1", 0)) as free:
            other = free.getsockname()[1]
        second = self.node("--set", f"rest.port={other}", "--set", f"listen.port={port}")
        self.assertEqual(second.until_it_serves(), (port, other))
        first.ended()
        self.healthy(other)

    def test_memory_begins_empty_and_says_so(self) -> None:
        first = self.node("--set", "store.backend=memory")
        _, rest = first.until_it_serves()
        second = self.node("--set", "store.backend=memory")
        self.assertEqual(second.until("the store is in memory")["level"], "warn")
        self.assertEqual(first.ended(), 0)
        self.healthy(rest)


@unittest.skipUnless(PROGRAM, NOT_HERE)
class SharedStoreTests(HandoverTestCase):
    """Redis is everybody's: both processes serve for a moment, and nobody waits."""

    def setUp(self) -> None:
        super().setUp()
        self.redis = RedisServer().start()
        self.addCleanup(self.redis.stop)
        self.store = ("--set", "store.backend=redis", "--set", f"store.url={self.redis.url}")

    def test_under_load_nobody_is_refused_and_nothing_is_lost(self) -> None:
        first = self.node()
        port, rest = first.until_it_serves()
        device = self.device("phone-1", port)
        publisher = Publisher(rest, "device:phone-1")
        publisher.start()
        second = self.node()
        self.assertEqual(second.until("taken over from")["pid"], first.pid)
        self.assertEqual(first.ended(), 0)
        sent = len(publisher.stored)
        while len(publisher.stored) < sent + 20:
            self.shake_hands(port)
        self.nothing_was_lost(publisher, device)

    def test_a_successor_that_is_lost_at_its_turn_leaves_the_first_as_it_was(self) -> None:
        first = self.node()
        port, rest = first.until_it_serves()
        with socket.create_connection(("127.0.0.1", rest)) as kept:
            succession = self.ask()
            self.assertTrue(succession.wait_until_free())
            succession.close()
            first.until("this process goes on")
            kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertIn(b"200 OK", kept.recv(4096))
        self.shake_hands(port)


class LostSuccessorTests(HandoverTestCase):
    """A successor that dies, at each step: its connection closes, as the kernel does it for a process that is killed."""

    def test_after_the_offer_nothing_has_changed(self) -> None:
        first = self.node()
        port, rest = first.until_it_serves()
        self.ask().tell_failed("a test")
        first.until("does not take over")
        self.serves_on(port, rest)
        self.assertFalse(any("draining" in record["event"] for record in first.seen))

    def test_while_the_first_lets_go_it_comes_back(self) -> None:
        first = self.node()
        port, rest = first.until_it_serves()
        device = self.device("phone-1", port)
        succession = self.ask()
        succession._sock.sendall(encode("held"))
        first.until("this one lets go")
        succession.close()
        first.until("this process goes on")
        self.serves_on(port, rest)
        self.still_delivers(rest, device)

    def test_when_it_was_its_turn_the_first_comes_back(self) -> None:
        first = self.node()
        port, rest = first.until_it_serves()
        device = self.device("phone-1", port)
        succession = self.ask()
        self.assertTrue(succession.wait_until_free())
        with socket.create_connection(("127.0.0.1", port)):  # while nobody accepts
            succession.close()
        first.until("this process goes on")
        self.serves_on(port, rest)
        self.still_delivers(rest, device)

    def test_a_successor_that_cannot_open_its_store_leaves_the_first(self) -> None:
        first = self.node()
        port, rest = first.until_it_serves()
        (self.root / "notes.db").write_text("notes of somebody " * 100)
        second = self.node("--set", "store.path=notes.db")
        self.assertEqual(second.ended(), 1)
        first.until("this process goes on")
        self.serves_on(port, rest)

    def test_while_the_store_is_still_held_the_first_tries_on_until_it_has_it(self) -> None:
        first = self.node()
        port, rest = first.until_it_serves()
        succession = self.ask()
        self.assertTrue(succession.wait_until_free())
        lock = FileLock(str(self.root / "streampush.db"))
        lock.take()
        succession.close()
        problem = first.until("cannot serve again yet")["problem"]
        self.assertIn(f"is in use by another process, {os.getpid()}", problem)
        with socket.create_connection(("127.0.0.1", rest)) as waiting:  # nobody is refused meanwhile
            lock.release(unchanged=True)
            self.assertEqual(first.until_it_serves(), (port, rest))
            waiting.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            self.assertIn(b"200 OK", waiting.recv(4096))
        self.serves_on(port, rest)

    def test_told_to_stop_while_nobody_serves_it_ends(self) -> None:
        first = self.node()
        first.until_it_serves()
        self.assertTrue(self.ask().wait_until_free())
        first.process.terminate()
        self.assertEqual(first.ended(), -signal.SIGTERM)

    def test_a_successor_with_a_fault_in_its_settings_does_not_ask(self) -> None:
        first = self.node()
        _, rest = first.until_it_serves()
        self.assertIn("heartbeat.misses", self.fault("--set", "node.handover=handover.sock", "--set", "heartbeat.misses=0"))
        self.healthy(rest)
        self.assertTrue(first.records.empty())

    def test_a_successor_that_is_killed_while_it_starts_leaves_the_first(self) -> None:
        first = self.node()
        port, rest = first.until_it_serves()
        second = self.node()
        first.until("asks for the listening sockets")
        self.kill(second)
        first.until("does not take over")
        self.serves_on(port, rest)

    def test_of_two_at_once_one_is_refused(self) -> None:
        first = self.node()
        port, rest = first.until_it_serves()
        succession = self.ask()
        said = self.fault("--set", "node.handover=handover.sock")
        text = f"process {first.pid} hands over nothing: process {os.getpid()} takes over already"
        self.assertEqual(said, f"streampush: {self.toml}: node.handover: {text}")
        succession.tell_failed("a test")
        first.until("does not take over")
        self.serves_on(port, rest)

    def serves_on(self, port: int, rest: int) -> None:
        self.healthy(rest)
        self.shake_hands(port)
        second = self.node()
        second.until("taken over from")
        self.healthy(rest)

    def still_delivers(self, rest: int, device: Listening) -> None:
        publisher = Publisher(rest, "device:phone-1")
        publisher.start()
        while not publisher.stored:
            self.healthy(rest)
        publisher.finish()
        self.assertEqual(publisher.refused, [])
        device.until(publisher.stored[-1])


class LostIncumbentTests(HandoverTestCase):
    def test_killed_behind_the_offer_the_successor_has_the_sockets(self) -> None:
        first = self.node()
        port, _ = first.until_it_serves()
        succession = self.ask()
        self.kill(first)
        with socket.create_connection(("127.0.0.1", port)):
            self.assertFalse(succession.wait_until_free())
            sock, _ = succession.received.sockets["stream"].accept()
            sock.close()

    def test_killed_while_it_lets_go_the_successor_goes_on(self) -> None:
        first = self.node("--set", "session.drain_timeout=60")
        port, rest = first.until_it_serves()
        device = self.device("phone-1", port)
        device.send_signal(signal.SIGSTOP)  # it does not leave
        second = self.node()
        first.until("another process takes over")
        self.kill(first)
        second.until("died while it was followed")
        second.until("taken over from")
        self.healthy(rest)
        self.shake_hands(port)

    def test_killed_when_the_successor_is_to_serve_the_successor_serves(self) -> None:
        first = self.node()
        first.until_it_serves()
        succession = self.ask()
        self.assertTrue(succession.wait_until_free())
        self.kill(first)
        succession.received.close()
        succession.tell_taken()  # to nobody

    def test_stopped_by_a_signal_while_it_is_followed_it_ends(self) -> None:
        first = self.node()
        first.until_it_serves()
        self.ask()
        first.process.terminate()
        first.ended()

    def test_one_that_hangs_is_not_followed(self) -> None:
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(self.path)
            silent.listen()
            said = self.fault("--set", "node.handover=handover.sock")
        self.assertIn("does not answer within 10 s", said)


class TrustTests(HandoverTestCase):
    def test_a_wrong_word_is_the_end_of_the_connection_and_of_nothing_else(self) -> None:
        first = self.node()
        _, rest = first.until_it_serves()
        for word in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x02{}", encode("taken"), b"\x00\x00\x00\x03{x}"):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(self.path)
                sock.sendall(word)
                self.assertIn(b'"failed"', sock.recv(4096))
                self.assertEqual(sock.recv(4096), b"")
        self.healthy(rest)

    def test_a_file_of_somebodys_is_not_replaced(self) -> None:
        (self.root / "handover.sock").write_text("notes")
        said = self.fault("--set", "node.handover=handover.sock")
        self.assertIn("node.handover", said)
        self.assertIn("is there and is no socket", said)
        self.assertEqual((self.root / "handover.sock").read_text(), "notes")

    def test_a_path_that_is_too_long_is_one_line(self) -> None:
        self.assertIn("for the path of a Unix socket", self.fault("--set", f"node.handover={'x' * 100}"))

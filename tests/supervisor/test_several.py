"""Three workers over one Redis, as processes: what devices and publishers see of the death of one of them."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import sys
import unittest
from itertools import count
from unittest import SkipTest

from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.framing import FrameDecoder, encode_frame
from tests.integration.handing_over import EXTRA, Listening, Publisher
from tests.redis_server import NOT_HERE, PROGRAM, shared_server
from tests.supervisor.launching import Launched, SupervisorTestCase

WORKERS = ("n-1", "n-2", "n-3")
DEVICES = 12

_NUMBERS = count(1)


class SeveralTestCase(SupervisorTestCase):
    def setUp(self) -> None:
        if PROGRAM is None:
            raise SkipTest(NOT_HERE)
        super().setUp()
        self.toml.write_text(self.toml.read_text() + EXTRA)
        self.settings = (
            *self.settings,
            "store.backend=redis",
            f"store.url={shared_server().url}",
            f"store.prefix=several-{os.getpid()}-{next(_NUMBERS)}",
            "reconnect.first_jitter=0.2",
            "reconnect.backoff_initial=0.1",
            "reconnect.degraded_after=1000",
        )

    def three(self, *settings: str) -> Launched:
        return self.serving(3, *settings)

    def listening(self, launched: Launched, name: str) -> Listening:
        """A device that is connected."""
        listening = Listening(self.root, name, launched.stream_port)
        self.addCleanup(listening.end)
        listening.until_connected()
        return listening

    def pushed(self, launched: Launched) -> Publisher:
        """A publisher under way."""
        publisher = Publisher(launched.rest_port, "device:phone-1")
        publisher.start()
        self.addCleanup(publisher.finish)
        self.go_on(publisher)
        return publisher

    def go_on(self, publisher: Publisher, number: int = 30) -> None:
        """So many more messages are stored."""
        wanted = len(publisher.stored) + number
        while len(publisher.stored) < wanted:
            publisher.join(0.05)
            self.assertTrue(publisher.is_alive())

    def nothing_is_lost(self, publisher: Publisher, device: Listening) -> None:
        """Whatever was answered with success arrived, and nobody was refused a connection."""
        publisher.finish()
        got = set(device.until(publisher.stored[-1]))
        self.assertEqual([text for text in publisher.stored if text not in got], [])
        self.assertEqual([why for why in publisher.refused if "ConnectionRefused" in why], [])


class ServingTests(SeveralTestCase):
    def test_all_workers_serve_on_the_same_ports_and_are_told_of_as_one(self) -> None:
        launched = self.three()
        devices = [self.device(launched, f"d-{number}") for number in range(DEVICES)]
        found = launched.readiness()
        self.assertEqual([(worker["name"], worker["state"]) for worker in found["workers"]], [(name, "ready") for name in WORKERS])
        self.assertEqual(launched.sample('streampush_connections{state="established"}'), len(devices))
        started = {f'process_start_time_seconds{{worker="{number}"}}' for number in (1, 2, 3)}
        self.assertNotIn(0.0, {launched.sample(name) for name in started})
        self.assertEqual(launched.sample('streampush_workers{state="ready"}'), 3)

    def test_the_connection_cap_is_spread(self) -> None:
        launched = self.three("admission.max_connections=3")
        for number in range(DEVICES):
            try:
                self.device(launched, f"d-{number}")
            except OSError:  # refused by a worker that has its one
                continue
        self.assertLessEqual(launched.sample('streampush_connections{state="established"}'), 3)

    def test_a_worker_that_hangs_does_not_keep_the_metrics(self) -> None:
        launched = self.three("node.worker_timeout=600")
        os.kill(launched.pids["n-3"], signal.SIGSTOP)
        self.addCleanup(os.kill, launched.pids["n-3"], signal.SIGCONT)
        text = self.metrics_of_any(launched)
        self.assertIn('process_start_time_seconds{worker="1"}', text)
        self.assertNotIn('process_start_time_seconds{worker="3"}', text)
        self.assertIn("streampush_worker_metrics_missing_total 1.0", text)

    def metrics_of_any(self, launched: Launched) -> str:
        """Of a worker that answers: the kernel may give a connection to the one that hangs."""

        while True:
            connection = http.client.HTTPConnection("127.0.0.1", launched.rest_port, timeout=10)
            try:
                connection.request("GET", "/metrics")
                return connection.getresponse().read().decode()
            except TimeoutError:
                continue
            finally:
                connection.close()


class LeavingTests(SeveralTestCase):
    def welcomed(self, launched: Launched, device: str) -> tuple[ssl.SSLSocket, str]:
        """A device that does not leave when it is told to, and which worker has it."""
        tls = self.handshake(self.connect(launched), device)
        tls.sendall(encode_frame(codec.encode(m.Hello(), 1)))
        decoder = FrameDecoder()
        while not (frames := decoder.feed(tls.recv(65536))):
            pass
        assert isinstance(frames[0], bytes)
        _, welcome = codec.decode(frames[0])
        assert isinstance(welcome, m.Welcome)
        return tls, welcome.node

    @unittest.skipUnless(sys.platform == "linux", "the kernel picks the worker")
    def test_a_worker_that_leaves_gets_no_new_connections(self) -> None:
        launched = self.serving(2, "session.drain_timeout=60")
        tls, leaving = self.welcomed(launched, "phone-1")
        os.kill(launched.pids[leaving], signal.SIGTERM)
        launched.until_event("new connections go to all workers", but=f" but {leaving}")
        found = {self.welcomed(launched, f"tablet-{number}")[1] for number in range(DEVICES)}
        self.assertEqual(found, {"n-1", "n-2"} - {leaving})
        tls.close()
        launched.until_event("has left", worker=leaving)
        launched.until_event("new connections go to all workers", but="")


class DeathTests(SeveralTestCase):
    def test_a_worker_is_killed_under_load_and_nothing_is_lost(self) -> None:
        launched = self.three()
        device = self.listening(launched, "phone-1")
        publisher = self.pushed(launched)
        for name in WORKERS:  # one of them has the device
            os.kill(launched.pids[name], signal.SIGKILL)
            self.assertEqual(launched.until_event("has died")["worker"], name)
            self.go_on(publisher)
            launched.until_ready(name)
        self.nothing_is_lost(publisher, device)
        self.assertEqual(launched.sample('streampush_worker_restarts_total{reason="signal"}'), 3)

    def test_a_worker_hangs_under_load_and_nothing_is_lost(self) -> None:
        launched = self.three("node.worker_timeout=1.5", "heartbeat.interval=1", "heartbeat.reply_timeout=0.5")
        device = self.listening(launched, "phone-1")
        publisher = self.pushed(launched)
        os.kill(launched.pids["n-2"], signal.SIGSTOP)
        self.assertEqual(launched.until_event("has died")["reason"], "hung")
        launched.until_ready("n-2")
        self.go_on(publisher)
        self.nothing_is_lost(publisher, device)

    def test_workers_are_renewed_one_by_one_under_load(self) -> None:
        launched = self.three()
        device = self.listening(launched, "phone-1")
        publisher = self.pushed(launched)
        for name in WORKERS:
            os.kill(launched.pids[name], signal.SIGTERM)
            launched.until_event("has left", worker=name)
            launched.until_ready(name)
        self.go_on(publisher)
        self.nothing_is_lost(publisher, device)
        self.assertEqual(publisher.refused, [])

    def test_the_supervisor_is_killed_under_load_and_another_goes_on_where_it_was(self) -> None:
        launched = self.three()
        device = self.listening(launched, "phone-1")
        publisher = self.pushed(launched)
        launched.process.kill()
        for _ in WORKERS:
            launched.until_event("the supervisor is gone")
        again = self.three(f"listen.port={launched.stream_port}", f"rest.port={launched.rest_port}")
        self.assertEqual(again.readiness()["ready"], True)
        self.go_on(publisher)
        publisher.finish()
        got = set(device.until(publisher.stored[-1]))
        self.assertEqual([text for text in publisher.stored if text not in got], [])

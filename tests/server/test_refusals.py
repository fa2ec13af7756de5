from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from streampush.observe.metrics import Metrics
from streampush.observe.server_figures import REFUSAL_REASONS
from streampush.server.admission import ACCEPT_RATE, ADDRESS_LIMIT, CONNECTION_LIMIT, DRAINING, HANDSHAKE_LIMIT
from streampush.server.introductions import NOT_A_PROXY, PROXY_HEADER, PROXY_TIMEOUT, PROXY_WAITING
from streampush.server.listener import NO_DESCRIPTORS
from streampush.server.refusals import INTERVAL, Refusals


class RefusalTests(TestCase):
    def setUp(self) -> None:
        self.registry = CollectorRegistry()
        self.refusals = Refusals(Metrics(self.registry, "1"))
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self._observe)
        self.addCleanup(globalLogPublisher.removeObserver, self._observe)

    def _observe(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "streampush.connections":
            self.lines.append(formatEvent(event))

    def count(self, reason: str) -> float | None:
        return self.registry.get_sample_value("streampush_refused_connections_total", {"reason": reason})

    def test_each_is_counted_and_the_first_of_a_reason_is_told_with_its_address(self) -> None:
        for _ in range(5):
            self.refusals.refused(CONNECTION_LIMIT, "192.0.2.1", 100.0)
        self.assertEqual(self.count(CONNECTION_LIMIT), 5)
        self.assertEqual(self.lines, ["192.0.2.1: refused before TLS: connection_limit, and 0 others since the last such line"])

    def test_a_storm_is_one_line_in_an_interval_with_the_number_of_the_others(self) -> None:
        for number in range(1_000):
            self.refusals.refused(ACCEPT_RATE, "192.0.2.1", 100.0 + number * INTERVAL / 1_000)
        self.refusals.refused(ACCEPT_RATE, "192.0.2.2", 100.0 + INTERVAL)
        self.assertEqual(len(self.lines), 2)
        self.assertIn("192.0.2.2: refused before TLS: accept_rate, and 999 others", self.lines[1])

    def test_reasons_have_lines_of_their_own(self) -> None:
        self.refusals.refused(ACCEPT_RATE, "192.0.2.1", 100.0)
        self.refusals.refused(HANDSHAKE_LIMIT, "192.0.2.1", 100.0)
        self.assertEqual(len(self.lines), 2)

    def test_draining_is_counted_and_no_news(self) -> None:
        self.refusals.refused(DRAINING, "192.0.2.1", 100.0)
        self.assertEqual((self.count(DRAINING), self.lines), (1, []))

    def test_every_reason_has_a_label_of_its_own(self) -> None:
        reasons = {ACCEPT_RATE, ADDRESS_LIMIT, CONNECTION_LIMIT, DRAINING, HANDSHAKE_LIMIT, NO_DESCRIPTORS}
        reasons |= {NOT_A_PROXY, PROXY_HEADER, PROXY_TIMEOUT, PROXY_WAITING}
        self.assertEqual(set(REFUSAL_REASONS), reasons)

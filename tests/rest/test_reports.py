"""Metrics and health over Unix sockets: between workers and their supervisor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from streampush.observe.health import Flag, Health
from streampush.rest.asking import Asker, NoAnswer
from streampush.rest.problems import Answer
from streampush.rest.reports import ALIVE, METRICS, READY, OwnReports, RelayedReports, ReportSite, json_body
from tests.integration.harness import run
from tests.store.folders import quick_folder

clock: Any = reactor


class Says(Protocol):
    """Answers every question with these bytes; closes, or does not."""

    def __init__(self, text: bytes, closes: bool) -> None:
        self.text = text
        self.closes = closes

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(self.text)
        if self.closes:
            self.transport.loseConnection()


class ReportsTestCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        directory = quick_folder()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "x.sock")
        self.flag = Flag()
        registry = CollectorRegistry()
        Counter("things_total", "Things.", registry=registry).inc(3)
        self.own = OwnReports(Health({"flag": self.flag}), registry, clock.seconds)

    def listen(self, factory: Any) -> None:
        port = clock.listenUNIX(self.path, factory, mode=0o600)
        self.addCleanup(port.stopListening)

    def says(self, text: bytes, *, closes: bool = True) -> None:
        self.listen(Factory.forProtocol(lambda: Says(text, closes)))

    def asker(self, deadline: float = 30.0, max_bytes: int = 10_000) -> Asker:
        return Asker(clock, self.path, deadline=deadline, max_bytes=max_bytes)

    async def fails(self, asker: Asker) -> str:
        try:
            await asker.ask(READY)
        except NoAnswer as error:
            return str(error)
        raise AssertionError("was answered")


class AskTests(ReportsTestCase):
    @run
    async def test_all_three_are_answered(self) -> None:
        self.listen(ReportSite(self.own, clock))
        asker = self.asker()
        self.assertIn(b"\nthings_total 3.0\n", (await asker.ask(METRICS)).body)
        self.assertEqual(json_body(await asker.ask(ALIVE)), {"alive": True})
        self.assertEqual((await asker.ask(READY)).status, 200)
        self.flag.reason = "not now"
        answer = await asker.ask(READY)
        self.assertEqual((answer.status, json_body(answer)), (503, {"ready": False, "reasons": ["flag: not now"]}))

    @run
    async def test_the_socket_is_for_its_owner_only(self) -> None:
        self.listen(ReportSite(self.own, clock))
        self.assertEqual(Path(self.path).stat().st_mode & 0o777, 0o600)

    @run
    async def test_there_is_nothing_else(self) -> None:
        self.listen(ReportSite(self.own, clock))
        self.assertEqual((await self.asker().ask("/v1/publish")).status, 404)

    @run
    async def test_a_report_that_fails_is_logged_and_answered(self) -> None:
        class Failing(OwnReports):
            async def alive(self) -> Answer:
                raise RuntimeError("a bug")

        self.listen(ReportSite(Failing(Health(), CollectorRegistry(), clock.seconds), clock))
        self.assertEqual((await self.asker().ask(ALIVE)).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    @run
    async def test_who_goes_before_the_answer_does_no_harm(self) -> None:
        later: Deferred[Answer] = Deferred()

        class Slow(OwnReports):
            async def ready(self) -> Answer:
                return await later

        self.listen(ReportSite(Slow(Health(), CollectorRegistry(), clock.seconds), clock))
        self.assertIn("not within", await self.fails(self.asker(deadline=0.2)))
        await self.asker().ask(ALIVE)  # by now the site has seen that the first is gone
        later.callback(Answer(200, b"{}"))


class NoAnswerTests(ReportsTestCase):
    @run
    async def test_nobody_there(self) -> None:
        self.assertIn("cannot be reached", await self.fails(self.asker()))

    @run
    async def test_one_that_hangs_is_given_up_at_the_deadline(self) -> None:
        self.says(b"", closes=False)
        self.assertEqual(await self.fails(self.asker(deadline=0.1)), "not within 0.1 s")

    @run
    async def test_one_that_is_cut_in_the_middle_is_no_answer(self) -> None:
        self.says(b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        self.assertEqual(await self.fails(self.asker()), "its answer is not whole")

    @run
    async def test_what_is_no_http_is_no_answer(self) -> None:
        self.says(b"220 mail\r\n\r\n")
        self.assertEqual(await self.fails(self.asker()), "its answer is not whole")

    @run
    async def test_an_answer_without_end_is_cut(self) -> None:
        self.says(b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000, closes=False)
        asker = self.asker(max_bytes=1000)
        self.assertIn(await self.fails(asker), ("more than 5096 bytes", "its answer is not whole"))


class RelayTests(ReportsTestCase):
    def relayed(self) -> RelayedReports:
        return RelayedReports(self.own, self.asker())

    @run
    async def test_what_the_supervisor_says_is_passed_on(self) -> None:
        body = b'{"ready": false, "reasons": ["x"]}'
        self.says(b"HTTP/1.0 503 No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        for question in (self.relayed().ready, self.relayed().alive, self.relayed().metrics):
            answer = await question()
            self.assertEqual((answer.status, answer.body, answer.content_type), (503, body, "application/json"))

    @run
    async def test_without_a_supervisor_health_is_this_processs_own(self) -> None:
        self.assertEqual((await self.relayed().ready()).status, 200)
        self.flag.reason = "not now"
        self.assertEqual((await self.relayed().ready()).status, 503)
        self.assertEqual((await self.relayed().alive()).status, 200)

    @run
    async def test_without_a_supervisor_there_are_no_metrics_rather_than_a_part_of_them(self) -> None:
        answer = await self.relayed().metrics()
        self.assertEqual(answer.status, 503)
        self.assertIn("supervisor", str(json_body(Answer(503, answer.body))))

"""What `/metrics`, `/healthz` and `/readyz` answer: for this process, or, in a worker of several, for all of them.

Workers and their supervisor tell one another over Unix sockets in a folder of their own, in HTTP/1.0: one question a connection.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sized
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from streampush.rest.asking import Asker, NoAnswer
from streampush.rest.ports import Readiness
from streampush.rest.problems import JSON, Answer, Problem, json_answer, unexpected

METRICS: Final = "/metrics"
ALIVE: Final = "/healthz"
READY: Final = "/readyz"

QUESTION_TIMEOUT: Final = 30
"""Seconds for a question on a Unix socket to become complete, and for its connection to be closed by who asked."""

_log: Final = Logger()


class Reports(Protocol):
    """Answers the three questions; does not raise."""

    async def metrics(self) -> Answer:
        """Prometheus' text format."""

    async def alive(self) -> Answer:
        """That somebody answers."""

    async def ready(self) -> Answer:
        """200 if the node should get traffic, else 503 with reasons."""


class OwnReports:
    """Of this process alone. `seconds` gives the monotonic time that `health` is asked with."""

    def __init__(self, health: Readiness, registry: CollectorRegistry, seconds: Callable[[], float]) -> None:
        self._health = health
        self._registry = registry
        self._seconds = seconds

    async def metrics(self) -> Answer:
        """See Reports."""
        return Answer(200, generate_latest(self._registry), CONTENT_TYPE_LATEST)

    async def alive(self) -> Answer:
        """See Reports."""
        return json_answer({"alive": True})

    async def ready(self) -> Answer:
        """See Reports."""
        ready, reasons = self._health.ready(self._seconds())
        return json_answer({"ready": ready, "reasons": list(reasons)}, 200 if ready else 503)


class RelayedReports:
    """Of all workers, as the supervisor tells; of this one alone while it does not answer, but for metrics: counters of one worker
    among those of all would look like a restart."""

    def __init__(self, own: Reports, asker: Asker) -> None:
        self._own = own
        self._asker = asker

    async def metrics(self) -> Answer:
        """See Reports."""
        try:
            return await self._asker.ask(METRICS)
        except NoAnswer as error:
            return Problem(503, f"the supervisor of the workers does not answer: {error}").answer()

    async def alive(self) -> Answer:
        """See Reports."""
        try:
            return await self._asker.ask(ALIVE)
        except NoAnswer:
            return await self._own.alive()

    async def ready(self) -> Answer:
        """See Reports."""
        try:
            return await self._asker.ask(READY)
        except NoAnswer:
            return await self._own.ready()


class ReportSite(Site):
    """Serves reports, and nothing else, to whoever can reach the socket: it has no keys."""

    noisy = False

    def __init__(self, reports: Reports, clock: Any) -> None:
        super().__init__(_Reported(reports), timeout=QUESTION_TIMEOUT, reactor=clock)  # type: ignore[no-untyped-call]  # not annotated
        self.displayTracebacks = False

    def startFactory(self) -> None:
        """No access log."""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def log(self, request: HTTPRequest) -> None:
        """No access log."""


class _Reported(Resource):
    isLeaf = True

    def __init__(self, reports: Reports) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated
        self._reports: Mapping[bytes, Callable[[], Awaitable[Answer]]] = {
            METRICS.encode(): reports.metrics,
            ALIVE.encode(): reports.alive,
            READY.encode(): reports.ready,
        }

    def render_GET(self, request: Request) -> int:
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        Deferred.fromCoroutine(self._answer(request, gone))
        return NOT_DONE_YET

    async def _answer(self, request: Request, gone: Sized) -> None:
        answer = await self._report(request.path)
        if gone:
            return
        request.setResponseCode(answer.status)
        request.setHeader("Content-Type", answer.content_type)  # type: ignore[no-untyped-call]  # not annotated
        request.setHeader("Content-Length", str(len(answer.body)))  # type: ignore[no-untyped-call]  # not annotated
        request.write(answer.body)  # type: ignore[no-untyped-call]  # not annotated
        request.finish()  # type: ignore[no-untyped-call]  # not annotated

    async def _report(self, path: bytes) -> Answer:
        report = self._reports.get(path)
        if report is None:
            return Problem(404, "there is nothing at this path").answer()
        try:
            return await report()
        except Exception:  # noqa: BLE001 - the last owner of the question: logs it and answers
            _log.failure("a report failed")
            return unexpected().answer()


def json_body(answer: Answer) -> dict[str, Any] | None:
    """The object that an answer holds; None if it holds none."""
    if answer.content_type != JSON:
        return None
    try:
        value = json.loads(answer.body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None

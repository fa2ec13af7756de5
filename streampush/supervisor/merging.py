"""What the supervisor answers for all workers: their metrics as sums, and whether any of them is ready."""

from __future__ import annotations

from typing import Any, Final

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from streampush.rest.asking import Asker, NoAnswer
from streampush.rest.problems import Answer, json_answer
from streampush.rest.reports import METRICS
from streampush.supervised import Supervised
from streampush.supervisor.figures import SupervisorFigures
from streampush.supervisor.roster import Roster, State, Worker
from streampush.supervisor.shares import worker_name
from streampush.supervisor.totals import Answers, BadMetrics, Totals, parse

METRICS_DEADLINE: Final = 2.0
"""Seconds for a worker's metrics: a scrape must have its answer, with or without one that hangs."""

MAX_METRICS: Final = 2 * 1024 * 1024
"""Bytes of one worker's metrics; they take some 50 KiB."""

_SERVES: Final = frozenset({State.STARTING, State.READY, State.UNREADY, State.DRAINING})


class MergedReports:
    """See rest.reports.Reports. Scrapes that come while one is under way get its answer."""

    _log = Logger()

    def __init__(self, reactor: Any, roster: Roster, folder: str, node_name: str, figures: SupervisorFigures) -> None:
        self._roster = roster
        self._node_name = node_name
        self._figures = figures
        self._totals = Totals()
        self._waiting: list[Deferred[Answer]] | None = None
        self._askers = {
            worker.number: Asker(
                reactor, Supervised(folder, worker.number).socket, deadline=METRICS_DEADLINE, max_bytes=MAX_METRICS
            )
            for worker in roster.workers
        }

    # ------------------------------------------------------------------------------------------------------------- readiness

    async def alive(self) -> Answer:
        """The supervisor runs, and has the workers that die started again: nobody else needs to."""
        return json_answer({"alive": True, "workers": [self._described(worker) for worker in self._roster.workers]})

    async def ready(self) -> Answer:
        """Ready if any worker is: the others' connections are taken by it or wait. The reasons of all are named if none is."""
        workers = [self._described(worker) for worker in self._roster.workers]
        ready = not self._roster.stopping and any(worker["state"] == State.READY.value for worker in workers)
        if ready:
            reasons = []
        elif self._roster.stopping:
            reasons = ["draining: the node is being stopped"]
        else:
            reasons = [f"{worker['name']}: {why}" for worker in workers for why in worker["reasons"] or [worker["state"]]]
        return json_answer({"ready": ready, "reasons": reasons, "workers": workers}, 200 if ready else 503)

    def _described(self, worker: Worker) -> dict[str, Any]:
        name = worker_name(self._node_name, worker.number)
        return {"name": name, "state": worker.state.value, "reasons": list(worker.reasons)}

    # --------------------------------------------------------------------------------------------------------------- metrics

    async def metrics(self) -> Answer:
        """All workers' as one node's, and the supervisor's own."""
        if self._waiting is not None:
            waiting: Deferred[Answer] = Deferred()
            self._waiting.append(waiting)
            return await waiting
        self._waiting = []
        try:
            answer = await self._collect()
        finally:
            others, self._waiting = self._waiting, None
        for other in others:
            other.callback(answer)
        return answer

    async def _collect(self) -> Answer:
        asked = [worker for worker in self._roster.workers if worker.state in _SERVES and worker.heard]
        answers: Answers = {}
        await gatherResults([Deferred.fromCoroutine(self._ask(worker, answers)) for worker in asked], consumeErrors=True)
        text = self._totals.render(answers) + self._figures.text()
        return Answer(200, text.encode("utf-8"), CONTENT_TYPE_LATEST)

    async def _ask(self, worker: Worker, answers: Answers) -> None:
        incarnation = worker.incarnation
        try:
            answer = await self._askers[worker.number].ask(METRICS)
            if answer.status != 200:
                raise NoAnswer(f"status {answer.status}")
            answers[worker.number] = incarnation, parse(answer.body.decode("utf-8", "replace"))
        except (NoAnswer, BadMetrics) as error:
            self._figures.unanswered += 1
            self._log.warn("no metrics of worker {worker}: {problem}", worker=worker.number, problem=str(error))

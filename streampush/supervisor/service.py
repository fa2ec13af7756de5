"""A node of several workers, from its start to its end. It serves no device itself."""

from __future__ import annotations

import math
import os
import random
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from types import FrameType
from typing import Any, Final, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from streampush.config import Config
from streampush.errors import ConfigError
from streampush.handover.inherited import Inherited
from streampush.handover.notify import ServiceNotices
from streampush.handover.upgrades import Launch
from streampush.observe.log import LineObserver
from streampush.rest.asking import NoAnswer
from streampush.rest.reports import ReportSite
from streampush.supervised import Told
from streampush.supervisor.doors import Doors
from streampush.supervisor.figures import SupervisorFigures
from streampush.supervisor.merging import MergedReports
from streampush.supervisor.process import WorkerProcess
from streampush.supervisor.queues import Queue, bind_all, close_all
from streampush.supervisor.roster import (
    ALIVE,
    Ask,
    Avoid,
    Death,
    GiveUp,
    Hurry,
    Kill,
    Order,
    Over,
    Park,
    Reason,
    Roster,
    Start,
    State,
    Stop,
)
from streampush.supervisor.shares import settings, worker_name
from streampush.supervisor.sockets import WorkerSockets
from streampush.supervisor.steering import BY_ADDRESS
from streampush.supervisor.succession import SupervisorSuccession
from streampush.supervisor.times import Times

DESCRIPTORS: Final = 64
DESCRIPTORS_EACH: Final = 12
"""File descriptors of the supervisor itself, and for each worker: sockets of its queues, pipe, questions."""

_CANNOT_SPAWN: Final = Death(71)
"""EX_OSERR of sysexits.h: the system could not make a process."""


class Supervisor(Service):
    """Starts the workers, keeps them running, answers for all of them.

    `inherited`: listening sockets that systemd opened, which all workers share.
    `command` makes a worker's command line of settings in the form "section.key=value", `environ` is what its environment is made
    of, and `log` the file descriptor of its standard output. `give_up` ends this process with the status of one that cannot start;
    the workers are gone then.
    """

    _log = Logger(namespace="streampush.supervisor")
    name = "streampush"

    def __init__(
        self,
        reactor: Any,
        config: Config,
        observer: LineObserver | None = None,
        warnings: tuple[str, ...] = (),
        *,
        inherited: Inherited,
        node_name: str,
        command: Callable[[Sequence[str]], list[str]],
        environ: Mapping[str, str],
        log: int,
        give_up: Callable[[], None],
        launch: Launch | None = None,
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._observer = observer
        self._warnings = warnings
        self._inherited = inherited
        self._node_name = node_name
        self._command = command
        self._environ = environ
        self._notices = ServiceNotices(environ)
        self._log_descriptor = log
        self._give_up = give_up
        self._times = Times.of(config)
        self.roster = Roster(config.node.workers, self._times, random.random)
        self._processes: dict[int, WorkerProcess] = {}
        self._queues: list[list[Queue]] = []
        self._doors = Doors([[]], by_address=False)
        self._sockets = WorkerSockets(reactor, config, environ, self._times.ask_deadline)
        self._port: IListeningPort | None = None
        self._alarm: IDelayedCall | None = None
        self._over: Deferred[None] = Deferred()
        self._old_hangup: Any = None
        self._old_upgrade: Any = None
        self._is_followed = False
        self._succession = SupervisorSuccession(
            reactor,
            config,
            launch or Launch((), {}, "", "nobody knows how this process was started"),
            queues=lambda: self._doors.listening(),
            ready=self._all_ready,
            leave=self._leave,
        )

    def setServiceParent(self, parent: Any) -> None:
        """Under twistd the parent is the application, and what it has as ILogObserver becomes the process's log."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]  # nor this

    # ------------------------------------------------------------------------------------------------------------ start, stop

    @property
    def ports(self) -> dict[str, int]:
        """The ports that the kernel gave, by "stream" and "rest"."""
        return {queue.name: int(queue.socket.getsockname()[1]) for queue in self._queues[0]}

    def privilegedStartService(self) -> None:
        """Takes the ports, for all workers. What cannot be had is one line on stderr and exit status 1."""
        try:
            self._check_descriptors()
            found = replace(self._inherited, sockets={**self._inherited.sockets, **self._succession.ask()})
            self._queues = bind_all(self._config, self._config.node.workers, found.sockets)
            by_address = self._config.listen.steering == BY_ADDRESS
            self._doors = Doors(self._queues, by_address=by_address, inherited=tuple(found.sockets))
            found.close()  # each worker has a copy
        except ConfigError as error:
            self._refuse(error)

    def _refuse(self, error: ConfigError) -> NoReturn:
        self._succession.give_up(str(error))
        print(f"streampush: {error}", file=sys.__stderr__)  # sys.stderr is the log's by now
        raise SystemExit(1)

    def _check_descriptors(self) -> None:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = DESCRIPTORS + DESCRIPTORS_EACH * self._config.node.workers
        if 0 <= limit < needed:
            text = f"{self._config.node.workers} workers need {needed} file descriptors in their supervisor, the limit is {limit}"
            raise ConfigError(self._config.file, "node.workers", f"{text}; raise it with `ulimit -n` or LimitNOFILE")

    def startService(self) -> None:
        """The first worker is started when the reactor runs."""
        if not self._queues:
            self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        if self._observer is not None:
            self._observer.start()
        try:
            self._succession.start()
            self._open_folder()
        except ConfigError as error:
            self._refuse(error)
        for warning in self._warnings:
            self._log.warn("{problem}", problem=warning)
        self._old_hangup = signal.signal(signal.SIGHUP, self._hangup)
        self._old_upgrade = signal.signal(signal.SIGUSR2, self._upgrade)
        self._reactor.callWhenRunning(self._begin)

    def _open_folder(self) -> None:
        self._sockets.open()
        folder = self._sockets.folder
        reports = MergedReports(self._reactor, self.roster, folder, self._node_name, SupervisorFigures(self.roster))
        supervisor = self._sockets.place(self._config.node.workers).supervisor
        self._port = self._reactor.listenUNIX(supervisor, ReportSite(reports, self._reactor), mode=0o600)

    def _begin(self) -> None:
        self._log.info(
            "streampush {version} supervises {workers} workers on {ports}",
            version=version("streampush"),
            workers=len(self.roster.workers),
            ports=", ".join(f"{name} port {number}" for name, number in self.ports.items()),
            stream_port=self.ports["stream"],
            rest_port=self.ports.get("rest"),
        )
        self.roster.begin(self._reactor.seconds())
        self._go_on()

    def stopService(self) -> Deferred[None]:
        """All workers drain, together; fires when they are gone."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        hurried = {number: signal.signal(number, self._hurry) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            if not self._over.called:
                if not self._is_followed:
                    self._notices.stopping()
                self._log.info("stopping {workers} workers", workers=len(self._processes))
                self.roster.stop(self._reactor.seconds())
                self._go_on()
                await self._over
        finally:
            for number, before in hurried.items():
                signal.signal(number, before)
        await self._close()
        self._succession.give_up("it was stopped before it was ready")
        self._log.info("stopped")
        if self._observer is not None:
            self._observer.stop()

    async def _close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        close_all(self._queues)
        await self._succession.stop()
        if self._port is not None:
            stopped = self._port.stopListening()
            if stopped is not None:
                await stopped
        self._sockets.remove()
        if self._old_hangup is not None:
            signal.signal(signal.SIGHUP, self._old_hangup)
            signal.signal(signal.SIGUSR2, self._old_upgrade)

    def _hurry(self, signum: int, frame: FrameType | None) -> None:
        """Whoever sends a second signal does not want to wait."""
        self._reactor.callFromThread(self.hurry)

    def hurry(self) -> None:
        """The stop that is under way takes no longer than it must."""
        self.roster.hurry(self._reactor.seconds())
        self._go_on()

    def _upgrade(self, signum: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._succession.upgrade)

    def _all_ready(self) -> tuple[bool, tuple[str, ...]]:
        waiting = [worker.number for worker in self.roster.workers if worker.state is not State.READY]
        return not waiting, tuple(f"{self._named(number)} is not ready" for number in waiting)

    def _leave(self, successor: int) -> None:
        self._is_followed = True
        self._notices.followed_by(successor)
        self._reactor.stop()

    def _hangup(self, signum: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self.reload)

    def reload(self) -> None:
        """Every worker reads its certificates and lists again. One that starts just now reads them anyway."""
        for worker in self.roster.workers:
            if worker.heard and worker.state in ALIVE:
                self._processes[worker.number].kill(signal.SIGHUP)

    # ----------------------------------------------------------------------------------------------------------------- orders

    def _go_on(self) -> None:
        """Something has happened, or is due."""
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        self._alarm = None
        for order in self.roster.advance(self._reactor.seconds()):
            self._obey(order)
        if self._alarm is None and self.roster.deadline < math.inf:
            self._alarm = self._reactor.callLater(max(0.0, self.roster.deadline - self._reactor.seconds()), self._wake)

    def _wake(self) -> None:
        self._alarm = None
        self._go_on()

    def _obey(self, order: Order) -> None:
        match order:
            case Start(number):
                self._start(number)
            case Park(number):
                self._park(number)
            case Avoid(numbers):
                self._avoid(numbers)
            case Ask(number):
                Deferred.fromCoroutine(self._ask(number)).addErrback(self._failed)
            case Stop(number, early):
                self._tell_to_stop(number, early)
            case Hurry(number):
                self._processes[number].tell(Told.HURRY)
            case Kill(number, which):
                self._log.error("{worker} gets {signal}", worker=self._named(number), signal=which.name)
                self._processes[number].kill(which)
            case GiveUp():
                self._over.callback(None)
                self._give_up()
            case Over():
                self._over.callback(None)

    def _start(self, number: int) -> None:
        place = self._sockets.place(number)
        process = WorkerProcess(lambda death: self._reactor.callLater(0, self._ended, number, death))  # an order is being obeyed
        command = self._command(settings(self._config, self._node_name, number, os.cpu_count() or 1))
        try:
            if os.path.exists(place.socket):
                os.unlink(place.socket)  # of a process that was killed
            self._doors.open(number)
            process.start(self._reactor, command, self._environ, place, self._queues[number - 1], self._log_descriptor)
        except OSError as error:
            self._log.error("{worker} cannot be started: {problem}", worker=self._named(number), problem=str(error))
            self._reactor.callLater(0, self._ended, number, _CANNOT_SPAWN)
            return
        self._processes[number] = process
        self._log.info("{worker} starts as process {pid}", worker=self._named(number), pid=process.pid)

    def _park(self, number: int) -> None:
        try:
            self._doors.park(number)
        except OSError as error:  # a low port, and the right to bind it was given up
            self._log.warn("what waits for {worker} goes on waiting: {problem}", worker=self._named(number), problem=str(error))

    def _avoid(self, numbers: frozenset[int]) -> None:
        self._doors.avoid(numbers)
        avoided = ", ".join(self._named(number) for number in sorted(numbers))
        self._log.info("new connections go to all workers{but}", but=f" but {avoided}" if avoided else "")

    async def _ask(self, number: int) -> None:
        worker = self.roster.worker(number)
        incarnation = worker.incarnation
        try:
            reasons = await self._sockets.reasons(number)
        except NoAnswer as error:
            if worker.incarnation == incarnation:
                self._unanswered(number, str(error))
        else:
            if worker.incarnation == incarnation:
                before = worker.state
                self.roster.answered(number, reasons, self._reactor.seconds())
                if worker.state is not before:
                    if worker.state is State.READY:
                        self._notices.serving()
                    self._log.info(
                        "{worker} is {state}", worker=self._named(number), state=worker.state.value, reasons="; ".join(reasons)
                    )
        self._go_on()

    def _unanswered(self, number: int, problem: str) -> None:
        worker = self.roster.worker(number)
        if worker.heard:
            self._log.warn("{worker} does not answer: {problem}", worker=self._named(number), problem=problem)
        self.roster.unanswered(number, self._reactor.seconds())

    def _tell_to_stop(self, number: int, early: bool) -> None:
        if self._is_followed:  # the worker is alone in stopping: others take its connections, and it refuses nobody
            self._processes[number].kill(signal.SIGTERM)
            return
        self._processes[number].tell(Told.DRAIN)
        if early:  # it may not listen yet; a process that is not up yet ends at once by this
            self._processes[number].kill(signal.SIGTERM)

    def _ended(self, number: int, death: Death) -> None:
        self._processes.pop(number, None)
        restarted = self.roster.died(number, death, self._reactor.seconds())
        if restarted is None:
            self._log.info("{worker} has ended: {death}", worker=self._named(number), death=str(death))
        elif restarted.reason is Reason.LEFT:
            self._log.info(
                "{worker} has left, as it was told ({death}), the next starts", worker=self._named(number), death=str(death)
            )
        else:
            self._log.error(
                "{worker} has died ({reason}): {death}, the next starts in {wait} s",
                worker=self._named(number),
                reason=restarted.reason.value,
                death=str(death),
                wait=round(restarted.wait, 2),
            )
        self._go_on()

    def _named(self, number: int) -> str:
        return worker_name(self._node_name, number)

    def _failed(self, failure: Any) -> None:
        self._log.failure("a question failed", failure=failure)

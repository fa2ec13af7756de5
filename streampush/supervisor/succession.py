"""A supervisor follows another on the sockets of all workers, and is followed.

Workers of both accept from the same queues for a moment, for their store is everybody's; so nothing has to be let go of before. The
queues of worker i are handed over as `stream.i` and `rest.i`; sockets that all workers share keep their names.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import Logger

from streampush.config import Config
from streampush.errors import ConfigError
from streampush.handover.incumbent import Incumbent, Share
from streampush.handover.inherited import REST, STREAM, check_listening
from streampush.handover.readiness import ReadyWatch
from streampush.handover.successor import HandoverRefused, Succession, ask
from streampush.handover.upgrades import Launch, Upgrades
from streampush.node_ports import check_exposure, is_at, served_names
from streampush.supervisor.queues import Queue

NOTHING_TO_RELEASE: Final = 5.0
"""Seconds that a successor waits for an answer which takes none."""


class SupervisorSuccession:
    """`queues` are this supervisor's, with their workers' numbers, `ready` says whether all workers are, `leave` ends this process
    for a successor's sake."""

    _log = Logger(namespace="streampush.handover")
    release_time = NOTHING_TO_RELEASE

    def __init__(
        self,
        reactor: Any,
        config: Config,
        launch: Launch,
        *,
        queues: Callable[[], list[tuple[int, Queue]]],
        ready: Callable[[], tuple[bool, tuple[str, ...]]],
        leave: Callable[[int], None],
    ) -> None:
        self._config = config
        self._queues = queues
        self._leave = leave
        self._succession: Succession | None = None
        self._watch = ReadyWatch(reactor, ready, self._take_over)
        self._incumbent = Incumbent(reactor, config.node.handover, self)
        self._path = config.node.handover
        unable = "" if self._path else "node.handover is not set: a successor would not find this process"
        self._upgrades = Upgrades(reactor, self._incumbent, launch, unable)

    def upgrade(self) -> None:
        """Starts a successor."""
        self._upgrades.order()

    # ---------------------------------------------------------------------------------------------------------------- following

    def ask(self) -> dict[str, socket.socket]:
        """The sockets of the supervisor before this one that fit the settings, by their names there. Raises ConfigError."""
        if not self._path:
            return {}
        try:
            self._succession = ask(self._path)
        except HandoverRefused as error:
            raise ConfigError(self._config.file, "node.handover", str(error)) from None
        return {} if self._succession is None else self._fitting(self._succession)

    def _fitting(self, succession: Succession) -> dict[str, socket.socket]:
        config, received = self._config, succession.received
        wanted = {STREAM: (config.listen.address, config.listen.port), REST: (config.rest.address, config.rest.port)}
        kept = {}
        for name, sock in received.sockets.items():
            kind = name.partition(".")[0]
            if kind in served_names(config) and (name in received.foreign or is_at(sock, *wanted[kind])):
                kept[name] = sock
            else:
                sock.close()
        check_exposure(self._config, kept)
        return kept

    def start(self) -> None:
        """Answers successors; or waits for the workers first, and tells the one before this. Raises ConfigError."""
        if self._succession is None:
            self._answer()
            return
        try:
            self._succession.wait_until_free()
        except HandoverRefused as error:
            raise ConfigError(self._config.file, "node.handover", str(error)) from None
        self._watch.start()

    def give_up(self, problem: str) -> None:
        """This process ends before it serves; the one before it goes on."""
        if self._succession is not None:
            self._succession.tell_failed(problem)
            self._succession = None

    def _answer(self) -> None:
        if not self._path:
            return
        try:
            self._incumbent.start()
        except OSError as error:
            raise ConfigError(self._config.file, "node.handover", f"{self._path}: {error.strerror}") from error

    def _take_over(self) -> None:
        succession, self._succession = self._succession, None
        assert succession is not None
        try:
            self._answer()
        except ConfigError as error:
            self._log.error("{problem}: this process can have no successor", problem=str(error))
        self._log.info("taken over from process {pid}", pid=succession.peer.pid)
        succession.tell_taken()

    async def stop(self) -> None:
        """Answers no more, and leaves no timer behind."""
        self._watch.stop()
        self._upgrades.stop()
        await self._incumbent.stop()

    # ------------------------------------------------------------------------------------------------------------ being followed

    def shares(self) -> list[Share]:
        """For the incumbent: the queues, in the order in which they began to listen. One that is parked does not, and the successor
        binds another."""
        found: dict[str, Share] = {}
        for number, queue in self._queues():
            name = queue.name if queue.is_shared else f"{queue.name}.{number}"
            if not check_listening(queue.socket):
                found.setdefault(name, Share(name, queue.socket.fileno(), foreign=queue.is_shared))
        return list(found.values())

    async def release(self) -> None:
        """For the incumbent: there is nothing that only one process may use."""

    def resume(self) -> None:
        """For the incumbent: nothing was stopped."""

    def leave(self, successor: int) -> None:
        """For the incumbent: the successor serves."""
        self._leave(successor)

"""What a node does for its supervisor: tells how it is, and ends when it is told, or when nobody is left to tell."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from streampush.rest.reports import Reports, ReportSite
from streampush.supervised import Lifeline, Supervised, Told


class Supervision:
    """`reports` are of this process alone. `hurry` makes a stop that is under way a quick one."""

    _log = Logger(namespace="streampush")

    def __init__(self, reactor: Any, place: Supervised, reports: Reports, hurry: Callable[[], None]) -> None:
        self._reactor = reactor
        self._place = place
        self._reports = reports
        self._hurry = hurry
        self._port: IListeningPort | None = None
        self._lifeline = Lifeline(reactor, self._told)
        self._is_orphan = False
        self.is_alone = True
        """Only this worker stops, if any does: the others, or its successor, go on."""

    def start(self) -> None:
        """The supervisor is answered, and heard."""
        self._port = self._reactor.listenUNIX(self._place.socket, ReportSite(self._reports, self._reactor), mode=0o600)
        self._reactor.callWhenRunning(self._lifeline.start)

    async def stop(self) -> None:
        """The supervisor is answered no more. To be called last: silence is taken for a fault."""
        self._lifeline.stop()
        if self._port is not None:
            stopped = self._port.stopListening()
            if stopped is not None:
                await stopped
        if self._is_orphan:
            self._place.tidy()

    def _told(self, order: Told) -> None:
        match order:
            case Told.DRAIN:
                self.is_alone = False
                self._end()
            case Told.HURRY:
                self._hurry()
            case Told.ORPHANED:
                self._is_orphan = True
                self._log.error("the supervisor is gone, and with it whoever would look after this worker: it drains and ends")
                self._end()

    def _end(self) -> None:
        """As by SIGTERM."""
        with contextlib.suppress(ReactorNotRunning):  # it is being stopped already
            self._reactor.stop()

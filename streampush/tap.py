"""`twistd streampush`: its options, and what twistd makes of them."""

from __future__ import annotations

import atexit
import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, TextIO

from twisted.application.service import IService
from twisted.python import usage

from streampush.apns.apps import read_apps
from streampush.clocks import run_timers_steadily
from streampush.config import Config
from streampush.config_files import check_files
from streampush.errors import ConfigError
from streampush.handover.inherited import Inherited, put_back, read_initial_environment, take_inherited
from streampush.handover.upgrades import this_launch
from streampush.loading import load_config, read_config, refuse
from streampush.node_ports import check_exposure, served_names
from streampush.node_service import StreampushService
from streampush.observe.log import make_observer_factory
from streampush.seat import Seat
from streampush.supervised import Supervised
from streampush.supervisor.service import Supervisor
from streampush.supervisor.shares import command as worker_command

TWISTD: Final = "from twisted.scripts.twistd import run; run()"
"""What `twistd` is: a worker is started by the interpreter that runs its supervisor, wherever that finds its own twistd."""


class Options(usage.Options):
    """twistd -n --pidfile= streampush --config FILE"""

    synopsis = "[--config FILE] [--workers N] [--set section.key=value ...]"
    optParameters = [  # noqa: RUF012 - twisted.python.usage reads a class attribute
        ["config", "c", "streampush.toml", "The TOML file; `streampush init DIR` writes one, `streampush check FILE` checks it."],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        self["set"] = []
        self.settings: Config | None = None
        self._path = ""
        self.warnings: tuple[str, ...] = ()
        self.inherited = Inherited()

    def opt_set(self, assignment: str) -> None:
        """Overrides one setting of the file, as section.key=value; may be given more than once."""
        self["set"].append(assignment)

    def opt_workers(self, number: str) -> None:
        """A supervisor starts so many processes on the same ports, as node.workers does."""
        self["set"].append(f"node.workers={number}")

    @property
    def path(self) -> str:
        """The TOML file's, absolute."""
        return self._path

    def read_again(self) -> Config:
        """The settings as they are now, from the same places. Raises ConfigError."""
        return load_config(self._path, os.environ, self["set"])

    def postOptions(self) -> None:
        """Reads and checks the configuration. A fault is one line on stderr and exit status 1."""
        self._path = os.path.abspath(self["config"])  # twistd may go to another directory before it is read again
        try:
            config, problems = read_config(self["config"], os.environ, self["set"])
            refuse(problems)
            problems += check_files(config)
            problems += read_apps(config, time.time(), expired="warning")[1]
            refuse(problems)
            put_back(os.environ, os.getpid(), read_initial_environment())
            self.inherited = take_inherited(os.environ, os.getpid(), served_names(config))
            check_exposure(config, self.inherited.sockets)
        except ConfigError as error:
            raise SystemExit(f"streampush: {error}") from None
        self.settings = config
        self.warnings = tuple(str(problem) for problem in problems)


def _log_file(twistd: usage.Options | None) -> TextIO:
    """Where twistd was told to log: a file, or its standard output, which Twisted is about to replace."""
    options: dict[str, Any] = dict(twistd or {})
    name = options.get("logfile")
    if not name and not options.get("nodaemon"):
        name = "twistd.log"
    if not name or name == "-":
        return os.fdopen(os.dup(sys.__stdout__.fileno() if sys.__stdout__ else 1), "w", encoding="utf-8", buffering=1)
    return open(name, "a", encoding="utf-8", buffering=1)


def _obstacle(twistd: usage.Options | None) -> str:
    """Why twistd would not start a second process with the same options beside this one; empty if it would."""
    options: dict[str, Any] = dict(twistd or {})
    if options.get("pidfile"):
        return "twistd has a pid file, and starts no second process with it: restart it once with --pidfile="
    if not options.get("nodaemon"):
        return "twistd went to the background, where nobody would see the new process: restart it once with --nodaemon"
    return ""


def makeService(options: Options) -> IService:
    """For twistd: a node, or the supervisor of several workers that are nodes."""
    from twisted.internet import reactor

    config = options.settings
    assert config is not None
    clock: Any = reactor
    run_timers_steadily(clock)
    supervised = Supervised.take(os.environ)
    out = _log_file(options.parent)
    if config.node.workers:
        return _make_supervisor(options, config, clock, out)
    if supervised is not None:
        os.setpgrp()  # what is typed at the supervisor's terminal is for the supervisor
    observer = make_observer_factory(config.log, out, clock, node=config.node.name if supervised is not None else "")()
    if supervised is not None:
        return StreampushService(
            reactor,
            config,
            observer,
            options.warnings,
            read_again=options.read_again,
            inherited=options.inherited,
            supervised=supervised,
        )

    def make_node() -> StreampushService:
        return StreampushService(reactor, config, None, options.warnings, read_again=options.read_again)

    return Seat(
        reactor,
        config,
        make_node,
        observer=observer,
        inherited=options.inherited,
        launch=this_launch(os.environ, _obstacle(options.parent)),
        environ=os.environ,
    )


def _make_supervisor(options: Options, config: Config, reactor: Any, out: TextIO) -> IService:
    node_name = config.node.name or socket.gethostname()
    twistd: dict[str, Any] = dict(options.parent or {})
    chosen = twistd.get("reactor")

    def command(settings: Sequence[str]) -> list[str]:
        reactor_name = chosen if chosen != "default" else None
        return worker_command(sys.executable, TWISTD, reactor_name, options.path, (*options["set"], *settings))

    def give_up() -> None:
        atexit.register(os._exit, 1)  # twistd has no way to end with a status of our own
        reactor.stop()

    return Supervisor(
        reactor,
        config,
        make_observer_factory(config.log, out, reactor, node=node_name)(),
        options.warnings,
        inherited=options.inherited,
        node_name=node_name,
        command=command,
        environ=dict(os.environ),
        log=out.fileno(),
        give_up=give_up,
        launch=this_launch(os.environ, _obstacle(options.parent)),
    )

"""`streampush upgrade`: the process that serves starts its successor, and this command watches."""

from __future__ import annotations

import os
import socket

import click

from streampush.cli.exits import Failure, NoConnection, RefusedByServer
from streampush.errors import ConfigError
from streampush.handover.wire import HandoverFault, Message, Reader, encode
from streampush.loading import read_config

CONNECT_TIMEOUT = 10.0
"""Seconds for the first answer; a process that gives none hangs."""

MAX_PID = 2**31


@click.command()
@click.option(
    "--config",
    "config_file",
    default="streampush.toml",
    show_default=True,
    type=click.Path(dir_okay=False),
    help="The configuration that the process was started with: node.handover says where to ask.",
)
@click.option("--socket", "path", type=click.Path(dir_okay=False), help="Where to ask, in place of the configuration's.")
@click.option("--timeout", type=click.FloatRange(1, 3600), default=300.0, show_default=True, help="Seconds to wait for the end.")
def upgrade(config_file: str, path: str | None, timeout: float) -> None:
    """Put a new process in the place of the one that serves.

    The process starts the same command again, with the code and the configuration that are on the disk now, and hands its
    listening sockets over: no connect is refused. If the new one fails the old one goes on. Status 1: it failed, 3: refused, 4:
    nobody serves.
    """
    with _connect(path or _path_of(config_file)) as sock:
        talk = _Talk(sock)
        sock.sendall(encode("upgrade"))
        click.echo(f"process {talk.expect('started').number('pid', 1, MAX_PID):.0f} starts")
        sock.settimeout(timeout)
        click.echo(f"process {talk.expect('done').number('pid', 1, MAX_PID):.0f} serves")


def _path_of(config_file: str) -> str:
    try:
        config, _ = read_config(config_file, os.environ)
    except ConfigError as error:
        raise Failure(str(error)) from None
    if not config.node.handover:
        raise Failure(f"{config_file}: node.handover is not set, so nobody can be asked; set it and restart once")
    return config.node.handover


def _connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(CONNECT_TIMEOUT)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise NoConnection(f"nobody serves at {path}: {error.strerror or error}") from None
    return sock


class _Talk:
    """What the server says, word by word."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = Reader()
        self._waiting: list[Message] = []

    def expect(self, kind: str) -> Message:
        """The next word, which must be this one; the command ends with any other."""
        message = self._next()
        if message.kind == "refused":
            raise RefusedByServer(message.text("reason"))
        if message.kind == "failed":
            raise Failure(f"the new process does not serve, the old one goes on: {message.text('reason')}")
        if message.kind != kind:
            raise Failure(f"the server said {message.kind} in place of {kind}")
        return message

    def _next(self) -> Message:
        try:
            while not self._waiting:
                data = self._sock.recv(4096)
                if not data:
                    raise NoConnection("the server went away before it was done, see its log")
                self._waiting += self._reader.feed(data)
        except TimeoutError:
            limit = self._sock.gettimeout()
            raise NoConnection(f"no answer within {limit:g} s; it may still come to an end, see the server's log") from None
        except HandoverFault as fault:
            raise Failure(f"the server's answer: {fault}") from None
        except OSError as error:
            raise NoConnection(f"the server went away: {error.strerror}") from None
        return self._waiting.pop(0)

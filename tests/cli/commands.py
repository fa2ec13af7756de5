"""The real `streampush` command in a process of its own, and parts of commands in this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click
from click.testing import CliRunner
from twisted.internet.threads import deferToThread

from tests.forked import Forked

PROGRAM = "import sys; from streampush.cli.main import main; main(sys.argv[1:])"

TIMEOUT = 60.0
"""Seconds, by far more than any command takes: the machine may be busy with other things."""


async def run_command(*arguments: str) -> tuple[str, str, int]:
    """What `streampush ARGUMENTS` prints, what it says beside that, and its status."""
    return await deferToThread(_run, arguments)


def _run(arguments: Sequence[str]) -> tuple[str, str, int]:
    process = Forked("streampush", arguments, Path.cwd(), {"PATH": "/usr/bin:/bin"})
    out, err = process.communicate(TIMEOUT)
    return out.decode(), err.decode(), process.wait(TIMEOUT)


def where(rest_port: int, root: Path, key: str) -> tuple[str, ...]:
    """Options for the REST API on this port with this key, which is written to a file below `root`."""
    file = root / "command.key"
    file.write_text(key)
    return "--url", f"http://127.0.0.1:{rest_port}", "--key", str(file)


def reported(work: Callable[[], object]) -> tuple[int, str]:
    """The exit status of a command that does this, and what it says on either stream."""

    @click.command()
    def command() -> None:
        work()

    result = CliRunner().invoke(command)
    return result.exit_code, result.output


def assert_one_line(said: str, text: str) -> None:
    """What a command says of a failure: one line for people, with this in it."""
    assert said.startswith("Error: ")
    assert text in said
    assert said.count("\n") == 1

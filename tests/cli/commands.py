"""The real `streampush` command in a process of its own, and parts of commands in this one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click
from click.testing import CliRunner
from twisted.internet.utils import getProcessOutputAndValue

PROGRAM = "import sys; from streampush.cli.main import main; main(sys.argv[1:])"


async def run_command(*arguments: str) -> tuple[str, str, int]:
    """What `streampush ARGUMENTS` prints, what it says beside that, and its status. It is of the code that is tested."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    out, err, code = await getProcessOutputAndValue(sys.executable, ["-c", PROGRAM, *arguments], environment)
    return out.decode(), err.decode(), code


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

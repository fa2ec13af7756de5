"""Subcommands are there without being imported: nobody waits for what he has not asked for."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from streampush.cli.main import APNS_COMMANDS, COMMANDS, apns, main


@pytest.mark.parametrize(("group", "table"), [(main, COMMANDS), (apns, APNS_COMMANDS)], ids=["main", "apns"])
def test_every_subcommand_is_where_the_table_says(group: click.Group, table: dict[str, str]) -> None:
    for name in table:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        assert command.name == name


def test_the_help_lists_every_subcommand_with_its_line() -> None:
    lines = CliRunner().invoke(main, ["--help"]).output.partition("Commands:\n")[2].splitlines()
    listed = {line.split()[0]: line.split()[1:] for line in lines}
    assert listed.keys() == COMMANDS.keys() | {"apns"}
    assert all(listed.values())


def test_a_name_that_is_not_there_gets_the_similar_one() -> None:
    done = CliRunner().invoke(main, ["publis"])
    assert done.exit_code == 2
    assert "No such command 'publis'. Did you mean 'publish'?" in done.output


def test_a_subcommand_imports_nothing_of_the_others() -> None:
    program = (
        "import sys; from streampush.cli.main import main; main(['decode', '--help'], standalone_mode=False);"
        "print([name for name in sys.modules if name.startswith(('streampush.apns', 'streampush.push', 'twisted.web'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

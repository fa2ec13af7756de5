"""Subcommands that are imported when they are asked for: each has needs of its own, and to import all of them takes a second."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LateGroup(click.Group):
    """A group that also has the subcommands of `late`: by name, where each one is, as in "package.module:function".

    Its help imports them all, for the line that it prints of each.
    """

    def __init__(self, *args: Any, late: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._late = late

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self.commands, *self._late})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            for name in (cmd_name,) if cmd_name in self._late else self._late:  # all of them: click looks for similar names
                module, _, function = self._late[name].partition(":")
                self.add_command(getattr(import_module(module), function), name)
        return super().get_command(ctx, cmd_name)

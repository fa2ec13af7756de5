"""The `streampush` command. Each subcommand has a module of its own."""

from __future__ import annotations

from importlib.metadata import version

import click

from streampush.cli.apns import apns
from streampush.cli.apns_channels import broadcast, channels
from streampush.cli.apns_sim import apns_sim
from streampush.cli.check import check
from streampush.cli.decode import decode
from streampush.cli.explain import explain
from streampush.cli.init import init, issue
from streampush.cli.listen import listen
from streampush.cli.messages import recall, status
from streampush.cli.publish import publish
from streampush.cli.store import store


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("streampush"), prog_name="streampush")
def main() -> None:
    """Push messages to native apps. The server itself is started with `twistd -n --pidfile= streampush --config FILE`."""


for command in (init, issue, check, decode, listen, publish, recall, status, explain, store, apns, apns_sim):
    main.add_command(command)
for command in (channels, broadcast):
    apns.add_command(command)

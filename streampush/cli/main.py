"""The `streampush` command. Each subcommand has a module of its own."""

from __future__ import annotations

from importlib.metadata import version

import click

from streampush.cli.late import LateGroup

COMMANDS = {
    "apns-sim": "streampush.cli.apns_sim:apns_sim",
    "check": "streampush.cli.check:check",
    "decode": "streampush.cli.decode:decode",
    "drain": "streampush.cli.nodes:drain",
    "explain": "streampush.cli.explain:explain",
    "init": "streampush.cli.init:init",
    "issue": "streampush.cli.init:issue",
    "listen": "streampush.cli.listen:listen",
    "nodes": "streampush.cli.nodes:nodes",
    "publish": "streampush.cli.publish:publish",
    "rebalance": "streampush.cli.nodes:rebalance",
    "recall": "streampush.cli.messages:recall",
    "status": "streampush.cli.messages:status",
    "store": "streampush.cli.store:store",
    "undrain": "streampush.cli.nodes:undrain",
    "upgrade": "streampush.cli.upgrade:upgrade",
}
"""Where each subcommand is."""

APNS_COMMANDS = {
    "broadcast": "streampush.cli.apns_channels:broadcast",
    "channels": "streampush.cli.apns_channels:channels",
    "send": "streampush.cli.apns:send",
    "status": "streampush.cli.apns_status:apns_status",
    "why": "streampush.cli.apns_why:why",
}
"""Where each subcommand of `streampush apns` is."""


@click.group(cls=LateGroup, late=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("streampush"), prog_name="streampush")
def main() -> None:
    """Push messages to native apps. The server itself is started with `twistd -n --pidfile= streampush --config FILE`."""


@main.group(cls=LateGroup, late=APNS_COMMANDS)
def apns() -> None:
    """Push to Apple's devices."""

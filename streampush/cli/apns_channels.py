"""`streampush apns channels` and `streampush apns broadcast`: channels for Live Activities, with the apps of the configuration."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import click

from streampush.apns.broadcast import (
    Broadcast,
    Channel,
    Request,
    Storage,
    broadcast_request,
    create_channel,
    delete_channel,
    list_channels,
    read_channel,
)
from streampush.apns.broadcast_sender import BroadcastSender, Created, Deleted, Listed, NotDone, Published
from streampush.apns.errors import BadPush
from streampush.apns.outcome import NotSent, Refused, Rejected, Unknown
from streampush.apns.payload import json_payload
from streampush.cli.apns import choose, clients_of, fail, read_document, words_for_programs
from streampush.cli.exits import Failure
from streampush.cli.running import run
from streampush.config import Config
from streampush.errors import ConfigError
from streampush.loading import load_config

Ended: TypeAlias = Created | Listed | Channel | Deleted | Published | NotDone

Asks: TypeAlias = Callable[[BroadcastSender, str, float], Awaitable[Ended]]
"""Asks for one thing, for the app of that name and with that deadline."""

STORAGE = {Storage.NOTHING: "nothing", Storage.LATEST: "latest"}
"""What Apple keeps for devices that are away, in a word."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Asked:
    """How a request ended. `fault`: why there was no connection, or empty. `seconds`: how long it took."""

    ended: Ended
    fault: str
    seconds: float


def _with_app(command: _Command) -> _Command:
    """The options that all of these commands have."""
    for option in reversed(
        (
            click.option("--config", "-c", default="streampush.toml", show_default=True, metavar="FILE", help="TOML file."),
            click.option("--set", "overrides", metavar="SECTION.KEY=VALUE", multiple=True, help="Another value than in the file."),
            click.option("--app", "name", metavar="NAME", help="Which of [[apns.apps]].  [default: the only one]"),
            click.option(
                "--timeout", type=click.FloatRange(0.1, 600), default=15.0, show_default=True, help="Seconds for all of it."
            ),
            click.option("--json", "as_json", is_flag=True, help="Print a JSON object."),
        )
    ):
        command = option(command)
    return command


@click.group(short_help="Channels for Live Activities.")
def channels() -> None:
    """Make, list, look at and delete the channels of an app: a broadcast reaches the Live Activity of everybody who follows one.

    Exit status 3: Apple rejected it. 4: no connection or no answer. 5: Apple does not take the key or certificate.
    """


@channels.command(short_help="Make a channel.")
@click.option("--keep-latest", is_flag=True, help="Apple keeps the latest broadcast for devices that are away, and takes fewer.")
@_with_app
def create(*, keep_latest: bool, **options: Any) -> None:
    """Make a channel and print its id, which the app needs to follow it. Without an answer there may be one: see "list"."""
    storage = Storage.LATEST if keep_latest else Storage.NOTHING
    _carry_out(
        options,
        lambda bundle_id: create_channel(bundle_id, storage),
        lambda sender, app, deadline: sender.create(app, storage, deadline=deadline),
    )


@channels.command("list", short_help="Print the ids of all channels.")
@_with_app
def list_all(**options: Any) -> None:
    """Print the ids of all channels of the app in its environment, one a line."""
    _carry_out(options, list_channels, lambda sender, app, deadline: sender.list(app, deadline=deadline))


@channels.command(short_help="Say what a channel is.")
@click.argument("channel")
@_with_app
def show(channel: str, **options: Any) -> None:
    """Say what Apple keeps of CHANNEL's broadcasts."""
    _carry_out(
        options,
        lambda bundle_id: read_channel(bundle_id, channel),
        lambda sender, app, deadline: sender.read(app, channel, deadline=deadline),
    )


@channels.command(short_help="Delete a channel.")
@click.argument("channel")
@_with_app
def delete(channel: str, **options: Any) -> None:
    """Delete CHANNEL; an app may have 10000."""
    _carry_out(
        options,
        lambda bundle_id: delete_channel(bundle_id, channel),
        lambda sender, app, deadline: sender.delete(app, channel, deadline=deadline),
    )


@click.command(short_help="Send one push to all who follow a channel.")
@click.argument("channel")
@click.argument("payload", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--priority", type=click.Choice(["10", "5", "1"]), default="10", show_default=True)
@click.option("--ttl", type=click.FloatRange(0), default=0.0, help="Seconds that Apple keeps it, with --keep-latest.")
@click.option("--request-id", default="", metavar="UUID", help="[default: Apple makes one]")
@_with_app
def broadcast(channel: str, payload: Path, priority: str, ttl: float, request_id: str, **options: Any) -> None:
    """Send the JSON in the file PAYLOAD to the Live Activities of all who follow CHANNEL.

    Nothing is repeated that Apple may have acted on. The command signs a provider token of its own; after many in a row Apple may
    ask for a pause.

    Exit status 3: Apple rejected it. 4: no connection or no answer. 5: Apple does not take the key or certificate.
    """
    try:
        body = json_payload(read_document(payload))
    except BadPush as error:
        raise Failure(str(error)) from error
    message = Broadcast(channel, body, int(time.time() + ttl) if ttl else 0, int(priority), request_id)
    _carry_out(
        options,
        lambda bundle_id: broadcast_request(bundle_id, message),
        lambda sender, app, deadline: sender.publish(app, message, deadline=deadline),
    )


async def ask(reactor: Any, config: Config, asks: Asks, timeout: float) -> Asked:
    """Asks for it with the one app of the configuration. Raises ConfigError and BadPush."""
    clients = clients_of(reactor, config)
    (app,) = clients.all
    began = reactor.seconds()
    try:
        ended = await asks(clients.broadcasts, app, began + timeout)
        fault = next(filter(None, (pool.figures().fault for pool in clients.pools.values())), "")
        return Asked(ended, fault, reactor.seconds() - began)
    finally:
        await clients.stop()


def report(asked: Asked, *, as_json: bool) -> None:
    """Says what Apple answered; raises what ends the command if it was not done."""
    ended = asked.ended
    if as_json:
        click.echo(json.dumps(_document(ended) | {"seconds": round(asked.seconds, 3)}))
    else:
        for line in _lines(asked):
            click.echo(line)
    if isinstance(ended, Rejected | NotSent | Refused | Unknown):
        fail(ended, asked.fault, "may have been carried out")


def _carry_out(options: dict[str, Any], request: Callable[[str], Request], asks: Asks) -> None:
    """`request`: for a bundle id; what cannot be one is refused before the reactor runs."""
    try:
        settings = load_config(options["config"], os.environ, options["overrides"])
        app = choose(settings, options["name"])
        request(app.bundle_id)
        only = replace(settings, apns=replace(settings.apns, apps=(app,)))
        asked = run(lambda reactor: ask(reactor, only, asks, options["timeout"]))
    except (ConfigError, BadPush) as error:
        raise Failure(str(error)) from error
    report(asked, as_json=options["as_json"])


def _lines(asked: Asked) -> tuple[str, ...]:
    """For people, and for scripts: an id stands alone in its line."""
    match asked.ended:
        case Created(channel_id):
            return (channel_id,)
        case Listed(channel_ids):
            return channel_ids
        case Channel(channel_id, storage):
            return (f"{channel_id} keeps {'the latest broadcast' if storage is Storage.LATEST else 'nothing'}",)
        case Deleted(channel_id):
            return (f"deleted {channel_id}",)
        case Published(request_id):
            return (f"taken by Apple in {asked.seconds * 1000:.0f} ms, request id {request_id or 'unknown'}",)
    return ()


def _document(ended: Ended) -> dict[str, Any]:
    match ended:
        case Created(channel_id) | Deleted(channel_id):
            return {"outcome": type(ended).__name__.lower(), "channel": channel_id}
        case Listed(channel_ids):
            return {"outcome": "listed", "channels": list(channel_ids)}
        case Channel(channel_id, storage):
            return {"outcome": "found", "channel": channel_id, "keeps": STORAGE[storage]}
        case Published(request_id):
            return {"outcome": "published", "request_id": request_id}
    return words_for_programs(ended)

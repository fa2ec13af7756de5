"""`streampush apns`: pushes to Apple from the command line, with the apps of the configuration."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import SystemRandom
from typing import Any, NoReturn
from uuid import uuid4

import click

from streampush.apns.alert_block import alert_of, with_defaults
from streampush.apns.app_clients import AppClients, tls_dialer
from streampush.apns.apps import Apps
from streampush.apns.errors import BadPush
from streampush.apns.outcome import Delivered, NotSent, Outcome, Refused, Rejected, Unknown, Why
from streampush.apns.payload import alert_payload, background_payload, json_payload
from streampush.apns.ports import NoMetrics
from streampush.apns.push import PUSH_TYPES, ApnsPush, Priority, PushType, check_push, topic_for
from streampush.apns.reasons import Action, treatment
from streampush.apns.retry import RetryPolicy
from streampush.cli.alert_options import alert_options, said
from streampush.cli.exits import BadCredentials, Failure, NoConnection, RefusedByServer
from streampush.cli.running import run
from streampush.config import ApnsAppConfig, Config
from streampush.errors import ConfigError
from streampush.loading import load_config

MAX_TOKEN_LINE = 1024
"""Characters of standard input that are read for a device token."""

MAX_FILE = 64 * 1024
"""Bytes of a payload's file that are read; Apple takes 5120."""


@dataclass(frozen=True, slots=True)
class Sent:
    """How a push ended. `fault`: why there was no connection, or empty. `seconds`: how long it took."""

    push: ApnsPush
    outcome: Outcome
    fault: str
    seconds: float


@click.command(short_help="Send one push.")
@click.argument("device_token")
@click.argument("body", required=False)
@click.option("--config", "-c", default="streampush.toml", show_default=True, metavar="FILE", help="The server's TOML file.")
@click.option("--set", "overrides", metavar="SECTION.KEY=VALUE", multiple=True, help="Another value than in the file.")
@click.option("--app", "name", metavar="NAME", help="Which of [[apns.apps]].  [default: the only one]")
@alert_options
@click.option(
    "--payload",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Instead of all these: a file with the payload, JSON.",
)
@click.option("--push-type", type=click.Choice([each.value for each in PushType]), help="Of --payload.  [default: alert]")
@click.option("--topic", help="Another topic than the app's bundle id with the push type's suffix.")
@click.option("--priority", type=click.Choice(["10", "5", "1"]), help="[default: 10, of a background push 5]")
@click.option("--collapse-id", default="", metavar="ID", help="It takes the place of earlier ones with this id.")
@click.option("--ttl", type=click.FloatRange(0), help="Seconds that Apple tries; 0: once.  [default: the app's expiration]")
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=15.0, show_default=True, help="Seconds for all of it.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def send(device_token: str, config: str, overrides: tuple[str, ...], name: str | None, **options: Any) -> None:
    """Send an alert with BODY to DEVICE_TOKEN, hexadecimal; "-" reads it from standard input, so that nobody sees it in the list of
    processes.

    Nothing is repeated. The command signs a provider token of its own; after many in a row Apple may ask for a pause.

    Exit status 3: Apple rejected it. 4: no connection or no answer. 5: Apple does not take the key or certificate.
    """
    try:
        settings = load_config(config, os.environ, overrides)
        app = choose(settings, name)
        push = make_push(app, _token(device_token), options)
        check_push(push)
        only = replace(settings, apns=replace(settings.apns, apps=(app,)))
        sent = run(lambda reactor: deliver(reactor, only, push, options["timeout"]))
    except (ConfigError, BadPush) as error:
        raise Failure(str(error)) from error
    report(sent, as_json=options["as_json"])


def choose(settings: Config, name: str | None) -> ApnsAppConfig:
    """The app of that name, or the only one. Raises Failure."""
    apps = settings.apns.apps
    if not apps:
        raise Failure(f"{settings.file} has no [[apns.apps]]")
    found = [app for app in apps if name in (None, app.name)]
    if len(found) != 1:
        names = ", ".join(app.name for app in apps)
        raise Failure(f"there is no app {name!r}, there are: {names}" if name else f"say which one with --app: {names}")
    return found[0]


def make_push(app: ApnsAppConfig, device_token: str, options: Mapping[str, Any]) -> ApnsPush:
    """The push that the options ask for. Raises BadPush or Failure."""
    push_type = PushType(options["push_type"] or (PushType.BACKGROUND if options["background"] else PushType.ALERT))
    priority = options["priority"]
    if priority is None:
        allowed = PUSH_TYPES[push_type].priorities
        priority = Priority.IMMEDIATE if Priority.IMMEDIATE in allowed else max(allowed)
    ttl = app.expiration if options["ttl"] is None else options["ttl"]
    return ApnsPush(
        device_token=device_token,
        payload=_payload(app, push_type, options),
        topic=options["topic"] or topic_for(app.bundle_id, push_type),
        push_type=push_type,
        priority=int(priority),
        expiration=int(time.time() + ttl) if ttl else 0,
        collapse_id=options["collapse_id"],
        apns_id=str(uuid4()),
    )


async def deliver(reactor: Any, config: Config, push: ApnsPush, timeout: float) -> Sent:
    """Sends it with the one app of the configuration. Raises ConfigError."""
    clients = clients_of(reactor, config)
    (client,), (pool,) = clients.all.values(), clients.pools.values()
    began = reactor.seconds()
    try:
        outcome = await client.push(push, deadline=began + timeout)
        return Sent(push, outcome, pool.figures().fault, reactor.seconds() - began)
    finally:
        await clients.stop()


def clients_of(reactor: Any, config: Config) -> AppClients:
    """For the apps of the configuration; they repeat nothing. To be stopped. Raises ConfigError."""
    return AppClients(
        Apps(config, time.time),
        config.apns,
        reactor,
        tls_dialer(reactor, config),
        wall=time.time,
        new_id=lambda: str(uuid4()),
        metrics=NoMetrics(),
        random=SystemRandom(),
        retry=lambda _: RetryPolicy(max_tries=1),
    )


def report(sent: Sent, *, as_json: bool) -> None:
    """Says how the push ended; raises what ends the command if it was not delivered."""
    if as_json:
        click.echo(json.dumps(_document(sent)))
    elif isinstance(sent.outcome, Delivered):
        click.echo(f"delivered to Apple in {sent.seconds * 1000:.0f} ms, apns-id {sent.push.apns_id}")
    if not isinstance(sent.outcome, Delivered):
        fail(sent.outcome, sent.fault)


def fail(outcome: Outcome, fault: str, unknown: str = "may have arrived") -> NoReturn:
    """Raises what ends the command. `fault`: why there was no connection, or empty. `unknown`: what may be so without an answer."""
    match outcome:
        case Rejected(status, reason):
            known = treatment(status, reason)
            said = f"{status} {reason}: {known.meaning}" if reason else f"{status}, without a reason"
            text = f"rejected by Apple: {said}" + (f"; {known.advice}" if known.advice else "")
            raise (BadCredentials if known.action is Action.STOP_CREDENTIAL else RefusedByServer)(text)
        case NotSent(Why.NO_CONNECTION):
            raise NoConnection(f"not sent: {fault or 'no connection'}")
        case NotSent(why) | Refused(why):
            raise NoConnection(f"not sent: {_words(why)}" + (f": {fault}" if fault else ""))
        case _:
            raise NoConnection(f"it was written and {unknown}: {_words(getattr(outcome, 'why', ''))}")


def _document(sent: Sent) -> dict[str, Any]:
    if isinstance(sent.outcome, Delivered):
        document: dict[str, Any] = {"outcome": "delivered"}
    else:
        document = words_for_programs(sent.outcome)
    return document | {"apns_id": sent.push.apns_id, "seconds": round(sent.seconds, 3)}


def words_for_programs(outcome: Rejected | NotSent | Refused | Unknown) -> dict[str, Any]:
    """Of what was not done, for a JSON object."""
    if isinstance(outcome, Rejected):
        return {"outcome": "rejected", "status": outcome.status, "reason": outcome.reason}
    return {"outcome": "not_sent" if isinstance(outcome, NotSent) else type(outcome).__name__.lower(), "reason": outcome.why.value}


def _words(why: str) -> str:
    return str(why).replace("_", " ")


def _token(given: str) -> str:
    return sys.stdin.readline(MAX_TOKEN_LINE).strip() if given == "-" else given


def _payload(app: ApnsAppConfig, push_type: PushType, options: Mapping[str, Any]) -> bytes:
    words = said(options)
    if options["path"] is not None:
        if words:
            raise click.UsageError("give --payload or the parts of an alert, not both")
        return json_payload(read_document(options["path"]))
    if push_type not in (PushType.ALERT, PushType.BACKGROUND):
        raise click.UsageError(f"a push of type {push_type} needs --payload")
    alert = alert_of(words)
    return background_payload(alert) if push_type is PushType.BACKGROUND else alert_payload(with_defaults(alert, app))


def read_document(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises Failure."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(MAX_FILE))
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Failure(f"{path} is no JSON") from error
    if not isinstance(document, dict):
        raise Failure(f"{path} is no JSON object")
    return document

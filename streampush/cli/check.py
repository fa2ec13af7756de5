"""`streampush check`: everything that is wrong with a configuration, or what it comes to."""

from __future__ import annotations

import datetime as dt
import os
import resource
import time
from collections.abc import Mapping

import click

from streampush.apns.apps import App, read_apps
from streampush.apns.signing_key import SigningKey
from streampush.config import Config
from streampush.config_apps import app_errors
from streampush.config_files import check_files, earliest_expiry
from streampush.errors import ConfigError
from streampush.loading import fd_budget, read_config
from streampush.redis_url import parse_url


@click.command(short_help="Say what is wrong with a configuration.")
@click.argument("file", type=click.Path())
@click.option("--set", "overrides", metavar="SECTION.KEY=VALUE", multiple=True, help="Another value than in the file.")
def check(file: str, overrides: tuple[str, ...]) -> None:
    """Check the configuration FILE, the environment's changes to it, and the files that it names.

    Exit status 1 if the server would not start with it, or could not push to an app of Apple's. Nobody is asked over the network.
    """
    try:
        config, found = read_config(file, os.environ, overrides)
    except ConfigError as error:
        click.echo(f"error: {error}\n1 error")
        raise click.exceptions.Exit(1) from error
    found += check_files(config)
    apps: Mapping[str, App] = {}
    if not any(app_errors(config)):  # or the same is said twice
        apps, more = read_apps(config, time.time())
        found += more
    soft_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    cap, too_few = fd_budget(config, soft_limit)
    for problem in found:
        click.echo(f"{problem.severity}: {problem}")
    if too_few:
        click.echo(f"warning: {too_few}")
    errors = sum(problem.severity == "error" for problem in found)
    if errors:
        click.echo(f"{errors} {'error' if errors == 1 else 'errors'}")
        raise click.exceptions.Exit(1)
    _summarise(config, cap)
    _summarise_apple(config, apps)


def _summarise(config: Config, cap: int) -> None:
    listen, tls, rest = config.listen, config.tls, config.rest
    click.echo("ok")
    click.echo(f"  devices      {_endpoint(listen.address, listen.port)}, TLS {tls.minimum} or later")
    if rest.enabled:
        scheme = "https" if rest.certificate else "http"
        click.echo(f"  REST         {scheme}://{_endpoint(rest.address, rest.port)}, keys: {len(rest.keys)}")
    else:
        click.echo("  REST         off")
    click.echo(f"  store        {_store(config)}")
    click.echo(f"  publishers   {', '.join(config.publishers) or 'none by certificate'}")
    click.echo(f"  connections  at most {cap}, {config.admission.max_per_address} from one address")
    click.echo(f"  certificate  {_expiry(tls.certificate)}")
    if rest.enabled and rest.certificate:
        click.echo(f"  REST's       {_expiry(rest.certificate)}")


def _summarise_apple(config: Config, apps: Mapping[str, App]) -> None:
    if not apps:
        click.echo("  Apple        off: there is no [[apns.apps]]")
    for app in apps.values():
        credential = app.route.credential
        if isinstance(credential, SigningKey):
            who = f"key {credential.key_id} of team {credential.team_id}"
        else:
            who = f"certificate {_until(dt.datetime.fromtimestamp(credential.expires_at, dt.UTC))}"
        click.echo(f"  Apple        {app.name}: {app.settings.bundle_id} at {_endpoint(app.route.host, app.route.port)}, {who}")
    if apps and config.apns.proxy:
        click.echo(f"  proxy        {config.apns.proxy}")


def _endpoint(address: str, port: int) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}"


def _expiry(path: str) -> str:
    return f"{path}, {_until(earliest_expiry(path))}"


def _until(expiry: dt.datetime) -> str:
    return f"valid until {expiry:%Y-%m-%d} ({(expiry - dt.datetime.now(dt.UTC)).days} days)"


def _store(config: Config) -> str:
    store = config.store
    if store.backend == "redis":
        return f"{parse_url(store.url)}, keys begin with {{{store.prefix}}}: (it was not asked)"
    return store.path if store.backend == "sqlite" else "in memory, forgotten at the end"

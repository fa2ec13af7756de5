"""`streampush check`: everything that is wrong with a configuration, or what it comes to."""

from __future__ import annotations

import datetime as dt
import os
import resource

import click

from streampush.config import Config
from streampush.config_files import check_files, earliest_expiry
from streampush.errors import ConfigError
from streampush.loading import fd_budget, read_config


@click.command(short_help="Say what is wrong with a configuration.")
@click.argument("file", type=click.Path())
@click.option("--set", "overrides", metavar="SECTION.KEY=VALUE", multiple=True, help="Another value than in the file.")
def check(file: str, overrides: tuple[str, ...]) -> None:
    """Check the configuration FILE, the environment's changes to it, and the files that it names.

    Exit status 1 if the server would not start with it.
    """
    try:
        config, found = read_config(file, os.environ, overrides)
    except ConfigError as error:
        click.echo(f"error: {error}\n1 error")
        raise click.exceptions.Exit(1) from error
    found += check_files(config)
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


def _summarise(config: Config, cap: int) -> None:
    listen, tls, rest = config.listen, config.tls, config.rest
    click.echo("ok")
    click.echo(f"  devices      {_endpoint(listen.address, listen.port)}, TLS {tls.minimum} or later")
    if rest.enabled:
        scheme = "https" if rest.certificate else "http"
        click.echo(f"  REST         {scheme}://{_endpoint(rest.address, rest.port)}, keys: {len(rest.keys)}")
    else:
        click.echo("  REST         off")
    click.echo(f"  store        {config.store.path if config.store.backend == 'sqlite' else 'in memory, forgotten at the end'}")
    click.echo(f"  publishers   {', '.join(config.publishers) or 'none by certificate'}")
    click.echo(f"  connections  at most {cap}, {config.admission.max_per_address} from one address")
    click.echo(f"  certificate  {_expiry(tls.certificate)}")
    if rest.enabled and rest.certificate:
        click.echo(f"  REST's       {_expiry(rest.certificate)}")


def _endpoint(address: str, port: int) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}"


def _expiry(path: str) -> str:
    expiry = earliest_expiry(path)
    days = (expiry - dt.datetime.now(dt.UTC)).days
    return f"{path}, valid until {expiry:%Y-%m-%d} ({days} days)"

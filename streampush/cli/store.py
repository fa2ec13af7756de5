"""`streampush store`: what an operator does with the store's file. Nothing here talks to a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from streampush.cli.exits import Failure
from streampush.errors import ConfigError
from streampush.loading import load_config
from streampush.push.values import StoreStatus
from streampush.store.sqlite import FileFault
from streampush.store.sqlite.checking import Examination, examine
from streampush.store.sqlite.copying import back_up, compact, put_back

_config = click.option(
    "--config", "-c", default="streampush.toml", show_default=True, metavar="FILE", help="The server's TOML file, which says where."
)
_overrides = click.option("--set", "overrides", metavar="SECTION.KEY=VALUE", multiple=True, help="Another value than in the file.")


@click.group()
def store() -> None:
    """Check, back up, restore or compact the store's file.

    `check` and `backup` may be used while the server runs.
    """


@store.command(name="check", short_help="Say whether the store's file is sound.")
@_config
@_overrides
@click.argument("file", required=False, type=click.Path())
def check_command(config: str, overrides: tuple[str, ...], file: str | None) -> None:
    """Read the whole file and say what is wrong with it. FILE: a backup, say; default: the store of the configuration.

    Exit status 1 if anything is wrong.
    """
    path = file or _path(config, overrides)
    with _faults_told():
        found = examine(path)
    for text in found.faults:
        click.echo(f"fault: {text}")
    if found.faults:
        click.echo(f"{len(found.faults)} {'fault' if len(found.faults) == 1 else 'faults'}")
        raise click.exceptions.Exit(1)
    click.echo("ok")
    click.echo(f"  file          {path}, {_bytes(os.path.getsize(path))}, schema {found.version}{_older(found)}")
    if found.held is not None:
        _show(found.held)


@store.command(name="backup", short_help="Copy the store to a file, while the server runs.")
@_config
@_overrides
@click.option("--replace", is_flag=True, help="DESTINATION may exist; it is there as it was until the copy is whole.")
@click.argument("destination", type=click.Path())
def backup_command(config: str, overrides: tuple[str, ...], replace: bool, destination: str) -> None:
    """Copy the store as it is now to DESTINATION, a file that only its owner can read.

    It appears when it is whole, checked and on the disk.
    """
    with _faults_told():
        size = back_up(_path(config, overrides), destination, _progress, replace=replace)
    click.echo(f"{destination}: {_bytes(size)}")


@store.command(name="restore", short_help="Make a backup the store; the server must be stopped.")
@_config
@_overrides
@click.argument("backup", type=click.Path())
def restore_command(config: str, overrides: tuple[str, ...], backup: str) -> None:
    """Copy BACKUP to where the store is. The present store, if there is one, is kept beside it as FILE.before.

    What was published since the backup is not in it. Devices that had some of that are told when they come back.
    """
    path = _path(config, overrides)
    with _faults_told():
        size = put_back(backup, path, _progress)
    click.echo(f"{path}: {_bytes(size)}")


@store.command(name="compact", short_help="Write the file anew without its gaps; the server must be stopped.")
@_config
@_overrides
def compact_command(config: str, overrides: tuple[str, ...]) -> None:
    """Give all free room in the file back to the disk. Takes twice as much room as the file while it lasts.

    The server gives back most of it by itself as it runs.
    """
    path = _path(config, overrides)
    with _faults_told():
        before, after = compact(path)
    click.echo(f"{path}: {_bytes(before)} before, {_bytes(after)} now")


@contextmanager
def _faults_told() -> Iterator[None]:
    try:
        yield
    except FileFault as fault:
        raise Failure(str(fault)) from fault


def _path(config: str, overrides: tuple[str, ...]) -> str:
    try:
        settings = load_config(config, os.environ, overrides)
    except ConfigError as error:
        raise Failure(str(error)) from error
    if settings.store.backend != "sqlite":
        raise Failure(f'{config}: store.backend: "{settings.store.backend}" keeps nothing on disk')
    return settings.store.path


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{done * 100 // max(total, 1)} %", nl=done >= total, err=True)


def _older(found: Examination) -> str:
    return ", which the server will upgrade; only its pages were checked" if found.is_older else ""


def _show(held: StoreStatus) -> None:
    click.echo(f"  channels      {held.channels}, with {held.publications} publications")
    click.echo(f"  devices       {held.devices}")
    click.echo(f"  waiting       {held.scheduled} scheduled, {held.dead_letters} dead letters, {held.outbox} for senders")
    click.echo(f"  counted       {_bytes(held.bytes)} against store.max_bytes")


def _bytes(count: int) -> str:
    size, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit}"

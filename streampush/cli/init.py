"""`streampush init` and `streampush issue`: a CA, certificates, a REST key and a configuration to start with."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import shlex
import shutil
import socket
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import click

from streampush.cli.directory import Credentials, DevelopmentDirectory, write_credentials
from streampush.cli.exits import Failure
from streampush.cli.pki import CertificateAuthority, write_secret
from streampush.cli.toml_text import render
from streampush.config import SCOPES, KeyConfig, ListenConfig, RestConfig
from streampush.protocol.terms import is_id

DEFAULT_DEVICES = ("phone-1:alice", "tablet-1:alice", "sensor-1")
DEFAULT_PUBLISHERS = ("backend",)
SUBSCRIBE = ("news/*", "public/*")


def parse_device(text: str) -> tuple[str, str]:
    """The ids of a device and, if there is one, of its user: "ID" or "ID:USER"."""
    device_id, colon, user_id = text.partition(":")
    if not is_id(device_id) or (colon and not is_id(user_id)):
        raise click.BadParameter(f"{text!r}: ids are 1 to 128 characters of A-Z a-z 0-9 . _ ~ @ -")
    return device_id, user_id


def parse_name(text: str) -> str:
    """The name of a publisher."""
    if not is_id(text):
        raise click.BadParameter(f"{text!r}: names are 1 to 128 characters of A-Z a-z 0-9 . _ ~ @ -")
    return text


def parse_host(text: str) -> str:
    """A DNS name or an IP address."""
    if not _is_host(text):
        raise click.BadParameter(f"{text!r} is neither a host name nor an IP address")
    return text


def _is_host(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        labels = name.split(".")
        return name.isascii() and len(name) <= 253 and all(label and label.replace("-", "a").isalnum() for label in labels)
    return True


def _server_names(hosts: Iterable[str]) -> list[str]:
    own = socket.gethostname()
    return list(dict.fromkeys(["localhost", "127.0.0.1", "::1", *([own] if _is_host(own) else []), *hosts]))


_device_option = click.option(
    "--device", "devices", type=parse_device, multiple=True, metavar="ID[:USER]", help="A device, bound to a user if one is given."
)
_publisher_option = click.option(
    "--publisher", "publishers", type=parse_name, multiple=True, metavar="NAME", help="A backend that publishes."
)
_host_option = click.option(
    "--host",
    "hosts",
    type=parse_host,
    multiple=True,
    metavar="NAME",
    help="One more name or address of the server in its certificate.",
)


@click.command(short_help="Make a CA, certificates and a configuration.")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@_device_option
@_publisher_option
@_host_option
@click.option("--port", type=click.IntRange(0, 65535), default=ListenConfig().port, show_default=True, help="For devices.")
@click.option("--rest-port", type=click.IntRange(0, 65535), default=RestConfig().port, show_default=True, help="For the REST API.")
@click.option("--force", is_flag=True, help="Replace what is there: a new CA, so all certificates of the old one are removed.")
def init(
    directory: Path,
    devices: tuple[tuple[str, str], ...],
    publishers: tuple[str, ...],
    hosts: tuple[str, ...],
    port: int,
    rest_port: int,
    force: bool,
) -> None:
    """Make a development CA, certificates, a REST key and a commented configuration in DIRECTORY."""
    files = DevelopmentDirectory(directory)
    if not devices:
        devices = tuple(parse_device(device) for device in DEFAULT_DEVICES)
    publishers = publishers or DEFAULT_PUBLISHERS
    try:
        _clear(files, force)
        authority = CertificateAuthority.create()
        write_credentials(authority.issued, files.ca)
        write_credentials(authority.issue_server(_server_names(hosts)), files.server)
        _issue(files, authority, devices, publishers)
        key = _write_configuration(files, port, rest_port, publishers)
    except OSError as error:
        raise Failure(_explain(error)) from error
    click.echo(f"Wrote {files.toml}, certificates, and private keys in {files.secrets}.")
    click.echo(f"REST key, shown this once, kept in {files.rest_key}: {key}\n")
    _say_next(files, devices[0][0])


@click.command(short_help="Sign more certificates with that CA.")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_device_option
@_publisher_option
@click.option("--force", is_flag=True, help="Replace a certificate that is there.")
def issue(directory: Path, devices: tuple[tuple[str, str], ...], publishers: tuple[str, ...], force: bool) -> None:
    """Sign more certificates with the CA that `streampush init` made in DIRECTORY."""
    if not devices and not publishers:
        raise click.UsageError("name at least one --device or --publisher")
    files = DevelopmentDirectory(directory)
    try:
        authority = files.load_authority()
    except (OSError, ValueError) as error:
        raise Failure(f"no usable CA in {directory}, made by `streampush init`: {_explain(error)}") from error
    wanted = [files.device(device_id) for device_id, _ in devices] + [files.publisher(name) for name in publishers]
    there = [paths.certificate for paths in wanted if paths.certificate.exists()]
    if there and not force:
        raise Failure(f"{there[0]} is there already; --force replaces it")
    try:
        for paths in _issue(files, authority, devices, publishers):
            click.echo(f"{paths.certificate}  {paths.key}")
    except OSError as error:
        raise Failure(_explain(error)) from error
    if publishers:
        _say_rights(files, publishers)


def _clear(files: DevelopmentDirectory, force: bool) -> None:
    """Makes the directories; what an earlier init left is removed with `force`, anything else is a reason to stop without."""
    if files.root.exists() and any(files.root.iterdir()) and not force:
        raise Failure(f"{files.root} is not empty; --force replaces the CA, certificates, keys and configuration in it")
    files.make()
    for pattern in ("device-*.crt", "device-*.key", "publisher-*.crt", "publisher-*.key"):
        for path in files.secrets.glob(pattern):
            path.unlink()


def _issue(
    files: DevelopmentDirectory,
    authority: CertificateAuthority,
    devices: Iterable[tuple[str, str]],
    publishers: Iterable[str],
) -> list[Credentials]:
    written = []
    for device_id, user_id in devices:
        write_credentials(authority.issue_device(device_id, user_id), files.device(device_id))
        written.append(files.device(device_id))
    for name in publishers:
        write_credentials(authority.issue_publisher(name), files.publisher(name))
        written.append(files.publisher(name))
    return written


def _write_configuration(files: DevelopmentDirectory, port: int, rest_port: int, publishers: Iterable[str]) -> str:
    """Writes the REST key and the TOML file, which has only the key's hash; gives the key."""
    key = "sp_" + secrets.token_urlsafe(32)
    write_secret(files.rest_key, key.encode() + b"\n")
    active: dict[str, dict[str, object]] = {
        "listen": {"port": port},
        "tls": {
            "certificate": _relative(files, files.server.certificate),
            "key": _relative(files, files.server.key),
            "client_ca": _relative(files, files.ca.certificate),
        },
        "delivery": {"subscribe": SUBSCRIBE},
        "rest": {"port": rest_port},
    }
    digest = hashlib.sha256(key.encode()).hexdigest()
    keys = [KeyConfig("development", digest, ("*",), SCOPES)]
    files.toml.write_text(render(active, keys, dict.fromkeys(publishers, ("*",))), encoding="utf-8")
    return key


def _relative(files: DevelopmentDirectory, path: Path) -> str:
    return path.relative_to(files.root).as_posix()


def _say_next(files: DevelopmentDirectory, device_id: str) -> None:
    directory = shlex.quote(str(files.root))
    twistd, streampush = _program("twistd"), _program("streampush")
    click.echo("Type next, each in a terminal of its own:")
    click.echo(f"  {twistd} -n --pidfile= streampush --config {shlex.quote(str(files.toml))}")
    click.echo(f"  {streampush} listen --dir {directory} --device {device_id} --subscribe news/today")
    click.echo(f"  {streampush} publish --dir {directory} news/today 'Hello, world'")
    click.echo(f"  {streampush} publish --dir {directory} device:{device_id} 'Hello, you'")


def _program(name: str) -> str:
    """What to type for a script of the interpreter that runs: its bare name if a shell finds it, else its path."""
    own = Path(sysconfig.get_path("scripts"), name)
    found = shutil.which(name)
    if not own.exists() or (found is not None and own.samefile(found)):
        return name
    return shlex.quote(str(own))


def _say_rights(files: DevelopmentDirectory, publishers: Iterable[str]) -> None:
    """Sections to paste into the configuration, which is its owner's and not changed by us."""
    click.echo(f"\nAdd to {files.toml}, with the channels that you want:\n")
    for name in publishers:
        click.echo(f'[publishers."{name}"]\npublish = ["*"]\n')
    click.echo("then restart the server: SIGHUP does not read them.")


def _explain(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())

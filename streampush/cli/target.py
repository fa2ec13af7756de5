"""Where the server of a development directory is, and with what to be let in."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

from streampush.cli.directory import DevelopmentDirectory
from streampush.cli.exits import BadCredentials, Failure
from streampush.config import Config
from streampush.errors import ConfigError
from streampush.loading import load_config

directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    envvar="STREAMPUSH_DIR",
    show_envvar=True,
    help="What `streampush init` made.",
)
host_option = click.option("--host", help="Where the server is.  [default: as in the directory's configuration]")
port_option = click.option("--port", type=click.IntRange(1, 65535), help="Its port for devices.  [default: likewise]")


def parse_rest_url(text: str) -> str:
    """Where a REST API is, as an option gives it."""
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fits = False
    if not fits or not text.isascii() or not text.isprintable() or " " in text or parts.query or parts.fragment:
        raise click.BadParameter("must be as in http://HOST:PORT or https://HOST")
    return text


@dataclass(frozen=True, slots=True)
class Target:
    """A server as a client sees it. `max_payload` in bytes."""

    files: DevelopmentDirectory
    host: str
    port: int
    rest_url: str
    max_payload: int


def find_target(
    directory: Path, host: str | None = None, port: int | None = None, rest_url: str | None = None, *, framed: bool = True
) -> Target:
    """The server that the configuration in `directory` describes; without one, the defaults. Raises Failure.

    `framed`: the framed protocol is wanted, so that its port must be known.
    """
    files = DevelopmentDirectory(directory)
    config = Config()
    if files.toml.exists():
        try:
            config = load_config(str(files.toml), os.environ)
        except ConfigError as error:
            raise Failure(str(error)) from error
    port = port or config.listen.port
    if framed and not port:
        raise Failure(f"{files.toml}: listen.port: the server takes any free port, give --port")
    scheme = "https" if config.rest.certificate else "http"
    rest_host = reachable(config.rest.address)
    rest_host = f"[{rest_host}]" if ":" in rest_host else rest_host
    rest_url = rest_url or f"{scheme}://{rest_host}:{config.rest.port}"
    return Target(files, host or reachable(config.listen.address), port, rest_url.rstrip("/"), config.publish.max_payload)


def reachable(address: str) -> str:
    """Where to connect to on the server's machine, for the address that it listens on."""
    return "localhost" if ipaddress.ip_address(address).is_unspecified else address


def read_rest_ca(target: Target) -> bytes:
    """The CA of the REST API's certificate in PEM; empty if there is no TLS. Raises Failure."""
    if not target.rest_url.startswith("https:"):
        return b""
    try:
        return target.files.ca.certificate.read_bytes()
    except OSError as error:
        raise Failure(f"{target.files.ca.certificate}: {error.strerror}") from error


def read_key(path: Path) -> str:
    """The REST key in a file. Raises BadCredentials without quoting it."""
    try:
        key = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise BadCredentials(f"REST key {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        key = ""
    if not key or not key.isprintable() or " " in key:
        raise BadCredentials(f"REST key {path}: must be one line of printable ASCII")
    return key

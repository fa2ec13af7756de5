"""What the commands have in common that ask one question of the REST API: where it is, with which key, and what a refusal is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from streampush.cli.exits import RefusedByServer, describe_code
from streampush.cli.outgoing import PublishRefused
from streampush.cli.rest_client import RestClient
from streampush.cli.rest_publisher import refusal
from streampush.cli.target import find_target, parse_rest_url, read_key, read_rest_ca

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Where:
    """A REST API. `ca_pem`: the CA of its certificate, empty: what the platform trusts."""

    url: str
    key: str = field(repr=False)
    ca_pem: bytes = field(repr=False)

    def client(self, reactor: Any) -> RestClient:
        """To be closed."""
        return RestClient(reactor, self.url, self.key, self.ca_pem)


def rest_options(scope: str) -> Callable[[F], F]:
    """--dir, --url, --key and --json, for a command whose key needs that scope."""

    def decorate(command: F) -> F:
        for option in (
            click.option("--json", "as_json", is_flag=True, help="Print the server's answer as it is."),
            click.option(
                "--key",
                "key_file",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help=f"A file with the REST key, of the scope {scope}.  [default: the directory's]",
            ),
            click.option(
                "--url",
                type=parse_rest_url,
                metavar="URL",
                help="Where the REST API is.  [default: as in the directory's configuration]",
            ),
            click.option(
                "--dir",
                "directory",
                type=click.Path(exists=True, file_okay=False, path_type=Path),
                envvar="STREAMPUSH_DIR",
                show_envvar=True,
                help="What `streampush init` made: says where the server is, and has its key.",
            ),
        ):
            command = option(command)
        return command

    return decorate


def find_rest(directory: Path | None, url: str | None, key_file: Path | None) -> Where:
    """The API that the options name. Raises Failure and click.UsageError."""
    if directory is None:
        if url is None or key_file is None:
            raise click.UsageError("give --dir, or --url and --key")
        return Where(url.rstrip("/"), read_key(key_file), b"")
    target = find_target(directory, rest_url=url, framed=False)
    ca_pem = read_rest_ca(target)
    return Where(target.rest_url, read_key(key_file or target.files.rest_key), ca_pem)


async def question(reactor: Any, where: Where, method: str, path: str) -> dict[str, Any]:
    """The object that the server answers with. Raises Failure."""
    client = where.client(reactor)
    try:
        status, answer = await client.ask(method, path)
    finally:
        await client.close()
    if status != 200:
        raise failure_of(status, answer)
    return answer


def failure_of(status: int, answer: dict[str, Any]) -> Exception:
    """How the command ends with such an answer."""
    error = refusal(status, answer)
    if isinstance(error, PublishRefused):
        return RefusedByServer(f"refused: {describe_code(error.code, error.advice, error.detail, error.retry_after)}")
    return error

"""`streampush publish`: one message, or many, over REST or over the framed protocol."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from twisted.internet.task import deferLater

from streampush.cli.alert_options import message_alert, message_alert_options
from streampush.cli.exits import Failure, RefusedByServer, describe_code
from streampush.cli.outgoing import Outgoing, Publisher, PublishRefused, Sent
from streampush.cli.patience import Patience
from streampush.cli.rest_publisher import RestPublisher
from streampush.cli.running import run
from streampush.cli.sources import lines, once, read_payload
from streampush.cli.stream_publisher import StreamPublisher
from streampush.cli.target import (
    Target,
    directory_option,
    find_target,
    host_option,
    parse_rest_url,
    port_option,
    read_key,
    read_rest_ca,
)
from streampush.cli.words import counted
from streampush.protocol.terms import Priority

PRIORITIES = {"low": Priority.LOW, "normal": Priority.UNSPECIFIED, "high": Priority.HIGH}

MAX_TRIES = 5
"""How often a message is tried that the server wants later."""

Payloads = Callable[[Any], AsyncIterator[bytes]]
"""Begins to read payloads, given the reactor."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to publish: `model` with each payload; `total` None: not known. `rate` in messages a second, 0: as fast as it goes."""

    model: Outgoing
    payloads: Payloads = field(repr=False)
    total: int | None
    rate: float
    as_json: bool


def parse_header(text: str) -> tuple[str, str]:
    """A header given as NAME=VALUE."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.BadParameter("must be NAME=VALUE")
    return name, value


def parse_moment(text: str) -> int:
    """A point in time in Unix milliseconds: given so, or as +SECONDS from now."""
    try:
        moment = round((time.time() + float(text[1:])) * 1000) if text.startswith("+") else int(text)
    except (ValueError, OverflowError):
        moment = 0
    if not 0 < moment < 1 << 63:
        raise click.BadParameter("must be Unix time in milliseconds, or +SECONDS from now")
    return moment


@click.command(short_help="Publish one message or many.")
@click.argument("channel")
@click.argument("payload", required=False)
@directory_option
@click.option(
    "--file", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The payload is this file's content."
)
@click.option("--stdin-lines", is_flag=True, help="A message for each line of standard input; empty lines are left out.")
@click.option("--repeat", type=click.IntRange(1), default=1, help="Publish the payload so often.")
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="At most so many messages a second.  [default: no limit]")
@click.option("--content-type", default="", help="What the payload is, as in text/plain.")
@click.option("--header", "headers", type=parse_header, multiple=True, metavar="NAME=VALUE", help="A header of the message.")
@click.option("--ttl", type=click.FloatRange(0), default=0.0, help="Seconds to live.  [default: as long as the server keeps it]")
@click.option("--expires-at", "expires_at_ms", type=parse_moment, metavar="TIME", help="Instead of --ttl: when it expires.")
@click.option(
    "--deliver-at",
    "deliver_at_ms",
    type=parse_moment,
    metavar="TIME",
    help="Not before then. TIME is Unix milliseconds, or +SECONDS.",
)
@click.option(
    "--priority", type=click.Choice(list(PRIORITIES)), default="normal", show_default=True, help="How soon, among other channels."
)
@click.option("--collapse-key", default="", metavar="KEY", help="It takes the place of earlier ones with this key.")
@click.option(
    "--version",
    type=click.IntRange(0, (1 << 63) - 1),
    default=0,
    help="Store it only if it is above that of the newest with the key.",
)
@click.option("--want-receipt", is_flag=True, help="Let the server keep account of what becomes of it.")
@click.option("--clear-on-processed", is_flag=True, help="To a user: recall it when one device has processed it.")
@click.option("--idempotency-key", default="", metavar="KEY", help="A second message with this key is stored only once.")
@message_alert_options
@click.option("--publisher", metavar="NAME", help="Over the framed protocol, with the certificate of this publisher.")
@click.option("--rest", "over_rest", is_flag=True, help="Over the REST API, with the key of the directory (the default).")
@click.option(
    "--rest-url", type=parse_rest_url, metavar="URL", help="Where the REST API is.  [default: as in the directory's configuration]"
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each message, as REST answers.")
@host_option
@port_option
def publish(
    channel: str,
    payload: str | None,
    directory: Path,
    path: Path | None,
    stdin_lines: bool,
    repeat: int,
    publisher: str | None,
    over_rest: bool,
    rest_url: str | None,
    host: str | None,
    port: int | None,
    **options: Any,
) -> None:
    """Publish PAYLOAD to CHANNEL: device:ID, user:ID or a topic.

    Without PAYLOAD, --file and --stdin-lines the payload is what is on standard input.

    With an alert (--title, --body, --badge, --sound or --background, and what goes with them) a device that is away, or does not
    acknowledge the message in time, is pushed the alert over Apple. Many messages have the same one.
    """
    if sum((payload is not None, path is not None, stdin_lines)) > 1:
        raise click.UsageError("give one of PAYLOAD, --file and --stdin-lines")
    if stdin_lines and repeat != 1:
        raise click.UsageError("--repeat is for a single payload, not for --stdin-lines")
    if options["idempotency_key"] and (stdin_lines or repeat != 1):
        raise click.UsageError("--idempotency-key is for one message: the others would be taken for repeats of it")
    if options["ttl"] and options["expires_at_ms"]:
        raise click.UsageError("give --ttl or --expires-at, not both")
    if publisher is not None and (over_rest or rest_url):
        raise click.UsageError("give --publisher or REST, not both")
    if publisher is None and (host is not None or port is not None):
        raise click.UsageError("--host and --port are where the framed protocol of --publisher is; for REST give --rest-url")
    target = find_target(directory, host, port, rest_url, framed=publisher is not None)
    payloads = _payloads(payload, path, stdin_lines, repeat, target.max_payload)
    job = Job(_model(channel, options), payloads, None if stdin_lines else repeat, options["rate"], options["as_json"])
    make = _maker(target, publisher)

    async def work(reactor: Any) -> None:
        await carry_out(reactor, make(reactor), job)

    run(work)


def _model(channel: str, options: dict[str, Any]) -> Outgoing:
    same = ("content_type", "ttl", "collapse_key", "version", "want_receipt", "clear_on_processed", "idempotency_key")
    return Outgoing(
        channel,
        b"",
        headers=dict(options["headers"]),
        expires_at_ms=options["expires_at_ms"] or 0,
        deliver_at_ms=options["deliver_at_ms"] or 0,
        priority=PRIORITIES[options["priority"]],
        alert=message_alert(channel, options),
        **{name: options[name] for name in same},
    )


def _payloads(payload: str | None, path: Path | None, stdin_lines: bool, repeat: int, limit: int) -> Payloads:
    descriptor = sys.stdin.fileno() if payload is None and path is None else -1
    if stdin_lines:
        return lambda reactor: lines(reactor, descriptor, limit)
    if payload is None:
        data = read_payload(path, descriptor, limit)
    else:
        data = payload.encode("utf-8", "surrogateescape")  # an argument of other bytes than UTF-8 goes out as it came
    if len(data) > limit:
        raise Failure(f"the payload is longer than {limit} bytes, the server's limit (publish.max_payload)")
    return lambda reactor: once(data, repeat)


def _maker(target: Target, publisher: str | None) -> Callable[[Any], Publisher]:
    if publisher is not None:
        return lambda reactor: StreamPublisher.of_target(reactor, target, publisher)
    key = read_key(target.files.rest_key)
    ca_pem = read_rest_ca(target)
    return lambda reactor: RestPublisher(reactor, target.rest_url, key, ca_pem)


async def carry_out(reactor: Any, publisher: Publisher, job: Job) -> None:
    """Publishes, says what became of it, closes the publisher. Raises Failure, which tells how many went out before it."""
    many = job.total != 1 and not job.as_json
    hidden = not (many and sys.stderr.isatty())
    sent: list[Sent] = []  # the first and the last
    count = 0
    started = reactor.seconds()
    with click.progressbar(_nothing(), length=job.total, label="publishing", file=sys.stderr, hidden=hidden, show_pos=True) as bar:

        def report(one: Sent) -> None:
            nonlocal count
            count += 1
            sent[1 if sent else 0 :] = [one]
            bar.update(1)
            if not many:
                click.echo(json.dumps(one.document()) if job.as_json else sentence(one))

        def say(text: str) -> None:
            click.echo(text if hidden else f"\n{text}", err=True)

        try:
            await publish_all(reactor, publisher, job, report, Patience(reactor, say, answer_timeout=publisher.answer_timeout))
        except PublishRefused as error:
            text = f"refused: {describe_code(error.code, error.advice, error.detail, error.retry_after)}"
            raise RefusedByServer(text + _so_far(count)) from error
        except Failure as error:
            raise type(error)(error.message + _so_far(count)) from error
        finally:
            await publisher.close()
    if many:
        click.echo(_summary(sent, count, reactor.seconds() - started))


async def publish_all(clock: Any, publisher: Publisher, job: Job, report: Callable[[Sent], None], patience: Patience) -> None:
    """Publishes one after the other, so that they are stored in order; `report` is told of each, `patience` of those that wait.

    `clock`: an IReactorTime. Raises as Publisher.publish does.
    """
    started = clock.seconds()
    number = 0
    async with aclosing(job.payloads(clock)) as payloads:  # type: ignore[type-var]  # an async generator, and must be closed
        async for payload in payloads:
            due = started + number / job.rate if job.rate else 0.0
            if due > clock.seconds():
                await deferLater(clock, due - clock.seconds())
            patience.begin()
            try:
                sent = await _patiently(clock, publisher, replace(job.model, payload=payload), patience)
            finally:
                patience.end()
            report(sent)
            number += 1


async def _patiently(clock: Any, publisher: Publisher, message: Outgoing, patience: Patience) -> Sent:
    """Publishes, and obeys a server that says when to try again."""
    for tries in range(MAX_TRIES - 1, 0, -1):
        begun = clock.seconds()
        try:
            return await publisher.publish(message)
        except PublishRefused as error:
            if not error.retry_after:
                raise
            patience.refused(error, tries, tries * (clock.seconds() - begun + error.retry_after))
            await deferLater(clock, error.retry_after)
    return await publisher.publish(message)


def _nothing() -> Any:
    """An iterable of no known length: the bar is moved by hand."""
    yield from ()


def sentence(sent: Sent) -> str:
    """What became of one message, for people."""
    if sent.superseded:
        return f"not stored: {sent.channel} has this version or a newer one at offset {sent.offset}"
    if sent.deliver_at_ms:
        due = datetime.fromtimestamp(sent.deliver_at_ms / 1000, UTC).isoformat(timespec="milliseconds")
        return f"scheduled {sent.message_id} to {sent.channel} for {due}" + (" (was before)" if sent.duplicate else "")
    if sent.duplicate:
        return f"published before: {sent.message_id} to {sent.channel}, offset {sent.offset}"
    devices = counted(sent.connections, "connection")
    return f"published {sent.message_id} to {sent.channel}, offset {sent.offset}, {devices}"


def _summary(sent: list[Sent], count: int, seconds: float) -> str:
    if not sent:
        return "nothing to publish"
    rate = count / seconds if seconds > 0 else float(count)
    return f"published {count} messages to {sent[0].channel}, offsets {sent[0].offset} to {sent[-1].offset}, {rate:.0f} a second"


def _so_far(count: int) -> str:
    return f" (published before that: {count})" if count else ""

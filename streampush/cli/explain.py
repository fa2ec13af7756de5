"""`streampush explain`: why is this device silent? The server's answer, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from streampush.cli.asking import Where, find_rest, question, rest_options
from streampush.cli.exits import Failure
from streampush.cli.running import run
from streampush.cli.words import shown

_MARKS = {"problem": "!!", "note": " -", "fine": "ok"}
_COLUMNS = (
    "channel", "acknowledged", "sent", "top", "waiting", "unacknowledged", "held", "attempts", "redeliveries", "lost", "durable",
)  # fmt: skip


@click.command(short_help="Why is this device silent?")
@click.argument("device")
@rest_options("read")
def explain(device: str, directory: Path | None, url: str | None, key_file: Path | None, as_json: bool) -> None:
    """Say in words why DEVICE gets nothing: where it is, what waits for it, what it does not acknowledge.

    First what is wrong (!!), then what is worth knowing (-) and what is well (ok), then the facts that this stands on.
    Exit status 1 if no device of this name was ever seen.
    """
    where = find_rest(directory, url, key_file)

    async def work(reactor: Any) -> bool:
        answer = await ask(reactor, where, device)
        if as_json:
            click.echo(json.dumps(answer, indent=2))
        else:
            for line in render(answer):
                click.echo(line)
        return bool(answer["facts"]["known"])

    if not run(work):
        raise click.exceptions.Exit(1)


async def ask(reactor: Any, where: Where, device: str) -> dict[str, Any]:
    """The server's explanation, see `Explanation` in openapi.json. Raises Failure."""
    answer = await question(reactor, where, "GET", f"/v1/devices/{quote(device, safe='')}/explain")
    if not isinstance(answer.get("verdicts"), list) or not isinstance(answer.get("facts"), dict):
        raise Failure(f"{where.url} answers like no streampush server")
    return answer


def render(answer: Mapping[str, Any]) -> Iterator[str]:
    """The lines for people."""
    facts = answer["facts"]
    yield shown(facts["device_id"])
    for verdict in answer["verdicts"]:
        yield f"  {_MARKS.get(verdict['severity'], '  ')} {shown(verdict['text'])}"
    if not facts["known"]:
        return
    yield ""
    for name, value in _facts(facts):
        yield f"{name:<14}{shown(value)}"
    rows = facts["channels"]
    if rows:
        yield ""
        yield from _table([_COLUMNS, *([_cell(row[column]) for column in _COLUMNS] for row in rows)])
    if facts["more_channels"]:
        yield f"and {facts['more_channels']} more channels"


def _facts(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "user", facts["user_id"] or "none"
    yield "first seen", _time(facts["first_seen_ms"])
    yield "last seen", _time(facts["last_seen_ms"])
    connection = facts["connection"]
    if connection is None:
        yield "connection", f"to node {facts['other_node']}" if facts["other_node"] else "none"
    else:
        yield from _connection(connection)
    close = facts["last_close"]
    if close is not None:
        yield "last close", f"{_ended(close)}, {_time(close['at_ms'])}"
    yield "push token", "registered" if facts["push_token"] else "none"
    yield "dead letters", str(facts["dead_letters"])
    rate = facts["rate"]
    if rate is not None:
        left = f"{rate['tokens']:.1f} of {rate['burst']:g} requests left, {rate['rate']:g} a second"
        where = (", on all nodes together", " on this node") if rate["shared"] else ("", "")
        text = f"{left}{where[0]}; {rate['refused']} refused{where[1]}"
        yield "request rate", text


def _ended(close: Mapping[str, Any]) -> str:
    if not close["code"]:
        return f"by the device: {close['detail']}" if close["detail"] else "by the device"
    return f"{close['code']} {close['detail']}, advice {close['advice']}"


def _connection(connection: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    app = " ".join(part for part in (connection["app"], connection["app_version"]) if part) or "not named"
    yield "connection", f"{connection['session_id']} from {connection['address']} since {_time(connection['connected_at_ms'])}"
    yield "generation", str(connection["generation"])
    state = connection["state"].lower()
    yield "application", app if state == "unspecified" else f"{app}, {state}"
    messages = f"{connection['open_messages']} of {connection['window_messages']} messages"
    size = f"{connection['open_bytes']} of {connection['window_bytes']} bytes"
    yield "window", f"{messages}, {size} unacknowledged{'' if connection['has_room'] else '; the send buffer is full'}"
    trips = ", ".join(f"{seconds * 1000:.0f}" for seconds in connection["round_trips"])
    beats = f"round trips {trips} ms" if trips else "no round trip yet"
    yield "heartbeat", f"{beats}; {connection['missed']} pings missed, {connection['jitters']} times silent for longer than normal"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
    for row in rows:
        first, *others = (
            cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join((first, *others)).rstrip()


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return shown(str(value))


def _time(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC" if at_ms else "never"

"""`streampush status` and `streampush recall`: what became of a message, and taking it back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from streampush.cli.asking import Where, find_rest, question, rest_options
from streampush.cli.event_stream import Event, follow
from streampush.cli.exits import Failure
from streampush.cli.running import run
from streampush.cli.words import counted, shown


@click.command(short_help="What became of a message?")
@click.argument("message_id")
@click.option("--follow", "follows", is_flag=True, help="Go on telling until nothing more can happen; --json: an event a line.")
@rest_options("read")
def status(message_id: str, follows: bool, directory: Path | None, url: str | None, key_file: Path | None, as_json: bool) -> None:
    """Say what became of MESSAGE_ID, as `streampush publish` printed it: on each device, with the time of each step.

    Of a message to a topic that wanted a receipt it is counted how many devices have reached each step.
    """
    where = find_rest(directory, url, key_file)

    async def work(reactor: Any) -> None:
        if follows:
            await tell(reactor, where, message_id, as_json=as_json)
            return
        answer = await question(reactor, where, "GET", _path(message_id))
        if as_json:
            click.echo(json.dumps(answer, indent=2))
            return
        if not isinstance(answer.get("devices"), list) or not isinstance(answer.get("counts"), dict):
            raise Failure(f"{where.url} answers like no streampush server")
        for line in render(answer):
            click.echo(line)

    run(work)


@click.command(short_help="Take a message back.")
@click.argument("message_id")
@rest_options("publish")
def recall(message_id: str, directory: Path | None, url: str | None, key_file: Path | None, as_json: bool) -> None:
    """Take MESSAGE_ID back: who has not got it will not, and who has it gets a recall notice. Doing it again is harmless."""
    where = find_rest(directory, url, key_file)

    async def work(reactor: Any) -> None:
        answer = await question(reactor, where, "DELETE", _path(message_id))
        click.echo(json.dumps(answer, indent=2) if as_json else recalled(answer))

    run(work)


def _path(message_id: str) -> str:
    return f"/v1/messages/{quote(message_id, safe='')}"


def recalled(answer: Mapping[str, Any]) -> str:
    """What became of a recall, for people."""
    name = f"{shown(answer.get('message_id', ''))} to {shown(answer.get('channel', ''))}"
    if answer.get("was") == "scheduled":
        return f"recalled {name}: it was scheduled, and goes out to nobody"
    if answer.get("was") == "recalled":
        return f"recalled before: {name}"
    devices = counted(answer.get("connections", 0), "connection")
    return f"recalled {name}: notice at offset {answer.get('notice_offset')}, {devices}"


def render(answer: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a message's status for people."""
    where = f"offset {answer['offset']}" if answer["offset"] else f"for {_time(answer['deliver_at'])}"
    yield f"{shown(answer['message_id'])} to {shown(answer['channel'])}, {where}: {answer['state']}"
    yield f"published     {_time(answer['published_at_ms'])} by {shown(answer['publisher'])}, {counted(answer['size'], 'byte')}"
    if answer["expires_at"]:
        yield f"expires       {_time(answer['expires_at'])}"
    if answer["recalls"]:
        yield f"recalls       {shown(answer['recalls'])}"
    if answer["superseded_by"]:
        yield f"superseded    by offset {answer['superseded_by']}"
    for row in answer["devices"]:
        times = row["milestones_ms"]
        accepted = times.get("accepted", answer["published_at_ms"])
        steps = ", ".join(f"{name} +{(at - accepted) / 1000:.3f} s" for name, at in times.items() if name != "accepted")
        yield f"  {shown(row['device_id'])}: {row['state']}{f' ({steps})' if steps else ''}"
        if "push" in row:
            yield f"    {_push(row['push'], accepted)}"
    if answer["more_devices"]:
        yield "  and more devices"
    for name, number in answer["counts"].items():
        yield f"  {name}: {counted(number, 'device')}"
    for name, count in answer.get("pushes", {}).items():
        yield f"  pushes {name.replace('_', ' ')}: {count}"


def _push(push: Mapping[str, Any], accepted: int) -> str:
    words = [f"push {shown(push['outcome']).replace('_', ' ')} +{(push['at_ms'] - accepted) / 1000:.3f} s"]
    if push["reason"]:
        words.append(shown(push["reason"]))
    if push["apns_id"]:
        words.append(f"apns-id {shown(push['apns_id'])}")
    return ", ".join(words)


async def tell(reactor: Any, where: Where, message_id: str, *, as_json: bool) -> None:
    """Prints what happens to the message as it happens, until nothing more can. Raises Failure."""
    client = where.client(reactor)
    told: dict[str, Event] = {}  # a new connection begins with what is so already

    def hear(event: Event) -> None:
        if event.name != "milestone" and told.get(event.name) == event:
            return
        told[event.name] = event
        click.echo(json.dumps({"event": event.name, **event.data}) if as_json else sentence(event))

    try:
        reason = await follow(reactor, client, f"{_path(message_id)}/events", hear)
    finally:
        await client.close()
    click.echo(json.dumps({"event": "end", "reason": reason}) if as_json else f"end: {shown(reason)}")


def sentence(event: Event) -> str:
    """One event for people."""
    data = event.data
    if event.name == "state":
        return f"the message is {shown(data.get('state', ''))}"
    if event.name == "milestone":
        at_ms = data.get("at_ms", 0)
        when = _time(at_ms) if isinstance(at_ms, int) else ""
        return f"{when}  {shown(data.get('device_id', ''))}: {shown(data.get('milestone', ''))}"
    return ", ".join(f"{shown(name)}: {shown(value)}" for name, value in data.items())


def _time(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(sep=' ', timespec='milliseconds').removesuffix('+00:00')} UTC"

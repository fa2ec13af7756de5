"""`streampush apns status`: how a server's pushes to Apple stand. The server's answer, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from streampush.apns.provider_token import SKEW_TOLERANCE, Skew
from streampush.apns.reasons import REASONS
from streampush.cli.asking import find_rest, question, rest_options
from streampush.cli.exits import Failure
from streampush.cli.running import run
from streampush.cli.words import shown


@click.command(name="status", short_help="How do pushes stand?")
@rest_options("read")
def apns_status(directory: Path | None, url: str | None, key_file: Path | None, as_json: bool) -> None:
    """Say how pushes to Apple stand: what waits and what ended how, for each app; each connection with what happened to it.

    Exit status 1 if Apple refuses a key or certificate, or there is no connection where one is needed.
    """
    where = find_rest(directory, url, key_file)

    async def work(reactor: Any) -> bool:
        answer = await question(reactor, where, "GET", "/v1/apns")
        if not isinstance(answer.get("apps"), list) or not isinstance(answer.get("routes"), list):
            raise Failure(f"{where.url} answers like no streampush server")
        for line in [json.dumps(answer, indent=2)] if as_json else render_status(answer):
            click.echo(line)
        return not any(app["stopped_by"] for app in answer["apps"]) and not any(route["fault"] for route in answer["routes"])

    if not run(work):
        raise click.exceptions.Exit(1)


def render_status(answer: Mapping[str, Any]) -> Iterator[str]:
    """The lines of `status` for people."""
    if not answer["apps"]:
        yield "no [[apns.apps]] in force: nothing is pushed"
    for app in answer["apps"]:
        yield from _app(app)
    for route in answer["routes"]:
        yield f"{shown(route['host'])}:{route['port']} for {', '.join(map(shown, route['apps']))}, {route['waiting']} waiting"
        if route["fault"]:
            yield f"  !! no connection: {shown(route['fault'])}"
        for link in (*route["connections"], *route["past"]):
            yield from _connection(link)


def _app(app: Mapping[str, Any]) -> Iterator[str]:
    has_expired = not app["key_id"] and app["certificate_days"] <= 0
    credential = f"key {shown(app['key_id'])}" if app["key_id"] else f"certificate, {max(app['certificate_days'], 0)} days left"
    yield f"{shown(app['name'])}: {shown(app['bundle_id'])}, {shown(app['environment'])}, {credential}"
    if has_expired:
        yield "  !! the certificate has expired: renew it in Apple's developer account, reload"
    if app["stopped_by"]:
        yield f"  !! Apple refuses the key or certificate: {_explained(app['stopped_by'])}"
    for topic in app["stopped_topics"]:
        yield f"  !! Apple refuses the topic {shown(topic)}"
    if app["breaker"] != "closed":
        yield f"  !! too many pushes fail, hardly any go out: the breaker is {shown(app['breaker']).replace('_', ' ')}"
    if abs(app["clock_offset"]) > SKEW_TOLERANCE:
        yield f"  !! {Skew(app['clock_offset'])}: it takes provider tokens for invalid or expired"
    yield f"  delivered   {app['delivered']}"
    for other in app["others"]:
        reason = f" {shown(other['reason'])}" if other["reason"] else ""
        yield f"  {shown(other['outcome']).replace('_', ' ')}{reason}: {other['pushes']}"
    waiting = f"{app['queued']} for room, {app['resting']} for their next try, {app['held']} for another credential"
    yield f"  waiting     {waiting}"
    yield f"  in flight   {app['in_flight']} of at most {app['limit']}"


def _connection(link: Mapping[str, Any]) -> Iterator[str]:
    tail = "" if link["round_trip_ms"] is None else f", {link['round_trip_ms']} ms for a PING"
    carried = f"{link['sent']} sent, {link['answers']} answered, {link['in_flight']} in flight"
    yield f"  connection {link['number']} to {shown(link['address']) or 'nowhere yet'}, {shown(link['state'])}: {carried}{tail}"
    for moment in link["timeline"]:
        yield f"    {moment['ago']:>10.3f} s ago  {shown(moment['what'])}"


def _explained(reason: str) -> str:
    known = REASONS.get(reason)
    if known is None:
        return shown(reason)
    return f"{reason}: {known.meaning}" + (f"; {known.advice}" if known.advice else "")

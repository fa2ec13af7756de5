"""`streampush apns why`: what became of a push, and what to do about it. The server's answer, for people."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from streampush.apns.reasons import REASONS, Action, treatment
from streampush.cli.asking import find_rest, question, rest_options
from streampush.cli.exits import Failure
from streampush.cli.running import run
from streampush.cli.words import shown

_FIELDS = ("message_id", "device_id", "outcome", "reason", "apns_id")

_OUTCOMES: Mapping[str, str] = {
    "delivered": "Apple took it; whether the device showed it Apple does not tell",
    "not_sent": "Apple never had it",
    "unknown": "it was sent and no answer came: it may have been shown",
    "cancelled": "it was not needed any more: nothing was sent",
}

_DONE: Mapping[Action, str] = {
    Action.NEVER: "the push was given up: it would be rejected again",
    Action.DROP_TOKEN: "the push was given up; the device token is forgotten unless it was registered again since, "
    "or most tokens of the app are refused",
    Action.STOP_TOPIC: "nothing more goes to this topic until the configuration has changed",
    Action.STOP_CREDENTIAL: "nothing more goes out with this key or certificate until it is replaced",
}
"""What the server does about a rejection for good. After the others it tries again while there is time."""

_STATUS = re.compile(r"status (\d{3})")
"""What stands for a reason that Apple did not give."""


@click.command(short_help="What became of a push?")
@click.argument("apns_id")
@rest_options("read")
def why(apns_id: str, directory: Path | None, url: str | None, key_file: Path | None, as_json: bool) -> None:
    """Say what became of the push APNS_ID, which `streampush status` shows: of which message to which device, how it ended, what
    Apple's reason means and what to do about it.

    Known as long as the message is in its channel's log. Exit status 3: no such push is known.
    """
    where = find_rest(directory, url, key_file)

    async def work(reactor: Any) -> None:
        answer = await question(reactor, where, "GET", f"/v1/apns/pushes/{quote(apns_id, safe='')}")
        if any(not isinstance(answer.get(name), str) for name in _FIELDS) or not isinstance(answer.get("at_ms"), int):
            raise Failure(f"{where.url} answers like no streampush server")
        if as_json:
            click.echo(json.dumps(answer, indent=2))
            return
        for line in render(answer):
            click.echo(line)

    run(work)


def render(answer: Mapping[str, Any]) -> Iterator[str]:
    """The lines for people."""
    outcome, reason = answer["outcome"], answer["reason"]
    yield f"push {shown(answer['apns_id'])} of message {shown(answer['message_id'])} to {shown(answer['device_id'])}"
    yield f"{shown(outcome).replace('_', ' ')} at {datetime.fromtimestamp(answer['at_ms'] / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if outcome == "rejected":
        yield from _rejected(reason)
        return
    if reason:
        yield f"reason   {shown(reason)}"
    if outcome in _OUTCOMES:
        yield f"meaning  {_OUTCOMES[outcome]}"


def _rejected(reason: str) -> Iterator[str]:
    status = _STATUS.fullmatch(reason)
    yield f"reason   {shown(reason)}"
    if status is None and reason not in REASONS:
        yield "meaning  a reason that streampush does not know"
        return
    known = treatment(0 if status is None else int(status[1]), reason)
    yield f"meaning  {known.meaning}"
    yield f"effect   {_DONE.get(known.action, 'the push was tried again while there was time')}"
    if known.advice:
        yield f"advice   {known.advice}"

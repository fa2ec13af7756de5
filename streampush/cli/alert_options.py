"""The options that say what a push shows: the same for `streampush publish` and `streampush apns send`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import click

from streampush.cli.exits import Failure
from streampush.config import INTERRUPTION_LEVELS
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.alerts import MAX_BADGE, MAX_FALLBACK_AFTER_MS, canonical
from streampush.push.values import Alert

TEXTS = ("title", "subtitle", "body", "sound", "category", "thread_id", "interruption_level")
WORDS = (*TEXTS, "badge", "mutable_content", "relevance_score", "custom")
"""What an alert may say: the words of the alert block (push/alerts.py), and the names of the options."""

RULES = ("fallback_after", "only_when_away")

Command = Callable[..., Any]


def parse_custom(context: click.Context, parameter: click.Parameter, text: str | None) -> dict[str, Any] | None:
    """A JSON object in UTF-8. Its content is not quoted in an error."""
    if text is None:
        return None
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise click.BadParameter("must be a JSON object")
    return value


def parse_after(context: click.Context, parameter: click.Parameter, seconds: float | None) -> int | None:
    """Seconds as whole milliseconds, one at least."""
    if seconds is None:
        return None
    if not 0.001 <= seconds <= MAX_FALLBACK_AFTER_MS / 1000:  # "not a number" is neither
        raise click.BadParameter(f"must be from 0.001 to {MAX_FALLBACK_AFTER_MS // 1000} seconds")
    return round(seconds * 1000)


def alert_options(command: Command) -> Command:
    """What a push shows, but for the body; `said` reads them."""
    return _with(
        command,
        click.option("--title", help="The alert's title."),
        click.option("--subtitle", help="Its second line."),
        click.option("--badge", type=click.IntRange(0, MAX_BADGE), help="The number at the app's icon; 0 takes it away."),
        click.option("--sound", help='"default", or the name of a file in the app.'),
        click.option("--category", help="The app's name of the buttons that go with it."),
        click.option("--thread-id", help="Groups notifications."),
        click.option("--interruption-level", type=click.Choice(INTERRUPTION_LEVELS), help="How much it may disturb."),
        click.option("--relevance-score", type=click.FloatRange(0, 1), help="Orders the app's notifications in a summary."),
        click.option("--mutable-content", is_flag=True, help="The app may change it before it is shown."),
        click.option("--custom", callback=parse_custom, metavar="JSON", help="The app's own keys beside the alert, an object."),
        click.option("--background", is_flag=True, help="Wake the app, and show nothing."),
    )


def message_alert_options(command: Command) -> Command:
    """The alert of a message, and when it falls back; `message_alert` reads them."""
    limit = MAX_FALLBACK_AFTER_MS // 1000
    after = f"So many seconds a connected device may stay silent, at most {limit}.  [default: as the server is configured]"
    rules = _with(
        command,
        click.option("--fallback-after", type=float, callback=parse_after, metavar="SECONDS", help=after),
        click.option("--only-when-away", is_flag=True, help="Wait for a device that is connected."),
    )
    body = click.option("--body", help="The text of an alert, which devices that are away are pushed over Apple.")
    return _with(alert_options(rules), body)


def _with(command: Command, *options: Callable[[Command], Command]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def said(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the options say, in the words of the alert block; an option that was given an empty text says nothing."""
    return {name: options[name] for name in WORDS if not _unsaid(options[name])}


def message_alert(channel: str, options: Mapping[str, Any]) -> Alert | None:
    """The alert of a message to this channel; None if no option asks for one.

    Raises UsageError for what makes no sense, Failure for one that is too large: both as the server would say it.
    """
    if all(options[name] is None or options[name] is False for name in (*WORDS, *RULES, "background")):
        return None
    words = said(options)
    if "custom" in words:
        words["custom"] = json.dumps(words["custom"], ensure_ascii=False, separators=(",", ":"))
    alert = Alert(
        **words,
        background=options["background"],
        fallback_after_ms=options["fallback_after"] or 0,
        only_when_away=options["only_when_away"],
    )
    try:
        canonical(alert, channel.encode("utf-8", "replace").decode())  # an argument may be other bytes than UTF-8
    except Refused as refused:
        if refused.code is Code.PAYLOAD_TOO_LARGE:
            raise Failure(refused.detail) from refused
        if refused.code is Code.SERIALIZATION_ERROR:
            raise click.UsageError(refused.detail) from refused
        # what is left concerns the channel: the server says so, as it does without an alert
    return alert


def _unsaid(value: object) -> bool:
    return value is None or value is False or value == ""

"""`streampush publish` with an alert: what it asks for, what it refuses, and that Apple gets it over both ways to the server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from twisted.internet.utils import getProcessOutputAndValue

from streampush.cli.alert_options import RULES, WORDS, message_alert, message_alert_options
from streampush.cli.main import main
from streampush.push.values import Alert
from streampush.rest.fields import ALERT_FIELDS
from tests.integration.harness import run as runs
from tests.integration.test_apple_pushes import AppleTestCase
from tests.integration.test_rest_live import KEY
from tests.support import make_files

EVERYTHING = (
    *(
        "--title",
        "t",
        "--subtitle",
        "s",
        "--body",
        "b",
        "--badge",
        "0",
        "--sound",
        "default",
        "--category",
        "c",
        "--thread-id",
        "i",
    ),
    *("--mutable-content", "--interruption-level", "active", "--relevance-score", "0", "--custom", '{"a": [1, "é"]}'),
)
SAID = Alert("t", "s", "b", 0, "default", "c", "i", True, "active", 0.0, '{"a":[1,"é"]}')

APPLES = {
    "aps": {
        "alert": {"title": "t", "subtitle": "s", "body": "b"},
        "badge": 0,
        "sound": "default",
        "category": "c",
        "thread-id": "i",
        "mutable-content": 1,
        "interruption-level": "active",
        "relevance-score": 0.0,
    },
    "a": [1, "é"],
}
"""What Apple is to get of it."""


def asked(*arguments: str, channel: str = "news") -> Alert | None:
    """The alert that these options ask for."""
    found: list[Alert | None] = []

    @click.command()
    @message_alert_options
    def command(**options: Any) -> None:
        found.append(message_alert(channel, options))

    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return found[0]


def test_without_an_option_there_is_no_alert() -> None:
    assert asked() is None


@pytest.mark.parametrize(
    ("arguments", "alert"),
    [
        (EVERYTHING, SAID),
        (("--badge", "0"), Alert(badge=0)),
        (("--background",), Alert(background=True)),
        (("--background", "--custom", "{}", "--only-when-away"), Alert(background=True, custom="{}", only_when_away=True)),
        (("--body", "b", "--fallback-after", "1.5"), Alert(body="b", fallback_after_ms=1500)),
        (("--body", "b", "--fallback-after", "86400"), Alert(body="b", fallback_after_ms=86_400_000)),
        (("--title", "t", "--body", ""), Alert("t")),
    ],
)
def test_an_alert_says_what_the_options_say(arguments: tuple[str, ...], alert: Alert) -> None:
    assert asked(*arguments) == alert


@pytest.mark.parametrize("channel", ["", "a b", "device:", "\udcff"])
def test_a_channel_that_is_none_is_left_to_the_server(channel: str) -> None:
    assert asked("--title", "t", channel=channel) == Alert("t")


def test_there_is_an_option_for_all_that_the_rest_api_takes() -> None:
    assert {*WORDS, *RULES} == set(ALERT_FIELDS)


# ---------------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_files(tmp_path, devices=(), publishers=())
    return tmp_path


def run(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["publish", "--dir", str(directory), "news", "payload", *arguments])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--title", ""), "alert.title: the alert says nothing"),
        (("--category", "c"), "alert.title: the alert says nothing"),
        (("--custom", "{}"), "alert.title: the alert says nothing"),
        (("--fallback-after", "5"), "alert.title: the alert says nothing"),
        (("--only-when-away",), "alert.title: the alert says nothing"),
        (("--background", "--body", "b"), "alert.body: what wakes the app in the background shows and plays nothing"),
        (("--background", "--badge", "0"), "alert.badge: what wakes the app in the background shows and plays nothing"),
        (("--badge", "1", "--mutable-content"), "alert.mutable_content: "),
        (("--body", "b", "--fallback-after", "5", "--only-when-away"), "alert.only_when_away contradicts fallback_after"),
        (("--body", "b", "--fallback-after", "0"), "must be from 0.001 to 86400 seconds"),
        (("--body", "b", "--fallback-after", "86401"), "must be from 0.001 to 86400 seconds"),
        (("--body", "b", "--fallback-after", "nan"), "must be from 0.001 to 86400 seconds"),
        (("--body", "b", "--relevance-score", "nan"), "alert.relevance_score must be a number from 0.0 to 1.0"),
        (("--body", "b", "--relevance-score", "1.1"), "--relevance-score"),
        (("--badge", "-1"), "--badge"),
        (("--badge", str(1 << 31)), "--badge"),
        (("--body", "b", "--interruption-level", "loud"), "--interruption-level"),
        (("--body", "b", "--custom", '{"secret"'), "--custom': must be a JSON object"),
        (("--body", "b", "--custom", '["secret"]'), "--custom': must be a JSON object"),
        (("--body", "b", "--custom", '{"secret": NaN}'), "--custom': must be a JSON object"),
        (("--body", "b", "--custom", '{"secret": "\\ud800"}'), "--custom': must be a JSON object"),
        (("--body", "b", "--custom", '{"secret": ' + "[" * 50_000), "--custom': must be a JSON object"),
        (("--body", "b", "--custom", '{"aps": "secret"}'), "alert.custom must not hold the key aps"),
        (("--body", "\udcff"), "alert.title, body and the other texts must be Unicode text"),
    ],
)
def test_an_alert_that_makes_no_sense_is_wrong_usage(directory: Path, arguments: tuple[str, ...], problem: str) -> None:
    result = run(directory, *arguments)
    assert result.exit_code == 2
    assert problem in " ".join(result.output.replace("│", " ").split())
    assert "secret" not in result.output


def test_an_alert_above_apples_limit_is_refused_before_connecting(directory: Path) -> None:
    result = run(directory, "--body", "x" * 4096)
    assert result.exit_code == 1
    assert result.output.startswith("Error: alert of 4107 bytes of JSON, the limit on this channel is ")


# --------------------------------------------------------------------------------------------------------------- the whole way


class AlertTests(AppleTestCase):
    """The command in a process of its own; the device is away."""

    async def setting_out(self) -> list[str]:
        await self.gone(await self.registered())
        (self.root / "secrets" / "rest.key").write_text(KEY)
        return ["publish", "--dir", str(self.root), "device:phone-1"]

    def over(self, *, framed: bool) -> list[str]:
        assert self.node is not None
        if framed:
            return ["--publisher", "backend", "--host", "127.0.0.1", "--port", str(self.node.port)]
        return ["--rest-url", f"http://127.0.0.1:{self.node.rest_port}"]

    async def command(self, *arguments: str) -> dict[str, Any]:
        """What the command printed, as JSON."""
        program = "import sys; from streampush.cli.main import main; main(sys.argv[1:])"
        command = ["-c", program, *arguments, "--json"]
        out, err, code = await getProcessOutputAndValue(sys.executable, command, env={"PATH": "/usr/bin:/bin"})
        self.assertEqual((code, err), (0, b""))
        return dict(json.loads(out.splitlines()[-1]))

    async def pushed(self, *arguments: str, framed: bool) -> dict[str, Any]:
        """What Apple was sent for a message with these options, without our own key."""
        sent = await self.command(*await self.setting_out(), "payload", *arguments, *self.over(framed=framed))
        await self.result(sent["message_id"])
        ((_, body),) = self.seen
        document = json.loads(body)
        self.assertEqual(document.pop("streampush"), {"id": sent["message_id"], "channel": "device:phone-1"})
        return dict(document)

    @runs
    async def test_over_rest_apple_gets_all_that_the_alert_says(self) -> None:
        self.assertEqual(await self.pushed(*EVERYTHING, "--fallback-after", "0.5", framed=False), APPLES)

    @runs
    async def test_over_the_framed_protocol_it_gets_the_same(self) -> None:
        self.assertEqual(await self.pushed(*EVERYTHING, "--only-when-away", framed=True), APPLES)

    @runs
    async def test_an_app_is_woken_over_rest(self) -> None:
        document = await self.pushed("--background", "--custom", '{"a": 1}', framed=False)
        self.assertEqual(document, {"aps": {"content-available": 1}, "a": 1})

    @runs
    async def test_an_app_is_woken_over_the_framed_protocol(self) -> None:
        self.assertEqual(await self.pushed("--background", framed=True), {"aps": {"content-available": 1}})

    @runs
    async def test_each_of_many_messages_has_the_alert(self) -> None:
        arguments = await self.setting_out()
        await self.command(*arguments, "payload", "--repeat", "2", "--title", "Hi", *self.over(framed=False))
        await self.until(lambda: len(self.seen) == 2)
        self.assertEqual([json.loads(body)["aps"] for _, body in self.seen], [{"alert": {"title": "Hi"}}] * 2)

    @runs
    async def test_messages_of_a_batch_have_alerts_of_their_own(self) -> None:
        await self.gone(await self.registered())
        message = {"device": "phone-1", "payload": "x"}
        batch = [message | {"alert": {"title": "Hi"}}, message | {"alert": {"badge": -1}}, message | {"background": True}]
        status, answer = await self.ask("POST", "/v1/publish/batch", {"messages": batch})
        results = answer["results"]
        self.assertEqual((status, ["ok" in result for result in results]), (200, [True, False, True]))
        self.assertEqual(results[1]["problem"]["field"], "messages[1].alert.badge")
        await self.until(lambda: len(self.seen) == 2)
        pushed = {json.loads(body)["streampush"]["id"]: json.loads(body)["aps"] for _, body in self.seen}
        expected = {results[0]["ok"]["message_id"]: {"alert": {"title": "Hi"}}}
        self.assertEqual(pushed, expected | {results[2]["ok"]["message_id"]: {"content-available": 1}})

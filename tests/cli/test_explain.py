"""`streampush explain`: what it prints, and the real command against a real server."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from click.testing import CliRunner

from streampush.cli.explain import render
from streampush.cli.main import main
from tests.cli.commands import run_command, where
from tests.integration.harness import NodeTestCase

KEY = "sp_explain"
KEYS = f'rest.keys=[{{name = "ops", sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}", scopes = ["read"]}}]'

FACTS: dict[str, Any] = {
    "device_id": "phone-1",
    "known": True,
    "user_id": "ada",
    "first_seen_ms": 1_795_262_585_000,
    "last_seen_ms": 0,
    "connection": None,
    "other_node": "",
    "last_close": {"code": 2001, "detail": "heartbeat lost", "advice": "RECONNECT", "at_ms": 1_795_262_585_000},
    "push_token": False,
    "dead_letters": 0,
    "rate": {"tokens": 9.5, "burst": 10, "rate": 1.0, "refused": 2, "shared": False},
    "channels": [],
    "more_channels": 0,
}
ROW = {
    "channel": "news/today",
    "acknowledged": 4,
    "sent": 9,
    "top": 12,
    "waiting": 8,
    "unacknowledged": 5,
    "held": 0,
    "attempts": 1,
    "redeliveries": 1,
    "lost": 0,
    "durable": True,
}


def lines(*verdicts: tuple[str, str], **facts: Any) -> list[str]:
    rows = [{"severity": severity, "kind": "x", "text": text} for severity, text in verdicts]
    return list(render({"verdicts": rows, "facts": FACTS | facts}))


def test_sentences_come_first_with_marks() -> None:
    shown = lines(("problem", "away since noon"), ("note", "no token"), ("fine", "nothing waits"))
    assert shown[:4] == ["phone-1", "  !! away since noon", "   - no token", "  ok nothing waits"]


def test_facts_are_named_and_times_are_utc() -> None:
    shown = lines()
    assert "first seen    2026-11-21 12:03:05 UTC" in shown
    assert "last seen     never" in shown
    assert "last close    2001 heartbeat lost, advice RECONNECT, 2026-11-21 12:03:05 UTC" in shown
    assert "request rate  9.5 of 10 requests left, 1 a second; 2 refused" in shown


def test_a_rate_that_nodes_share_is_told_from_what_the_asked_node_counts() -> None:
    text = "9.5 of 10 requests left, 1 a second, on all nodes together; 2 refused on this node"
    assert f"request rate  {text}" in lines(rate={"tokens": 9.5, "burst": 10, "rate": 1.0, "refused": 2, "shared": True})


def test_device_that_left_by_itself() -> None:
    close = {"code": 0, "detail": "", "advice": "UNSPECIFIED", "at_ms": 1_795_262_585_000}
    assert "last close    by the device, 2026-11-21 12:03:05 UTC" in lines(last_close=close)
    assert "last close    by the device: bye, 2026-11-21 12:03:05 UTC" in lines(last_close=close | {"detail": "bye"})


def test_connection_is_shown_with_window_and_heartbeat() -> None:
    connection = {
        "session_id": "S1",
        "address": "192.0.2.1:5",
        "connected_at_ms": 1_795_262_585_000,
        "app": "demo",
        "app_version": "2",
        "state": "FOREGROUND",
        "window_messages": 256,
        "window_bytes": 1000,
        "open_messages": 5,
        "open_bytes": 700,
        "has_room": False,
        "round_trips": [0.05, 0.051],
        "missed": 1,
        "jitters": 0,
        "generation": 7,
    }
    shown = lines(connection=connection)
    assert "connection    S1 from 192.0.2.1:5 since 2026-11-21 12:03:05 UTC" in shown
    assert "application   demo 2, foreground" in shown
    assert "application   demo 2" in lines(connection=connection | {"state": "UNSPECIFIED"})
    assert "window        5 of 256 messages, 700 of 1000 bytes unacknowledged; the send buffer is full" in shown
    assert "heartbeat     round trips 50, 51 ms; 1 pings missed, 0 times silent for longer than normal" in shown


def test_channels_are_a_table() -> None:
    shown = lines(channels=[ROW, ROW | {"channel": "x", "top": 1_000_000, "durable": False}], more_channels=3)
    head, first, second = shown[-4:-1]
    assert head.split()[:4] == ["channel", "acknowledged", "sent", "top"]
    assert first.split() == ["news/today", "4", "9", "12", "8", "5", "0", "1", "1", "0", "yes"]
    assert second.split()[3] == "1000000"
    assert head.index("waiting") + len("waiting") == first.index(" 8 ") + 2
    assert shown[-1] == "and 3 more channels"


def test_unknown_device_has_no_facts() -> None:
    assert lines(("problem", "no device"), known=False) == ["phone-1", "  !! no device"]


def test_what_a_device_says_of_itself_does_not_reach_the_terminal_raw() -> None:
    close = {"code": 0, "detail": "\x1b[2Jgone", "advice": "UNSPECIFIED", "at_ms": 0}
    shown = lines(("problem", "bad\x07"), last_close=close)
    assert all(line.isprintable() for line in shown)


def test_a_server_must_be_named() -> None:
    for arguments in (["phone-1"], ["phone-1", "--url", "http://localhost:1"]):
        result = CliRunner().invoke(main, ["explain", *arguments], env={"STREAMPUSH_DIR": ""})
        assert (result.exit_code, "give --dir, or --url and --key" in result.output) == (2, True)


class CommandTests(NodeTestCase):
    """The real command in a process of its own."""

    settings = (KEYS,)

    async def explain(self, *arguments: str, key: str = KEY) -> tuple[str, str, int]:
        assert self.node is not None
        return await run_command("explain", *where(self.node.rest_port, self.root, key), *arguments)

    async def test_a_connected_device_is_explained(self) -> None:
        await self.device()
        out, err, code = await self.explain("phone-1")
        self.assertEqual((err, code), ("", 0))
        self.assertRegex(out, r"(?m)^  ok connected since \d\d:\d\d:\d\d UTC from 127\.0\.0\.1:\d+$")
        self.assertRegex(out, r"(?m)^user +alice$")

    async def test_a_device_that_left_is_explained(self) -> None:
        client = await self.device()
        client.cut()
        await client.closed
        assert self.node is not None
        await self.until(lambda: self.node.service.connected_devices() == 0)  # type: ignore[union-attr]
        out, _, code = await self.explain("phone-1")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"(?m)^  !! away since \d\d:\d\d:\d\d UTC: closed with 1001 connection timed out .*advice RECONNECT$")

    async def test_an_unknown_device_gets_near_names(self) -> None:
        await self.device()
        out, _, code = await self.explain("phone-l")
        self.assertEqual((out, code), ("phone-l\n  !! no device of this name was ever seen; near names: phone-1\n", 1))

    async def test_an_unknown_device_is_status_1_as_json_too(self) -> None:
        out, err, code = await self.explain("--json", "nobody")
        self.assertEqual((json.loads(out)["facts"]["known"], err, code), (False, "", 1))

    async def test_json_is_the_servers_answer(self) -> None:
        await self.device()
        out, _, _ = await self.explain("--json", "phone-1")
        self.assertEqual((json.loads(out)["facts"]["user_id"], json.loads(out)["facts"]["known"]), ("alice", True))

    async def test_a_key_that_is_not_known_is_one_line_with_status_5(self) -> None:
        out, err, code = await self.explain("phone-1", key="sp_wrong")
        self.assertEqual((out, code, err.count("\n")), ("", 5, 1))
        self.assertNotIn("sp_wrong", err)

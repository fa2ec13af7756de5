"""`streampush status` and `streampush recall`: what they print, and the real commands against a real server."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from click.testing import CliRunner

from streampush.cli.event_stream import Event
from streampush.cli.main import main
from streampush.cli.messages import recalled, render, sentence
from streampush.protocol import messages as m
from streampush.protocol.terms import Outcome
from tests.cli.commands import run_command, where
from tests.integration.harness import NodeTestCase

KEY = "sp_messages"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
KEYS = f'rest.keys=[{{name = "ops", sha256 = "{DIGEST}", scopes = ["read", "publish"], publish = ["*"]}}]'

STATUS: dict[str, Any] = {
    "message_id": "M1",
    "channel": "user:ada",
    "offset": 4,
    "publisher": "key:ops",
    "published_at_ms": 1_795_262_585_123,
    "expires_at": 0,
    "deliver_at": 0,
    "size": 5,
    "recalls": "",
    "superseded_by": 0,
    "state": "stored",
    "devices": [],
    "more_devices": False,
    "counts": {},
}


def lines(**changes: Any) -> list[str]:
    return list(render(STATUS | changes))


def test_each_device_has_a_line_with_its_steps() -> None:
    times = {"accepted": 1_795_262_585_123, "stored": 1_795_262_585_123, "delivered": 1_795_262_586_623}
    rows = [
        {"device_id": "d1", "state": "delivered", "milestones_ms": times},
        {"device_id": "d2", "state": "waiting", "milestones_ms": {}},
    ]
    assert lines(devices=rows, more_devices=True) == [
        "M1 to user:ada, offset 4: stored",
        "published     2026-11-21 12:03:05.123 UTC by key:ops, 5 bytes",
        "  d1: delivered (stored +0.000 s, delivered +1.500 s)",
        "  d2: waiting",
        "  and more devices",
    ]


def test_what_is_special_about_a_message_has_a_line() -> None:
    shown = lines(
        offset=0, deliver_at=1_795_262_590_000, state="scheduled", expires_at=1_795_262_600_000, superseded_by=9, recalls="M0"
    )
    assert shown[0] == "M1 to user:ada, for 2026-11-21 12:03:10.000 UTC: scheduled"
    assert shown[2:] == ["expires       2026-11-21 12:03:20.000 UTC", "recalls       M0", "superseded    by offset 9"]


def test_a_topic_has_counts() -> None:
    assert lines(channel="news", counts={"written": 3, "processed": 2})[2:] == ["  written: 3 devices", "  processed: 2 devices"]


def test_how_a_push_ended_is_said_under_its_device() -> None:
    times = {"accepted": 1_795_262_585_000}
    push = {"outcome": "not_sent", "at_ms": 1_795_262_586_500, "reason": "no token", "apns_id": ""}
    sent = push | {"outcome": "rejected", "reason": "Unregistered", "apns_id": "A-1"}
    rows = [
        {"device_id": name, "state": "waiting", "milestones_ms": times, "push": one} for name, one in (("a", push), ("b", sent))
    ]
    assert lines(devices=rows)[2:] == [
        "  a: waiting",
        "    push not sent +1.500 s, no token",
        "  b: waiting",
        "    push rejected +1.500 s, Unregistered, apns-id A-1",
    ]


def test_pushes_of_a_topic_are_counted() -> None:
    assert lines(channel="news", pushes={"delivered": 3, "not_sent": 1})[2:] == ["  pushes delivered: 3", "  pushes not sent: 1"]


def test_one_is_one() -> None:
    shown = lines(channel="news", size=1, counts={"written": 1})
    assert shown[1].endswith(", 1 byte")
    assert shown[2] == "  written: 1 device"


def test_control_characters_do_not_reach_the_terminal() -> None:
    push = {"outcome": "\x1b", "at_ms": 1, "reason": "\x1b", "apns_id": "\x1b"}
    rows = [{"device_id": "\x1b[2J", "state": "waiting", "milestones_ms": {}, "push": push}]
    shown = [*lines(channel="a\x1b", publisher="\x07", devices=rows), sentence(Event("state", {"state": "\x1b"}))]
    shown.append(recalled({"message_id": "\x1b", "channel": "\x1b"}))
    assert all(line.isprintable() for line in shown)


def test_a_recall_says_what_it_took_back() -> None:
    answer = {"message_id": "M1", "channel": "news", "notice_offset": 8, "connections": 1}
    assert recalled(answer | {"was": "stored"}) == "recalled M1 to news: notice at offset 8, 1 connection"
    assert recalled(answer | {"was": "scheduled"}) == "recalled M1 to news: it was scheduled, and goes out to nobody"
    assert recalled(answer | {"was": "recalled"}) == "recalled before: M1 to news"


def test_events_are_sentences() -> None:
    step = Event("milestone", {"device_id": "d", "milestone": "written", "at_ms": 1_795_262_585_123})
    assert sentence(step) == "2026-11-21 12:03:05.123 UTC  d: written"
    assert sentence(Event("state", {"state": "stored"})) == "the message is stored"
    assert sentence(Event("counts", {"written": 3, "processed": 2})) == "written: 3, processed: 2"


def test_a_server_must_be_named() -> None:
    for command in ("status", "recall"):
        result = CliRunner().invoke(main, [command, "M1"], env={"STREAMPUSH_DIR": ""})
        assert (result.exit_code, "give --dir, or --url and --key" in result.output) == (2, True)


class CommandTests(NodeTestCase):
    """The real commands in processes of their own."""

    timeout = 120

    settings = (KEYS,)

    async def run_command(self, *arguments: str, key: str = KEY) -> tuple[str, str, int]:
        assert self.node is not None
        return await run_command(*arguments, *where(self.node.rest_port, self.root, key))

    async def delivered(self) -> tuple[Any, m.Delivery]:
        """A device that has got a message, and not answered it."""
        device, publisher = await self.device(), await self.publisher()
        publisher.send(m.Publish("user:alice", b"hello"), 2)
        await publisher.expect(m.PublishOk)
        return device, await device.expect(m.Delivery)

    async def test_status_says_what_became_of_a_message(self) -> None:
        device, delivery = await self.delivered()
        device.send(m.Ack("user:alice", delivery.offset, Outcome.PROCESSED))
        out, err, code = await self.run_command("status", "--follow", delivery.message_id)
        self.assertEqual((err, code), ("", 0))
        told = out.splitlines()
        self.assertEqual((told[0], told[-1]), ("the message is stored", "end: complete"))
        self.assertRegex(out, r"(?m)^[-0-9]+ [:.0-9]+ UTC  phone-1: processed$")
        out, err, code = await self.run_command("status", delivery.message_id)
        self.assertEqual((err, code), ("", 0))
        self.assertRegex(out, rf"(?m)^{delivery.message_id} to user:alice, offset 1: stored$")
        self.assertRegex(out, r"(?m)^  phone-1: processed \(stored \+0\.000 s, .*processed \+\d+\.\d{3} s\)$")

    async def test_json_is_what_the_server_says(self) -> None:
        device, delivery = await self.delivered()
        device.send(m.Ack("user:alice", delivery.offset, Outcome.PROCESSED))
        out, _, _ = await self.run_command("status", "--follow", "--json", delivery.message_id)
        events = [json.loads(line) for line in out.splitlines()]
        self.assertEqual((events[0], events[-1]), ({"event": "state", "state": "stored"}, {"event": "end", "reason": "complete"}))
        out, _, _ = await self.run_command("status", "--json", delivery.message_id)
        self.assertEqual((json.loads(out)["message_id"], json.loads(out)["ended"]), (delivery.message_id, True))

    async def test_a_recall_reaches_the_device_and_repeats_are_harmless(self) -> None:
        device, delivery = await self.delivered()
        out, err, code = await self.run_command("recall", delivery.message_id)
        self.assertEqual(
            (out, err, code), (f"recalled {delivery.message_id} to user:alice: notice at offset 2, 1 connection\n", "", 0)
        )
        notice = await device.expect(m.Delivery)
        self.assertEqual((notice.recalls, notice.payload), (delivery.message_id, b""))
        out, err, code = await self.run_command("recall", delivery.message_id)
        self.assertEqual((out, err, code), (f"recalled before: {delivery.message_id} to user:alice\n", "", 0))
        out, _, _ = await self.run_command("status", "--follow", delivery.message_id)
        self.assertEqual(out.splitlines()[-1], "end: complete")

    async def test_an_unknown_message_is_refused_with_status_3(self) -> None:
        for arguments in (["status"], ["status", "--follow"], ["recall"]):
            out, err, code = await self.run_command(*arguments, "01M7ZAWPVBFK7GZHPX1M6M4724")
            self.assertEqual((out, code, err.count("\n")), ("", 3, 1))
            self.assertIn("3006", err)

    async def test_a_key_that_is_not_known_is_one_line_with_status_5(self) -> None:
        for arguments in (["status"], ["status", "--follow"], ["recall"]):
            out, err, code = await self.run_command(*arguments, "M1", key="sp_wrong")
            self.assertEqual((out, code, err.count("\n")), ("", 5, 1))
            self.assertNotIn("sp_wrong", err)

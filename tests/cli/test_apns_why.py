"""`streampush apns why`: what it prints, and the real command against a real server beside a simulated Apple."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streampush.apns.reasons import REASONS
from streampush.apns.simulator.orders import Reject
from streampush.apns.simulator.reasons import Reason
from streampush.cli.apns_why import render
from tests.cli.commands import run_command, where
from tests.integration.harness import run
from tests.integration.test_apple_pushes import AppleTestCase
from tests.integration.test_rest_live import KEY

ANSWER: dict[str, Any] = {
    "message_id": "M1",
    "device_id": "phone-1",
    "outcome": "rejected",
    "at_ms": 1_795_262_585_000,
    "reason": "Unregistered",
    "apns_id": "a-1",
}


def lines(**changes: Any) -> list[str]:
    return list(render(ANSWER | changes))


def test_a_rejection_is_told_with_meaning_and_effect() -> None:
    assert lines()[:4] == [
        "push a-1 of message M1 to phone-1",
        "rejected at 2026-11-21 12:03:05 UTC",
        "reason   Unregistered",
        "meaning  the app is no longer on the device, or not registered",
    ]
    assert lines()[4].startswith("effect   the push was given up; the device token is forgotten")
    assert len(lines()) == 5


@pytest.mark.parametrize("reason", [reason for reason, known in REASONS.items() if known.advice])
def test_advice_is_that_of_the_table(reason: str) -> None:
    assert lines(reason=reason)[-1] == f"advice   {REASONS[reason].advice}"


def test_a_rejection_that_is_repeated_says_so() -> None:
    assert "effect   the push was tried again while there was time" in lines(reason="ServiceUnavailable")


def test_a_status_in_place_of_a_reason_is_treated_by_its_number() -> None:
    assert "meaning  the device token is dead: a reason that streampush does not know" in lines(reason="status 410")


def test_a_reason_that_is_not_known_gets_no_effect() -> None:
    assert lines(reason="Whatever")[2:] == ["reason   Whatever", "meaning  a reason that streampush does not know"]


def test_other_outcomes_say_what_is_known_of_the_push() -> None:
    shown = lines(outcome="unknown", reason="no answer")
    assert shown[1:] == [
        "unknown at 2026-11-21 12:03:05 UTC",
        "reason   no answer",
        "meaning  it was sent and no answer came: it may have been shown",
    ]
    assert [line[:7] for line in lines(outcome="delivered", reason="")[2:]] == ["meaning"]


def test_nothing_reaches_the_terminal_raw() -> None:
    assert all(line.isprintable() for line in lines(reason="\x1b[2J", device_id="\x07", outcome="\x1b"))


class CommandTests(AppleTestCase):
    """The real command in a process of its own."""

    orders = (Reject(Reason.DEVICE_TOKEN_NOT_FOR_TOPIC),)

    async def why(self, *arguments: str) -> tuple[str, str, int]:
        assert self.node is not None
        return await run_command("apns", "why", *where(self.node.rest_port, self.root, KEY), *arguments)

    @run
    async def test_a_rejected_push_is_explained(self) -> None:
        await self.gone(await self.registered())
        message_id = await self.publish(alert={"title": "Your parcel"})
        apns_id = (await self.result(message_id))["apns_id"]
        out, err, code = await self.why(apns_id)
        self.assertEqual((err, code), ("", 0))
        self.assertIn(f"push {apns_id} of message {message_id} to phone-1\nrejected at ", out)
        self.assertIn("meaning  the device token belongs to another app\n", out)
        out, err, code = await self.why("--json", apns_id.upper())
        self.assertEqual((json.loads(out)["reason"], err, code), ("DeviceTokenNotForTopic", "", 0))

    @run
    async def test_a_push_that_is_not_known_is_one_line_with_status_3(self) -> None:
        out, err, code = await self.why("7e9d1b86-3d1c-5b3f-8f43-0c8d8a5b7f61")
        self.assertEqual((out, code, err.count("\n")), ("", 3, 1))
        self.assertIn("no push to a device has this id", err)

"""The machine's clock is set by a day, forward and back: nothing fires, expires or is lost by it; a restart adopts it."""

from __future__ import annotations

import time
from typing import Any

from streampush.protocol import messages as m
from tests.integration.attacking import BadRequestCase
from tests.integration.harness import WireClient, run

DAY = 86_400
HOUR_MS = 3_600_000


class ClockTests(BadRequestCase):
    shift = 0.0
    """Seconds by which the system's clock is ahead."""

    def system_ns(self) -> int:
        return time.time_ns() + int(self.shift * 1e9)

    def now_ms(self) -> int:
        return self.system_ns() // 1_000_000

    async def step(self, seconds: float) -> None:
        """The clock is set, and the node has seen it."""
        self.shift += seconds
        steps = self.metric("streampush_clock_steps_total")
        await self.counted("streampush_clock_steps_total", steps + 1)

    async def prepare(self) -> dict[str, Any]:
        """Waiting for phone-1: a message for an hour and one for good; scheduled: one for in an hour. The answers by payload."""
        await self.ask("PUT", "/v1/devices/phone-1", {})
        return {
            "hour": await self.published(device="phone-1", payload="hour", ttl=3600),
            "good": await self.published(device="phone-1", payload="good", idempotency_key="order-17"),
            "later": await self.published(device="phone-1", payload="later", deliver_at=self.now_ms() + HOUR_MS),
        }

    async def payloads(self, device: WireClient, number: int) -> list[bytes]:
        return [(await device.expect(m.Delivery)).payload for _ in range(number)]

    async def nothing_has_happened(self) -> None:
        """What waited waits, and is delivered; a message that is published now arrives behind it."""
        self.assertEqual(self.rows()["scheduled"], 1)
        status, answer = await self.ask("GET", "/v1/devices/phone-1/backlog?channel=device:phone-1")
        self.assertEqual((status, [entry["offset"] for entry in answer["entries"]]), (200, [1, 2]))
        device = await self.device("phone-1", "")
        await self.published(device="phone-1", payload="new")
        self.assertEqual(await self.payloads(device, 3), [b"hour", b"good", b"new"])
        self.assertEqual(self.rows()["scheduled"], 1)

    @run
    async def test_a_day_forward_fires_and_expires_nothing(self) -> None:
        await self.prepare()
        await self.step(DAY)
        self.assertGreater(self.metric("streampush_clock_deviation_seconds"), DAY - 60)
        await self.nothing_has_happened()

    @run
    async def test_a_day_back_fires_and_expires_nothing(self) -> None:
        await self.prepare()
        await self.step(-DAY)
        self.assertLess(self.metric("streampush_clock_deviation_seconds"), 60 - DAY)
        await self.nothing_has_happened()

    @run
    async def test_forward_and_back_leaves_no_deviation(self) -> None:
        await self.prepare()
        await self.step(DAY)
        await self.step(-DAY)
        self.assertLess(abs(self.metric("streampush_clock_deviation_seconds")), 1)
        await self.nothing_has_happened()

    @run
    async def test_a_restart_a_day_later_drops_what_expired_and_fires_what_was_due(self) -> None:
        await self.prepare()
        self.shift = DAY - 10  # the history is kept for a day
        await self.restart()
        device = await self.device("phone-1", "")
        self.assertEqual(await self.payloads(device, 2), [b"good", b"later"])
        await self.settled("scheduled", 0)
        self.assertEqual(self.metric("streampush_positions_lost_total", reason="epoch_changed"), 0)

    @run
    async def test_a_restart_a_day_back_loses_nothing_and_goes_on_behind_what_is_there(self) -> None:
        answers = await self.prepare()
        self.shift = -DAY
        await self.restart()
        await self.nothing_has_happened()
        again = await self.published(device="phone-1", payload="good", idempotency_key="order-17")
        self.assertEqual((again["duplicate"], again["message_id"]), (True, answers["good"]["message_id"]))
        answer = await self.published(device="phone-1", payload="newest")
        self.assertEqual((answer["offset"], answer["epoch"]), (4, answers["good"]["epoch"]))

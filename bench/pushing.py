"""One client under measurement, in a process of its own: python -m bench.pushing SUBJECT PORT CA KEY MODE NUMBER CORE.

Prints one JSON object. MODE: "flight" (NUMBER pushes with 1000 under way), "kept" (the same, each with an expiration and a collapse
id, as the server sends its own), "one" (NUMBER pushes one by one), "paced:RATE" (NUMBER pushes at that rate), "flood" (more than
can be sent, for NUMBER seconds). Each push has a payload of its own, made from an alert.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.report import percentile

IN_FLIGHT = 1000
TOPIC = "com.example.app"
TOKENS = [f"{number:064x}" for number in range(10_000)]
COLLAPSE_IDS = [f"{number:026d}" for number in range(10_000)]
KEPT_FOR = 30 * 86_400
"""Seconds for which the push service may keep a push, in the mode "kept"."""
WARM_UP = 3000
AT_ONCE = ("flight", "kept")
"""Modes with a thousand pushes under way, all the time."""
FLOOD = 500
"""Pushes that are offered every millisecond: far more than can be sent."""


class Result:
    """What a run has shown. `latencies` in seconds."""

    def __init__(self) -> None:
        self.delivered = 0
        self.not_sent = 0
        self.other = 0
        self.latencies: list[float] = []
        self.cpu = 0.0
        self.seconds = 0.0

    def begin(self) -> None:
        self.__init__()  # type: ignore[misc]  # all as it was
        self._cpu_before, self._began = time.process_time(), time.monotonic()

    def end(self) -> None:
        self.cpu = time.process_time() - self._cpu_before
        self.seconds = time.monotonic() - self._began

    def print(self) -> None:
        facts: dict[str, float] = {"delivered": self.delivered, "not_sent": self.not_sent, "other": self.other}
        facts |= {"cpu_us": self.cpu / max(self.delivered, 1) * 1e6, "per_second": self.delivered / self.seconds}
        facts["rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if self.latencies:
            facts |= {"p50_ms": percentile(self.latencies, 0.5) * 1e3, "p99_ms": percentile(self.latencies, 0.99) * 1e3}
        print(json.dumps(facts))


# ------------------------------------------------------------------------------------------------------------------------- ours


class Ours:
    """ApnsClient on Twisted's reactor."""

    def __init__(self, port: int, ca: bytes, key: bytes, mode: str, number: int) -> None:
        from uuid import uuid4

        from twisted.internet import reactor

        from bench.apns_client import make_client
        from streampush.apns.concurrency import ConcurrencyPolicy
        from streampush.apns.outcome import Delivered, NotSent
        from streampush.apns.payload import Alert, alert_payload
        from streampush.apns.push import ApnsPush
        from streampush.clocks import run_timers_steadily

        def _policy(mode: str) -> ConcurrencyPolicy:
            # A thousand are to be under way, also where this machine is slow: else the client would take its own pace for Apple's.
            return ConcurrencyPolicy(start=IN_FLIGHT, slow_slack=60.0) if mode in AT_ONCE else ConcurrencyPolicy()

        run_timers_steadily(reactor)
        self._reactor: Any = reactor
        self._client, _ = make_client(reactor, port, ca, key, policy=_policy(mode), ceiling=IN_FLIGHT)
        self._push_type, self._alert, self._payload = ApnsPush, Alert, alert_payload
        self._delivered_type, self._not_sent_type = Delivered, NotSent
        self._mode, self._number = mode, number
        self._keeps = mode == "kept"
        self._ids = [str(uuid4()) for _ in range(10_000)]
        self._at = 0
        self.result = Result()
        self._left = 0
        self._under_way = 0
        self._over = False
        self._then: Callable[[], None] = self._measure

    def run(self) -> None:
        self._reactor.callWhenRunning(self._begin, WARM_UP if self._mode in (*AT_ONCE, "flood") else 200)
        self._reactor.run()

    def _begin(self, count: int) -> None:
        self.result.begin()
        self._left = count
        if self._mode in (*AT_ONCE, "flood"):
            first = min(count, IN_FLIGHT)
            self._left -= first
            for _ in range(first):
                self._push().addCallback(self._landed)
        else:
            self._next()

    def _measure(self) -> None:
        self._then = self._finish
        self.result.begin()
        if self._mode.startswith("paced"):
            self._left, self._rate, self._paced_from, self._offered = 0, float(self._mode.split(":")[1]), self._reactor.seconds(), 0
            self._offer_paced()
        elif self._mode == "flood":
            self._left = 0
            self._flood_until = self._reactor.seconds() + self._number
            self._offer_flood()
        else:
            self._begin(self._number)

    def _finish(self) -> None:
        self.result.end()
        self._over = True
        self._reactor.stop()

    def _push(self) -> Any:
        at = self._at = (self._at + 1) % 10_000
        payload = self._payload(self._alert(title="Order 4711", body=f"Your parcel {at} is there."))
        if self._keeps:
            kept: dict[str, Any] = {"expiration": int(time.time()) + KEPT_FOR, "collapse_id": COLLAPSE_IDS[at]}
            push = self._push_type(TOKENS[at], payload, TOPIC, apns_id=self._ids[at], **kept)
        else:
            push = self._push_type(TOKENS[at], payload, TOPIC, apns_id=self._ids[at])
        self._under_way += 1
        return self._client.push(push, deadline=self._reactor.seconds() + 30.0)

    def _landed(self, outcome: object) -> None:
        """One of a thousand has ended: the next. In one step, for it is measured with the push."""
        if type(outcome) is self._delivered_type and not self._over:
            self._under_way -= 1
            self.result.delivered += 1
        else:
            self._count(outcome, 0.0)
        if self._left:
            self._left -= 1
            self._push().addCallback(self._landed)
        elif not self._under_way:
            self._reactor.callLater(0, self._then)

    def _next(self) -> None:
        if self._left:
            self._left -= 1
            self._push().addCallback(self._ended, time.monotonic())

    def _ended(self, outcome: object, began: float) -> None:
        self._count(outcome, began)
        if self._left:
            self._next()
        elif not self._under_way:
            self._reactor.callLater(0, self._then)

    def _count(self, outcome: object, began: float) -> None:
        self._under_way -= 1
        if self._over:
            return  # what the end of the process cuts off
        if type(outcome) is self._delivered_type:
            self.result.delivered += 1
            if began:
                self.result.latencies.append(time.monotonic() - began)
        elif type(outcome) is self._not_sent_type:
            self.result.not_sent += 1
        else:
            self.result.other += 1

    def _offer_paced(self) -> None:
        due = min(int((self._reactor.seconds() - self._paced_from) * self._rate), self._number)
        while self._offered < due:
            self._offered += 1
            self._push().addCallback(self._count, self._paced_from + self._offered / self._rate)
        if self._offered < self._number or self._under_way:
            self._reactor.callLater(0.001, self._offer_paced)
        else:
            self._finish()

    def _offer_flood(self) -> None:
        for _ in range(FLOOD):
            self._push().addCallback(self._count, time.monotonic())
        if self._reactor.seconds() < self._flood_until:
            self._reactor.callLater(0.001, self._offer_flood)
        else:
            self._finish()


# ---------------------------------------------------------------------------------------------------------------------- aioapns


class Aioapns:
    """The other one, on asyncio's loop."""

    def __init__(self, port: int, ca: bytes, key: bytes, mode: str, number: int) -> None:
        self._port, self._ca, self._key, self._mode, self._number = port, ca, key, mode, number
        self._at = 0
        self.result = Result()

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        import ssl
        from uuid import uuid4

        from aioapns import APNs, NotificationRequest
        from aioapns.connection import APNsProductionClientProtocol

        class Local(APNsProductionClientProtocol):
            APNS_SERVER = "localhost"
            APNS_PORT = self._port

        context = ssl.create_default_context(cadata=self._ca.decode())
        context.set_alpn_protocols(["h2"])
        # One connection, as ours has; it opens others only where one does not take a thousand.
        self._client = APNs(
            key=self._key.decode(), key_id="KEY1234567", team_id="TEAM123456", topic=TOPIC, ssl_context=context, max_connections=1
        )
        self._client.pool.protocol_class = Local
        self._request = NotificationRequest
        self._ids = [str(uuid4()) for _ in range(10_000)]
        await self._some(200, IN_FLIGHT if self._mode in AT_ONCE else 1)
        self.result.begin()
        if self._mode.startswith("paced"):
            await self._paced(float(self._mode.split(":")[1]))
        else:
            await self._some(self._number, IN_FLIGHT if self._mode in AT_ONCE else 1)
        self.result.end()

    async def _push(self, began: float) -> None:
        at = self._at = (self._at + 1) % 10_000
        message = {"aps": {"alert": {"title": "Order 4711", "body": f"Your parcel {at} is there."}}}
        kept: dict[str, Any] = {"time_to_live": KEPT_FOR, "collapse_key": COLLAPSE_IDS[at]} if self._mode == "kept" else {}
        answer = await self._client.send_notification(self._request(TOKENS[at], message, notification_id=self._ids[at], **kept))
        if answer.is_successful:
            self.result.delivered += 1
            self.result.latencies.append(time.monotonic() - began)
        else:
            self.result.other += 1

    async def _some(self, count: int, workers: int) -> None:
        left = iter(range(count))

        async def work() -> None:
            for _ in left:
                await self._push(time.monotonic())

        await asyncio.gather(*(work() for _ in range(workers)))

    async def _paced(self, rate: float) -> None:
        began = time.monotonic()
        tasks: set[asyncio.Future[None]] = set()
        while len(tasks) < self._number:
            due = min(int((time.monotonic() - began) * rate), self._number)
            while len(tasks) < due:
                tasks.add(asyncio.ensure_future(self._push(began + (len(tasks) + 1) / rate)))
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)


def main() -> None:
    subject, port, ca, key, mode, number, core = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    kind = Aioapns if subject == "aioapns" else Ours
    client = kind(int(port), Path(ca).read_bytes(), Path(key).read_bytes(), mode, int(number))
    client.run()
    client.result.print()


if __name__ == "__main__":
    main()

"""Following up: what a push costs before it is with the sender and behind its answer, with the store on disk.

Three ways: messages to one device each, and to one user each who has one device, of which the publish is taken off, measured
without an alert in turns; and a message to a topic whose followers are all away, where the publish is nothing. CPU of the whole
process, the store's threads included. The sender answers at once: what a push to Apple itself costs is measured by bench.apns.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, gatherResults

from bench.arena import MICRO, options_of
from bench.report import OURS, Report
from streampush.config import DeliveryConfig, PublishConfig, StoreConfig
from streampush.observe.metrics import Metrics
from streampush.push import ids
from streampush.push.service import PushService
from streampush.push.surroundings import Surroundings
from streampush.push.values import (
    Alert,
    ChannelRules,
    DeviceRecord,
    Principal,
    PublishRequest,
    PushAnswer,
    PushOrder,
    PushOutcome,
    PushToken,
)
from streampush.server.tasks import run
from streampush.store.sqlite import SqliteStore

TOPIC = "bench/news"
AT_ONCE = 200
"""Publishes that wait for the store together."""

LOOK = 0.005
"""Seconds between two looks whether all is done."""

ALERT = Alert(title="Hello", body="x" * 100)
PAYLOAD = b"x" * 100
PUBLISHER = Principal("publisher", "bench", may_publish=ChannelRules(("*",)))


class AnsweringSender:
    """See push.ports.PushSender: takes every push, at once."""

    ready = True
    max_in_flight = 2000

    def __init__(self) -> None:
        self.sent = 0

    def fallback_after(self, token: PushToken) -> float:
        return 5.0

    def watch(self, mended: Callable[[], None]) -> None:
        """Nothing is ever held."""

    def has_room(self, token: PushToken) -> bool:
        return True

    def withdraw(self, push_id: str) -> None:
        """There is nothing that waits."""

    async def send(self, order: PushOrder) -> PushAnswer:
        self.sent += 1
        return PushAnswer(PushOutcome.DELIVERED, "", order.push_id)


class Node:
    """The application with its store, and devices that are known, follow the topic and are away."""

    def __init__(self, reactor: Any, path: Path) -> None:
        self._reactor = reactor
        self.sender = AnsweringSender()
        self.store = SqliteStore(str(path), StoreConfig().sized(), self._wall_ms, lambda: "epoch", reactor)
        around = Surroundings(
            store=self.store,
            encode=lambda publication: b"",
            metrics=Metrics(CollectorRegistry(), "bench"),
            clock=reactor.seconds,
            wall_ms=self._wall_ms,
            new_id=lambda now_ms: ids.message_id(now_ms, os.urandom),
            call_soon=lambda work: reactor.callLater(0, work),
            call_later=reactor.callLater,
            retry_later=lambda work: reactor.callLater(1.0, work),
            spawn=self.spawn,
            run="bench",
            sender=self.sender,
        )
        publish = PublishConfig(publisher_rate=1e6, publisher_burst=1_000_000)
        self.service = PushService(around, publish, DeliveryConfig(subscribe=("*",)))
        self.failures: list[BaseException | None] = []

    @staticmethod
    def _wall_ms() -> int:
        return int(time.time() * 1000)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        run(work, lambda failure: self.failures.append(failure.value))

    async def fill(self, devices: int) -> None:
        def remember(name: str) -> Coroutine[Any, Any, Any]:
            token = PushToken(os.urandom(32), "com.example.app", sandbox=False, registered_at_ms=self._wall_ms())
            return self.store.remember_device(DeviceRecord(name, user_of(name), push_token=token))

        names = [device_name(index) for index in range(devices)]
        await _all(remember, names)
        await _all(lambda name: self.store.add_subscription(name, TOPIC, self._wall_ms(), 10), names)

    async def publish(self, channels: list[str], alert: Alert | None) -> None:
        await _all(lambda channel: self.service.publish(PUBLISHER, PublishRequest(channel, PAYLOAD, alert=alert)), channels)

    async def cost(self, channels: list[str], alert: Alert | None, pushes: int) -> float:
        """CPU seconds of these messages with so many pushes, their results stored. Raises RuntimeError if one fails."""
        self.sender.sent = 0
        began = time.process_time()
        await self.publish(channels, alert)
        while self.sender.sent < pushes or (await self.store.status()).outbox:
            await self._pass(LOOK)
        seconds = time.process_time() - began
        if self.failures or self.sender.sent != pushes:
            raise RuntimeError(f"{self.sender.sent} pushes instead of {pushes}: {self.failures[:1]}")
        return seconds

    async def _pass(self, seconds: float) -> None:
        passed: Deferred[None] = Deferred()
        self._reactor.callLater(seconds, passed.callback, None)
        await passed


def device_name(index: int) -> str:
    return f"device-{index:07d}"


def user_of(name: str) -> str:
    """Each device is that of a user of its own."""
    return f"user-of-{name}"


async def _all(work: Callable[[str], Coroutine[Any, Any, Any]], names: list[str]) -> None:
    """Does it for all names, AT_ONCE at a time."""
    for some in _slices(names):
        await gatherResults([Deferred.fromCoroutine(work(name)) for name in some])


def _slices(names: list[str]) -> Iterator[list[str]]:
    for at in range(0, len(names), AT_ONCE):
        yield names[at : at + AT_ONCE]


async def measure(node: Node, devices: int, rounds: int, report: Report) -> None:
    """The lines; the first round warms up and does not count."""
    await node.fill(devices)
    node.service.start()
    names = [device_name(index) for index in range(devices)]
    channels = [f"device:{name}" for name in names]
    users = [f"user:{user_of(name)}" for name in names]
    plain, single, user, follower = [], [], [], []
    for _ in range(rounds + 1):
        plain.append(await node.cost(channels, None, 0) / devices * MICRO)
        single.append(await node.cost(channels, ALERT, devices) / devices * MICRO)
        user.append(await node.cost(users, ALERT, devices) / devices * MICRO)
        follower.append(await node.cost([TOPIC], ALERT, devices) / devices * MICRO)
    facts = {"devices": devices, "at_once": AT_ONCE}
    pushes, user_pushes = ([one - without for one, without in zip(ones[1:], plain[1:], strict=True)] for ones in (single, user))
    report.result("publish to a device CPU", OURS, "us", plain[1:], **facts)
    report.result("publish to a device with its push CPU", OURS, "us", single[1:], **facts)
    report.result("following up CPU, a device's message", OURS, "us", pushes, **facts)
    report.result("following up CPU, a message to a user with one device", OURS, "us", user_pushes, **facts)
    report.result("following up CPU, a topic's follower", OURS, "us", follower[1:], **facts)
    node.service.stop()
    await node.service.settle()
    await node.store.stop()


def main(arguments: list[str] | None = None) -> None:
    from twisted.internet import reactor as _reactor

    options = options_of("follow_ups", __doc__, 5, ("--devices", 5000, "devices, all away")).parse_args(arguments)
    reactor: Any = _reactor
    report = Report("follow_ups")
    failures: list[BaseException] = []
    with tempfile.TemporaryDirectory(prefix="streampush-bench-") as folder:
        node = Node(reactor, Path(folder) / "store.db")
        node.store.open()

        async def all_of_it() -> None:
            try:
                await measure(node, options.devices, options.rounds, report)
            except Exception as error:  # noqa: BLE001 - raised again when the reactor has stopped
                failures.append(error)
            reactor.stop()

        reactor.callWhenRunning(lambda: node.spawn(all_of_it()))
        reactor.run()
    for failure in failures:
        raise failure


if __name__ == "__main__":
    main()

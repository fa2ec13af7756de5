"""From node to node over one Redis: what a hop adds to a publish, and the bytes that a publish moves through Redis.

Latency: a publisher at node A, a device at A and another at B, published to in turns, one message at a time; nothing else goes on.
Bytes: INFO of Redis before and after publishes to a topic that a device at A follows, less what the nodes say to Redis in as
much time without a publish, with 0, 1 and 2 other nodes on which nobody follows it.
"""

from __future__ import annotations

import time

from bench.arena import MILLI, Arena, Contender, arena, options_of
from bench.clients import Clients
from bench.credentials import device_name
from bench.dialects import LoadError
from bench.redis_server import Console, console, settings_of, start_redis
from bench.report import OURS, Report, percentile, ratios
from bench.servers import Server, start

PACE = 0.01
"""Seconds between two messages: what the last one left behind is done by then."""

LONGEST = 10.0
"""Seconds that a delivery may take."""

BURST = 50


class HopClients(Clients):
    """Devices at several nodes, and a publisher at the first one."""

    def connect_at(self, address: tuple[str, int], first: int) -> int:
        """Connects one device to another node."""
        home, self._address = self._address, address
        try:
            return self.connect(first, 1, subscribe=False)
        finally:
            self._address = home

    def latencies(self, devices: int, messages: int, payload: bytes) -> list[list[float]]:
        """Seconds from publish to delivery of so many messages to each device, in turns. Waits in epoll: a device does, too."""
        self._begin(1, payload)
        samples: list[list[float]] = [[] for _ in range(devices)]
        for number in range(messages * devices):
            time.sleep(PACE)
            self._poll(0)
            device, goal = number % devices, self._deliveries + 1
            began = time.perf_counter()
            self._publish(self._dialect.unicast(device_name(device), payload))
            while self._deliveries < goal:
                if time.perf_counter() - began > LONGEST:
                    raise LoadError(f"device {device} did not get message {number} in {LONGEST:g} s")
                self._poll(LONGEST)
            samples[device].append(time.perf_counter() - began)
        self._wait(messages * devices, messages * devices)
        return samples


def latencies(report: Report, messages: int, payload: int, rounds: int) -> None:
    """The figures of a hop."""
    with arena(2) as ring:
        redis = ring.stack.enter_context(start_redis(ring.credentials.root, ring.cores.clients))
        one = ring.enter(f"{OURS} one", settings=settings_of(redis, "one"), clients=HopClients)
        two = other_node(ring, redis, "two")
        one.load.call("connect", first=0, count=1, subscribe=False)
        one.load.call("connect_at", address=two.address, first=1)
        one.load.call("connect_publisher")
        ask = {"devices": 2, "messages": messages, "payload": bytes(payload)}
        one.load.ask("latencies", **ask)  # warms up
        samples = [one.load.ask("latencies", **ask) for _ in range(rounds)]
    facts = {"messages": messages, "payload": payload}
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        here = [percentile(each[0], share) * MILLI for each in samples]
        there = [percentile(each[1], share) * MILLI for each in samples]
        report.result(f"publish to device: latency {name}", "same node", "ms", here, **facts)
        report.result(f"publish to device: latency {name}", "other node", "ms", there, **facts)
        report.ratio(f"publish to device: latency {name}", "other node", "same node", ratios(there, here), **facts)


def other_node(ring: Arena, redis: Server, name: str) -> Server:
    """A node beside the first one, on the same core."""
    server = start(f"{OURS} {name}", ring.credentials, ring.cores.server, settings=settings_of(redis, name))
    ring.servers.append(server)
    return ring.stack.enter_context(server)


def moved(one: Contender, asked: Console, messages: int, payload: bytes) -> tuple[float, float]:
    """Bytes that Redis read and wrote for each publish."""
    before, began = asked.traffic(), time.monotonic()
    one.load.call("broadcast", messages=messages, burst=BURST, ack_every=BURST, payload=payload)
    one.server.settled_cpu()
    busy, took = asked.traffic(), time.monotonic() - began
    time.sleep(took)
    idle = asked.traffic()
    read, written = (((after - start) - (later - after)) / messages for start, after, later in zip(before, busy, idle, strict=True))
    return read, written


def traffic(report: Report, messages: int, payload: int, rounds: int, others: int) -> None:
    """The figures of bytes."""
    with arena(1) as ring:
        redis = ring.stack.enter_context(start_redis(ring.credentials.root, ring.cores.clients))
        one = ring.enter(f"{OURS} one", settings=settings_of(redis, "one"), clients=HopClients)
        one.load.call("connect", first=0, count=1, subscribe=True)
        one.load.call("connect_publisher")
        with console(redis) as asked:
            moved(one, asked, messages, bytes(payload))  # warms up
            for count in range(others + 1):
                if count:
                    other_node(ring, redis, f"other-{count}")
                samples = [moved(one, asked, messages, bytes(payload)) for _ in range(rounds)]
                subject = f"{count} other nodes"
                facts = {"messages": messages, "payload": payload}
                report.result("bytes to Redis a publish", subject, "bytes", [read for read, _ in samples], **facts)
                report.result("bytes from Redis a publish", subject, "bytes", [written for _, written in samples], **facts)


def main(arguments: list[str] | None = None) -> None:
    sizes = (
        ("--messages", 200, "messages a round to each device for the latency"),
        ("--published", 2000, "messages a round for the bytes"),
        ("--others", 2, "other nodes, at most"),
        ("--payload", 128, "bytes of a message"),
    )
    options = options_of("hop", __doc__, 5, *sizes).parse_args(arguments)
    report = Report("hop")
    latencies(report, options.messages, options.payload, options.rounds)
    traffic(report, options.published, options.payload, options.rounds, options.others)


if __name__ == "__main__":
    main()

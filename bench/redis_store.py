"""One node over Redis beside one over SQLite: publishes with 64 in flight, what they cost node and Redis, and latency to devices.

The node is on one core; Redis shares the other one with the clients. "redis" keeps nothing on disk, "redis synced" appends to its
file and syncs before it answers (appendfsync always), as SQLite does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from bench.arena import MICRO, MILLI, Arena, Contender, arena, options_of
from bench.paced import LEAST_PAYLOAD, Latencies, PacedClients
from bench.publishers import Publishers, Round
from bench.redis_server import SYNCED, settings_of, start_redis
from bench.report import OURS, Report, ratios
from bench.servers import Server

OVER_REDIS = f"{OURS} redis"
OVER_SYNCED = f"{OURS} redis synced"


@dataclass(frozen=True, slots=True)
class Subject:
    """A node, and the Redis that it has."""

    contender: Contender
    redis: Server | None

    def cpu(self) -> tuple[float, float]:
        """Seconds of the node and of Redis, once both have come to rest."""
        return self.contender.server.settled_cpu(), self.redis.settled_cpu() if self.redis else 0.0


def enter(ring: Arena, clients: type[Publishers | PacedClients]) -> dict[str, Subject]:
    """The three subjects, each with a load process."""
    subjects = {OURS: Subject(ring.enter(OURS, clients=clients), None)}
    for name, options in ((OVER_REDIS, ()), (OVER_SYNCED, SYNCED)):
        redis = ring.stack.enter_context(start_redis(ring.credentials.root, ring.cores.clients, *options))
        subjects[name] = Subject(ring.enter(name, settings=settings_of(redis, "one"), clients=clients), redis)
    return subjects


def publish(subject: Subject, messages: int, payload: bytes) -> tuple[Round, float, float]:
    """A round, and the CPU seconds of the node and of Redis for each of its messages."""
    node, redis = subject.cpu()
    measured: Round = subject.contender.load.ask("publish", messages=messages, in_flight=1, payload=payload)
    node_after, redis_after = subject.cpu()
    return measured, (node_after - node) / messages, (redis_after - redis) / messages


def publishing(report: Report, connections: int, messages: int, payload: int, rounds: int) -> None:
    """Throughput and cost of publishes."""
    facts = {"in_flight": connections, "payload": payload}
    with arena(0) as ring:
        subjects = enter(ring, Publishers)
        for each in subjects.values():
            each.contender.load.call("connect", count=connections)
        samples: dict[str, list[tuple[Round, float, float]]] = {name: [] for name in subjects}
        for at in range(rounds + 1):  # the first one warms up
            for name, each in subjects.items():
                measured = publish(each, messages, bytes(payload))
                if at:
                    samples[name].append(measured)
    rates = {name: [messages / one.seconds for one, _, _ in each] for name, each in samples.items()}
    costs = {name: [node for _, node, _ in each] for name, each in samples.items()}
    for name, rounds_of in samples.items():
        report.result("publish: throughput", name, "messages/s", rates[name], **facts)
        report.result("publish: latency p50", name, "ms", [one.p50 * MILLI for one, _, _ in rounds_of], **facts)
        report.result("publish: latency p99", name, "ms", [one.p99 * MILLI for one, _, _ in rounds_of], **facts)
        report.result("publish: CPU of the node", name, "us", [cost * MICRO for cost in costs[name]], **facts)
        if name != OURS:
            report.result("publish: CPU of redis-server", name, "us", [redis * MICRO for _, _, redis in rounds_of], **facts)
            report.ratio("publish: throughput", name, OURS, ratios(rates[name], rates[OURS]), **facts)
            report.ratio("publish: CPU of the node", name, OURS, ratios(costs[name], costs[OURS]), **facts)


def delivering(report: Report, devices: int, messages: int, rate: int, payload: int, rounds: int) -> None:
    """Latency from a publish to its delivery."""
    facts = {"devices": devices, "rate": rate, "ack_every": rate, "payload": payload}
    with arena(devices) as ring:
        subjects = enter(ring, PacedClients)
        for each in subjects.values():
            each.contender.load.call("connect", first=0, count=devices, subscribe=True)
            each.contender.load.call("connect_publisher")
        once = {
            name: partial(each.contender.load.ask, "paced", messages=messages, rate=rate, ack_every=rate, payload=payload)
            for name, each in subjects.items()
        }
        samples: dict[str, list[Latencies]] = {name: [] for name in subjects}
        for at in range(rounds + 1):
            for name, measure in once.items():
                measured = measure()
                if at:
                    samples[name].append(measured)
    for name, rounds_of in samples.items():
        report.result("publish to device: latency p50", name, "ms", [one.p50 * MILLI for one in rounds_of], **facts)
        report.result("publish to device: latency p99", name, "ms", [one.p99 * MILLI for one in rounds_of], **facts)


def main(arguments: list[str] | None = None) -> None:
    sizes = (
        ("--connections", 64, "publishers, each with one publish under way"),
        ("--messages", 4000, "messages a round"),
        ("--devices", 100, "devices for the latency"),
        ("--paced", 60, "messages a round for the latency"),
        ("--rate", 20, "of them a second"),
        ("--payload", 128, f"bytes of a message, at least {LEAST_PAYLOAD}"),
    )
    options = options_of("redis_store", __doc__, 5, *sizes).parse_args(arguments)
    report = Report("redis_store")
    publishing(report, options.connections, options.messages, options.payload, options.rounds)
    delivering(report, options.devices, options.paced, options.rate, options.payload, options.rounds)


if __name__ == "__main__":
    main()

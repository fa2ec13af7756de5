"""Durable publishing (LOCAL_FSYNC): 64 publishers, each of which waits for its acknowledgement before it publishes again.

streampush as it is, against the same with one commit for each message (`store.max_batch = 1`), and against mosquitto with QoS 1 and
persistence, if that is installed. Then the store by itself. What is marked with `simulated_commit_ms` was not measured on such a
disk: each commit sleeps for so long, to show what one that is slower than this machine's would do to either.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench.appending import Appends
from bench.arena import MICRO, MILLI, Arena, Contender, arena, options_of
from bench.mosquitto import is_installed, start_mosquitto, subscribe_and_leave
from bench.publishers import Publishers, Round
from bench.report import OURS, Report, ratios
from bench.servers import SERIAL_BATCHES

SERIAL = f"{OURS} max_batch=1"
SAVING = "mosquitto autosave_interval=1"
LAZY = "mosquitto autosave_interval=1800"

Measure = Callable[[], tuple[Round, float]]
"""One round: how it was, and CPU seconds of the server."""


def publish(contender: Contender, messages: int, in_flight: int, payload: bytes) -> tuple[Round, float]:
    """A round with a server."""
    before = contender.server.settled_cpu()
    measured: Round = contender.load.ask("publish", messages=messages, in_flight=in_flight, payload=payload)
    return measured, contender.server.settled_cpu() - before


def append(store: Appends, messages: int, in_flight: int, payload: bytes) -> tuple[Round, float]:
    """A round with a store, with what the loop itself takes."""
    before = time.process_time()
    measured = store.run(messages, in_flight, payload)
    return measured, time.process_time() - before


def take_turns(work: Mapping[str, Measure], rounds: int) -> dict[str, list[tuple[Round, float]]]:
    """A, B, A, B ... with one more round in front that does not count."""
    samples: dict[str, list[tuple[Round, float]]] = {name: [] for name in work}
    for at in range(rounds + 1):
        for name, once in work.items():
            measured = once()
            if at:
                samples[name].append(measured)
    return samples


def tell(report: Report, what: str, messages: int, work: Mapping[str, Measure], rounds: int, **facts: object) -> None:
    """Measures, and prints a line for each figure and subject, and ratios of the first subject to each other one."""
    samples = take_turns(work, rounds)
    rates = {name: [messages / measured.seconds for measured, _ in each] for name, each in samples.items()}
    costs = {name: [cpu / messages for _, cpu in each] for name, each in samples.items()}
    first, *others = work
    for name, each in samples.items():
        report.result(f"{what}: throughput", name, "messages/s", rates[name], **facts)
        report.result(f"{what}: latency p50", name, "ms", [measured.p50 * MILLI for measured, _ in each], **facts)
        report.result(f"{what}: latency p99", name, "ms", [measured.p99 * MILLI for measured, _ in each], **facts)
        report.result(f"{what}: CPU", name, "us", [cost * MICRO for cost in costs[name]], **facts)
    for other in others:
        report.ratio(f"{what}: throughput", first, other, ratios(rates[first], rates[other]), **facts)
        report.ratio(f"{what}: CPU", first, other, ratios(costs[first], costs[other]), **facts)


def streampush(ring: Arena, subject: str, publishers: int, slower_ms: float = 0.0) -> Contender:
    """A server with the default settings, or with one commit for each message."""
    program = [sys.executable, "-m", "bench.slow_disk", f"{slower_ms:g}"] if slower_ms else None
    settings = SERIAL_BATCHES if subject == SERIAL else None
    contender = ring.enter(subject, settings=settings, program=program, clients=Publishers)
    contender.load.call("connect", count=publishers)
    return contender


def mosquitto(ring: Arena, subject: str, publishers: int) -> Contender:
    """A broker with a subscriber that is away."""
    server = start_mosquitto(subject, ring.credentials, ring.cores.server, save_at_every_change=subject == SAVING)
    contender = ring.join(server, Publishers)
    subscribe_and_leave(server.address, ring.credentials)
    contender.load.call("connect", count=publishers)
    return contender


def emptied(ring: Arena, contender: Contender, work: Measure) -> tuple[Round, float]:
    """A round with a broker that holds nothing yet: saving takes it longer the more it holds."""
    subscribe_and_leave(contender.server.address, ring.credentials)
    return work()


def on_servers(report: Report, options: Any) -> None:
    """The figures of whole servers."""
    publishers = options.connections
    facts = {"connections": publishers, "in_flight": publishers * options.in_flight, "payload": options.payload}
    round_of = partial(publish, messages=options.messages, in_flight=options.in_flight, payload=bytes(options.payload))
    with arena(0) as ring:
        contenders = {name: streampush(ring, name, publishers) for name in (OURS, SERIAL)}
        work: dict[str, Measure] = {name: partial(round_of, each) for name, each in contenders.items()}
        if is_installed():
            for name in (SAVING, LAZY):
                broker = mosquitto(ring, name, publishers)
                work[name] = partial(emptied, ring, broker, partial(round_of, broker))
        else:
            print("mosquitto is not installed: left out", file=sys.stderr)
        tell(report, "durable publish", options.messages, work, options.rounds, **facts)
    if options.simulate:
        messages = options.messages // 4
        slow_round = partial(round_of, messages=messages)
        with arena(0) as ring:
            work = {name: partial(slow_round, streampush(ring, name, publishers, options.simulate)) for name in (OURS, SERIAL)}
            tell(report, "durable publish", messages, work, options.rounds, simulated_commit_ms=options.simulate, **facts)


def on_stores(report: Report, options: Any) -> None:
    """The figures of the store alone, in this process."""
    in_flight = options.connections * options.in_flight
    facts = {"in_flight": in_flight, "payload": options.payload}
    with arena(0) as ring:
        for slower_ms in dict.fromkeys((0, options.simulate)):
            messages = options.messages // 4 if slower_ms else options.messages
            work: dict[str, Measure] = {}
            for name, max_batch in (("max_batch=1000", 1000), ("max_batch=1", 1)):
                path = Path(ring.credentials.root) / f"{name}-{slower_ms}.db"
                store = Appends(path, max_batch, slower_ms / MILLI)
                work[name] = partial(append, store, messages, in_flight, bytes(options.payload))
            simulated = {"simulated_commit_ms": slower_ms} if slower_ms else {}
            tell(report, "store alone, append", messages, work, options.rounds, **facts, **simulated)


def main(arguments: list[str] | None = None) -> None:
    sizes = (
        ("--connections", 64, "publishers, each with a connection"),
        ("--in-flight", 1, "publishes under way on each"),
        ("--messages", 4000, "messages a round"),
        ("--payload", 128, "bytes of a message"),
        ("--simulate", 5, "milliseconds that a commit takes longer in the simulation of a slower disk; 0: none"),
    )
    options = options_of("durable", __doc__, 5, *sizes).parse_args(arguments)
    report = Report("durable")
    on_servers(report, options)
    on_stores(report, options)


if __name__ == "__main__":
    main()

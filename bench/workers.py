"""Two workers beside one, over a Redis each: connections a second, and deliveries a second of messages to all; CPU of either.

On a machine with two cores the clients take about one of them, so two workers have little more than the one of one worker: seconds
cannot show there what a second worker adds. CPU can show what it costs: each worker hears each message by itself.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from bench.arena import MICRO, MILLI, Arena, arena, options_of
from bench.load import Load
from bench.many import PARALLEL, start_workers
from bench.moving import MovingClients
from bench.redis_server import start_redis
from bench.report import OURS, Report, ratios

BURST = 20
HEARTBEAT = 30.0

Sample = dict[str, float]
FIGURES = {
    "connecting: connections a second": ("connections/s", 1.0),
    "connecting: CPU of workers a connection": ("ms", MILLI),
    "fan-out: deliveries a second": ("deliveries/s", 1.0),
    "fan-out: CPU of workers a delivery": ("us", MICRO),
    "fan-out: CPU of redis-server a message": ("us", MICRO),
}


def measured(ring: Arena, workers: int, devices: int, messages: int, payload: bytes) -> Sample:
    """A round, with a server and a Redis started for it."""
    with ExitStack() as own:
        inner = Arena(ring.credentials, ring.cores, own, ring.servers)
        redis = own.enter_context(start_redis(ring.credentials.root, ring.cores.clients))
        processes = start_workers(inner, redis, workers, devices, HEARTBEAT)
        load = own.enter_context(Load(processes.supervisor.address, OURS, ring.credentials, ring.cores.clients, MovingClients))
        cpu, began = processes.cpu(), time.monotonic()
        load.call("connect", first=0, count=devices, subscribe=True, parallel=PARALLEL)
        connected, connecting = processes.cpu() - cpu, time.monotonic() - began
        load.call("connect_publisher")
        load.call("broadcast", messages=BURST, burst=BURST, ack_every=BURST, payload=payload)  # warms up
        processes.settle()
        cpu, redis_cpu, began = processes.cpu(), redis.settled_cpu(), time.monotonic()
        deliveries = load.call("broadcast", messages=messages, burst=BURST, ack_every=BURST, payload=payload)
        took = time.monotonic() - began
        values = (
            devices / connecting,
            connected / devices,
            deliveries / took,
            (processes.cpu() - cpu) / deliveries,
            (redis.settled_cpu() - redis_cpu) / messages,
        )
        return dict(zip(FIGURES, values, strict=True))


def main(arguments: list[str] | None = None) -> None:
    sizes = (
        ("--devices", 500, "connections"),
        ("--messages", 200, "messages a round"),
        ("--payload", 128, "bytes of a message"),
    )
    options = options_of("workers", __doc__, 3, *sizes).parse_args(arguments)
    report = Report("workers")
    names = {1: "1 worker", 2: "2 workers"}
    samples: dict[int, list[Sample]] = {count: [] for count in names}
    with arena(options.devices) as ring:
        for _ in range(options.rounds):
            for count, rounds in samples.items():
                rounds.append(measured(ring, count, options.devices, options.messages, bytes(options.payload)))
    facts = {"devices": options.devices, "in_flight": BURST, "ack_every": BURST, "payload": options.payload}
    for figure, (unit, scale) in FIGURES.items():
        values = {count: [each[figure] * scale for each in rounds] for count, rounds in samples.items()}
        for count, name in names.items():
            report.result(figure, name, unit, values[count], **facts)
        report.ratio(figure, names[2], names[1], ratios(values[2], values[1]), **facts)


if __name__ == "__main__":
    main()

"""Latency from a publish to its delivery: a topic with 1000 devices, 20 messages a second, publisher and devices in one process."""

from __future__ import annotations

from functools import partial

from bench.arena import MILLI, Contender, arena, options_of, subjects_of
from bench.paced import LEAST_PAYLOAD, Latencies, PacedClients
from bench.report import NAIVE, OURS, Report, ratios

ACK_EVERY = (20, 1)  # deliveries that one acknowledgement covers: one a second, and one each


def measure(contender: Contender, messages: int, rate: int, ack_every: int, payload: int) -> tuple[Latencies, float]:
    """A round, and the server's CPU seconds for each of its seconds."""
    before = contender.server.settled_cpu()
    measured: Latencies = contender.load.ask("paced", messages=messages, rate=rate, ack_every=ack_every, payload=payload)
    return measured, (contender.server.settled_cpu() - before) / measured.seconds


def main(arguments: list[str] | None = None) -> None:
    sizes = (
        ("--devices", 1000, "connections"),
        ("--messages", 100, "messages a round"),
        ("--rate", 20, "messages a second"),
        ("--payload", 128, f"bytes of a message, at least {LEAST_PAYLOAD}"),
    )
    options = options_of("latency", __doc__, 3, *sizes).parse_args(arguments)
    report = Report("latency")
    with arena(options.devices) as ring:
        contenders = ring.enter_connected(subjects_of(options), options.devices, subscribe=True, clients=PacedClients)
        for ack_every in ACK_EVERY:
            work = {
                name: partial(measure, each, options.messages, options.rate, ack_every, options.payload)
                for name, each in contenders.items()
            }
            samples: dict[str, list[tuple[Latencies, float]]] = {name: [] for name in work}
            for at in range(options.rounds + 1):  # the first one warms up
                for name, once in work.items():
                    measured = once()
                    if at:
                        samples[name].append(measured)
            facts = {"devices": options.devices, "rate": options.rate, "ack_every": ack_every, "payload": options.payload}
            tell(report, samples, facts)


def tell(report: Report, samples: dict[str, list[tuple[Latencies, float]]], facts: dict[str, object]) -> None:
    """The lines of one case."""
    figures: dict[str, dict[str, list[float]]] = {
        "latency p50": {name: [each.p50 * MILLI for each, _ in rounds] for name, rounds in samples.items()},
        "latency p99": {name: [each.p99 * MILLI for each, _ in rounds] for name, rounds in samples.items()},
        "latency: messages published": {
            name: [each.messages / each.seconds for each, _ in rounds] for name, rounds in samples.items()
        },
        "latency: CPU": {name: [cpu * MILLI for _, cpu in rounds] for name, rounds in samples.items()},
    }
    units = ("ms", "ms", "messages/s", "ms/s")
    for unit, (figure, values) in zip(units, figures.items(), strict=True):
        for name, each in values.items():
            report.result(figure, name, unit, each, **facts)
        if OURS in values and NAIVE in values:
            report.ratio(figure, OURS, NAIVE, ratios(values[OURS], values[NAIVE]), **facts)


if __name__ == "__main__":
    main()

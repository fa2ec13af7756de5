"""Reading out a backlog: one device with 100 000 messages waiting connects and gets them, while others go on as before.

The others: 100 devices that follow a topic with 20 messages a second; their latency with and without the reader, in turns. Every
round has a device of its own, and its backlog was put into the store's file before the server started.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench.arena import MILLI, Contender, arena, options_of
from bench.credentials import device_name
from bench.filling import ROOMY, Filling
from bench.paced import LEAST_PAYLOAD, Latencies, PacedClients
from bench.report import OURS, Report, ratios

MIB = 1024 * 1024
LOOK_SECONDS = 0.1
RATE = 20
ACK_EVERY = 20


def watch(contender: Contender, command: str, **arguments: object) -> tuple[Latencies, int]:
    """A round, and the most memory that the server had meanwhile, looked at every tenth of a second."""
    most = contender.server.memory()
    contender.load.start(command, **arguments)
    while not contender.load.is_done(LOOK_SECONDS):
        most = max(most, contender.server.memory())
    measured: Latencies = contender.load.answer()
    return measured, most


def fill(filling: Filling, devices: range, waiting: int, payload: int) -> None:
    """A backlog for each device."""
    filling.remember(device_name(index) for index in devices)
    for index in devices:
        filling.append(f"device:{device_name(index)}", bytes(payload), waiting)


def main(arguments: list[str] | None = None) -> None:
    sizes = (
        ("--waiting", 100_000, "messages that wait for a device"),
        ("--devices", 100, "devices that go on as before"),
        ("--messages", 100, "messages to them in a round, at least; they are published until the backlog is out"),
        ("--payload", 128, f"bytes of a message, at least {LEAST_PAYLOAD}"),
    )
    options = options_of("backlog", __doc__, 3, *sizes).parse_args(arguments)
    report = Report("backlog")
    readers = range(options.devices, options.devices + options.rounds + 1)
    with arena(readers.stop) as ring:
        path = ring.credentials.root / "backlog.db"
        with Filling(path) as filling:
            fill(filling, readers, options.waiting, options.payload)
        contender = ring.enter(OURS, settings={"store": {"path": str(path), **ROOMY}}, clients=PacedClients)
        contender.load.call("connect", first=0, count=options.devices, subscribe=True)
        contender.load.call("connect_publisher")
        facts = {"messages": options.messages, "rate": RATE, "ack_every": ACK_EVERY, "payload": options.payload}
        alone = partial(watch, contender, "paced", **facts)
        rounds = [
            measure(contender, alone, partial(watch, contender, "beside_backlog", **facts), reader, options.waiting)
            for reader in readers
        ]
    tell(report, options.waiting, options.devices, rounds[1:])


def measure(
    contender: Contender,
    alone: Callable[[], tuple[Latencies, int]],
    beside: Callable[..., tuple[Latencies, int]],
    reader: int,
    waiting: int,
) -> dict[str, float]:
    """One round of each."""
    contender.server.settled_cpu()
    quiet, _ = alone()
    cpu, before = contender.server.settled_cpu(), contender.server.memory()
    busy, peak = beside(device=reader, waiting=waiting)
    cpu = contender.server.settled_cpu() - cpu
    return {
        "read out": busy.read_out,
        "CPU": cpu / waiting,
        "quiet p50": quiet.p50,
        "quiet p99": quiet.p99,
        "busy p50": busy.p50,
        "busy p99": busy.p99,
        "before": before,
        "peak": peak,
        "after": contender.server.memory(),
    }


def tell(report: Report, waiting: int, devices: int, rounds: list[dict[str, float]]) -> None:
    """The lines. CPU holds what the other devices cost meanwhile."""

    def column(name: str, scale: float = 1.0) -> list[float]:
        return [each[name] * scale for each in rounds]

    report.result("backlog read-out", OURS, "messages/s", column("read out"), waiting=waiting)
    report.result("backlog read-out: CPU a message", OURS, "us", column("CPU", 1e6), waiting=waiting)
    for part in ("p50", "p99"):
        for name, when in (("quiet", "without the reader"), ("busy", "beside the reader")):
            report.result(
                f"latency {part} of others {when}", OURS, "ms", column(f"{name} {part}", MILLI), waiting=waiting, devices=devices
            )
        quotients = ratios(column(f"busy {part}"), column(f"quiet {part}"))
        report.ratio(f"latency {part} of others", "beside the reader", "without", quotients, waiting=waiting, devices=devices)
    for when in ("before", "peak", "after"):
        report.result(
            f"memory {when} the read-out" if when != "peak" else "memory, the most during the read-out",
            OURS,
            "MiB",
            column(when, 1 / MIB),
            waiting=waiting,
        )


if __name__ == "__main__":
    main()

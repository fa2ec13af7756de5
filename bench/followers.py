"""What a publish costs by the number of durable followers of its topic: CPU, and bytes that stay in the store.

Two servers: on one 100 000 devices follow the topic for good, on the other 1000; on both the same 1000 devices are connected, and
before that none. The store's files were filled before the servers started, and nothing is trimmed.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

from bench.arena import MICRO, Arena, Contender, arena, options_of
from bench.credentials import device_name
from bench.dialects import TOPIC
from bench.filling import ROOMY, Filling
from bench.report import OURS, Report, ratios


def stored(path: Path) -> int:
    """Bytes of the store's file that hold something, with everything that was in the write-ahead log."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        pages, free, size = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size
    finally:
        connection.close()


def fill(path: Path, followers: int) -> None:
    """So many devices that follow the topic for good."""
    with Filling(path) as filling:
        filling.remember(map(device_name, range(followers)))
        filling.subscribe(map(device_name, range(followers)), TOPIC)


def publish(contender: Contender, path: Path, messages: int, payload: bytes) -> tuple[float, float]:
    """CPU seconds and stored bytes of a publish with its deliveries and acknowledgements."""
    before = stored(path)
    work = partial(contender.load.call, "broadcast", messages=messages, burst=1, ack_every=1, payload=payload)

    def published() -> int:
        work()
        return messages

    seconds = contender.server.cost(published)
    return seconds, (stored(path) - before) / messages


def enter(ring: Arena, followers: int) -> tuple[Contender, Path]:
    """A server with so many followers, of whom none is connected."""
    path = ring.credentials.root / f"{followers}.db"
    fill(path, followers)
    contender = ring.enter(OURS, settings={"store": {"path": str(path), **ROOMY}})
    contender.load.call("connect_publisher")
    return contender, path


def main(arguments: list[str] | None = None) -> None:
    sizes = (
        ("--followers", 100_000, "durable followers of the one, at most 100 000"),
        ("--connected", 1000, "connections to both, and durable followers of the other"),
        ("--messages", 40, "messages a round with the devices connected"),
        ("--alone", 500, "messages a round with none connected"),
        ("--payload", 128, "bytes of a message"),
    )
    options = options_of("followers", __doc__, 5, *sizes).parse_args(arguments)
    report = Report("followers")
    many, few = f"{options.followers} followers", f"{options.connected} followers"
    with arena(options.connected) as ring:
        contenders = {many: enter(ring, options.followers), few: enter(ring, options.connected)}
        for connected, messages in ((0, options.alone), (options.connected, options.messages)):
            for contender, _ in contenders.values() if connected else ():
                contender.load.call("connect", first=0, count=connected, subscribe=True)
            samples: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
            for at in range(options.rounds + 1):  # the first one warms up: it makes a cursor for each device
                for name, (contender, path) in contenders.items():
                    measured = publish(contender, path, messages, bytes(options.payload))
                    if at:
                        samples[name].append(measured)
            facts = {"connected": connected, "payload": options.payload}
            for name, each in samples.items():
                report.result("CPU of a publish to a topic", name, "us", [cpu * MICRO for cpu, _ in each], **facts)
                report.result("bytes stored by a publish to a topic", name, "bytes", [size for _, size in each], **facts)
            quotients = ratios([cpu for cpu, _ in samples[many]], [cpu for cpu, _ in samples[few]])
            report.ratio("CPU of a publish to a topic", many, few, quotients, **facts)


if __name__ == "__main__":
    main()

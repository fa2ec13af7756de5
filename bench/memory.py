"""Memory of an idle connection: PSS of the server with all connected, less that of the idle server, by connections."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial

from bench.arena import Arena, arena, compare, options_of, subjects_of, take_turns
from bench.report import Report

KIB = 1024
SETTLE_SECONDS = 1.0


def per_connection(ring: Arena, subject: str, connections: int, *, subscribe: bool) -> float:
    """Bytes per connection, in a server started for this."""
    with ExitStack() as own:
        contender = Arena(ring.credentials, ring.cores, own, ring.servers).enter(subject)
        contender.server.settled_cpu()
        before = contender.server.memory()
        contender.load.call("connect", first=0, count=connections, subscribe=subscribe)
        time.sleep(SETTLE_SECONDS)
        return (contender.server.memory() - before) / connections


def main(arguments: list[str] | None = None) -> None:
    parser = options_of("memory", __doc__, 2, ("--connections", 5000, "connections"))
    parser.add_argument("--subscribe", action="store_true", help="each device also follows a topic")
    options = parser.parse_args(arguments)
    with arena(options.connections) as ring:
        work = {
            subject: partial(per_connection, ring, subject, options.connections, subscribe=options.subscribe)
            for subject in subjects_of(options)
        }
        samples = take_turns(work, options.rounds)
    facts = {"connections": options.connections, "topic": options.subscribe}
    compare(Report("memory"), "memory per idle connection", "KiB", 1 / KIB, samples, **facts)


if __name__ == "__main__":
    main()

"""Server CPU per delivery of one 128-byte message to all devices: one at a time, and with 100 in flight.

One at a time: the next message is published when the last one has arrived everywhere. In flight: so many are published in one
write, the next burst when all have arrived. The publish and the devices' acknowledgements are part of the cost.
"""

from __future__ import annotations

from functools import partial

from bench.arena import MICRO, Contender, arena, compare, options_of, subjects_of, take_turns
from bench.report import Report

CASES = ((1, 64), (1, 1), (100, 50), (100, 1))  # messages in flight, deliveries that one acknowledgement covers


def broadcast(contender: Contender, messages: int, burst: int, ack_every: int, payload: bytes) -> float:
    """CPU seconds per delivery."""
    work = partial(contender.load.call, "broadcast", messages=messages, burst=burst, ack_every=ack_every, payload=payload)
    return contender.server.cost(work)


def main(arguments: list[str] | None = None) -> None:
    sizes = (("--devices", 1000, "connections"), ("--messages", 40, "messages a round"), ("--payload", 128, "bytes of a message"))
    options = options_of("fanout", __doc__, 5, *sizes).parse_args(arguments)
    report = Report("fanout")
    payload = bytes(options.payload)
    with arena(options.devices) as ring:
        contenders = ring.enter_connected(subjects_of(options), options.devices, subscribe=True)
        for in_flight, ack_every in CASES:
            messages = options.messages if in_flight == 1 else max(in_flight, options.messages)
            work = {name: partial(broadcast, each, messages, in_flight, ack_every, payload) for name, each in contenders.items()}
            samples = take_turns(work, options.rounds, warm_up=True)
            facts = {"devices": options.devices, "in_flight": in_flight, "ack_every": ack_every, "payload": options.payload}
            compare(report, "fan-out CPU per delivery", "us", MICRO, samples, **facts)


if __name__ == "__main__":
    main()

"""Server CPU of one message to one device, the next device each time: publish and delivery, publish alone, and what is left.

Publish alone goes to an address that nobody follows; the rest is what the delivery costs, with its acknowledgement.
"""

from __future__ import annotations

from functools import partial

from bench.arena import MICRO, Contender, arena, compare, options_of, subjects_of, take_turns
from bench.report import Report

WINDOWS = (1, 100)


def deliver(contender: Contender, messages: int, window: int, ack_every: int, payload: bytes) -> float:
    """CPU seconds per publish and delivery."""
    work = partial(contender.load.call, "unicast", messages=messages, window=window, ack_every=ack_every, payload=payload)
    return contender.server.cost(work)


def publish(contender: Contender, messages: int, window: int, payload: bytes) -> float:
    """CPU seconds per publish without a delivery."""
    return contender.server.cost(
        partial(contender.load.call, "publish_to_nobody", messages=messages, window=window, payload=payload)
    )


def main(arguments: list[str] | None = None) -> None:
    sizes = (("--devices", 1000, "connections"), ("--messages", 1000, "messages a round"), ("--payload", 128, "bytes of a message"))
    options = options_of("unicast", __doc__, 5, *sizes).parse_args(arguments)
    report = Report("unicast")
    payload = bytes(options.payload)
    with arena(options.devices) as ring:
        contenders = ring.enter_connected(subjects_of(options), options.devices, subscribe=False)
        for window in WINDOWS:
            both = {name: partial(deliver, each, options.messages, window, 1, payload) for name, each in contenders.items()}
            alone = {
                f"{name} alone": partial(publish, each, options.messages, window, payload) for name, each in contenders.items()
            }
            samples = take_turns(both | alone, options.rounds, warm_up=True)
            total = {name: samples[name] for name in both}
            publishing = {name: samples[f"{name} alone"] for name in both}
            rest = {name: [all_ - part for all_, part in zip(total[name], publishing[name], strict=True)] for name in both}
            facts = {"devices": options.devices, "in_flight": window, "ack_every": 1, "payload": options.payload}
            compare(report, "unicast CPU per publish and delivery", "us", MICRO, total, **facts)
            compare(report, "CPU per publish without a follower", "us", MICRO, publishing, **facts)
            for name, values in rest.items():  # differences of noisy figures: too noisy for a ratio
                report.result("unicast CPU per delivery, the rest", name, "us", [value * MICRO for value in values], **facts)


if __name__ == "__main__":
    main()

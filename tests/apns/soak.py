"""Pushes without end through one client, while the simulated Apple misbehaves now and then: what is left behind must not grow.

`make soak` sends a million: `python -m tests.apns.soak 1000000`. In memory, on a fake clock.
"""

from __future__ import annotations

import gc
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import TextIO

from streampush.apns.client_figures import named
from streampush.apns.outcome import Outcome
from streampush.apns.retry import RetryPolicy
from streampush.apns.simulator import Reason, When
from streampush.apns.simulator.orders import GoAway, RefuseStream, Reject, ResetStream
from tests.apns.clienting import ClientWorld

ORDERS = (
    RefuseStream(When(every=97)),
    GoAway(When(every=2003)),
    ResetStream(When(every=499)),
    Reject(Reason.UNREGISTERED, When(every=53)),
    Reject(Reason.SERVICE_UNAVAILABLE, When(every=701), retry_after=1),
)
ROUND = 1000
DEVICES = 2000
"""The suspect ones among them are remembered; with endless new ones that memory would grow up to its bound."""


class Soak:
    """`apple_kept`: records that the simulated Apple keeps, so that it does not grow either."""

    def __init__(self, apple_kept: int = 2 * ROUND) -> None:
        self.world = ClientWorld(ORDERS, retry=RetryPolicy(server_error_wait=0.0), apple_kept=apple_kept)
        self.outcomes: Counter[str] = Counter()
        self.sent = 0
        self._tokens = [self.world.random.randbytes(32).hex() for _ in range(DEVICES)]

    def round(self) -> None:
        """Sends some, and waits until all have ended."""
        world = self.world
        deadline = world.clock.seconds() + 30.0
        done: Callable[[Outcome], None] = self._ended
        for number in range(ROUND):
            push = world.new_push(device_token=self._tokens[(self.sent + number) % DEVICES])
            world.client.send(push, deadline, done)
        self.sent += ROUND
        world.advance(30.0)
        world.metrics.seen.clear()
        world.metrics.times.clear()
        del world.servers[:-4], world.dialer.ends[:-4]  # connections that are over
        world.dialer.dialed_at.clear()
        world.dialer.in_use.clear()

    def _ended(self, outcome: Outcome) -> None:
        self.outcomes[named(outcome)[0]] += 1

    def blocks(self) -> int:
        """Pieces of memory that Python has in use."""
        gc.collect()
        return sys.getallocatedblocks()


def main(pushes: int, output: TextIO) -> int:
    soak = Soak()
    for _ in range(20):
        soak.round()
    before, began = soak.blocks(), time.process_time()
    while soak.sent < pushes:
        soak.round()
        if soak.sent % 50_000 == 0:
            spent = time.process_time() - began
            print(
                f"{soak.sent} pushes, {soak.blocks() - before:+d} blocks of memory, {spent:.0f} s of CPU", file=output, flush=True
            )
    grown = soak.blocks() - before
    ended = sum(soak.outcomes.values())
    print(f"{ended} of {soak.sent} ended: {dict(soak.outcomes)}; {grown:+d} blocks of memory", file=output)
    return 0 if ended == soak.sent and grown < 2000 else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, sys.stdout))

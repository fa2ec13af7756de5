"""What everything in a simulated world shares: time, chance, a trace of what happened, a way to say that a rule was broken."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import NoReturn

from tests.simulation.clock import EventClock

START_MS = 1_800_000_000_000
"""The wall clock at virtual second 0, in Unix milliseconds."""

TRACE_LINES = 100_000
"""The most that a trace keeps."""


class Broken(AssertionError):
    """An invariant does not hold. `rule` is its short name."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule
        self.detail = detail


class World:
    """`random` is the only source of chance; whoever draws from it does so in an order that depends on the seed alone."""

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.seed = seed
        self.clock = EventClock()
        self.random = Random(seed)
        self.tracing = tracing
        self.lines: list[str] = []
        self.wall_offset_ms = 0  # what steps of the wall clock have added up to
        self.failure: Broken | None = None
        self.seen: Counter[str] = Counter()  # how often each kind of thing has happened
        self._ids = 0

    def trace(self, *words: object) -> None:
        """One thing that happened. Callers look at `tracing` first where the words cost something."""
        if self.tracing and len(self.lines) < TRACE_LINES:
            self.lines.append(f"{self.clock.rightNow:9.3f} {' '.join(map(str, words))}")

    def broken(self, rule: str, *words: object) -> NoReturn:
        """Ends the run, also if somebody on the way up catches the exception."""
        detail = " ".join(map(str, words))
        self.trace("BROKEN", rule, detail)
        broken = Broken(rule, f"t={self.clock.rightNow:.3f} {detail}")
        self.failure = self.failure or broken
        raise broken

    def pass_time(self, seconds: float) -> None:
        """Lets happen what is due. Raises Broken."""
        clock = self.clock
        end = clock.rightNow + seconds
        while clock.next_time() <= end:
            clock.step()
            if self.failure is not None:
                raise self.failure
        clock.rightNow = max(clock.rightNow, end)

    def true_ms(self) -> int:
        """True time, in Unix milliseconds: what the wall clock would show if nobody set it."""
        return START_MS + int(self.clock.rightNow * 1000)

    def wall_ms(self) -> int:
        """What the machine's wall clock shows."""
        return self.true_ms() + self.wall_offset_ms

    def new_id(self, prefix: str) -> str:
        """A name that nothing else in this world has."""
        self._ids += 1
        return f"{prefix}{self._ids}"

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

"""The push service as one server process has it: takes a push, and says some time later how it ended."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.internet.defer import Deferred

from streampush.push.values import PushAnswer, PushOrder, PushOutcome, PushToken
from tests.simulation.clock import ProcessClock
from tests.simulation.truth import Truth

LONGEST_SEND = 0.5
"""Seconds."""


class SimulatedApple:
    """See push.ports.PushSender."""

    ready = True
    max_in_flight = 3

    def __init__(self, clock: ProcessClock, random: Random, truth: Truth) -> None:
        self._clock = clock
        self._random = random
        self._truth = truth
        self._unheard: dict[Deferred[None], None] = {}  # of pushes that died with the process
        self._unwritten: dict[str, Deferred[None]] = {}  # of pushes that can still be taken back
        self._withdrawn: set[str] = set()

    def fallback_after(self, token: PushToken) -> float:
        return 1.0

    def watch(self, mended: Callable[[], None]) -> None:
        """Nothing waits for a person here."""

    def has_room(self, token: PushToken) -> bool:
        return True

    async def send(self, order: PushOrder) -> PushAnswer:
        self._truth.pushed(order)
        done: Deferred[None] = Deferred()
        self._unheard[done] = None
        if order.push_id < "8":  # half of them wait for a connection
            self._unwritten[order.push_id] = done
        self._clock.callLater(self._random.uniform(0.0, LONGEST_SEND), self._over, done)
        await done
        self._unwritten.pop(order.push_id, None)
        if order.push_id in self._withdrawn:
            self._withdrawn.remove(order.push_id)
            return PushAnswer(PushOutcome.NOT_SENT, "cancelled", again_in=0.0)
        return self._answer(order)

    def withdraw(self, push_id: str) -> None:
        done = self._unwritten.get(push_id)
        if done is not None:
            self._truth.withdrawn()
            self._withdrawn.add(push_id)
            self._over(done)

    def _over(self, done: Deferred[None]) -> None:
        if done in self._unheard:
            del self._unheard[done]
            done.callback(None)

    def _answer(self, order: PushOrder) -> PushAnswer:
        choice = self._random.random()
        if choice < 0.15:
            return PushAnswer(PushOutcome.NOT_SENT, "no connection", again_in=1.0)
        if choice < 0.3:
            return PushAnswer(PushOutcome.UNKNOWN, "no answer", order.push_id)
        if choice < 0.4:
            dead_at_ms = order.token.registered_at_ms + 1
            return PushAnswer(PushOutcome.REJECTED, "Unregistered", order.push_id, token_dead_at_ms=dead_at_ms)
        return PushAnswer(PushOutcome.DELIVERED, apns_id=order.push_id)

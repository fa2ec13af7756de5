"""Rates that hold for all nodes together: of what a principal may do, a node takes a chunk and spends it by itself.

Theory of operation. Beside the bucket of this node (`limits`) a principal has one in the store that the nodes share. A node takes
whole tokens of it, a chunk at a time, and the next when half of that is spent: most requests cost no round trip, and who finds none
waits for one, in the order of the requests. Tokens that a node has taken are the principal's to spend there, however late. So all
nodes together let through what the rate allows, and beyond that what they had in hand: less than a chunk each.

If the bucket has not as many as a node has asked for, the node refuses until it may ask again: a principal that is above its rate
costs the store some questions a second, whatever it sends. While the store is away, each node's own bucket holds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from twisted.internet.defer import Deferred

from streampush.errors import StoreUnavailable
from streampush.push.limits import DEFAULT_MAX_KEYS
from streampush.push.ports import Spawner

CHUNK_SHARE = 0.1
"""Of the tokens that may be saved up, and of those that come in a second: the larger of both is a chunk."""

PAUSE = 0.02
"""Seconds at least between two questions to a bucket that had too little."""


class RateStore(Protocol):
    """Buckets that all nodes share. One that was never asked for, or was forgotten, is full."""

    async def take_tokens(self, bucket: str, wanted: int, rate: float, burst: int) -> tuple[int, float]:
        """Takes at most so many whole tokens of the bucket: `rate` a second come, `burst` are saved up.

        Gives how many were taken and, if those are less, the seconds until there is one more. Raises StoreUnavailable.
        """

    async def look_at_tokens(self, bucket: str, rate: float, burst: int) -> float:
        """The tokens that are there; nothing is taken. Raises StoreUnavailable."""


class _Hand:
    """What this node has of one bucket."""

    __slots__ = ("asking", "next_at", "tokens", "waiters")

    def __init__(self) -> None:
        self.tokens = 0
        self.asking = False
        self.next_at = 0.0  # nothing is asked for before
        self.waiters: list[Deferred[None]] = []


class SharedRate:
    """One rate of many principals: `rate` a second, `burst` saved up, each. `clock` gives monotonic seconds.

    Bounded: above `max_keys` the hand that was not looked into for longest is dropped, with its tokens.
    """

    def __init__(
        self,
        store: RateStore,
        rate: float,
        burst: int,
        *,
        clock: Callable[[], float],
        spawn: Spawner,
        max_keys: int = DEFAULT_MAX_KEYS,
    ) -> None:
        self._store = store
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._spawn = spawn
        self._max_keys = max_keys
        self.chunk = max(1, int(CHUNK_SHARE * max(rate, burst)))
        """Tokens that a node takes at once. Above `burst`, where much more comes in a second, it gets what there is."""
        self._hands: OrderedDict[str, _Hand] = OrderedDict()

    async def take(self, key: str) -> float:
        """Takes a token of the key and gives 0.0, or takes none and gives the seconds until there may be one."""
        hand = self._hand(key)
        while not hand.tokens:
            left = hand.next_at - self._clock()
            if not hand.asking and left > 0:
                return left
            answered: Deferred[None] = Deferred()
            hand.waiters.append(answered)
            self._ask(key, hand)  # it may answer at once
            await answered
        hand.tokens -= 1
        if 0 < hand.tokens < self.chunk // 2 and hand.next_at <= self._clock():
            self._ask(key, hand)
        return 0.0

    async def look(self, key: str) -> float:
        """What all nodes together may still take, and this one has taken and not spent. Raises StoreUnavailable."""
        there = await self._store.look_at_tokens(key, self._rate, self._burst)
        hand = self._hands.get(key)
        return there if hand is None else there + hand.tokens

    def _hand(self, key: str) -> _Hand:
        hand = self._hands.get(key)
        if hand is None:
            hand = self._hands[key] = _Hand()
            if len(self._hands) > self._max_keys:
                self._hands.popitem(last=False)
        else:
            self._hands.move_to_end(key)
        return hand

    def _ask(self, key: str, hand: _Hand) -> None:
        if not hand.asking:
            hand.asking = True
            self._spawn(self._fetch(key, hand))

    async def _fetch(self, key: str, hand: _Hand) -> None:
        taken, wait = self.chunk, 0.0  # if the store does not say: the node's own bucket has let the request through
        try:
            with suppress(StoreUnavailable):
                taken, wait = await self._store.take_tokens(key, self.chunk, self._rate, self._burst)
        finally:
            hand.asking = False
            hand.tokens += taken
            if taken < self.chunk:
                hand.next_at = self._clock() + max(wait, PAUSE)
            waiters, hand.waiters = hand.waiters, []
            for answered in waiters:
                answered.callback(None)

"""Who gets nothing for a while: devices of which Apple said "too many" (429), and apps above the rate that they are configured
for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from streampush.push.limits import TokenBucket

FIRST_REST = 5.0
"""Seconds that a device rests at the first 429 without Retry-After. Apple's limit is for requests "consecutively": a few seconds
end that."""

MAX_REST = 900.0
"""Seconds that it rests at most; it doubles with each 429 in a row. Longer, and a push is seldom wanted any more."""

FORGET_AFTER = 3600.0
"""Seconds after its rest in which another 429 counts as one in a row."""

MAX_RESTING = 100_000
"""Devices that are remembered, 200 bytes each. More at once is no matter of single devices; the oldest are forgotten and may be
tried again."""


@dataclass(slots=True)
class _Rest:
    until: float
    length: float


class RestingDevices:
    """The devices that rest. Keys are device tokens; they stay in memory and are never shown."""

    __slots__ = ("_first", "_max", "_max_devices", "rests")

    def __init__(self, *, first_rest: float = FIRST_REST, max_rest: float = MAX_REST, max_devices: int = MAX_RESTING) -> None:
        self._first = first_rest
        self._max = max_rest
        self._max_devices = max_devices
        self.rests: OrderedDict[str, _Rest] = OrderedDict()
        """By device, for who asks about each push. Some may be over."""

    def __len__(self) -> int:
        return len(self.rests)

    def too_many(self, device_token: str, now: float, retry_after: float | None = None) -> float:
        """Apple answered 429 for this device; gives the seconds that it rests, `retry_after` if Apple named them."""
        rests = self.rests
        rest = rests.pop(device_token, None)
        if rest is not None and now < rest.until and retry_after is None:
            rests[device_token] = rest  # one of several that were under way: no new offence
            return rest.until - now
        length = self._first
        if rest is not None and now < rest.until + FORGET_AFTER:
            length = min(rest.length * 2, self._max)
        wait = length if retry_after is None else retry_after
        until = now + wait if rest is None else max(now + wait, rest.until)
        rests[device_token] = _Rest(until, length)
        if len(rests) > self._max_devices:
            rests.popitem(last=False)
        return until - now

    def wait(self, device_token: str, now: float) -> float:
        """Seconds until this device may get a push again; 0.0: now."""
        if not self.rests:  # most of the time
            return 0.0
        rest = self.rests.get(device_token)
        return 0.0 if rest is None or now >= rest.until else rest.until - now

    def delivered(self, device_token: str) -> None:
        """A push to the device was taken: it rests no more, and its next 429 is a first one."""
        if self.rests:
            self.rests.pop(device_token, None)

    def forget(self, now: float) -> None:
        """Drops what is over, oldest first. To be called now and then; takes time only for what it drops."""
        rests = self.rests
        while rests:
            oldest = next(iter(rests.values()))
            if now < oldest.until + FORGET_AFTER:
                return
            rests.popitem(last=False)


@dataclass(frozen=True, slots=True)
class AppRate:
    """`rate` pushes a second, `burst` at once. Both above 0."""

    rate: float
    burst: float


class AppRates:
    """The rates of the apps that have one; the others are not limited."""

    __slots__ = ("_rates", "limited")

    def __init__(self, rates: Mapping[str, AppRate], now: float) -> None:
        self._rates: dict[str, AppRate] = {}
        self.limited: dict[str, TokenBucket] = {}
        """Those that have one, for who asks about each push."""
        self.reload(rates, now)

    def take(self, app: str, now: float) -> float:
        """Takes a push of the app's rate and gives 0.0, or takes none and gives the seconds until there is one."""
        bucket = self.limited.get(app)
        return 0.0 if bucket is None else bucket.take(now)

    def reload(self, rates: Mapping[str, AppRate], now: float) -> None:
        """The rates are these from now on; a bucket whose rate stays the same keeps its level. Raises ValueError for a rate that
        is none."""
        for app, rate in rates.items():
            if not (rate.rate > 0 and rate.burst >= 1):
                raise ValueError(f"app {app}: a rate is above 0 and a burst at least 1")
        self.limited = {
            app: self.limited[app] if self._rates.get(app) == rate else TokenBucket(rate.rate, rate.burst, now)
            for app, rate in rates.items()
        }
        self._rates = dict(rates)

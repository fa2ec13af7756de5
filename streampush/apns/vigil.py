"""Tells operators, once, when pushes do not come through, and when they do again.

Theory of operation. Each failure of a push is a value for whoever sent it, and a count; a line in the log for each would be a flood
in the one hour in which somebody reads it. So every LOOK seconds the figures are compared with those before: of a route, whether
there is a connection; of an app, whether any push was delivered since pushes began to fail. What Apple says about a credential, a
topic or a clock is `standing`'s to tell, at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from streampush.apns.apps import Route
from streampush.apns.breaker import State
from streampush.apns.client_figures import ClientFigures
from streampush.apns.dead_tokens import DOUBTFUL
from streampush.apns.outcome import Why
from streampush.apns.pool_figures import PoolFigures
from streampush.apns.reasons import REASONS, Action

LOOK = 5.0
"""Seconds between two looks: what is over by itself within some seconds is nobody's business at night."""

IN_A_ROW = 3
"""Pushes that fail and none that is delivered, or tries to connect, from which on it is told. One may be an accident."""

SHOWN = 3
"""Kinds of failures that a line names, the most frequent ones."""

_OF_THE_PUSH = frozenset({Why.EXPIRED, Why.CANCELLED, Why.STOPPING, Why.DEVICE_RESTS, Why.APP_RATE})
"""What says nothing about the way to Apple."""

_TOLD_ELSEWHERE = frozenset({Why.CREDENTIAL_STOPPED, Why.TOPIC_STOPPED})

_ITS_OWN_MATTER = frozenset({Action.NEVER, Action.DROP_TOKEN, Action.REST_DEVICE, Action.STOP_CREDENTIAL, Action.STOP_TOPIC})
"""Rejections that concern one push or device, or that are told elsewhere. Those that a wrong configuration gives too are none
where nothing else comes back."""


def is_trouble(outcome: str, reason: str) -> bool:
    """Whether a push that ended so, in the words of client_figures.named, says that the way to Apple, or Apple, does not work."""
    if outcome == "delivered":
        return False
    if outcome == "rejected":
        known = REASONS.get(reason)
        return known is None or known.action not in _ITS_OWN_MATTER or reason in DOUBTFUL
    return reason not in _OF_THE_PUSH | _TOLD_ELSEWHERE


class Vigil:
    """Looks every LOOK seconds, between `start` and `stop`. `apps` gives the figures by the name of the app, `pools` by route."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        apps: Callable[[], Mapping[str, ClientFigures]],
        pools: Callable[[], Mapping[Route, PoolFigures]],
    ) -> None:
        self._clock = clock
        self._apps = apps
        self._pools = pools
        self._pushes: dict[str, _Pushes] = {}
        self._ways: dict[Route, _Way] = {}
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begins. Starting twice is harmless."""
        if self._call is None:
            self._call = self._clock.callLater(LOOK, self._look)

    def stop(self) -> None:
        """Leaves no timer behind. Stopping twice is harmless."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _look(self) -> None:
        self._call = self._clock.callLater(LOOK, self._look)  # first: what goes wrong below must not end the vigil
        try:
            now = self._clock.seconds()
            self._look_at_ways(now)
            self._look_at_pushes(now)
        except Exception:  # noqa: BLE001 - the owner of this timer is nobody but us; the failure is logged
            self._log.failure("it was not looked at how pushes to Apple stand")

    def _look_at_ways(self, now: float) -> None:
        pools = self._pools()
        self._ways = {route: self._ways.get(route) or _Way() for route in pools}
        for route, figures in pools.items():
            way = self._ways[route]
            change = way.see(figures, now)
            if change is None:
                continue
            if change:
                text = "no connection to Apple at {host}:{port}: {problem}"
                tell = self._log.error if figures.permanent else self._log.warn
                tell(text, host=route.host, port=route.port, problem=figures.fault)
            else:
                text = "Apple at {host}:{port} can be reached again, after {seconds} s"
                self._log.info(text, host=route.host, port=route.port, seconds=round(now - way.since))

    def _look_at_pushes(self, now: float) -> None:
        apps = self._apps()
        self._pushes = {name: self._pushes.get(name) or _Pushes() for name in apps}
        for name, figures in apps.items():
            pushes = self._pushes[name]
            change = pushes.see(figures, now)
            if change is None:
                continue
            if change:
                held = ", and are held back" if figures.breaker is not State.CLOSED else ""
                self._log.warn("pushes of {app} to Apple fail{held}: {failures}", app=name, held=held, failures=pushes.described())
            else:
                self._log.info("pushes of {app} come through again, after {seconds} s", app=name, seconds=round(now - pushes.since))


class _Way:
    """To one host with one credential. `since`: when it was told that there is no connection."""

    __slots__ = ("_permanent", "_told", "since")

    def __init__(self) -> None:
        self._told = False
        self._permanent = False
        self.since = 0.0

    def see(self, figures: PoolFigures, now: float) -> bool | None:
        """True: it is to be told that there is none; False: that there is one again; None: nothing new."""
        is_bad = bool(figures.fault) and (figures.permanent or figures.failures >= IN_A_ROW)
        if is_bad and (not self._told or (figures.permanent and not self._permanent)):
            self.since = self.since if self._told else now
            self._told, self._permanent = True, figures.permanent
            return True
        if self._told and not figures.fault and not figures.failures:
            self._told = self._permanent = False
            return False
        return None


class _Pushes:
    """Of one app. `since`: when it was told that they fail."""

    __slots__ = ("_before", "_delivered", "_failed", "_told", "since")

    def __init__(self) -> None:
        self._before: Mapping[tuple[str, str], int] = {}
        self._delivered = 0
        self._failed: Counter[tuple[str, str]] = Counter()  # since one was delivered
        self._told = False
        self.since = 0.0

    def see(self, figures: ClientFigures, now: float) -> bool | None:
        """True: it is to be told that they fail; False: that they come through again; None: nothing new."""
        came_through = figures.delivered not in (0, self._delivered)  # it begins anew with a host that has changed
        ended = Counter(figures.outcomes)
        ended.subtract(self._before)
        if came_through and figures.breaker is State.CLOSED:
            self._failed.clear()
        self._failed.update({what: number for what, number in ended.items() if number > 0 and is_trouble(*what)})
        self._delivered, self._before = figures.delivered, dict(figures.outcomes)
        fails = figures.breaker is not State.CLOSED or (not came_through and self._failed.total() >= IN_A_ROW)
        if fails and not self._told:
            self._told, self.since = True, now
            return True
        if self._told and came_through and figures.breaker is State.CLOSED:
            self._told = False
            return False
        return None

    def described(self) -> str:
        """What they ended in, the most frequent first."""
        failed = self._failed.most_common(SHOWN)
        if not failed:
            return "Apple answers late"
        return ", ".join(f"{' '.join(what).replace('_', ' ').strip()} {number}" for what, number in failed)

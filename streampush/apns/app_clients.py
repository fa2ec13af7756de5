"""A client for each app in force, over one pool for each route: made, changed and ended as the apps are.

Theory of operation. A reload that gives an app another route (a new key, a renewed certificate) makes a new pool and hands it to
the app's client, which sends over it from then on; the old pool drains, and what it could not send any more comes back to the
client and goes out over the new one. So no push is lost, and none has to wait. A client is made anew only for what it cannot
change, its host and its policies; what waits in the old one is told that it was not sent, which is for the outbox to repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from streampush.apns.apps import App, Apps, Route
from streampush.apns.broadcast_sender import BroadcastSender, management_route
from streampush.apns.client import ApnsClient
from streampush.apns.dialing import Dialer, TlsDialer
from streampush.apns.pool import Pool
from streampush.apns.ports import ApnsMetrics
from streampush.apns.rates import AppRates
from streampush.apns.retry import RetryPolicy
from streampush.apns.settings import app_rates, client_limits, policies_of, pool_limits, proxy, retry_policy
from streampush.config import ApnsAppConfig, ApnsConfig, Config


@dataclass(slots=True)
class _Running:
    """An app with its client, as they are now."""

    app: App
    client: ApnsClient


class AppClients:
    """`dialer` makes what opens the connections of a route. `wall`: Unix seconds. `new_id`: makes apns-ids. `retry`: when an app's
    pushes are repeated."""

    def __init__(
        self,
        apps: Apps,
        limits: ApnsConfig,
        clock: IReactorTime,
        dialer: Callable[[Route], Dialer],
        *,
        wall: Callable[[], float],
        new_id: Callable[[], str],
        metrics: ApnsMetrics,
        random: Random,
        retry: Callable[[ApnsAppConfig], RetryPolicy] = retry_policy,
    ) -> None:
        self._apps = apps
        self._limits = limits
        self._clock = clock
        self._dialer = dialer
        self._wall = wall
        self._new_id = new_id
        self._metrics = metrics
        self._random = random
        self._retry = retry
        self._pools: dict[Route, Pool] = {}
        self._ending: dict[Pool, Deferred[None]] = {}  # pools that drain
        self._running: dict[str, _Running] = {}
        self._rates = AppRates({}, clock.seconds())
        self._stopping = False
        self.broadcasts = BroadcastSender(apps, self._pool_in_force, clock, wall=wall, metrics=metrics)
        """Channels for Live Activities of the same apps, over the same connections; those to manage them are opened on use."""
        self._follow()
        apps.watch(self._follow)

    def of(self, app: App) -> ApnsClient | None:
        """The app's client, None if it is in force no more."""
        running = self._running.get(app.name)
        return None if running is None else running.client

    @property
    def all(self) -> Mapping[str, ApnsClient]:
        """By the name of the app."""
        return MappingProxyType({name: running.client for name, running in self._running.items()})

    @property
    def pools(self) -> Mapping[Route, Pool]:
        """Those in use."""
        return MappingProxyType(self._pools)

    def stop(self) -> Deferred[None]:
        """Takes no pushes any more; what waits is told now that it was not sent. Fires when all connections are closed."""
        self._stopping = True
        for running in self._running.values():
            running.client.stop()
        for pool in self._pools.values():
            self._end(pool)
        stopped: Deferred[None] = DeferredList(list(self._ending.values())).addCallback(lambda _: None)
        return stopped

    def cut(self) -> None:
        """Behind `stop`: closes what is still open now. What is under way ends as Unknown."""
        for pool in list(self._ending):
            pool.cut()

    # ---------------------------------------------------------------------------------------------------------------- its work

    def _follow(self) -> None:
        """The apps are these from now on; also if none has changed: what Apple refused before may have been mended there."""
        if self._stopping:
            return
        apps = self._apps.all
        self._rates.reload(app_rates(app.settings for app in apps.values()), self._clock.seconds())
        for name in [name for name in self._running if name not in apps]:
            self._running.pop(name).client.stop()
        for name, app in apps.items():
            running = self._running.get(name)
            if running is not None and self._fixed(running.app) == self._fixed(app):
                pool = self._pool(app.route) if app.route != running.app.route else None
                running.app = app
                running.client.use(self._apps.provider_token(app.route), pool)
                continue
            if running is not None:
                running.client.stop()
            self._running[name] = _Running(app, self._make(app))
        routes = self._routes()
        for route in [route for route in self._pools if route not in routes]:
            self._end(self._pools.pop(route))

    def _routes(self) -> frozenset[Route]:
        """Those that there may be a pool for."""
        return self._apps.routes() | {management_route(app) for app in self._apps.all.values()}

    def _pool_in_force(self, route: Route) -> Pool | None:
        """None if there is to be none any more."""
        return None if self._stopping or route not in self._routes() else self._pool(route)

    def _fixed(self, app: App) -> tuple[object, ...]:
        """What a client has for good."""
        policies = (self._retry(app.settings), policies_of(app.settings, self._limits))
        return (app.route.host, app.route.port, app.settings.environment, *policies)

    def _end(self, pool: Pool) -> None:
        ended = self._ending[pool] = pool.stop()
        ended.addCallback(lambda _: self._ending.__delitem__(pool))

    def _pool(self, route: Route) -> Pool:
        pool = self._pools.get(route)
        if pool is None:
            limits = pool_limits(self._limits)
            pool = self._pools[route] = Pool(
                self._dialer(route), self._clock, limits=limits, metrics=self._metrics, random=self._random
            )
        return pool

    def _make(self, app: App) -> ApnsClient:
        now = self._clock.seconds()
        policies = policies_of(app.settings, self._limits)
        pace = policies.pace(app.name, self._retry(app.settings), self._rates, now, self._random)
        return ApnsClient(
            app.name,
            app.route.authority,
            self._pool(app.route),
            pace,
            self._clock,
            token=self._apps.provider_token(app.route),
            wall=self._wall,
            new_id=self._new_id,
            limits=client_limits(self._limits),
            metrics=self._metrics,
            unique_ids=app.settings.environment == "sandbox",
        )


def tls_dialer(reactor: Any, config: Config) -> Callable[[Route], Dialer]:
    """For real connections, through the proxy of the configuration if it has one. Raises ConfigError. `reactor`: see TlsDialer."""
    way = proxy(config)
    patience = pool_limits(config.apns).attempt_timeout
    return lambda route: TlsDialer(reactor, route.host, route.port, route.tls(), patience, way)

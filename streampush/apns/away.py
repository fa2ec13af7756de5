"""What a node has for devices that are away: Apple's apps in force, their clients, and the sender over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from twisted.internet.defer import Deferred

from streampush.apns.app_clients import AppClients, tls_dialer
from streampush.apns.apps import Apps, Route
from streampush.apns.client_figures import ClientFigures
from streampush.apns.direct import DirectPushes, DropToken
from streampush.apns.live import LiveChannels
from streampush.apns.pool_figures import PoolFigures
from streampush.apns.ports import ApnsMetrics
from streampush.apns.push_certificate import PushCertificate
from streampush.apns.sender import ApnsSender
from streampush.apns.status import apns_document, app_document, pool_document
from streampush.apns.verdicts import Verdicts
from streampush.apns.vigil import Vigil
from streampush.config import Config
from streampush.push.direct import DirectPush, DirectResult
from streampush.push.live import LiveRequest, LiveResult


class Away:
    """Made whole, with no connection: the first push opens one. `reactor`: IReactorTCP, IReactorTime and
    IReactorPluggableNameResolver. `drop_token`: see DirectPushes. `wall`: Unix seconds. `new_id`: makes UUIDs.

    Raises ConfigError for an app or a proxy that cannot be used.
    """

    def __init__(
        self,
        reactor: Any,
        config: Config,
        drop_token: DropToken,
        *,
        wall: Callable[[], float],
        new_id: Callable[[], str],
        metrics: ApnsMetrics,
        random: Random,
    ) -> None:
        self._wall = wall
        self._clock = reactor
        self.apps = Apps(config, wall)
        dialer = tls_dialer(reactor, config)
        self.clients = AppClients(self.apps, config.apns, reactor, dialer, wall=wall, new_id=new_id, metrics=metrics, random=random)
        verdicts = Verdicts(self.apps)
        self.sender = ApnsSender(
            self.apps,
            self.clients,
            verdicts,
            reactor,
            max_in_flight=config.apns.max_in_flight,
            wall=wall,
            metrics=metrics,
            random=random,
        )
        self._vigil = Vigil(reactor, self.figures, self._pool_figures)
        self._direct = DirectPushes(self.apps, self.clients, verdicts, reactor, drop_token, wall=wall, new_id=new_id)
        self._live = LiveChannels(self.apps, self.clients, reactor, wall=wall)

    async def push(self, asked: DirectPush, timeout: float) -> DirectResult:
        """A push without a message; how it ended, after `timeout` seconds at most. Raises NoApp and BadDirectPush."""
        return await self._direct.push(asked, timeout)

    async def ask_live(self, asked: LiveRequest, timeout: float) -> LiveResult:
        """About channels for Live Activities; how it ended, after `timeout` seconds at most. Raises NoApp and BadDirectPush."""
        return await self._live.ask(asked, timeout)

    def start(self) -> None:
        """From now on operators are told when pushes do not come through. Starting twice is harmless."""
        self._vigil.start()

    def stop(self) -> Deferred[None]:
        """Takes no pushes any more: what waits is not sent, what is under way has some seconds for its answer. Fires when all
        connections are closed."""
        self._vigil.stop()
        return self.clients.stop()

    def cut(self) -> None:
        """Behind `stop`: does not wait for answers any longer."""
        self.clients.cut()

    def figures(self) -> Mapping[str, ClientFigures]:
        """What there is now, by the name of the app."""
        return {name: client.figures() for name, client in self.clients.all.items()}

    def _pool_figures(self) -> Mapping[Route, PoolFigures]:
        return {route: pool.figures() for route, pool in self.clients.pools.items()}

    def days_left(self) -> Mapping[str, float]:
        """Until the end of the certificate, by the name of the app that has one."""
        credentials = {app.name: app.route.credential for app in self.apps.all.values()}
        return {name: one.days_left(self._wall()) for name, one in credentials.items() if isinstance(one, PushCertificate)}

    def document(self) -> Mapping[str, Any]:
        """What there is now, for `GET /v1/apns`."""
        wall, now = self._wall(), self._clock.seconds()
        figures = self.figures()
        apps = [app_document(app, figures[name], wall) for name, app in self.apps.all.items() if name in figures]
        users = {route: [name for name, app in self.apps.all.items() if app.route == route] for route in self.clients.pools}
        pools = [pool_document(route, users[route], pool.figures(), now) for route, pool in self.clients.pools.items()]
        return apns_document(apps, pools)

"""The chaos table over real TLS: the pool and the client, against the simulated Apple and against Node's http2.

What the server processed is the truth. A busy machine may be late: here nothing is said about how soon.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Any
from uuid import uuid4

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, gatherResults
from twisted.trial.unittest import TestCase

from streampush.apns.breaker import Breaker
from streampush.apns.client import ApnsClient
from streampush.apns.concurrency import Concurrency
from streampush.apns.dialing import TlsDialer
from streampush.apns.http2 import Limits
from streampush.apns.lanes import Lanes
from streampush.apns.link_state import LinkState
from streampush.apns.outcome import Outcome
from streampush.apns.pace import Pace
from streampush.apns.pool import Pool
from streampush.apns.pool_limits import PoolLimits
from streampush.apns.provider_token import ProviderToken
from streampush.apns.push import ApnsPush
from streampush.apns.rates import AppRates, RestingDevices
from streampush.apns.retry import Retries, RetryBudget, RetryPolicy
from streampush.apns.simulator import PRESETS, Orders, SimulatedApple, Validation
from streampush.apns.simulator.orders import Order
from streampush.apns.simulator.server import listen
from streampush.apns.tls import Http2Tls
from tests.apns import chaos
from tests.apns.chaos import Batch, Fate, Row, Seen, check_row, check_told, how_of_outcome
from tests.apns.clienting import KEY
from tests.apns.counted import Counted
from tests.apns.peers.node_apple import start_node_apple
from tests.apns.peers.running import NO_NODE
from tests.apns.simulator.providers import MINTED, TOPIC
from tests.apns.test_dialing import CA, Ended
from tests.support import server_issued

reactor: Any = any_reactor

AskServer = Callable[[], Awaitable[Seen]]
"""Gives what the server has seen."""
Send = Callable[[Batch], Awaitable[list[Fate]]]
"""Sends pushes at once, and gives what became of them when all have ended."""
LATENESS = 5.0
"""Seconds that a busy machine may look late at a deadline."""


class Watched(Counted):
    """Tells when so many connections are over. `lost`: those that are."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0
        self._watches: list[tuple[int, Deferred[None]]] = []

    def link_moved(self, old: LinkState | None, new: LinkState) -> None:
        super().link_moved(old, new)
        self.lost += new is LinkState.CLOSED
        for count, watch in self._watches:
            if count == self.lost:
                watch.callback(None)

    def closed(self, count: int) -> Deferred[None]:
        watch: Deferred[None] = Deferred()
        if self.lost >= count:
            watch.callback(None)
        else:
            self._watches.append((count, watch))
        return watch


class ServedCase(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.metrics = Watched()

    def pool(self, port: int, http2: Limits | None = None) -> Pool:
        limits = PoolLimits(close_timeout=0.5)
        dialer = TlsDialer(reactor, "localhost", port, Http2Tls("localhost", None, CA), limits.attempt_timeout)
        pool = Pool(dialer, reactor, limits=limits, http2=http2, metrics=self.metrics)
        self.addCleanup(pool.stop)
        return pool

    def apple(self, *orders: Order) -> tuple[SimulatedApple, int]:
        """The simulator, and its port."""
        validation = Validation(keys=(MINTED.key,))
        apple = SimulatedApple(validation, Orders(orders), wall_offset=time.time() - reactor.seconds())
        issued = server_issued()
        server = listen(reactor, apple, certificate=issued.certificate_pem, key=issued.key_pem)
        self.addCleanup(lambda: ensureDeferred(server.stop()))
        return apple, server.port


class AgainstApple(ServedCase):
    """The server is the simulator."""

    async def serve(self, orders: tuple[Order, ...]) -> tuple[int, AskServer]:
        apple, port = self.apple(*orders)

        async def seen() -> Seen:
            return apple.ledger

        return port, seen


class AgainstNode(ServedCase):
    """The server is Node's http2."""

    skip = NO_NODE

    async def serve(self, orders: tuple[Order, ...]) -> tuple[int, AskServer]:
        node = await start_node_apple(self, orders)
        return node.port, node.ledger


class ByPool(ServedCase):
    """Requests go to the pool."""

    def sender(self, port: int, http2: Limits | None) -> Send:
        pool = self.pool(port, http2)

        async def send(batch: Batch) -> list[Fate]:
            pushes = [Ended(batch.timeout) for _ in range(batch.pushes)]
            for push in pushes:
                push.body = batch.payload
                pool.submit(push)
            await DeferredList([push.done for push in pushes])
            return [push.fate() for push in pushes]

        return send


class ByClient(ServedCase):
    """Pushes go to the client, with the policies that it has by default."""

    def sender(self, port: int, http2: Limits | None) -> Send:
        client = self.client(self.pool(port, http2))
        tokens = itertools.count(1)

        async def send(batch: Batch) -> list[Fate]:
            deadline = reactor.seconds() + batch.timeout
            pushes = [ApnsPush(f"{next(tokens):064x}", batch.payload, TOPIC, apns_id=str(uuid4())) for _ in range(batch.pushes)]
            fates: list[Deferred[Fate]] = []
            for push in pushes:

                def ended(outcome: Outcome, push: ApnsPush = push) -> Fate:
                    return Fate(push.apns_id, *how_of_outcome(outcome), reactor.seconds() - deadline)

                fates.append(client.push(push, deadline=deadline).addCallback(ended))
            return await gatherResults(fates)

        return send

    def client(self, pool: Pool) -> ApnsClient:
        now = reactor.seconds()
        budget = RetryBudget(now)
        pace = Pace(
            "shop",
            breaker=Breaker(now),
            concurrency=Concurrency(now),
            lanes=Lanes(),
            devices=RestingDevices(),
            rates=AppRates({}, now),
            retries=Retries(RetryPolicy(), budget, Random(1)),
            budget=budget,
        )
        token = ProviderToken(KEY)
        client = ApnsClient(
            "shop", "localhost", pool, pace, reactor, token=token, wall=time.time, new_id=lambda: "", metrics=self.metrics
        )
        self.addCleanup(client.stop)
        return client


class Rows:
    """The table, for a server and a sender of those above."""

    metrics: Watched

    async def serve(self, orders: tuple[Order, ...]) -> tuple[int, AskServer]:
        """Gives the port of a server."""
        raise NotImplementedError

    def sender(self, port: int, http2: Limits | None) -> Send:
        raise NotImplementedError

    async def run_row(self, row: Row) -> None:
        port, seen = await self.serve(row.orders)
        send = self.sender(port, row.http2)
        fates: list[Fate] = []
        for batch in row.batches:
            fates += await send(batch)
        check_row(row, fates, await seen(), len(self.metrics.of("returned")), LATENESS)
        await self.metrics.closed(row.lost)
        assert self.metrics.lost == row.lost

    async def test_200_pushes_with_every_tenth_refused(self) -> None:
        await self.run_row(chaos.EVERY_TENTH_REFUSED)

    async def test_an_orderly_goaway_at_the_20th_of_60(self) -> None:
        await self.run_row(chaos.ORDERLY_GOAWAY_AT_THE_20TH)

    async def test_100_at_once_on_a_cold_connection_that_takes_one(self) -> None:
        await self.run_row(chaos.COLD_CONNECTION_OF_ONE_STREAM)

    async def test_4000_rejections_with_bodies(self) -> None:
        await self.run_row(chaos.ALL_REJECTED)

    async def test_200_of_4_kib_with_a_window_of_65535(self) -> None:
        await self.run_row(chaos.FOUR_KIB_IN_SMALL_WINDOWS)

    async def test_a_server_that_stops_answering(self) -> None:
        await self.run_row(chaos.STOPS_ANSWERING)


class PoolAgainstAppleTests(ByPool, AgainstApple, Rows):
    pass


class PoolAgainstNodeTests(ByPool, AgainstNode, Rows):
    pass


class ClientAgainstAppleTests(ByClient, AgainstApple, Rows):
    pass


class ClientAgainstNodeTests(ByClient, AgainstNode, Rows):
    pass


class PresetTests(ServedCase):
    async def test_whatever_apple_does_every_push_ends_once_and_in_time(self) -> None:
        async def suffer(name: str) -> None:
            apple, port = self.apple(*PRESETS[name].orders.orders)
            pool = self.pool(port)
            pushes = [Ended(2.0) for _ in range(60)]
            for push in pushes:
                pool.submit(push)
            await DeferredList([push.done for push in pushes])
            for push in pushes:
                with_name = replace(push.fate(), reason=name)
                check_told([with_name], apple.ledger, LATENESS)

        results = await DeferredList([ensureDeferred(suffer(name)) for name in PRESETS], consumeErrors=True)
        for good, result in results:
            if not good:
                result.raiseException()

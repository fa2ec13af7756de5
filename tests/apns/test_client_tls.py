"""The client over real TLS, against the simulated Apple; what that processed is the truth."""

from __future__ import annotations

import time
from random import Random
from typing import Any
from uuid import uuid4

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from streampush.apns.breaker import Breaker
from streampush.apns.client import ApnsClient
from streampush.apns.concurrency import Concurrency
from streampush.apns.dialing import TlsDialer
from streampush.apns.lanes import Lanes
from streampush.apns.outcome import Delivered, NotSent, Outcome, Refused, Rejected, Unknown
from streampush.apns.pace import Pace
from streampush.apns.pool import Pool
from streampush.apns.provider_token import ProviderToken
from streampush.apns.push import ApnsPush
from streampush.apns.rates import AppRates, RestingDevices
from streampush.apns.retry import Retries, RetryBudget, RetryPolicy
from streampush.apns.simulator import Orders, Reason, SimulatedApple, Validation, When
from streampush.apns.simulator.orders import Freeze, GoAway, OneStreamFirst, Order, RefuseStream, Reject
from streampush.apns.simulator.server import listen
from streampush.apns.tls import Http2Tls
from tests.apns.clienting import KEY
from tests.apns.simulator.providers import MINTED, PAYLOAD, TOPIC
from tests.apns.test_dialing import CA
from tests.support import server_issued

reactor: Any = any_reactor


class ClientTlsTests(TestCase):
    timeout = 120

    def serve(self, *orders: Order) -> ApnsClient:
        offset = time.time() - reactor.seconds()
        self.apple = SimulatedApple(Validation(keys=(MINTED.key,)), Orders(orders), wall_offset=offset)
        issued = server_issued()
        server = listen(reactor, self.apple, certificate=issued.certificate_pem, key=issued.key_pem)
        self.addCleanup(server.stop)
        now = reactor.seconds()
        pool = Pool(TlsDialer(reactor, "localhost", server.port, Http2Tls("localhost", None, CA), 3.0), reactor)
        self.addCleanup(pool.stop)
        budget = RetryBudget(now)
        pace = Pace(
            "shop",
            breaker=Breaker(now),
            concurrency=Concurrency(now),
            lanes=Lanes(),
            devices=RestingDevices(),
            rates=AppRates({}, now),
            retries=Retries(RetryPolicy(server_error_wait=0.0), budget, Random(1)),
            budget=budget,
        )
        token = ProviderToken(KEY)
        client = ApnsClient("shop", "localhost", pool, pace, reactor, token=token, wall=time.time, new_id=lambda: str(uuid4()))
        self.addCleanup(client.stop)
        return client

    async def push(self, client: ApnsClient, count: int, timeout: float = 20.0, payload: bytes = PAYLOAD) -> list[Outcome]:
        pushes = [ApnsPush(f"{number:064x}", payload, TOPIC, apns_id=str(uuid4())) for number in range(count)]
        deadline = reactor.seconds() + timeout
        outcomes = await gatherResults([client.push(push, deadline=deadline) for push in pushes])
        for push, outcome in zip(pushes, outcomes, strict=True):
            times = self.apple.ledger.times_accepted(push.apns_id)
            self.assertLessEqual(times, 1)
            if not isinstance(outcome, Unknown):
                self.assertEqual(times == 1, isinstance(outcome, Delivered))
        self.assertEqual(list(self.apple.ledger.faults), [])
        return outcomes

    async def test_200_pushes_with_every_tenth_refused(self) -> None:
        outcomes = await self.push(self.serve(RefuseStream(When(every=10))), 200)
        self.assertEqual({type(outcome) for outcome in outcomes}, {Delivered})

    async def test_an_orderly_goaway_at_the_20th_of_60(self) -> None:
        outcomes = await self.push(self.serve(GoAway(When(at=20))), 60)
        self.assertEqual({type(outcome) for outcome in outcomes}, {Delivered})
        self.assertEqual(self.apple.ledger.connections, 2)

    async def test_100_at_once_on_a_cold_connection_that_takes_one(self) -> None:
        outcomes = await self.push(self.serve(OneStreamFirst()), 100)
        self.assertEqual({type(outcome) for outcome in outcomes}, {Delivered})
        self.assertEqual(self.apple.ledger.over_limit, 0)

    async def test_1000_rejections_with_bodies(self) -> None:
        outcomes = await self.push(self.serve(Reject(Reason.BAD_DEVICE_TOKEN)), 1000, timeout=50)
        self.assertEqual({type(outcome) for outcome in outcomes}, {Rejected})
        self.assertEqual((len(self.apple.ledger), self.apple.ledger.connections), (1000, 1))

    async def test_200_of_4_kib_with_a_window_of_65535(self) -> None:
        outcomes = await self.push(self.serve(), 200, payload=b'{"aps":{"alert":"' + b"x" * 4000 + b'"}}')
        self.assertEqual({type(outcome) for outcome in outcomes}, {Delivered})

    async def test_a_server_that_stops_answering(self) -> None:
        began = reactor.seconds()
        outcomes = await self.push(self.serve(Freeze(When(at=20))), 60, timeout=1.5)
        self.assertLess(reactor.seconds() - began, 5.0)
        self.assertLessEqual({type(outcome) for outcome in outcomes}, {Delivered, Unknown, NotSent, Refused})
        self.assertIn(Unknown, {type(outcome) for outcome in outcomes})

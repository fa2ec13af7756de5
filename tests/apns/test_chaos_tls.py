"""The chaos table over real TLS: against the simulated Apple, and against Node's http2. What the server processed is the truth."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import DeferredList, ensureDeferred
from twisted.trial.unittest import TestCase

from streampush.apns.dialing import TlsDialer
from streampush.apns.http2 import hpack
from streampush.apns.pool import Pool
from streampush.apns.pool_limits import PoolLimits
from streampush.apns.simulator import PRESETS, Orders, Reason, SimulatedApple, Validation, When
from streampush.apns.simulator.orders import Freeze, GoAway, OneStreamFirst, Order, RefuseStream, Reject
from streampush.apns.simulator.server import listen
from streampush.apns.tls import Http2Tls
from tests.apns.peers.running import NO_NODE, start_node
from tests.apns.simulator.providers import MINTED
from tests.apns.test_dialing import CA, Ended
from tests.support import server_issued

reactor: Any = any_reactor


class TlsCase(TestCase):
    timeout = 120

    def pool(self, port: int) -> Pool:
        limits = PoolLimits(close_timeout=0.5)
        dialer = TlsDialer(reactor, "localhost", port, Http2Tls("localhost", None, CA), limits.attempt_timeout)
        pool = Pool(dialer, reactor, limits=limits)
        self.addCleanup(pool.stop)
        return pool


class AppleTests(TlsCase):
    """Against the simulator."""

    def serve(self, *orders: Order) -> Pool:
        self.apple = SimulatedApple(Validation(keys=(MINTED.key,)), Orders(orders))
        issued = server_issued()
        server = listen(reactor, self.apple, certificate=issued.certificate_pem, key=issued.key_pem)
        self.addCleanup(lambda: ensureDeferred(server.stop()))
        return self.pool(server.port)

    async def push(self, pool: Pool, count: int, timeout: float = 20.0, payload: bytes | None = None) -> list[Ended]:
        """Pushes so many at once, and waits for the end of each."""
        pushes = [Ended(timeout) for _ in range(count)]
        for push in pushes:
            push.body = payload or push.body
            pool.submit(push)
        await DeferredList([push.done for push in pushes])
        for push in pushes:
            times = self.apple.ledger.times_accepted(push.apns_id)
            self.assertEqual(push.calls, 1)
            self.assertLessEqual(times, 1)
            if push.fault is None:
                self.assertEqual(times == 1, push.status == 200)
            elif push.fault.repeatable:
                self.assertEqual(times, 0)
        self.assertEqual(list(self.apple.ledger.faults), [])
        return pushes

    def delivered(self, pushes: list[Ended]) -> int:
        return sum(push.status == 200 and push.fault is None for push in pushes)

    async def test_200_pushes_with_every_tenth_refused(self) -> None:
        pushes = await self.push(self.serve(RefuseStream(When(every=10))), 200)
        self.assertEqual(self.delivered(pushes), 200)

    async def test_an_orderly_goaway_at_the_20th_of_60(self) -> None:
        pushes = await self.push(self.serve(GoAway(When(at=20))), 60)
        self.assertEqual(self.delivered(pushes), 60)
        self.assertEqual(self.apple.ledger.connections, 2)

    async def test_100_at_once_on_a_cold_connection_that_takes_one(self) -> None:
        pushes = await self.push(self.serve(OneStreamFirst()), 100)
        self.assertEqual(self.delivered(pushes), 100)
        self.assertEqual(self.apple.ledger.over_limit, 0)

    async def test_4000_rejections_with_bodies(self) -> None:
        pool = self.serve(Reject(Reason.BAD_DEVICE_TOKEN))
        pushes = await self.push(pool, 4000, timeout=50)
        self.assertEqual({push.status for push in pushes}, {400})
        self.assertEqual((len(self.apple.ledger), pool.figures().past), (4000, ()))

    async def test_200_of_4_kib_with_a_window_of_65535(self) -> None:
        pushes = await self.push(self.serve(), 200, payload=b'{"aps":{"alert":"' + b"x" * 4000 + b'"}}')
        self.assertEqual(self.delivered(pushes), 200)

    async def test_a_server_that_stops_answering(self) -> None:
        began = reactor.seconds()
        pushes = await self.push(self.serve(Freeze(When(after=19))), 100, timeout=1.0)
        self.assertLess(reactor.seconds() - began, 1.5)
        self.assertLess(self.delivered(pushes), 20)

    async def test_half_a_second_after_a_goaway_all_is_well_again(self) -> None:
        pool = self.serve(GoAway(When(at=10)))
        await self.push(pool, 10)
        began = reactor.seconds()
        pushes = await self.push(pool, 20)
        self.assertEqual(self.delivered(pushes), 20)
        self.assertLess(reactor.seconds() - began, 0.5)

    async def test_whatever_apple_does_every_push_ends_once_and_in_time(self) -> None:
        late: list[tuple[str, float]] = []

        async def suffer(name: str) -> None:
            pool = self.serve(*PRESETS[name].orders.orders)
            ledger = self.apple.ledger
            pushes = [Ended(2.0) for _ in range(60)]
            for push in pushes:
                pool.submit(push)
            for push in pushes:
                await push.done
                late.append((name, reactor.seconds() - push.deadline))
            for push in pushes:
                times = ledger.times_accepted(push.apns_id)
                self.assertLessEqual(times, 1, name)
                self.assertEqual(push.calls, 1, name)
                if push.fault is None:
                    self.assertEqual(times == 1, push.status == 200, name)
                elif push.fault.repeatable:
                    self.assertEqual(times, 0, name)

        results = await DeferredList([ensureDeferred(suffer(name)) for name in PRESETS], consumeErrors=True)
        for good, result in results:
            if not good:
                result.raiseException()
        self.assertLess(max(late, key=lambda one: one[1])[1], 0.5)  # all of them share a processor


class Plain(Ended):
    """A request to Node's server."""

    __slots__ = ()

    def __init__(self, path: str, port: int, name: str = "", body: bytes = b"") -> None:
        super().__init__(20.0)
        fields = [(":method", "POST"), (":scheme", "https"), (":authority", f"localhost:{port}"), (":path", path)]
        if name:
            fields.append(("x-name", name))
        self.block = hpack.block([(key.encode(), value.encode()) for key, value in fields])
        self.body = body


class NodeTests(TlsCase):
    """Against Node's http2."""

    skip = NO_NODE

    async def ask(self, pool: Pool, asked: list[Plain]) -> list[bytes]:
        for each in asked:
            pool.submit(each)
        await DeferredList([each.done for each in asked])
        self.assertEqual([each.fault for each in asked], [None] * len(asked))
        return [each.body_received for each in asked]

    async def test_200_requests_of_which_every_tenth_is_refused(self) -> None:
        port = await start_node(self)
        paths = ["/refuse-once" if number % 10 == 0 else "/echo" for number in range(200)]
        pool = self.pool(port)
        bodies = await self.ask(pool, [Plain(path, port, f"n{number}", b"b") for number, path in enumerate(paths)])
        self.assertEqual(len(bodies), 200)
        self.assertEqual(await self.ask(pool, [Plain("/count", port)]), [b"221"])

    async def test_an_orderly_goaway_at_the_20th_of_60(self) -> None:
        port = await start_node(self)
        pool = self.pool(port)
        paths = ["/goaway" if number == 20 else "/echo" for number in range(60)]
        bodies = await self.ask(pool, [Plain(path, port, body=b"%d" % number) for number, path in enumerate(paths)])
        self.assertEqual(bodies, [b"last" if number == 20 else b"%d" % number for number in range(60)])
        self.assertEqual(await self.ask(pool, [Plain("/count", port)]), [b"61"])  # each was processed once

    async def test_100_at_once_where_one_is_allowed(self) -> None:
        port = await start_node(self, max_streams=1)
        bodies = await self.ask(self.pool(port), [Plain("/echo", port, body=b"%d" % number) for number in range(100)])
        self.assertEqual(bodies, [b"%d" % number for number in range(100)])

    async def test_200_of_4_kib_with_a_window_of_65535(self) -> None:
        port = await start_node(self)
        bodies = await self.ask(self.pool(port), [Plain("/size", port, body=b"x" * 4096) for _ in range(200)])
        self.assertEqual(set(bodies), {b"4096"})

    async def test_4000_answers_with_bodies_end_no_connection(self) -> None:
        port = await start_node(self, max_streams=1000)
        pool = self.pool(port)
        await self.ask(pool, [Plain("/echo", port, body=b"body") for _ in range(4000)])
        self.assertEqual(pool.figures().past, ())

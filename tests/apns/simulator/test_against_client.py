"""Our HTTP/2 client against the simulated Apple: what the client believes of a push is true, whatever goes wrong.

With any orders, chunks and delays: every push ends exactly once; what was answered 200 was accepted once; what the client calls
REFUSED or NOT_WRITTEN was never looked at; and the client breaks no rule of HTTP/2 that the simulator knows.
"""

from __future__ import annotations

from collections import Counter
from unittest import TestCase

from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.apns.http2.events import Verdict
from streampush.apns.simulator import PRESETS, Orders, SimulatedApple, Validation, When, preset
from streampush.apns.simulator.orders import (
    AgeEnd,
    Close,
    Delay,
    DropLimit,
    EndlessHeaders,
    Flood,
    FloodOf,
    Freeze,
    Garbage,
    GoAway,
    GoAwayAtOnce,
    HugeHeaders,
    OddAnswer,
    OneStreamFirst,
    Order,
    RefuseStream,
    Reject,
    ResetStream,
    Spread,
    Stall,
    StopReading,
    TinyWindows,
    UnusualAnswer,
    UseTable,
)
from streampush.apns.simulator.reasons import Reason
from tests.apns.simulator.providers import MINTED, make_jwt
from tests.apns.simulator.wiring import Provider

JWT = make_jwt()
VALIDATION = Validation(keys=(MINTED.key,))

whens = st.one_of(
    st.builds(When, every=st.integers(1, 10)),
    st.builds(When, at=st.integers(1, 20), per_connection=st.booleans()),
    st.builds(When, chance=st.floats(0, 0.5), after=st.integers(0, 10)),
)
orders = st.one_of(
    st.builds(RefuseStream, whens),
    st.builds(ResetStream, whens, st.sampled_from([1, 2, 7, 8, 99]), st.just(True)),
    st.builds(Stall, whens, st.booleans()),
    st.builds(Reject, st.sampled_from(Reason), whens),
    st.builds(OddAnswer, whens),
    st.builds(EndlessHeaders, whens, st.just(200_000)),
    st.builds(HugeHeaders, whens, st.just(70_000)),
    st.builds(UnusualAnswer, whens),
    st.builds(UseTable),
    st.builds(AgeEnd, st.floats(0, 100)),
    st.builds(Garbage, whens),
    st.builds(Delay, st.floats(0, 100), whens, st.sampled_from(Spread)),
    st.builds(
        GoAway,
        whens,
        st.sampled_from([0, 0, 2, 11]),
        st.sampled_from(["", "Shutdown"]),
        st.booleans(),
        st.floats(0, 5),
        st.floats(0, 90),
    ),
    st.builds(Close, whens, st.booleans(), st.booleans()),
    st.builds(Freeze, whens),
    st.builds(StopReading, whens),
    st.builds(Flood, whens, st.sampled_from(FloodOf), st.sampled_from([0, 10, 3000])),
    st.builds(OneStreamFirst),
    st.builds(DropLimit, st.integers(1, 3), st.floats(0, 2)),
    st.builds(TinyWindows, st.integers(1, 200), st.sampled_from([0.0, 0.5])),
    st.builds(GoAwayAtOnce, whens),
)


def push(orders: Orders, count: int, *, seed: int = 0, payload: bytes = b'{"aps":{}}') -> tuple[SimulatedApple, Provider]:
    apple = SimulatedApple(VALIDATION, orders)
    provider = Provider(apple, JWT, count, seed=seed, payload=payload)
    provider.run()
    return apple, provider


class BeliefTests(TestCase):
    def check(self, apple: SimulatedApple, provider: Provider) -> None:
        self.assertEqual(provider.twice, [])
        self.assertEqual(list(apple.ledger.faults), [])
        looked_at = {record.apns_id for record in apple.ledger}
        for apns_id, ending in provider.endings.items():
            if ending == 200:
                self.assertEqual(apple.ledger.times_accepted(apns_id), 1)
            elif ending in (Verdict.NOT_WRITTEN, Verdict.REFUSED):
                self.assertNotIn(apns_id, looked_at)

    @given(orders=st.lists(orders, max_size=4), seed=st.integers(0, 2**32), count=st.integers(1, 40))
    @settings(max_examples=150, deadline=None)
    def test_what_the_client_believes_is_true(self, orders: list[Order], seed: int, count: int) -> None:
        # REFUSED_STREAM behind the processing is a lie that no client can see through
        honest = [order for order in orders if not (isinstance(order, ResetStream) and order.code == 7)]
        apple, provider = push(Orders(tuple(honest), seed), count, seed=seed)
        self.check(apple, provider)

    @given(orders=st.lists(orders, max_size=3), seed=st.integers(0, 2**32))
    @settings(max_examples=30, deadline=None)
    def test_the_same_seed_goes_the_same_way(self, orders: list[Order], seed: int) -> None:
        first, second = (push(Orders(tuple(orders), seed), 15) for _ in range(2))
        self.assertEqual(list(first[0].ledger), list(second[0].ledger))
        self.assertEqual((first[1].endings, first[1].now), (second[1].endings, second[1].now))

    def test_every_preset_is_survived(self) -> None:
        for name in PRESETS:
            with self.subTest(preset=name):
                apple, provider = push(preset(name), 60)
                self.check(apple, provider)
                if name != "http11":
                    self.assertEqual(len(provider.endings), 60)


class ChaosTests(TestCase):
    def endings(self, name: str, count: int, payload: bytes = b'{"aps":{}}') -> Counter[int | Verdict]:
        apple, provider = push(preset(name), count, payload=payload)
        self.apple, self.provider = apple, provider
        return Counter(provider.endings.values())

    def test_every_tenth_refused(self) -> None:
        self.assertEqual(self.endings("refuse", 200), {200: 180, Verdict.REFUSED: 20})

    def test_an_orderly_goaway_loses_nothing_that_was_looked_at(self) -> None:
        endings = self.endings("goaway", 60)
        self.assertEqual(set(endings) - {200, Verdict.REFUSED, Verdict.NOT_WRITTEN}, set())
        self.assertEqual(endings[200], self.apple.ledger.accepted)

    def test_a_cold_connection_does_not_get_too_many(self) -> None:
        self.assertEqual(self.endings("cold", 100), {200: 100})
        self.assertEqual((self.apple.ledger.over_limit, self.provider.connections), (0, 1))

    def test_tiny_windows_only_take_longer(self) -> None:
        self.assertEqual(self.endings("tiny-windows", 50, b'{"x":"%s"}' % (b"y" * 3000)), {200: 50})

    def test_200_bodies_of_4_kb_fit_through_the_default_window(self) -> None:
        self.assertEqual(self.endings("none", 200, b'{"x":"%s"}' % (b"y" * 4000)), {200: 200})

    def test_4000_rejections_with_bodies_break_no_connection(self) -> None:
        apple, provider = push(Orders((Reject(Reason.BAD_DEVICE_TOKEN),)), 4000)
        self.assertEqual(Counter(provider.endings.values()), {400: 4000})
        self.assertEqual((provider.connections, len(apple.ledger)), (1, 4000))

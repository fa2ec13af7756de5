"""Orders: when they apply, how they compose, and as text."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, replace
from random import Random
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.simulator import PRESETS, Orders, Reason, When, describe, load_orders, preset
from streampush.apns.simulator.book import OrderBook, Plan
from streampush.apns.simulator.order_files import KINDS
from streampush.apns.simulator.orders import (
    Close,
    Delay,
    GoAway,
    Http11,
    OddAnswer,
    OneStreamFirst,
    RefuseStream,
    Reject,
    ResetStream,
    Spread,
    Stall,
)


def numbers(when: When, most: int = 30) -> list[int]:
    random = Random(1)
    return [number for number in range(1, most + 1) if when.applies(number, random)]


class WhenTests(TestCase):
    def test_with_nothing_said_at_all(self) -> None:
        self.assertEqual(numbers(When(), 5), [1, 2, 3, 4, 5])

    def test_at_every_after_until(self) -> None:
        self.assertEqual(numbers(When(at=7)), [7])
        self.assertEqual(numbers(When(every=10)), [10, 20, 30])
        self.assertEqual(numbers(When(after=28)), [29, 30])
        self.assertEqual(numbers(When(every=5, after=5, until=20)), [10, 15, 20])

    def test_chance_is_about_that_often(self) -> None:
        self.assertEqual(numbers(When(chance=0.0)), [])
        self.assertTrue(150 < len(numbers(When(chance=0.2), 1000)) < 250)

    def test_what_makes_no_sense_is_refused(self) -> None:
        for wrong in ({"at": -1}, {"chance": 1.5}, {"chance": -0.1}, {"every": -2}):
            with self.assertRaises(ValueError):
                When(**wrong)


class BookTests(TestCase):
    def plans(self, orders: Orders, count: int = 50) -> list[Plan]:
        book = OrderBook(orders)
        return [book.begin_request(number) for number in range(1, count + 1)]

    def test_the_first_that_applies_decides_how_a_request_ends(self) -> None:
        stall, refuse = Stall(When(every=2)), RefuseStream(When(every=3))
        endings = [plan.ending for plan in self.plans(Orders((stall, refuse)), 6)]
        self.assertEqual(endings, [None, stall, refuse, stall, None, stall])

    def test_delays_add_up_and_events_come_on_top(self) -> None:
        close, away = Close(When(at=1)), GoAway(When(at=1))
        (plan,) = self.plans(Orders((Delay(1.0), close, Delay(0.5), away, OddAnswer())), 1)
        self.assertEqual(plan, Plan(OddAnswer(), 1.5, (close, away)))

    @given(seed=st.integers(), chance=st.floats(0, 1), spread=st.sampled_from(Spread))
    def test_the_same_seed_does_the_same(self, seed: int, chance: float, spread: Spread) -> None:
        orders = Orders((ResetStream(When(chance=chance)), Delay(0.1, spread=spread)), seed)
        self.assertEqual(self.plans(orders), self.plans(orders))

    def test_another_seed_does_something_else(self) -> None:
        orders = Orders((ResetStream(When(chance=0.5)),), 1)
        self.assertNotEqual(self.plans(orders), self.plans(replace(orders, seed=2)))

    def test_one_more_order_does_not_change_what_the_others_do(self) -> None:
        chancy = Orders((Stall(When(chance=0.3)),), 5)
        more = chancy + Orders((Delay(1.0, When(chance=0.5), Spread.UNIFORM),))
        self.assertEqual([plan.ending for plan in self.plans(chancy)], [plan.ending for plan in self.plans(more)])

    def test_delays_are_spread_around_their_mean(self) -> None:
        for spread in Spread:
            delays = [plan.delay for plan in self.plans(Orders((Delay(0.2, spread=spread),)), 2000)]
            self.assertAlmostEqual(sum(delays) / len(delays), 0.2, delta=0.02)
            self.assertGreaterEqual(min(delays), 0.0)

    def test_beginnings_count_connections(self) -> None:
        book = OrderBook(Orders((Http11(When(at=2)), OneStreamFirst(3))))
        beginnings = [book.begin_connection() for _ in range(3)]
        self.assertEqual([beginning.http11 for beginning in beginnings], [False, True, False])
        self.assertEqual({beginning.one_stream for beginning in beginnings}, {OneStreamFirst(3)})
        self.assertEqual([beginning.number for beginning in beginnings], [1, 2, 3])


class FileTests(TestCase):
    TOML = """
        seed = 7
        presets = ["cold"]
        [[order]]
        kind = "reject"
        reason = "ServiceUnavailable"
        retry_after = 3
        every = 5
        per_connection = true
        [[order]]
        kind = "delay"
        mean = 1
        spread = "uniform"
        chance = 0.5
    """
    ORDERS = Orders(
        (
            OneStreamFirst(),
            Reject(Reason.SERVICE_UNAVAILABLE, When(every=5, per_connection=True), retry_after=3),
            Delay(1.0, When(chance=0.5), Spread.UNIFORM),
        ),
        seed=7,
    )

    def test_toml_and_json_say_the_same(self) -> None:
        import tomllib

        self.assertEqual(load_orders(self.TOML, "a.toml"), self.ORDERS)
        self.assertEqual(load_orders(json.dumps(tomllib.loads(self.TOML)), "a.json"), self.ORDERS)

    def test_every_kind_can_be_given_with_its_own_defaults(self) -> None:
        needed = {"reason": "Unregistered", "mean": 0.1, "seconds": 1}
        for kind, order in KINDS.items():
            given_fields = {
                item.name: needed[item.name] for item in fields(order) if item.name in needed and item.default is MISSING
            }
            (made,) = load_orders(json.dumps({"order": [{"kind": kind, **given_fields}]}), "x").orders
            self.assertIsInstance(made, order)

    def test_what_is_wrong_is_named(self) -> None:
        cases = {
            "seed = 'x'": "a: seed: 'x' is not a whole number",
            "sead = 1": "a: sead: unknown key",
            "presets = ['nope']": "a: no preset 'nope'; there are none, cold",
            "[[order]]\nkind = 'explode'": "a: order 1: kind 'explode'; there are refuse-stream",
            "[[order]]\nkind = 'stall'\nevery = -1": "a: order 1: at, every, after and until are numbers from 0",
            "[[order]]\nkind = 'stall'\nevery = true": "a: order 1: every: True is not a whole number",
            "[[order]]\nkind = 'stall'\nspeed = 1": "a: order 1: speed: unknown for stall; there are processed, at,",
            "[[order]]\nkind = 'cold'": "a: order 1: kind 'cold'",
            "[[order]]\nkind = 'delay'": "a: order 1: delay needs mean",
            "[[order]]\nkind = 'delay'\nmean = -1": "a: order 1: mean: -1 is negative",
            "[[order]]\nkind = 'delay'\nmean = 1\nspread = 'wild'": "a: order 1: spread: 'wild'; there are constant",
            "[[order]]\nkind = 'reject'\nreason = 'Nope'": "a: order 1: reason: Apple knows no reason 'Nope'",
            "[[order]]\nkind = 'one-stream-first'\nevery = 2": "a: order 1: every: unknown for one-stream-first",
            "order = [1]": "a: order 1: not a table",
            "seed = ": "a: ",
        }
        for text, message in cases.items():
            with self.assertRaises(ValueError) as caught:
                load_orders(text, "a")
            self.assertIn(message, str(caught.exception))

    def test_an_order_is_told_as_a_file_has_it(self) -> None:
        told = [describe(order) for order in self.ORDERS.orders]
        self.assertEqual(
            told,
            [
                "one-stream-first",
                "reject reason=ServiceUnavailable retry_after=3 every=5 per_connection=True",
                "delay mean=1.0 spread=uniform chance=0.5",
            ],
        )

    def test_every_preset_has_a_name_and_says_what_it_does(self) -> None:
        for name, found in PRESETS.items():
            self.assertTrue(found.about)
            self.assertEqual(preset(name), found.orders)

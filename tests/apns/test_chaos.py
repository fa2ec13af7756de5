"""The pool and the client against a simulated Apple that misbehaves, in memory on a fake clock. What Apple processed is true."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.apns.http2 import Limits
from streampush.apns.link_state import LinkState
from streampush.apns.simulator import PRESETS, Reason, When
from streampush.apns.simulator.orders import DropLimit, GoAway, Order, Reject
from tests.apns.chaos import ROWS, Row, check_row, follow_up
from tests.apns.clienting import ClientWorld
from tests.apns.pooling import World


def by_pool(*orders: Order, **more: Any) -> World:
    return World(*orders, **more)


def by_client(*orders: Order, **more: Any) -> ClientWorld:
    return ClientWorld(orders, **more)


IMPATIENT = Limits(settings_timeout=2, ping_interval=5, ping_timeout=2)
both = pytest.mark.parametrize("make", [by_pool, by_client])


@both
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_chaos_table(row: Row, make: Any) -> None:
    world = make(*row.orders, http2=row.http2)
    for batch in row.batches:
        world.push(batch.pushes, timeout=batch.timeout, payload=batch.payload)
        until = world.clock.seconds() + batch.timeout
        while not world.ended and world.clock.seconds() < until:
            world.advance(0.05)
    world.advance(2.0)  # what is to close does so
    check_row(row, world.fates(), world.apple.ledger, len(world.metrics.of("returned")))
    figures = world.pool.figures()
    assert (len(figures.past), len(figures.links)) == (row.lost, 1)
    assert world.apple.ledger.connections == row.lost + 1
    world.stop()


@both
def test_a_day_without_a_push_costs_pings_and_few_connections(make: Any) -> None:
    world = make()
    world.push()
    world.advance(86_400)
    assert [link.state for link in world.pool.figures().links] in ([LinkState.OPEN], [LinkState.PROBING])
    assert world.apple.ledger.connections <= 6
    assert len(world.clock.getDelayedCalls()) < 10
    world.push()
    world.advance(1)
    assert world.delivered() == 2
    world.stop()


@both
def test_half_a_second_after_a_goaway_pushes_arrive_again(make: Any) -> None:
    world = make(GoAway(When(at=5)), latency=0.05)
    world.push(5)
    world.advance(0.6)
    world.push(10)
    world.advance(0.45)
    assert world.delivered() == 15
    world.stop()


@pytest.mark.parametrize("name", sorted(PRESETS))
@both
def test_every_push_ends_once_and_in_time_whatever_apple_does(name: str, make: Any) -> None:
    world = make(*PRESETS[name].orders.orders, seed=1, http2=IMPATIENT)
    for _ in range(10):
        world.push(20, timeout=4.0)
        world.advance(0.5)
    world.advance(4.0)
    assert len(world.fates()) == 200
    world.stop()


@pytest.mark.parametrize("name", sorted(PRESETS))
@both
def test_the_same_where_the_end_of_each_push_leads_to_the_next(name: str, make: Any) -> None:
    world = make(*PRESETS[name].orders.orders, seed=2, http2=IMPATIENT)
    follow_up(world, 200, timeout=2.0)
    world.push(50, timeout=2.0)
    world.advance(12.0)
    assert world.ended
    world.stop()


@both
def test_a_limit_that_drops_after_a_rejection_is_kept(make: Any) -> None:
    world = make(Reject(Reason.BAD_DEVICE_TOKEN, When(at=5)), DropLimit(streams=1, seconds=1.0))
    world.push(200)
    world.advance(9)
    assert world.delivered() == 199
    world.stop()


@given(
    names=st.lists(st.sampled_from(sorted(set(PRESETS) - {"none", "http11"})), min_size=2, max_size=4, unique=True),
    seed=st.integers(0, 1000),
    max_streams=st.sampled_from([1, 5, 1000]),
    latency=st.sampled_from([0.0, 0.005, 0.05]),
    by_end=st.integers(0, 100),
    make=st.sampled_from([by_pool, by_client]),
)
@settings(max_examples=40, deadline=None)
def test_the_same_where_several_things_go_wrong(
    names: list[str], seed: int, max_streams: int, latency: float, by_end: int, make: Any
) -> None:
    orders = [order for name in names for order in PRESETS[name].orders.orders]
    world = make(*orders, seed=seed, max_streams=max_streams, latency=latency, http2=IMPATIENT)
    follow_up(world, by_end, timeout=1.0)
    for _ in range(3):
        world.push(30, timeout=2.0)
        world.advance(0.5)
    for _ in range(by_end + 2):  # in the longest row each waits for the one before, until its deadline
        world.advance(1.0)
    world.stop()

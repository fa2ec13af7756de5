"""Clients follow the apps of the configuration: a reload with pushes under way loses none and doubles none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streampush.apns.outcome import Delivered, NotSent, Outcome, Why
from streampush.apns.push import ApnsPush
from streampush.apns.simulator.orders import Delay, GoAway, Order, RefuseStream, Spread, When
from streampush.config import ApnsConfig
from tests.apns.apps_world import AppsWorld
from tests.apns.minting import write_private
from tests.apns.simulator.providers import PAYLOAD, TOPIC


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AppsWorld]:
    world = AppsWorld(tmp_path)
    yield world
    world.stop()


def test_pushes_go_out_over_the_client_of_their_app(world: AppsWorld) -> None:
    world.push(50)
    world.advance(5.0)
    assert world.delivered_once()
    assert world.apple.ledger.connections == 1


def test_apps_with_one_key_share_the_connections(world: AppsWorld) -> None:
    world.reload(world.app(), world.app(name="news", bundle_id="com.example.news"))
    assert len(world.clients.pools) == 1
    assert set(world.clients.all) == {"shop", "news"}


def test_a_new_key_takes_over_while_pushes_are_under_way(world: AppsWorld) -> None:
    world.push(300)
    world.advance(0.05)  # the first are under way, the others wait
    assert not world.delivered_once()
    assert world.reload(world.app("second")) == 0
    world.push(300)
    world.advance(10.0)
    assert world.delivered_once()
    assert len(world.clients.pools) == 1
    assert len(world.dialers) == 2


def test_a_key_that_comes_back_costs_apple_no_new_provider_token(world: AppsWorld) -> None:
    for key in ("second", "first", "second"):
        world.push(5)
        world.advance(0.5)
        world.reload(world.app(key))
    world.push(5)
    world.advance(2.0)
    assert world.delivered_once()
    assert set(world.apple.ledger.outcomes) == {""}


def test_the_old_connection_is_left_once_its_answers_are_there(world: AppsWorld) -> None:
    world.push()
    world.advance(1.0)
    (old,) = world.clients.pools.values()
    world.reload(world.app("second"))
    world.advance(1.0)
    assert old.figures().links == ()


def test_a_reload_of_the_same_key_keeps_the_connection_and_the_provider_token(world: AppsWorld) -> None:
    world.push(10)
    world.advance(1.0)
    before = dict(world.clients.pools)
    world.reload(world.app())
    world.push(10)
    world.advance(5.0)
    assert world.delivered_once()
    assert dict(world.clients.pools) == before
    assert world.apple.ledger.connections == 1


def test_what_apple_refused_for_its_key_goes_out_with_the_next_one(world: AppsWorld) -> None:
    world.reload(world.app("unknown"))
    world.push(10)
    world.advance(2.0)
    assert all(not outcomes for outcomes in world.outcomes.values())  # held, not lost
    world.reload(world.app("first"))
    world.advance(5.0)
    assert world.delivered_once()


def test_a_broken_key_file_changes_nothing(world: AppsWorld) -> None:
    world.push(50)
    world.advance(0.05)
    write_private(world.root / "first.p8", b"broken")
    assert world.reload(world.app()) == 1
    world.push(50)
    world.advance(5.0)
    assert world.delivered_once()


def test_an_app_that_is_gone_sends_no_more_and_leaves_no_connection(world: AppsWorld) -> None:
    world.push()
    world.advance(1.0)
    gone = world.clients.all["shop"]
    world.reload()
    world.advance(1.0)
    assert dict(world.clients.all) == {}
    assert dict(world.clients.pools) == {}
    outcomes: list[Outcome] = []
    gone.send(ApnsPush("ab" * 32, PAYLOAD, TOPIC), world.clock.seconds() + 5, outcomes.append)
    assert outcomes == [NotSent(Why.STOPPING)]


def test_an_app_of_another_host_gets_another_client(world: AppsWorld) -> None:
    before = world.clients.all["shop"]
    world.reload(world.app(host="127.0.0.1", port=2197))
    assert world.clients.all["shop"] is not before
    world.push(5)
    world.advance(2.0)
    assert world.delivered_once()


def test_a_rate_of_the_app_holds(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path)
    world.reload(world.app(rate=10.0, burst=5))
    world.push(25, timeout=30.0)
    world.advance(1.0)
    assert sum(map(len, world.outcomes.values())) <= 16
    world.advance(5.0)
    assert world.delivered_once()
    world.stop()


def test_what_has_waited_is_not_sent_when_there_is_no_time_left_for_its_answer(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, (Delay(0.2),))
    world.reload(world.app(rate=1.0, burst=1))
    world.push(30, timeout=19.1)  # so that one could go 0.1 s before its end
    world.advance(30.0)
    outcomes = [outcome for ended in world.outcomes.values() for outcome in ended]
    assert len(outcomes) == 30
    assert {type(outcome) for outcome in outcomes} == {Delivered, NotSent}
    world.stop()


def test_no_more_are_under_way_than_is_configured(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, (Delay(0.5),), limits=ApnsConfig(max_in_flight=7))
    world.push(100, timeout=60.0)
    for _ in range(60):
        world.advance(0.2)
        assert world.clients.all["shop"].figures().in_flight <= 7
    assert world.delivered_once()
    world.stop()


def test_an_app_may_have_less_under_way_and_another_number_of_it_after_a_reload(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, (Delay(0.5),))
    for at_most in (3, 5):
        world.reload(world.app(max_concurrent=at_most))
        world.push(20, timeout=60.0)
        world.advance(0.2)
        assert world.clients.all["shop"].figures().in_flight <= at_most
        world.advance(20.0)
    assert world.delivered_once()
    world.stop()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(1, 30)),
        st.tuples(st.just("advance"), st.floats(0.0, 0.5)),
        st.tuples(st.just("key"), st.sampled_from(["first", "second"])),
        st.tuples(st.just("broken"), st.just(0)),
    ),
    max_size=14,
)


faults = st.sampled_from(
    [
        (),
        (RefuseStream(When(every=3)),),
        (GoAway(When(at=5, per_connection=True)),),
        (Delay(0.2, spread=Spread.EXPONENTIAL), GoAway(When(every=20))),
    ]
)


@given(steps, faults, st.integers(0, 1000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_whatever_is_reloaded_while_pushes_are_under_way_all_arrive_once(
    tmp_path: Path, steps: list[tuple[str, object]], orders: tuple[Order, ...], seed: int
) -> None:
    world = AppsWorld(tmp_path, orders, seed=seed)
    for what, value in steps:
        if what == "push":
            world.push(int(str(value)), timeout=60.0)
        elif what == "advance":
            world.advance(float(str(value)))
        elif what == "key":
            world.reload(world.app(str(value)))
        else:
            world.reload(replace(world.app(), key=str(world.root / "none.p8")))
    world.advance(60.0)
    assert world.delivered_once(), [outcomes for outcomes in world.outcomes.values() if not isinstance(outcomes[0], Delivered)]
    world.stop()

"""A pool against a simulated Apple that misbehaves; what Apple processed is the truth. In memory, on a fake clock."""

from __future__ import annotations

import pytest

from streampush.apns.http2 import Limits, Verdict
from streampush.apns.link_state import LinkState
from streampush.apns.outcome import Why
from streampush.apns.simulator import PRESETS, Reason, When
from streampush.apns.simulator.orders import (
    Close,
    Delay,
    DropLimit,
    Freeze,
    GoAway,
    GoAwayAtOnce,
    OneStreamFirst,
    RefuseStream,
    Reject,
    ResetStream,
    Stall,
    StopReading,
)
from tests.apns.pooling import World


def test_all_of_200_pushes_arrive_though_every_tenth_is_refused() -> None:
    world = World(RefuseStream(When(every=10)))
    world.push(200)
    world.advance(5)
    assert world.delivered() == 200
    assert world.apple.ledger.connections == 1
    world.stop()


def test_an_orderly_goaway_at_the_20th_of_60_costs_nothing() -> None:
    world = World(GoAway(When(at=20)))
    world.push(60)
    world.advance(5)
    assert world.delivered() == 60
    assert world.apple.ledger.connections == 2
    world.stop()


def test_100_pushes_at_once_arrive_on_a_cold_connection_that_takes_one() -> None:
    world = World(OneStreamFirst())
    world.push(100)
    world.advance(5)
    assert world.delivered() == 100
    assert world.apple.ledger.over_limit == 0
    assert world.apple.ledger.connections == 1
    world.stop()


def test_4000_rejections_with_bodies_neither_double_nor_reconnect() -> None:
    world = World(Reject(Reason.BAD_DEVICE_TOKEN))
    world.push(4000, timeout=60)
    world.advance(30)
    assert {push.status for push in world.pushes} == {400}
    assert {push.body_received for push in world.pushes} == {b'{"reason":"BadDeviceToken"}'}
    assert len(world.apple.ledger) == 4000
    assert world.apple.ledger.connections == 1
    world.stop()


def test_200_payloads_of_4_kib_go_through_windows_of_65535() -> None:
    world = World()
    world.push(200, payload=b'{"aps":{"alert":"' + b"x" * 4000 + b'"}}')
    world.advance(5)
    assert world.delivered() == 200
    world.stop()


def test_a_server_that_stops_answering_holds_nothing_beyond_its_deadline() -> None:
    world = World(Freeze(When(at=20)))
    world.push(100, timeout=10.0)
    world.advance(10.0)
    assert all(push.ended for push in world.pushes)
    assert {push.fault.why for push in world.pushes if push.fault is not None} <= {Why.NO_ANSWER, Why.DEADLINE}
    world.stop()


def test_after_a_server_stopped_answering_others_go_to_another_connection() -> None:
    world = World(Freeze(When(at=20, until=20)))
    world.push(20, timeout=2.0)
    world.advance(2.1)
    late = world.push(50, timeout=5.0)
    world.advance(2.0)
    assert [push.status for push in late] == [200] * 50
    assert world.apple.ledger.connections == 2
    world.stop()


def test_a_day_without_a_push_costs_pings_and_few_connections() -> None:
    world = World()
    world.push()
    world.advance(86_400)
    assert world.states() in ([LinkState.OPEN], [LinkState.PROBING])
    assert world.apple.ledger.connections <= 6
    assert len(world.clock.getDelayedCalls()) < 10
    world.push()
    world.advance(1)
    assert world.delivered() == 2
    world.stop()


def test_half_a_second_after_a_goaway_pushes_arrive_again() -> None:
    world = World(GoAway(When(at=5)), latency=0.05)
    world.push(5)
    world.advance(0.6)
    sent_at = world.clock.seconds()
    world.push(20)
    world.advance(0.45)
    assert world.delivered() == 25
    assert world.clock.seconds() - sent_at < 0.5
    world.stop()


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("seed", [1, 2])
def test_every_push_ends_once_and_in_time_whatever_apple_does(name: str, seed: int) -> None:
    world = World(*PRESETS[name].orders.orders, seed=seed, http2=Limits(settings_timeout=2, ping_interval=5, ping_timeout=2))
    for _ in range(10):
        world.push(20, timeout=4.0)
        world.advance(0.5)
    world.advance(4.0)
    assert all(push.ended for push in world.pushes)
    world.stop()


def test_what_was_cancelled_behind_its_body_is_unknown_and_not_sent_again() -> None:
    world = World(ResetStream(When(every=2), processed=True))
    world.push(10)
    world.advance(5)
    assert [push.verdict for push in world.pushes].count(Verdict.UNKNOWN) == 5
    assert world.apple.ledger.accepted == 10
    world.stop()


def test_a_connection_that_ends_without_a_word_leaves_the_unanswered_unknown() -> None:
    world = World(Delay(0.5), Close(When(at=10), processed=True))
    world.push(1)
    world.advance(1)
    world.push(20)
    world.advance(5)
    unknown = [push for push in world.pushes if push.verdict is Verdict.UNKNOWN]
    assert unknown
    assert {push.fault.why for push in unknown if push.fault is not None} == {Why.CONNECTION_LOST}
    world.stop()


def test_goaway_in_place_of_settings_leads_to_another_connection() -> None:
    world = World(GoAwayAtOnce(When(until=2)))
    world.push(10)
    world.advance(5)
    assert world.delivered() == 10
    assert world.apple.ledger.connections == 3
    world.stop()


def test_a_limit_that_drops_after_a_rejection_is_kept() -> None:
    world = World(Reject(Reason.BAD_DEVICE_TOKEN, When(at=5)), DropLimit(streams=1, seconds=1.0))
    world.push(200)
    world.advance(8)
    assert world.delivered() == 199
    world.stop()


def test_a_stalled_push_does_not_hold_the_others() -> None:
    world = World(Stall(When(at=1)))
    first = world.push(1, timeout=30)[0]
    world.advance(0.1)
    world.push(50, timeout=5)
    world.advance(3)
    assert world.delivered() == 50
    assert not first.ended
    world.stop()


def test_a_server_that_does_not_read_makes_us_keep_no_more_than_a_socket_takes() -> None:
    world = World(StopReading(When(at=2)))
    world.push(1)
    world.advance(1)
    world.push(2000, payload=b"x" * 4000, timeout=5)
    world.advance(4)
    assert world.dialer.ends[0][0].written < 300_000  # what one turn of the reactor wrote, of 4 MB
    world.advance(5)
    assert all(push.ended for push in world.pushes)
    world.stop()

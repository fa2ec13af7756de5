"""The client against a simulated Apple that misbehaves; what Apple processed is the truth. In memory, on a fake clock."""

from __future__ import annotations

import pytest

from streampush.apns.client_limits import ClientLimits
from streampush.apns.http2 import Limits
from streampush.apns.outcome import Delivered, NotSent, Rejected, Unknown, UnknownPolicy, Why
from streampush.apns.retry import RetryPolicy
from streampush.apns.simulator import PRESETS, Reason, When
from streampush.apns.simulator.orders import (
    Close,
    Delay,
    DropLimit,
    Freeze,
    GoAway,
    OneStreamFirst,
    RefuseStream,
    Reject,
    ResetStream,
)
from tests.apns.clienting import ClientWorld


def test_all_of_200_pushes_arrive_though_every_tenth_is_refused() -> None:
    world = ClientWorld((RefuseStream(When(every=10)),))
    world.push(200)
    world.advance(9)
    assert world.delivered() == 200
    world.stop()


def test_an_orderly_goaway_at_the_20th_of_60_costs_nothing() -> None:
    world = ClientWorld((GoAway(When(at=20)),))
    world.push(60)
    world.advance(5)
    assert world.delivered() == 60
    assert world.apple.ledger.connections == 2
    world.stop()


def test_100_pushes_at_once_arrive_on_a_cold_connection_that_takes_one() -> None:
    world = ClientWorld((OneStreamFirst(),))
    world.push(100)
    world.advance(5)
    assert world.delivered() == 100
    assert world.apple.ledger.over_limit == 0
    assert world.apple.ledger.connections == 1
    world.stop()


def test_4000_rejections_with_bodies_neither_double_nor_reconnect() -> None:
    world = ClientWorld((Reject(Reason.BAD_DEVICE_TOKEN),))
    world.push(4000, timeout=60)
    world.advance(50)
    assert world.outcomes() == {Rejected(400, "BadDeviceToken", apns_id=sent.push.apns_id) for sent in world.sent}
    assert len(world.apple.ledger) == 4000
    assert world.apple.ledger.connections == 1
    world.stop()


def test_200_payloads_of_4_kib_go_through_windows_of_65535() -> None:
    world = ClientWorld()
    world.push(200, payload=b'{"aps":{"alert":"' + b"x" * 4000 + b'"}}')
    world.advance(5)
    assert world.delivered() == 200
    world.stop()


def test_a_server_that_stops_answering_holds_nothing_beyond_its_deadline() -> None:
    world = ClientWorld((Freeze(When(at=20)),))
    world.push(100, timeout=10.0)
    world.advance(10.0)
    assert all(sent.outcomes for sent in world.sent)
    assert {type(sent.outcome) for sent in world.sent} <= {Delivered, Unknown, NotSent}
    world.stop()


def test_a_day_without_a_push_costs_pings_and_one_more_provider_token() -> None:
    world = ClientWorld()
    world.push()
    world.advance(86_400)
    world.push()
    world.advance(1)
    assert world.delivered() == 2
    assert world.token.epoch == 2
    world.stop()


def test_half_a_second_after_a_goaway_pushes_arrive_again() -> None:
    world = ClientWorld((GoAway(When(at=5)),), latency=0.05)
    world.push(5)
    world.advance(0.6)
    world.push(10)
    world.advance(0.5)
    assert world.delivered() == 15
    world.stop()


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("seed", [1, 2])
def test_every_push_ends_once_and_in_time_whatever_apple_does(name: str, seed: int) -> None:
    world = ClientWorld(PRESETS[name].orders.orders, seed=seed, http2=Limits(settings_timeout=2, ping_interval=5, ping_timeout=2))
    for _ in range(10):
        world.push(20, timeout=4.0)
        world.advance(0.5)
    world.advance(4.0)
    assert all(sent.outcomes for sent in world.sent)
    world.stop()


def test_what_was_cancelled_behind_its_body_is_unknown_and_not_sent_again() -> None:
    world = ClientWorld((ResetStream(When(every=2), processed=True),))
    world.push(10)
    world.advance(5)
    assert [sent.outcome for sent in world.sent].count(Unknown(Why.STREAM_RESET)) == 5
    assert world.apple.ledger.accepted == 10
    world.stop()


def test_what_is_unknown_is_sent_again_where_it_collapses() -> None:
    world = ClientWorld((ResetStream(When(at=3), processed=True),))
    world.push(10, collapse_id="score")
    world.advance(9)
    assert world.delivered() == 10
    assert world.apple.ledger.accepted == 11
    world.stop()


def test_what_is_unknown_is_sent_again_by_policy() -> None:
    world = ClientWorld(
        (Close(When(at=5), processed=True),), retry=RetryPolicy(unknown=UnknownPolicy.ALWAYS, server_error_wait=0.0)
    )
    world.push(10)
    world.advance(9)
    assert world.delivered() == 10
    world.stop()


def test_a_try_without_answer_leaves_time_for_another() -> None:
    world = ClientWorld((Freeze(When(at=5, until=5)),), limits=ClientLimits(answer_timeout=2.0))
    world.push(8, timeout=10.0, collapse_id="score")
    world.advance(10)
    assert world.delivered() == 8
    world.stop()


def test_a_limit_that_drops_after_a_rejection_is_kept() -> None:
    world = ClientWorld((Reject(Reason.BAD_DEVICE_TOKEN, When(at=5)), DropLimit(streams=1, seconds=1.0)))
    world.push(200)
    world.advance(9)
    assert world.delivered() == 199
    world.stop()


def test_slow_answers_are_waited_for() -> None:
    world = ClientWorld((Delay(0.8),))
    world.push(100, timeout=30)
    world.advance(29)
    assert world.delivered() == 100
    world.stop()

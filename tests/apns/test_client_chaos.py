"""Chaos that the client alone is asked about; the rest of it is in test_chaos.py. In memory, on a fake clock."""

from __future__ import annotations

from streampush.apns.breaker import BreakerPolicy, State
from streampush.apns.client_limits import ClientLimits
from streampush.apns.outcome import Delivered, NotSent, Unknown, UnknownPolicy, Why
from streampush.apns.retry import RetryPolicy
from streampush.apns.simulator import When
from streampush.apns.simulator.orders import Close, Delay, Freeze, ResetStream
from tests.apns.clienting import ClientWorld


def test_a_server_that_stops_answering_holds_nothing_beyond_its_deadline() -> None:
    world = ClientWorld((Freeze(When(at=20)),))
    world.push(100, timeout=10.0)
    world.advance(10.0)
    assert all(sent.outcomes for sent in world.sent)
    assert {type(sent.outcome) for sent in world.sent} <= {Delivered, Unknown, NotSent}
    world.stop()


def test_after_a_server_stopped_answering_pushes_go_to_another_connection_as_soon_as_the_breaker_lets_them() -> None:
    world = ClientWorld((Freeze(When(at=20)),))
    world.push(40, timeout=2.0)
    world.advance(2.0)
    assert world.client.figures().breaker is State.OPEN
    world.advance(BreakerPolicy().first_rest)
    world.push()  # the probe
    world.advance(1.0)
    world.push(50)
    world.advance(1.0)
    assert [type(sent.outcome) for sent in world.sent[40:]] == [Delivered] * 51
    assert world.apple.ledger.connections == 2
    world.stop()


def test_a_connection_that_died_silently_costs_what_was_under_way_and_not_what_waited_behind_it() -> None:
    world = ClientWorld((Freeze(When(at=201)),), limits=ClientLimits(answer_timeout=1.0), ceiling=50)
    world.push(200)
    world.advance(2)
    world.push(300, timeout=20.0)
    world.advance(20)
    assert [sent.outcome for sent in world.sent].count(Unknown(Why.NO_ANSWER)) == 50
    assert world.delivered() == 450
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


def test_slow_answers_are_waited_for() -> None:
    world = ClientWorld((Delay(0.8),))
    world.push(100, timeout=30)
    world.advance(29)
    assert world.delivered() == 100
    world.stop()

"""Chaos that the pool alone is asked about; the rest of it is in test_chaos.py. In memory, on a fake clock."""

from __future__ import annotations

from streampush.apns.http2 import Verdict
from streampush.apns.outcome import Why
from streampush.apns.simulator import When
from streampush.apns.simulator.orders import Close, Delay, Freeze, GoAwayAtOnce, ResetStream, Stall, StopReading
from tests.apns.chaos import follow_up
from tests.apns.pooling import World


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


def test_what_is_sent_because_an_answer_did_not_come_goes_to_another_connection() -> None:
    world = World(Freeze(When(at=11)))
    world.push(10)
    world.advance(1)
    follow_up(world, 50)
    lost = world.push(50, timeout=1.0)
    world.advance(3)
    assert {push.verdict for push in lost} == {Verdict.UNKNOWN}
    assert world.delivered() == 60
    world.stop()

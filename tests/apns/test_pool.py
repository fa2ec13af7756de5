"""What the pool promises: order, bounds, connections that come and go, and that everything ends."""

from __future__ import annotations

import gc
import weakref
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.protocol import Protocol

from streampush.apns.exchange import Fault
from streampush.apns.http2 import Limits, Verdict
from streampush.apns.http2.frames import MAX_STREAM_ID, PREFACE, FrameReader, FrameType, goaway
from streampush.apns.http2.frames import settings as settings_frame
from streampush.apns.link_state import LinkEnd, LinkState
from streampush.apns.outcome import Why
from streampush.apns.pool_limits import PoolLimits
from streampush.apns.ports import NoMetrics
from streampush.apns.simulator import PRESETS, When
from streampush.apns.simulator.orders import Delay, GoAway, Order, RefuseStream, Stall
from tests.apns.pooling import Push, World


def whys(pushes: list[Push]) -> list[Why | None]:
    return [push.fault.why if push.fault is not None else None for push in pushes]


def warm(*orders: Order, limits: PoolLimits | None = None, max_streams: int = 1000) -> World:
    """A world with one connection that is open."""
    world = World(*orders, limits=limits, max_streams=max_streams)
    world.push()
    world.advance(1)
    assert world.states() == [LinkState.OPEN]
    return world


# ------------------------------------------------------------------------------------------------------------------- waiting


def test_a_request_that_finds_the_queue_full_is_told_at_once() -> None:
    world = World(limits=PoolLimits(max_queued=5))
    pushes = world.push(7)
    assert whys(pushes) == [None] * 5 + [Why.QUEUE_FULL] * 2
    world.advance(1)
    assert world.delivered() == 5
    world.stop()


def test_the_queue_is_bounded_in_bytes_too() -> None:
    world = World(limits=PoolLimits(max_queued_bytes=2500))
    pushes = world.push(3, payload=b"x" * 1000)
    assert whys(pushes) == [None, None, Why.QUEUE_FULL]
    world.advance(1)
    assert world.pool.figures().queued_bytes == 0
    world.stop()


def test_the_earliest_deadline_goes_first() -> None:
    world = World()
    late, early = world.push(timeout=20.0)[0], world.push(timeout=5.0)[0]
    world.advance(1)
    assert [record.apns_id for record in world.apple.ledger] == [early.apns_id, late.apns_id]
    world.stop()


def test_a_deadline_that_has_passed_is_told_at_once() -> None:
    world = World()
    assert whys(world.push(timeout=0.0)) == [Why.DEADLINE]
    assert not world.dialer.dialed_at
    world.stop()


def test_what_waits_ends_by_its_deadline_and_was_not_written() -> None:
    world = warm(Stall(When(at=2)), max_streams=1, limits=PoolLimits(max_connections=1))
    world.push(timeout=60)
    waiting = world.push(3, timeout=2.0)
    world.advance(1.9)
    assert not any(push.ended for push in waiting)
    world.advance(0.1)
    assert whys(waiting) == [Why.DEADLINE] * 3
    world.stop()


def test_nothing_waits_longer_than_the_queue_allows() -> None:
    world = warm(Stall(When(at=2)), max_streams=1, limits=PoolLimits(max_connections=1, max_wait=3.0))
    world.push(timeout=60)
    waiting = world.push(timeout=50)
    world.advance(3.0)
    assert whys(waiting) == [Why.QUEUE_FULL]
    world.stop()


# ------------------------------------------------------------------------------------------------------------------ cancelling


def test_cancelled_in_the_queue_it_is_never_sent() -> None:
    world = World()
    keep, drop = world.push(2)
    assert world.pool.cancel(drop) is Verdict.NOT_WRITTEN
    assert world.pool.figures().queued == 1
    world.advance(1)
    assert keep.status == 200
    assert world.apple.ledger.requests == 1
    assert drop.calls == 0
    world.pushes.remove(drop)
    world.stop()


def test_cancelled_in_the_turn_that_began_it_no_byte_of_it_leaves() -> None:
    world = warm()
    push = world.push()[0]
    assert world.pool.cancel(push) is Verdict.NOT_WRITTEN
    world.advance(1)
    assert world.apple.ledger.requests == 1
    world.pushes.remove(push)
    world.stop()


def test_cancelled_under_way_nobody_knows_and_its_place_is_free() -> None:
    world = warm(Stall(When(at=2)), max_streams=1, limits=PoolLimits(max_connections=1))
    stalled, waiting = world.push(2)
    world.advance(1)
    assert world.pool.cancel(stalled) is Verdict.UNKNOWN
    world.advance(1)
    assert waiting.status == 200
    assert world.pool.cancel(waiting) is None
    world.pushes.remove(stalled)
    world.stop()


def test_cancelled_while_it_rests_after_a_refusal() -> None:
    world = warm(RefuseStream(When(after=1)), limits=PoolLimits(first_rest=1000.0))
    push = world.push(timeout=500)[0]
    world.advance(0.1)
    assert world.pool.figures().resting == 1
    assert world.pool.cancel(push) is Verdict.REFUSED
    world.pushes.remove(push)
    world.stop()


# -------------------------------------------------------------------------------------------------------------------- retrying


def test_what_is_refused_for_ever_is_given_up_after_some_tries() -> None:
    world = World(RefuseStream(), limits=PoolLimits(max_tries=3))
    pushes = world.push(4)
    world.advance(5)
    assert whys(pushes) == [Why.REFUSED_STREAM] * 4
    assert [push.tries for push in pushes] == [3] * 4
    world.stop()


def test_what_must_not_be_repeated_is_returned_when_it_is_refused() -> None:
    world = warm(RefuseStream(When(at=2)))
    push = Push(world.clock.seconds() + 10)
    push.repeatable = False
    world.pool.submit(push)
    world.pushes.append(push)
    world.advance(1)
    assert whys([push]) == [Why.REFUSED_STREAM]
    world.stop()


def test_a_refusal_near_the_deadline_is_told_in_time() -> None:
    world = warm(RefuseStream(When(after=1)), limits=PoolLimits(first_rest=1000.0))
    pushes = world.push(10, timeout=1.0)
    world.advance(1.0)
    assert all(push.ended for push in pushes)
    world.stop()


# ----------------------------------------------------------------------------------------------------------------- connections


def test_one_connection_serves_as_long_as_it_has_room() -> None:
    world = warm(Delay(0.5, When(after=1)))
    world.push(900)
    world.advance(1)
    assert world.apple.ledger.connections == 1
    world.stop()


def test_when_all_are_full_for_a_while_others_open_one_by_one() -> None:
    world = warm(Delay(2.0, When(after=1)), max_streams=10, limits=PoolLimits(max_connections=3))
    start = world.clock.seconds()
    world.push(200, timeout=60)
    world.advance(4)
    began = [at - start for at in world.dialer.dialed_at[1:]]
    assert len(began) == 2
    assert began[0] >= 0.5
    assert began[1] - began[0] >= 0.25
    assert world.dialer.in_use[1:] == [{"10.0.0.1"}, {"10.0.0.1", "10.0.0.2"}]
    world.advance(60)
    assert world.delivered() == 201
    world.stop()


def test_the_least_loaded_connection_gets_the_next_request() -> None:
    world = warm(Delay(5.0, When(after=1)), max_streams=10, limits=PoolLimits(full_patience=0.1, probing_streams=10))
    world.push(11, timeout=60)
    world.advance(1)
    world.push(6, timeout=60)
    world.advance(0.5)
    loads = sorted(link.in_flight for link in world.pool.figures().links)
    assert loads == [7, 10]
    world.advance(30)
    world.stop()


def test_connections_that_nobody_needs_any_more_close_but_for_one() -> None:
    world = warm(Delay(1.0, When(after=1)), max_streams=10, limits=PoolLimits(idle_timeout=60.0))
    world.push(100, timeout=60)
    world.advance(20)
    assert len(world.pool.figures().links) > 1
    world.advance(180)
    assert len(world.pool.figures().links) == 1
    world.stop()


def test_an_old_connection_is_replaced_before_it_ends() -> None:
    world = warm(limits=PoolLimits(max_age=100.0, age_jitter=0.0, idle_timeout=1e6))
    world.advance(98.5)
    slow = world.apple.ledger.connections
    assert slow == 1
    world.push(5)
    world.advance(2)
    assert world.apple.ledger.connections == 2
    figures = world.pool.figures()
    assert [link.number for link in figures.links] == [2]
    assert figures.past[0].moments[-1].what == "closed: replaced"
    assert world.delivered() == 6
    world.stop()


def test_an_old_connection_goes_on_while_no_other_can_be_had() -> None:
    world = warm(limits=PoolLimits(max_age=100.0, age_jitter=0.0))
    world.dialer.refusing = LinkEnd("nobody is there")
    world.advance(150)
    world.push(5)
    world.advance(1)
    assert world.delivered() == 6
    world.dialer.refusing = None
    world.advance(60)
    assert [link.number for link in world.pool.figures().links] == [len(world.dialer.dialed_at)]
    world.stop()


def test_a_connection_whose_stream_ids_end_is_replaced_in_time() -> None:
    world = World(first_stream_id=MAX_STREAM_ID - 2 * 99, limits=PoolLimits(spare_ids=50))
    for _ in range(30):
        world.push(30)
        world.advance(0.5)
    assert world.delivered() == 900
    assert {push.tries for push in world.pushes} == {1}
    assert world.apple.ledger.connections > 10
    assert any(moment.what == "to be replaced: its stream ids" for moment in world.pool.figures().past[0].moments)
    world.stop()


def test_nothing_is_dialed_before_something_is_to_be_sent() -> None:
    world = World()
    world.advance(100)
    assert not world.dialer.dialed_at
    world.stop()


def test_a_new_connection_carries_one_request_until_its_first_answer() -> None:
    world = World(Delay(0.5))
    world.push(50)
    world.advance(0.3)
    figures = world.pool.figures()
    assert (figures.in_flight, figures.queued, world.states()) == (1, 49, [LinkState.PROBING])
    world.advance(0.4)
    assert (world.pool.figures().queued, world.states()) == (0, [LinkState.OPEN])
    world.advance(5)
    world.stop()


class Mute(Protocol):
    """A server that reads and says nothing."""

    def __init__(self) -> None:
        self.heard = b""

    def dataReceived(self, data: bytes) -> None:
        self.heard += data


def test_before_the_settings_nothing_is_requested() -> None:
    world = World()
    mute = Mute()
    world.dialer.make_server = lambda: mute
    world.push(5, timeout=5)
    world.advance(1)
    written = FrameReader().feed(mute.heard.removeprefix(PREFACE))
    assert [frame[0] for frame in written] == [FrameType.SETTINGS, FrameType.WINDOW_UPDATE]
    world.advance(5)
    assert {push.verdict for push in world.pushes} == {Verdict.NOT_WRITTEN}
    world.stop()


def test_the_successor_of_a_connection_that_is_taken_away_is_there_before_the_next_push() -> None:
    world = warm(GoAway(When(at=2)))
    world.push()
    world.advance(1)
    assert world.apple.ledger.connections == 2
    assert world.states() == [LinkState.PROBING]
    world.stop()


class Leaving(Protocol):
    """A server that goes away at each first request, and leaves it without an answer."""

    def __init__(self) -> None:
        self._heard = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(settings_frame([]))

    def dataReceived(self, data: bytes) -> None:
        self._heard += data
        found = FrameReader().feed(self._heard.removeprefix(PREFACE))
        if any(frame[0] == FrameType.HEADERS for frame in found):
            assert self.transport is not None
            self.transport.write(goaway(1, 0))


def test_a_server_that_goes_away_without_answers_does_not_get_any_number_of_connections() -> None:
    limits = PoolLimits(max_leaving=5)
    world = World(limits=limits)
    world.dialer.make_server = Leaving
    world.push(100, timeout=20.0)
    world.advance(10.0)
    assert len(world.pool.figures().links) == 5
    world.advance(10.0)
    assert all(push.ended for push in world.pushes)
    world.stop()


class Counting(NoMetrics):
    """What the pool tells of itself."""

    def __init__(self) -> None:
        self.states: Counter[LinkState] = Counter()
        self.failed = 0
        self.codes: list[str] = []
        self.whys: Counter[tuple[Why, bool]] = Counter()

    def link_moved(self, old: LinkState | None, new: LinkState) -> None:
        self.states[new] += 1
        if old is not None:
            self.states[old] -= 1

    def link_failed(self, permanent: bool) -> None:
        self.failed += 1

    def gone_away(self, code: str) -> None:
        self.codes.append(code)

    def returned(self, why: Why, again: bool) -> None:
        self.whys[why, again] += 1


def test_rare_events_are_counted() -> None:
    metrics = Counting()
    world = World(GoAway(When(at=20), code=0x77), RefuseStream(When(at=5)), metrics=metrics)
    world.push(60)
    world.advance(5)
    assert metrics.codes == ["other"]
    assert metrics.whys[Why.REFUSED_STREAM, True] == 1
    assert metrics.whys[Why.GONE_AWAY, True] + metrics.whys[Why.NOT_WRITTEN, True] > 0
    assert +metrics.states == Counter({link.state: 1 for link in world.pool.figures().links}) + Counter({LinkState.CLOSED: 1})
    world.dialer.refusing = LinkEnd("nobody is there")
    world.stop()
    assert +metrics.states == Counter({LinkState.CLOSED: 2})


def test_what_has_ended_is_not_kept() -> None:
    world = warm(RefuseStream(When(every=7)), GoAway(When(every=500)))
    for _ in range(10):
        world.push(300)
        world.advance(2)
    world.check()
    kept = weakref.WeakSet(world.pushes)  # of this test: others may still hold theirs
    world.pushes.clear()
    gc.collect()
    assert not list(kept)
    world.stop()


# ---------------------------------------------------------------------------------------------------------- connecting in vain


def test_without_a_connection_who_waits_is_told_after_some_patience() -> None:
    world = World()
    world.dialer.refusing = LinkEnd("nobody is there")
    pushes = world.push(3, timeout=60)
    world.advance(2.5)
    assert not any(push.ended for push in pushes)
    world.advance(5)
    assert whys(pushes) == [Why.NO_CONNECTION] * 3
    assert pushes[0].fault is not None
    assert pushes[0].fault.text == "no connection: nobody is there"
    world.stop()


def test_after_a_success_patience_begins_anew() -> None:
    world = World()
    world.dialer.refusing = LinkEnd("nobody is there")
    world.push(timeout=60)
    world.advance(2)
    world.dialer.refusing = None
    world.advance(8)
    assert world.delivered() == 1
    world.dialer.refusing = LinkEnd("nobody is there")
    world.servers[0].abort()
    world.advance(0.1)
    late = world.push(timeout=60)
    world.advance(2.5)
    assert not late[0].ended
    world.advance(5)
    assert whys(late) == [Why.NO_CONNECTION]
    world.stop()


def test_a_server_that_ends_each_connection_gets_no_more_than_some_a_second() -> None:
    world = World(GoAway(When(every=1)))
    world.push(100, timeout=5.0)
    world.advance(5.0)
    assert 10 < world.apple.ledger.connections <= 21
    world.stop()


def test_what_will_be_the_same_again_is_told_at_once_and_tried_again_later() -> None:
    world = World()
    world.dialer.security.problem = "the server does not speak HTTP/2"
    first = world.push(3, timeout=60)
    world.advance(0.1)
    assert whys(first) == [Why.NO_CONNECTION] * 3
    world.dialer.security.problem = None
    world.advance(60)
    second = world.push()
    world.advance(1)
    assert [push.status for push in second] == [200]
    world.stop()


def test_while_it_is_hopeless_who_comes_is_told_at_once() -> None:
    world = World(limits=PoolLimits(first_backoff=1e6, max_backoff=1e6))
    world.dialer.refusing = LinkEnd("no", permanent=True)
    world.push()
    world.advance(1)
    assert whys(world.push(2)) == [Why.NO_CONNECTION] * 2
    assert len(world.dialer.dialed_at) == 1
    world.stop()


def test_tries_to_connect_grow_rarer() -> None:
    world = World(limits=PoolLimits(connect_patience=1e6, max_wait=1e6))
    world.dialer.refusing = LinkEnd("nobody is there")
    world.push(timeout=1000)
    world.advance(900)
    assert 30 < len(world.dialer.dialed_at) < 130
    world.dialer.refusing = None
    world.advance(40)
    assert world.delivered() == 1
    world.stop()


def test_a_connection_that_does_not_come_about_is_given_up_in_time() -> None:
    world = World(limits=PoolLimits(connect_timeout=2.0))
    world.dialer.hanging = True
    world.push(timeout=3)
    world.advance(2.0)
    assert world.dialer.cancelled == 1
    world.advance(1.0)
    assert whys(world.pushes) == [Why.NO_CONNECTION]
    world.dialer.hanging = False
    world.stop()


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    world = World(http2=Limits(settings_timeout=2.0))
    world.dialer.make_server = Mute
    world.push(timeout=60)
    world.advance(2.1)
    assert world.pool.figures().past[0].moments[-1].what.startswith("closed: no SETTINGS within 2 s")
    world.dialer.make_server = world.make_server
    world.advance(20)
    assert world.delivered() == 1
    world.stop()


# -------------------------------------------------------------------------------------------------------------------- stopping


def test_stopping_lets_what_is_under_way_end_and_tells_who_waits() -> None:
    world = warm(Delay(1.0, When(after=1)), max_streams=2, limits=PoolLimits(max_connections=1))
    pushes = world.push(5)
    world.advance(0.1)
    stopped = world.pool.stop()
    assert whys(pushes) == [None, None] + [Why.STOPPING] * 3
    assert whys(world.push()) == [Why.STOPPING]
    world.advance(2)
    assert stopped.called
    assert [push.status for push in pushes[:2]] == [200, 200]
    world.stop()


def test_stopping_gives_up_what_takes_too_long() -> None:
    world = warm(Stall(When(at=2)), limits=PoolLimits(drain_timeout=3.0))
    push = world.push(timeout=1000)[0]
    world.advance(1)
    stopped = world.pool.stop()
    world.advance(2.9)
    assert not stopped.called
    world.advance(0.2)
    assert stopped.called
    assert whys([push]) == [Why.CONNECTION_LOST]
    world.stop()


def test_stopping_before_the_first_answer() -> None:
    world = World(Stall())
    world.push(timeout=20)
    world.advance(0.1)
    stopped = world.pool.stop()
    world.advance(11)
    assert stopped.called
    world.stop()


def test_stopping_ends_a_connection_that_is_not_there_yet() -> None:
    world = World()
    world.dialer.hanging = True
    world.push()
    stopped = world.pool.stop()
    assert stopped.called
    assert world.dialer.cancelled == 1
    world.stop()


# ------------------------------------------------------------------------------------------------------------------- together


def test_a_fault_in_one_exchange_harms_no_other() -> None:
    class Broken(Push):
        def answered(self, headers: object, ended: bool) -> None:
            raise ZeroDivisionError

    world = warm()
    broken = Broken(world.clock.seconds() + 10)
    world.pool.submit(broken)
    world.push(5)
    world.advance(1)
    assert world.delivered() == 6
    assert whys([broken]) == [Why.BAD_ANSWER]
    world.stop()


def test_an_exchange_that_cannot_take_its_fault_harms_no_other() -> None:
    class Broken(Push):
        def failed(self, fault: Fault) -> None:
            raise ZeroDivisionError

    world = World(limits=PoolLimits(max_queued=1))
    world.push()
    world.pool.submit(Broken(10.0))  # the queue is full
    world.advance(1)
    assert world.delivered() == 1
    world.stop()


def test_who_is_told_may_cancel_who_waits_behind_it() -> None:
    class Cancelling(Push):
        def failed(self, fault: Fault) -> None:
            super().failed(fault)
            assert world.pool.cancel(last) is Verdict.NOT_WRITTEN

    world = World()
    world.dialer.refusing = LinkEnd("no", permanent=True)
    last = Push(60.0)
    world.pool.submit(Cancelling(30.0))
    world.pool.submit(last)
    world.advance(1)
    assert last.calls == 0
    world.stop()


def test_what_expires_in_the_instant_in_which_room_appears_is_not_sent() -> None:
    world = warm(Stall(When(at=2)), max_streams=1, limits=PoolLimits(max_connections=1))
    stalled, waiting = world.push(timeout=60)[0], world.push(timeout=5)[0]
    world.advance(1)
    world.pool.cancel(stalled)
    world.pushes.remove(stalled)
    world.clock.rightNow += 10  # the process was stopped for a while
    world.jumped = True
    world.advance(0)
    assert whys([waiting]) == [Why.DEADLINE]
    assert world.apple.ledger.requests == 2
    world.stop()


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(PRESETS)), min_size=1, max_size=3, unique=True),
    seed=st.integers(0, 1000),
    steps=st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from((0.5, 3.0)), st.sampled_from((0.0, 0.1, 1.0)), st.booleans()),
        min_size=1,
        max_size=6,
    ),
)
def test_whatever_happens_every_request_ends_once_and_in_time_and_none_twice_at_apple(
    names: list[str], seed: int, steps: list[tuple[int, float, float, bool]]
) -> None:
    orders = tuple(order for name in names for order in PRESETS[name].orders.orders)
    world = World(*orders, seed=seed, http2=Limits(settings_timeout=2, ping_interval=3, ping_timeout=1))
    for count, timeout, wait, cancel in steps:
        new = world.push(count, timeout=timeout)
        if cancel and new and not new[0].ended:
            assert world.pool.cancel(new[0]) is not None
            world.pushes.remove(new[0])
        world.advance(wait)
    world.advance(3.0)
    assert all(push.ended for push in world.pushes)
    world.stop()


@pytest.mark.parametrize("name", ["max_connections", "connect_timeout", "max_tries", "max_wait"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        PoolLimits(**{name: 0})


def test_limits_are_not_negative_and_jitter_is_a_share() -> None:
    with pytest.raises(ValueError, match="first_rest"):
        PoolLimits(first_rest=-1.0)
    with pytest.raises(ValueError, match="age_jitter"):
        PoolLimits(age_jitter=1.0)

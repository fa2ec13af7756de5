from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from streampush.push.alarm import LONGEST, SLACK, Alarm


class Ringing:
    def __init__(self) -> None:
        self.clock = Clock()
        self.rung: list[tuple[str, float]] = []
        self.alarm = Alarm(self.clock.seconds, self.clock.callLater)
        self.alarm.ring = lambda key: self.rung.append((key, self.clock.seconds()))


def test_each_key_rings_once_at_its_time_whatever_the_order_of_setting() -> None:
    world = Ringing()
    for key, at in (("b", 5.0), ("a", 2.0), ("c", 9.0)):
        world.alarm.set(key, at)
    world.clock.pump([1.0] * 12)
    assert world.rung == [("a", 2.0), ("b", 5.0), ("c", 9.0)]
    assert world.clock.getDelayedCalls() == []


def test_however_many_keys_there_is_one_timer() -> None:
    world = Ringing()
    for number in range(100):
        world.alarm.set(f"k{number}", 100.0 - number)
    assert len(world.clock.getDelayedCalls()) == 1


def test_setting_again_replaces_the_time() -> None:
    world = Ringing()
    world.alarm.set("a", 2.0)
    world.alarm.set("a", 5.0)
    world.clock.pump([1.0] * 8)
    assert world.rung == [("a", 5.0)]


def test_a_nearer_time_stays_if_only_a_sooner_one_is_wanted() -> None:
    world = Ringing()
    world.alarm.set("a", 2.0)
    world.alarm.set("a", 5.0, sooner=True)
    world.alarm.set("b", 5.0)
    world.alarm.set("b", 2.0, sooner=True)
    world.clock.pump([1.0] * 8)
    assert world.rung == [("a", 2.0), ("b", 2.0)]


def test_cancelled_key_is_silent_and_the_last_one_leaves_no_timer() -> None:
    world = Ringing()
    world.alarm.set("a", 2.0)
    world.alarm.set("b", 3.0)
    world.alarm.cancel("a")
    world.clock.pump([1.0, 1.0])
    assert world.rung == []
    world.alarm.cancel("b")
    assert world.clock.getDelayedCalls() == []


def test_a_far_time_is_approached_in_steps() -> None:
    world = Ringing()
    world.alarm.set("a", 2.5 * LONGEST)
    assert world.clock.getDelayedCalls()[0].getTime() == LONGEST
    world.clock.pump([LONGEST, LONGEST])
    assert world.rung == []
    world.clock.advance(0.5 * LONGEST)
    assert world.rung == [("a", 2.5 * LONGEST)]


def test_cancelled_times_do_not_pile_up() -> None:
    world = Ringing()
    world.alarm.set("stays", 1e6)
    for number in range(10_000):
        world.alarm.set(f"k{number}", 1e5 + number)
        world.alarm.cancel(f"k{number}")
    assert len(world.alarm._heap) <= 2 * 1 + SLACK + 2


def test_a_ring_that_fails_does_not_silence_the_others() -> None:
    world = Ringing()

    def ring(key: str) -> None:
        world.rung.append((key, world.clock.seconds()))
        if key == "a":
            raise ValueError(key)

    world.alarm.ring = ring
    world.alarm.set("a", 1.0)
    world.alarm.set("b", 1.0)
    with pytest.raises(ValueError, match="a"):
        world.clock.advance(1.0)
    world.clock.advance(0.0)
    assert [key for key, _ in world.rung] == ["a", "b"]


def test_what_rings_may_set_the_alarm_again() -> None:
    world = Ringing()

    def ring(key: str) -> None:
        world.rung.append((key, world.clock.seconds()))
        if world.clock.seconds() < 3:
            world.alarm.set(key, world.clock.seconds() + 1)

    world.alarm.ring = ring
    world.alarm.set("a", 1.0)
    world.clock.pump([1.0] * 6)
    assert world.rung == [("a", 1.0), ("a", 2.0), ("a", 3.0)]

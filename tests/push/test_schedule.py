"""Scheduled messages: never early, once each, whatever the clocks, the store and the process do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent

from streampush.config import StoreConfig
from streampush.protocol.codes import Code
from streampush.push.due import LONGEST_WAIT, RETRY_PAUSE
from streampush.push.schedule import STEP_MESSAGES
from streampush.push.steady import SLEW
from streampush.push.values import Published, PublishRequest
from streampush.store.memory import MemoryStore
from tests.push.world import PUBLISHER, World
from tests.store.slow import Call, SlowStore

NOW_MS = 1_000_000
"""When a World begins."""
DAY = 86_400.0


def schedule(world: World, seconds: float, channel: str = "news", **fields: object) -> Published:
    """Publishes a message that is due so many seconds from the beginning of the world."""
    request = PublishRequest(channel, b"x", deliver_at_ms=NOW_MS + int(seconds * 1000))
    return world.run(world.service.publish(PUBLISHER, replace(request, **fields)))  # type: ignore[arg-type]  # any field


def stored(world: World, channel: str = "news") -> list[str]:
    return [entry.message_id for entry in world.run(world.memory.read(channel, 0, 1000, 1_000_000)).publications]


def started(**arguments: object) -> World:
    world = World(**arguments)  # type: ignore[arg-type]  # whatever a World takes
    world.service.start()
    world.settle()
    return world


def test_a_message_goes_out_at_its_time_and_not_a_millisecond_before() -> None:
    world = started()
    _, link = world.follower("d", "news")
    published = schedule(world, 10.0)
    assert (published.offset, published.connections) == (0, 1)
    world.advance(9.999)
    assert link.frames == []
    world.advance(0.001)
    assert [frame.message_id for frame in link.frames] == [published.message_id]
    assert world.metrics.named("fired") == [(1, 0.0)]


def test_an_earlier_message_is_not_kept_waiting_by_a_later_one() -> None:
    world = started()
    late, early = schedule(world, 20.0), schedule(world, 10.0)
    world.advance(10.0)
    assert stored(world) == [early.message_id]
    world.advance(10.0)
    assert stored(world) == [early.message_id, late.message_id]


def test_one_timer_waits_however_many_messages_do() -> None:
    world = started()
    for seconds in (30.0, 20.0, 25.0, 10.0):
        schedule(world, seconds)
    assert [timer.deadline for timer in world.timers] == [1010.0]


def test_nothing_is_asked_of_the_store_while_nothing_is_due() -> None:
    names: list[str] = []

    def note(call: Call) -> None:
        names.append(call.name)
        store.finish()

    store = SlowStore(MemoryStore(StoreConfig(), lambda: NOW_MS, lambda: "epoch"), note)
    world = started(store=store)
    schedule(world, 100.0)
    asked = len(names)
    world.advance(99.0)
    assert names[asked:] == []
    world.advance(1.0)
    assert names[asked:] == ["fire_due", "next_due_ms"]


def test_what_waits_in_the_store_goes_out_after_a_restart() -> None:
    world = World()
    due, overdue = schedule(world, 60.0), schedule(world, 10.0)
    world.now += 30.0
    world.service.start()
    world.settle()
    assert stored(world) == [overdue.message_id]
    world.advance(30.0)
    assert stored(world) == [overdue.message_id, due.message_id]
    assert world.metrics.named("fired")[1] == (1, 0.0)


def test_what_expired_during_a_downtime_does_not_go_out() -> None:
    world = World()
    schedule(world, 10.0, ttl=5.0)
    world.now += 15.0
    world.service.start()
    world.settle()
    assert stored(world) == []
    assert world.timers == []


def test_many_that_are_due_at_once_go_out_in_steps_with_turns_between() -> None:
    world = started()
    count = 2 * STEP_MESSAGES + 1
    for _ in range(count):
        schedule(world, 10.0)
    world.advance(10.0)
    assert len(stored(world)) == count
    assert [number for number, _ in world.metrics.named("fired")] == [STEP_MESSAGES, STEP_MESSAGES, 1]


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_jump_of_the_systems_clock_fires_expires_and_loses_nothing(jump: float) -> None:
    world = started()
    due = schedule(world, 3_600.0)
    expiring = world.publish("sport", ttl=3_600.0)
    world.system_ahead = jump
    world.advance(0.97 * 3_600.0)
    assert stored(world) == []
    assert stored(world, "sport") == [expiring.message_id]
    world.advance(0.06 * 3_600.0)
    assert stored(world) == [due.message_id]
    assert stored(world, "sport") == []


def test_after_the_machine_was_suspended_what_is_due_goes_out_soon() -> None:
    world = started()
    due = schedule(world, 3_600.0)
    world.advance(1.0)
    world.now += 8 * 3_600.0  # timers stood still meanwhile
    for timer in world.timers:
        timer.deadline += 8 * 3_600.0
    world.advance(LONGEST_WAIT)
    assert stored(world) == [due.message_id]


def slow_and_started() -> tuple[World, SlowStore]:
    """A store whose calls of the schedule wait for the test; the first has been answered: nothing is due."""
    worlds: list[World] = []
    memory = MemoryStore(StoreConfig(), lambda: worlds[0].wall_ms(), lambda: "epoch")
    store = SlowStore(memory, lambda call: store.finish("append") if call.name == "append" else None)
    world = World(store=store)
    world.memory = memory
    worlds.append(world)
    world.service.start()
    for name in ("fire_due", "next_due_ms"):
        world.settle()
        store.finish(name)
    world.settle()
    return world, store


def test_a_store_that_is_not_there_is_asked_again_and_nothing_is_lost() -> None:
    world, store = slow_and_started()
    due = schedule(world, 10.0)
    world.advance(10.0)
    with capturedLogs() as lines:
        for _ in range(3):
            store.fail("fire_due")
            world.settle()
            assert stored(world) == []
            world.advance(RETRY_PAUSE)
    assert [formatEvent(line) for line in lines] == ["the schedule waits for the store: the test says so"]  # once
    store.finish("fire_due")
    world.settle()
    store.fail("next_due_ms")
    world.advance(RETRY_PAUSE)
    assert stored(world) == [due.message_id]
    assert world.metrics.named("schedule_stalled") == [()] * 4
    assert world.failures == []


def test_a_fault_of_ours_is_reported_and_does_not_end_the_schedule() -> None:
    world = started()
    due = schedule(world, 10.0)
    broken = world.memory.fire_due

    async def fault(now_ms: int, limit: int) -> object:
        raise RuntimeError("a fault of ours")

    world.memory.fire_due = fault  # type: ignore[method-assign,assignment]  # for a moment
    world.advance(10.0)
    assert len(world.failures) == 1
    world.memory.fire_due = broken  # type: ignore[method-assign]  # as it was
    world.advance(RETRY_PAUSE)
    assert stored(world) == [due.message_id]


def test_a_message_that_comes_while_the_store_is_asked_is_waited_for() -> None:
    world, store = slow_and_started()
    schedule(world, 10.0)
    world.advance(10.0)
    store.calls[-1].act()  # fire_due has looked
    early = schedule(world, 11.0)
    store.finish("fire_due")
    world.settle()
    next_due = store.take("next_due_ms")
    next_due.act()
    earliest = schedule(world, 10.5)
    next_due.finish()
    world.settle()
    assert [timer.deadline for timer in world.timers] == [1010.5]
    world.advance(0.5)
    store.finish("fire_due")
    world.settle()
    store.finish("next_due_ms")
    world.advance(0.5)
    store.finish("fire_due")
    assert stored(world)[1:] == [earliest.message_id, early.message_id]


def test_stopping_leaves_no_timer_and_what_waits_is_still_there() -> None:
    world = started()
    due = schedule(world, 10.0)
    world.service.stop()
    world.service.stop()
    assert world.timers == []
    schedule(world, 5.0)
    assert world.timers == []
    world.now += 20.0
    world.service.start()
    world.settle()
    assert due.message_id in stored(world)


def test_stopping_while_the_store_is_asked_leaves_no_timer() -> None:
    world, store = slow_and_started()
    schedule(world, 10.0)
    schedule(world, 20.0)
    world.advance(10.0)
    world.service.stop()
    store.finish("fire_due")
    world.settle()
    store.finish("next_due_ms")
    world.settle()
    assert world.timers == []
    assert len(stored(world)) == 1


def test_a_version_that_was_overtaken_before_its_time_does_not_go_out() -> None:
    world = started()
    schedule(world, 10.0, version=1, collapse_key="score")
    newer = world.run(world.service.publish(PUBLISHER, PublishRequest("news", b"y", version=2, collapse_key="score")))
    world.advance(10.0)
    assert stored(world) == [newer.message_id]


def test_a_full_schedule_refuses_with_its_code() -> None:
    world = started(limits=StoreConfig(max_scheduled=1))
    schedule(world, 10.0)
    with pytest.raises(Exception, match="3007") as caught:
        schedule(world, 10.0)
    assert getattr(caught.value, "code", None) is Code.QUOTA_EXCEEDED


@given(st.lists(st.tuples(st.floats(0.0, 30.0), st.floats(0.0, 100.0), st.floats(-DAY, DAY)), max_size=20))
def test_every_message_goes_out_once_in_order_of_time_and_none_early(course: list[tuple[float, float, float]]) -> None:
    """(seconds that pass, delay of the next message, where the system's clock is set meanwhile) for each message."""
    world = started()
    due: dict[str, int] = {}
    for passed, delay, ahead in course:
        world.advance(passed)
        world.system_ahead = ahead
        deliver_at_ms = world.wall_ms() + int(delay * 1000) + 1
        due[schedule(world, 0.0, deliver_at_ms=deliver_at_ms).message_id] = deliver_at_ms
        assert all(due[message_id] <= world.wall_ms() for message_id in stored(world))
    world.advance(110.0)
    entries = world.run(world.memory.read("news", 0, 1000, 1_000_000)).publications
    assert {entry.message_id for entry in entries} == set(due)
    late = [entry.published_at_ms - due[entry.message_id] for entry in entries]
    assert all(0 <= ms <= 1 + LONGEST_WAIT * 1000 / SLEW for ms in late)
    assert world.timers == []

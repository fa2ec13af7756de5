"""What the store is told of connections that come and go while it is slow, or away."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from streampush.config import StoreConfig
from streampush.protocol.codes import Advice
from streampush.push.presence import LEASE_INTERVALS, NodeLease, Presence
from streampush.push.turns import Turns
from streampush.push.values import Close, DeviceRecord, Session
from streampush.store.memory import MemoryStore
from tests.store.slow import SlowStore


def session(number: int, device_id: str = "d", node: str = "here") -> Session:
    return Session(device_id, f"S{number}", node, "ada", connected_at_ms=1_000_000)


def close(number: int) -> Close:
    return Close(1001, Advice.RECONNECT, f"close {number}", number)


class Stage:
    """A Presence in front of a store that answers when the test says so."""

    def __init__(self, *, slow: bool = True) -> None:
        self.now_ms = 1_000_000
        self.overtaken: list[tuple[str, str]] = []
        self.failures: list[BaseException] = []
        self.turns: list[Callable[[], None]] = []
        self.later: list[Callable[[], None]] = []
        self.memory = MemoryStore(StoreConfig(), lambda: self.now_ms, lambda: "epoch")
        self.slow = SlowStore(self.memory)
        for device_id in "de":
            self.now(self.memory.remember_device(DeviceRecord(device_id)))
        store: Any = self.slow if slow else self.memory
        self.presence = Presence(
            store,
            Turns(),
            run="here",
            wall_ms=lambda: self.now_ms,
            call_soon=self.turns.append,
            spawn=self.spawn,
            retry_later=self.later.append,
            overtaken=lambda *which: self.overtaken.append(which),
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(work).addErrback(lambda failure: self.failures.append(failure.value))

    def now(self, work: Coroutine[Any, Any, Any]) -> Any:
        results: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(results.append)
        return results[0]

    def turn(self) -> None:
        """The end of a turn of the reactor."""
        turns, self.turns[:] = list(self.turns), []
        for work in turns:
            work()

    def rest(self) -> list[str]:
        """Lets the store answer everything; the names of the calls."""
        names = []
        while self.slow.calls or self.later or self.turns:
            self.turn()
            later, self.later[:] = list(self.later), []
            for work in later:
                work()
            if self.slow.calls:
                names.append(self.slow.calls[0].name)
                self.slow.finish()
        return names

    def present(self, device_id: str = "d") -> str | None:
        found = self.now(self.memory.session(device_id))
        return found and str(found.session_id)

    def last_close(self, device_id: str = "d") -> Close | None:
        found: Close | None = self.now(self.memory.device(device_id)).last_close
        return found

    def following(self, channel: str) -> tuple[str, ...]:
        found: tuple[str, ...] = self.now(self.memory.channel_presence(channel, 10)).device_ids
        return found


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_connected_device_is_present_with_what_it_follows(stage: Stage) -> None:
    stage.presence.began(session(1), ["news"])
    stage.presence.follows("d", "S1", "sport", True)
    stage.rest()
    assert (stage.present(), stage.following("news"), stage.following("sport")) == ("S1", ("d",), ("d",))


def test_end_keeps_how_the_connection_closed(stage: Stage) -> None:
    stage.presence.began(session(1))
    stage.rest()
    stage.presence.ended("d", "S1", close(1))
    stage.rest()
    assert (stage.present(), stage.last_close()) == (None, close(1))


def test_end_of_a_replaced_connection_ends_nothing(stage: Stage) -> None:
    stage.presence.began(session(1), ["news"])
    stage.presence.began(session(2), ["news"])
    stage.presence.ended("d", "S1", close(1))
    stage.rest()
    assert (stage.present(), stage.last_close(), stage.following("news")) == ("S2", None, ("d",))


def test_connection_that_is_gone_before_the_store_answers_leaves_its_close_only(stage: Stage) -> None:
    stage.presence.began(session(1), ["news"])
    stage.presence.ended("d", "S1", close(1))
    assert stage.rest() == ["session", "forget_former", "begin_session", "end_session"]
    assert (stage.present(), stage.last_close(), stage.following("news")) == (None, close(1), ())


def test_connection_that_is_gone_before_the_store_answers_replaces_none_on_another_node(stage: Stage) -> None:
    stage.presence.began(session(1))
    stage.presence.ended("d", "S1", close(1))
    stage.now(stage.memory.begin_session(replace(session(2), run="elsewhere")))
    assert stage.rest() == ["session"]
    assert (stage.present(), stage.last_close()) == ("S2", None)


def test_connection_that_is_gone_replaces_none_that_is_made_elsewhere_while_it_is_asked_for(stage: Stage) -> None:
    stage.presence.began(replace(session(1), connected_at_ms=stage.now_ms))
    stage.presence.ended("d", "S1", close(1))
    stage.turn()
    stage.slow.finish()  # there was none elsewhere
    stage.now(stage.memory.begin_session(replace(session(2), run="elsewhere")))
    assert stage.rest() == ["forget_former", "begin_session"]
    assert (stage.present(), stage.last_close()) == ("S2", None)


def test_session_of_a_connection_that_is_older_than_one_elsewhere_does_not_begin_and_its_owner_is_told(stage: Stage) -> None:
    stage.now(stage.memory.begin_session(session(2, node="elsewhere")))
    early = replace(session(1), connected_at_ms=stage.now_ms - 60_000)
    stage.presence.began(early, ["news"])
    assert stage.rest() == ["forget_former", "begin_session"]
    assert (stage.overtaken, stage.presence.generation("d")) == ([("d", "S1")], 0)
    stage.presence.follows("d", "S1", "sport", True)
    stage.presence.ended("d", "S1", close(1))
    assert stage.rest() == []
    assert (stage.present(), stage.last_close(), stage.following("news")) == ("S2", None, ())


def test_connection_that_is_made_while_an_older_one_is_refused_begins(stage: Stage) -> None:
    stage.now(stage.memory.begin_session(session(2, node="elsewhere")))
    stage.presence.began(replace(session(1), connected_at_ms=stage.now_ms - 60_000))
    stage.turn()
    stage.slow.finish()
    stage.presence.began(replace(session(3), connected_at_ms=stage.now_ms), ["news"])
    assert stage.rest() == ["begin_session", "begin_session", "session_follows"]
    assert (stage.present(), stage.overtaken, stage.following("news")) == ("S3", [("d", "S1")], ("d",))


def test_many_changes_while_the_store_is_slow_cost_few_calls(stage: Stage) -> None:
    stage.presence.began(session(0))
    stage.turn()
    for number in range(1, 50):
        stage.presence.began(session(number), [f"news/{number}"])
        stage.presence.follows("d", f"S{number}", "sport", True)
    assert stage.rest() == ["forget_former", "begin_session", "begin_session", "session_follows"]
    assert (stage.present(), stage.following("news/49"), stage.following("sport")) == ("S49", ("d",), ("d",))


def test_channel_that_was_left_is_followed_no_longer(stage: Stage) -> None:
    stage.presence.began(session(1), ["news", "sport"])
    stage.rest()
    stage.presence.follows("d", "S1", "news", False)
    stage.rest()
    assert (stage.following("news"), stage.following("sport")) == ((), ("d",))


def test_what_an_older_session_follows_is_not_taken_for_the_newer_one(stage: Stage) -> None:
    stage.presence.began(session(1))
    stage.presence.began(session(2))
    stage.presence.follows("d", "S1", "news", True)
    stage.rest()
    assert stage.following("news") == ()


def test_session_whose_user_changes_is_begun_anew_with_its_channels(stage: Stage) -> None:
    stage.presence.began(session(1), ["news"])
    stage.rest()
    stage.presence.began(Session("d", "S1", "here", "bob"), ["news"])
    stage.rest()
    assert stage.now(stage.memory.session("d")).user_id == "bob"
    assert (stage.now(stage.memory.user_sessions("ada", 9)), stage.following("news")) == ((), ("d",))


def test_close_of_a_connection_that_comes_back_at_once_is_kept(stage: Stage) -> None:
    stage.presence.began(session(1))
    stage.rest()
    stage.presence.ended("d", "S1", close(1))
    stage.presence.began(session(2))
    stage.rest()
    assert (stage.present(), stage.last_close()) == ("S2", close(1))


def test_close_that_comes_while_an_earlier_one_is_being_stored_is_kept(stage: Stage) -> None:
    stage.presence.began(session(1))
    stage.rest()
    stage.presence.ended("d", "S1", close(1))
    stage.presence.began(session(2))
    stage.presence.ended("d", "S2", close(2))
    stage.rest()
    assert (stage.present(), stage.last_close()) == (None, close(2))


def test_newer_session_on_another_node_is_not_ended_from_here(stage: Stage) -> None:
    stage.presence.began(session(1))
    stage.rest()
    stage.now(stage.memory.begin_session(session(2, node="there")))
    stage.presence.ended("d", "S1", close(1))
    stage.rest()
    assert (stage.present(), stage.last_close()) == ("S2", None)


def test_generation_is_known_once_the_store_has_answered_and_rises(stage: Stage) -> None:
    stage.presence.began(session(1))
    assert stage.presence.generation("d") == 0
    stage.rest()
    first = stage.presence.generation("d")
    stage.presence.began(session(2))
    assert stage.presence.generation("d") == 0
    stage.rest()
    assert stage.presence.generation("d") > first > 0


def test_nothing_is_held_for_a_device_that_is_gone(stage: Stage) -> None:
    stage.presence.began(session(1))
    stage.presence.ended("d", "S1", close(1))
    stage.rest()
    assert stage.presence._entries == {}


def test_store_that_was_away_is_told_when_it_is_back(stage: Stage) -> None:
    stage.presence.began(session(1))
    stage.presence.began(session(2, "e"))
    stage.turn()
    stage.slow.fail()
    stage.slow.fail()
    assert len(stage.later) == 1, "one retry for all devices"
    stage.rest()
    assert (stage.present("d"), stage.present("e")) == ("S1", "S2")


def test_store_that_stays_away_is_asked_for_one_device_only(stage: Stage) -> None:
    for number, device_id in enumerate("de"):
        stage.presence.began(session(number, device_id))
    stage.turn()
    stage.slow.fail()
    stage.slow.fail()
    stage.later.pop()()
    assert len(stage.slow.calls) == 1
    stage.slow.fail()
    assert (stage.slow.calls, len(stage.later)) == ([], 1)
    stage.rest()
    assert (stage.present("d"), stage.present("e")) == ("S0", "S1")


def test_followed_channels_survive_a_failed_call(stage: Stage) -> None:
    stage.presence.began(session(1))
    stage.rest()
    stage.presence.follows("d", "S1", "news", True)
    stage.presence.follows("d", "S1", "sport", True)
    stage.presence.follows("d", "S1", "news", False)
    stage.turn()
    stage.slow.fail()
    stage.rest()
    assert (stage.following("news"), stage.following("sport")) == ((), ("d",))


def test_fault_of_one_device_is_raised_to_the_owner_and_does_not_stop_the_next_session(stage: Stage) -> None:
    stage.presence.began(session(1))
    stage.turn()
    stage.slow.take("forget_former").done.errback(ZeroDivisionError())
    assert [type(failure) for failure in stage.failures] == [ZeroDivisionError]
    stage.presence.began(session(2))
    stage.rest()
    assert stage.present() == "S2"


def test_sessions_that_a_former_process_left_are_forgotten_before_the_first_begins(stage: Stage) -> None:
    stage.now(stage.memory.extend_run("here/former", stage.now_ms + 1000))
    stage.now(stage.memory.begin_session(session(7, "f", "here/former")))
    stage.presence.began(session(1))
    stage.presence.began(session(2, "e"))
    assert stage.rest().count("forget_former") == 1
    assert (stage.present("d"), stage.present("e"), stage.present("f")) == ("S1", "S2", None)


def test_settle_waits_until_the_store_knows_everything(stage: Stage) -> None:
    stage.presence.began(session(1))
    stage.presence.ended("d", "S1", close(1))
    stage.turn()
    done: list[object] = []
    Deferred.fromCoroutine(stage.presence.settle()).addBoth(done.append)
    for _ in ("session", "forget_former", "begin_session"):
        stage.slow.finish()
        assert done == []
    stage.slow.finish()
    assert done == [True]


def test_settle_does_not_wait_for_a_store_that_is_away(stage: Stage) -> None:
    stage.presence.began(session(1))
    stage.turn()
    done: list[object] = []
    Deferred.fromCoroutine(stage.presence.settle()).addBoth(done.append)
    stage.slow.fail()
    assert done == [False]


class TestNodeLease:
    def make(self) -> tuple[Stage, Clock, NodeLease]:
        stage, clock = Stage(slow=False), Clock()
        lease = NodeLease(stage.presence, 30.0, clock.callLater, stage.spawn)
        lease.start()
        return stage, clock, lease

    def test_sessions_stay_as_long_as_the_node_says_so(self) -> None:
        stage, clock, lease = self.make()
        stage.presence.began(session(1))
        stage.turn()
        for _ in range(10):
            stage.now_ms += 30_000
            clock.advance(30)
            assert stage.present() == "S1"
        lease.stop()
        assert clock.getDelayedCalls() == []

    def test_sessions_of_a_node_that_has_gone_silent_are_present_no_more(self) -> None:
        stage, _, lease = self.make()
        stage.presence.began(session(1))
        stage.turn()
        lease.stop()
        stage.now_ms += LEASE_INTERVALS * 30_000 - 1
        assert stage.present() == "S1"
        stage.now_ms += 1
        assert stage.present() is None

    def test_store_knows_of_the_lease_before_the_first_session_begins(self) -> None:
        stage, clock = Stage(), Clock()
        stage.presence.began(session(1))
        stage.turn()
        NodeLease(stage.presence, 30.0, clock.callLater, stage.spawn).start()
        assert stage.rest() == ["forget_former", "extend_run", "begin_session"]

    def test_store_that_has_lost_a_session_is_told_of_the_lease_again(self) -> None:
        stage, clock = Stage(), Clock()
        NodeLease(stage.presence, 30.0, clock.callLater, stage.spawn).start()
        stage.presence.began(session(1))
        stage.rest()
        stage.presence.lost("d", stage.presence.generation("d"), ["news"])
        assert stage.rest() == ["forget_former", "extend_run", "begin_session", "session_follows"]

    def test_store_that_is_away_for_one_turn_costs_nobody_his_presence(self) -> None:
        stage, clock = Stage(), Clock()
        lease = NodeLease(stage.presence, 30.0, clock.callLater, stage.spawn)
        lease.start()
        stage.presence.began(session(1))
        stage.rest()
        stage.now_ms += 30_000
        clock.advance(30)
        stage.slow.fail("extend_run")
        assert (stage.present(), stage.failures) == ("S1", [])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("connect"), st.sampled_from("de")),
        st.tuples(st.just("gone"), st.integers(0, 20)),
        st.tuples(st.just("follow"), st.sampled_from("de"), st.sampled_from(["news", "sport"]), st.booleans()),
        st.tuples(st.just("act"), st.integers(0, 5)),
        st.tuples(st.just("finish"), st.integers(0, 5)),
        st.tuples(st.just("fail"), st.integers(0, 5)),
        st.tuples(st.just("retry")),
        st.tuples(st.just("turn")),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_presence_is_right_at_rest_whatever_came_before(steps: list[tuple[Any, ...]]) -> None:
    stage = Stage()
    sessions: list[Session] = []
    wanted: dict[str, tuple[Session, set[str]]] = {}
    closes: dict[str, Close | None] = {"d": None, "e": None}
    for step in steps:
        calls = stage.slow.calls
        if step[0] == "connect":
            new = session(len(sessions), step[1])
            sessions.append(new)
            wanted[step[1]] = new, {"own"}
            stage.presence.began(new, ["own"])
        elif step[0] == "gone" and sessions:
            number = step[1] % len(sessions)
            old = sessions[number]
            if wanted.get(old.device_id, (None,))[0] is old:
                del wanted[old.device_id]
                closes[old.device_id] = close(number)
            stage.presence.ended(old.device_id, old.session_id, close(number))
        elif step[0] == "follow" and step[1] in wanted:
            present, channels = wanted[step[1]]
            (channels.add if step[3] else channels.discard)(step[2])
            stage.presence.follows(step[1], present.session_id, step[2], step[3])
        elif step[0] == "act" and calls:
            calls[step[1] % len(calls)].act()
        elif step[0] == "finish" and calls:
            calls.pop(step[1] % len(calls)).finish()
        elif step[0] == "fail" and calls:
            call = calls.pop(step[1] % len(calls))
            call.fail() if call.effect is None else call.finish()
        elif step[0] == "turn":
            stage.turn()
        elif step[0] == "retry":
            later, stage.later[:] = list(stage.later), []
            for work in later:
                work()
        assert len(calls) <= 2, "one call at a time for each device"
    stage.rest()
    for device_id in "de":
        expected = wanted.get(device_id)
        assert stage.present(device_id) == (expected[0].session_id if expected else None)
        if expected is None:
            assert stage.last_close(device_id) == closes[device_id]
    for channel in ("own", "news", "sport"):
        followers = tuple(sorted(device_id for device_id, (_, channels) in wanted.items() if channel in channels))
        assert stage.following(channel) == followers
    assert stage.failures == []
    assert set(stage.presence._entries) == set(wanted)

"""Connections that are sent elsewhere; time is a Clock, the others are what they announce."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streampush.protocol.codes import Code
from streampush.push.values import NodeRecord
from streampush.server.capacity import HandshakeCapacity
from streampush.server.governor import ANNOUNCED_EVERY, RESTART_PAUSE, Governor
from streampush.server.leaving import LEAD, MOVE_TIME, STEP, Leaving, Why

OTHER = NodeRecord("n2", 1, cap=1_000, handshakes_per_second=20.0, free_per_second=20.0)


class Guest:
    """A connection that notes when it was told to leave, and for when."""

    def __init__(self, clock: Clock, *, broken: bool = False) -> None:
        self.told_at: float | None = None
        self.slot = 0.0
        self.code: Code | None = None
        self.close_after: float | None = None
        self.aborted = False
        self._clock = clock
        self._broken = broken

    @property
    def leaving(self) -> bool:
        return self.told_at is not None

    def drain(self, code: Code, detail: str, retry_after_ms: int = 0, close_after: float | None = None) -> None:
        self.told_at = self._clock.seconds()
        if self._broken:
            raise RuntimeError("broken")
        self.code = code
        self.slot = self.told_at + retry_after_ms / 1000
        self.close_after = close_after

    def abort(self) -> None:
        self.aborted = True


class Counted:
    def __init__(self) -> None:
        self.whys: list[str] = []

    def sent_elsewhere(self, why: str) -> None:
        self.whys.append(why)


class LeavingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000.0)
        self.governor = Governor(HandshakeCapacity(0.5, 50.0, lambda: 0.0), Random(1))
        self.guests = [Guest(self.clock) for _ in range(100)]
        self.metrics = Counted()
        self.leaving = Leaving(
            lambda: self.guests,
            self.governor,
            self.metrics,
            clock=self.clock.seconds,
            call_later=self.clock.callLater,
            random=Random(2),
        )
        self.hear(OTHER)

    def hear(self, *others: NodeRecord) -> None:
        self.governor.heard(others)

    def pass_time(self, seconds: float) -> None:
        """The others announce themselves meanwhile, with those who have come to them."""
        for step in range(int(seconds / STEP)):
            self.clock.advance(STEP)
            if step % int(ANNOUNCED_EVERY / STEP) == 0:
                arrived = sum(1 for guest in self.told() if guest.slot <= self.clock.seconds())
                self.hear(*(replace(other, connections=arrived) for other in self.governor.others))

    def told(self) -> list[Guest]:
        return [guest for guest in self.guests if guest.told_at is not None]

    # ------------------------------------------------------------------------------------------------------------- drain

    def test_a_drain_sends_each_at_a_moment_of_its_own_at_the_rate_of_the_others(self) -> None:
        self.leaving.drain()
        self.pass_time(6.0)
        self.assertEqual(len(self.told()), 100)
        slots = sorted(guest.slot for guest in self.guests)
        gaps = [later - earlier for earlier, later in pairwise(slots)]
        self.assertTrue(all(gap >= 1 / 20 - 0.0021 for gap in gaps), min(gaps))
        self.assertLess(slots[-1] - 1_000.0, 100 / 20 + 1)

    def test_nobody_is_told_long_before_its_slot(self) -> None:
        self.leaving.drain()
        self.pass_time(6.0)
        self.assertTrue(all(guest.slot - (guest.told_at or 0.0) <= LEAD + 1 / 20 for guest in self.guests))
        self.assertTrue(all(guest.slot > (guest.told_at or 0.0) for guest in self.guests))
        self.assertEqual({guest.code for guest in self.guests}, {Code.DRAINING})
        self.assertEqual(self.metrics.whys, ["drain"] * 100)

    def test_nobody_is_sent_where_there_is_no_room(self) -> None:
        self.hear(replace(OTHER, cap=30))
        self.leaving.drain()
        self.pass_time(20.0)
        self.assertEqual((len(self.told()), self.leaving.left), (30, 70))
        self.hear(replace(OTHER, cap=35, connections=30))
        self.hear(replace(OTHER, cap=35, connections=30))
        self.clock.advance(STEP)
        self.assertEqual(len(self.told()), 35)

    def test_without_others_all_stay_until_one_comes(self) -> None:
        self.hear()
        self.leaving.drain()
        self.pass_time(5.0)
        self.assertEqual(self.told(), [])
        self.hear(OTHER)
        self.pass_time(6.0)
        self.assertEqual(len(self.told()), 100)

    def test_who_comes_during_a_drain_is_told_too(self) -> None:
        self.leaving.drain()
        self.pass_time(6.0)
        late = Guest(self.clock)
        self.guests.append(late)
        self.pass_time(2.0)
        self.assertTrue(late.leaving)

    def test_a_drain_that_was_taken_back_tells_nobody_more_and_leaves_no_timer(self) -> None:
        self.leaving.drain()
        self.pass_time(1.0)
        before = len(self.told())
        self.leaving.cease()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.pass_time(5.0)
        self.assertEqual((len(self.told()), self.leaving.why), (before, None))

    def test_one_that_fails_is_cut_and_the_others_are_told(self) -> None:
        self.guests[3] = broken = Guest(self.clock, broken=True)
        self.leaving.drain()
        self.pass_time(6.0)
        self.assertTrue(broken.aborted)
        self.assertEqual(len(self.told()), 100)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    # -------------------------------------------------------------------------------------------------------------- move

    def test_a_move_sends_so_many_and_ends(self) -> None:
        self.leaving.shrink(93)
        self.pass_time(2.0)
        self.assertEqual((len(self.told()), self.leaving.why), (7, None))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(set(self.metrics.whys), {"rebalance"})

    def test_the_same_move_again_moves_nobody_more(self) -> None:
        self.leaving.shrink(93)
        self.pass_time(2.0)
        self.leaving.shrink(93)
        self.pass_time(2.0)
        self.leaving.shrink(200)
        self.pass_time(2.0)
        self.assertEqual(len(self.told()), 7)

    def test_a_move_that_has_no_room_for_long_is_given_up(self) -> None:
        self.hear(replace(OTHER, cap=3))
        self.leaving.shrink(93)
        self.pass_time(MOVE_TIME + 1.0)
        self.assertEqual((len(self.told()), self.leaving.left, self.leaving.why), (3, 0, None))

    def test_a_move_does_not_end_a_drain(self) -> None:
        self.leaving.drain()
        self.leaving.shrink(93)
        self.assertEqual(self.leaving.why, Why.DRAIN)

    # -------------------------------------------------------------------------------------------------------------- stop

    def test_a_stop_tells_all_evenly_in_half_of_its_time_if_the_others_are_too_slow_for_that(self) -> None:
        self.leaving.stop("stopped", 4.0)
        for second in (0.5, 1.0, 1.5):
            self.pass_time(0.5)
            self.assertLessEqual(abs(len(self.told()) - 50 * (second + STEP)), 6)
        self.pass_time(0.5)
        self.assertEqual(len(self.told()), 100)
        slots = [guest.slot for guest in self.guests]
        self.assertEqual(len({round(slot, 3) for slot in slots}), 100)
        self.assertLess(max(slots) - 1_000.0, 100 / 20 + 1)

    def test_a_stop_goes_by_the_slots_if_the_others_are_fast_enough(self) -> None:
        self.leaving.stop("stopped", 40.0)
        self.pass_time(6.0)
        self.assertEqual(len(self.told()), 100)
        self.assertTrue(all(guest.slot - (guest.told_at or 0.0) <= LEAD + 1 / 20 for guest in self.guests))

    def test_a_stop_that_is_held_up_tells_those_who_are_late_without_a_pause(self) -> None:
        self.guests += [Guest(self.clock) for _ in range(900)]
        self.leaving.stop("stopped", 4.0)
        self.assertLess(len(self.told()), 100)
        self.clock.advance(1.5)  # nothing was done meanwhile
        self.assertEqual(len(self.told()), 801)

    def test_a_stop_lets_nobody_stay_longer_than_it_lasts(self) -> None:
        self.leaving.stop("stopped", 4.0)
        self.pass_time(3.0)
        for guest in self.guests:
            self.assertAlmostEqual((guest.told_at or 0.0) + (guest.close_after or 0.0), 1_004.0)

    def test_a_stop_without_others_tells_all_at_once_to_come_back_here_one_by_one_after_a_restart(self) -> None:
        self.hear()
        self.leaving.stop("stopped", 4.0)
        self.clock.advance(0.0)
        self.assertEqual({guest.told_at for guest in self.guests}, {1_000.0})
        slots = sorted(guest.slot - 1_000.0 for guest in self.guests)
        self.assertGreaterEqual(slots[0], RESTART_PAUSE)
        self.assertAlmostEqual(slots[-1], RESTART_PAUSE + 99 / 50, places=2)

    def test_whom_the_others_have_no_room_for_comes_back_here(self) -> None:
        self.hear(replace(OTHER, cap=60))
        self.leaving.stop("stopped", 0.0)
        self.clock.advance(0.0)
        self.assertEqual(len(self.told()), 100)
        after_restart = [guest for guest in self.guests if guest.slot - 1_000.0 >= RESTART_PAUSE]
        self.assertGreaterEqual(len(after_restart), 40)

    def test_clients_of_a_process_that_is_followed_come_at_once_and_one_by_one(self) -> None:
        self.hear()
        self.leaving.stop("followed", 10.0, is_followed=True)
        self.clock.advance(0.0)
        self.assertLess(len(self.told()), 60)
        self.pass_time(3.0)
        slots = sorted(guest.slot - 1_000.0 for guest in self.guests)
        self.assertEqual(len(self.told()), 100)
        self.assertLess(slots[0], 0.1)
        self.assertAlmostEqual(slots[-1], 99 / 50, places=1)

    def test_a_stop_takes_over_from_a_drain(self) -> None:
        self.leaving.drain()
        self.pass_time(1.0)
        self.leaving.stop("stopped", 0.0)
        self.assertEqual((len(self.told()), self.leaving.why), (100, None))

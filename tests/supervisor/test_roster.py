"""The table of workers, with time as an input."""

from __future__ import annotations

import math
import signal
from signal import SIGKILL, SIGTERM

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.supervisor.roster import (
    ALIVE,
    TABLE,
    Ask,
    Avoid,
    Death,
    GiveUp,
    Happened,
    Hurry,
    Kill,
    Order,
    Over,
    Park,
    Reason,
    Restarted,
    Roster,
    Start,
    State,
    Stop,
)
from streampush.supervisor.times import SILENT_ASKS, Times

TIMES = Times()
KILLED = Death(None, SIGKILL)
REFUSED = Death(1)


def roster(number: int, random: float = 1.0) -> Roster:
    """Has begun; waits are as long as they get."""
    made = Roster(number, TIMES, lambda: random)
    made.begin(0.0)
    return made


def serving(number: int) -> Roster:
    """All workers are ready, at 1.0."""
    made = roster(number)
    made.advance(0.0)
    made.answered(1, (), 0.5)
    made.advance(0.5)
    for each in range(2, number + 1):
        made.answered(each, (), 1.0)
    made.advance(1.0)
    return made


def until(made: Roster, kind: type[Order], now: float) -> tuple[float, Order]:
    """Lets time pass to the first order of this kind; asks are answered."""
    while True:
        for order in made.advance(now):
            if isinstance(order, kind):
                return now, order
            if isinstance(order, Ask):
                made.answered(order.number, (), now)
        assert made.deadline < math.inf
        now = max(now, made.deadline)


def test_the_first_worker_is_started_alone() -> None:
    assert roster(3).advance(0.0) == (Start(1),)


def test_the_others_follow_when_the_first_has_answered() -> None:
    made = roster(3)
    made.advance(0.0)
    made.answered(1, ("probe: no probe message has arrived yet",), 1.0)
    assert made.advance(1.0) == (Start(2), Start(3))


def test_the_others_follow_when_the_first_is_killed_before_it_answers() -> None:
    made = roster(2)
    made.advance(0.0)
    made.died(1, KILLED, 1.0)
    assert made.advance(1.0) == (Start(2),)


def test_a_first_worker_that_cannot_start_ends_the_supervisor() -> None:
    made = roster(3)
    made.advance(0.0)
    assert made.died(1, REFUSED, 1.0) is None
    assert made.advance(1.0) == (GiveUp(),)
    assert made.advance(100.0) == ()


def test_a_worker_that_cannot_start_later_is_tried_again() -> None:
    made = serving(1)
    made.died(1, KILLED, 2.0)
    now, _ = until(made, Start, 2.0)
    again = made.died(1, REFUSED, now + 1)
    assert again is not None
    assert again.reason is Reason.START
    assert until(made, Start, now + 1)[1] == Start(1)


def test_a_worker_is_starting_until_it_has_been_ready_once() -> None:
    made = roster(1)
    made.advance(0.0)
    made.answered(1, ("store: away",), 1.0)
    assert made.worker(1).state is State.STARTING
    assert made.worker(1).reasons == ("store: away",)
    made.answered(1, (), 2.0)
    assert made.worker(1).state is State.READY


def test_readiness_comes_and_goes() -> None:
    made = serving(1)
    made.answered(1, ("store: away",), 2.0)
    assert made.worker(1).state is State.UNREADY
    made.answered(1, (), 3.0)
    assert made.worker(1).state is State.READY


def test_it_is_asked_again_an_interval_after_its_answer() -> None:
    made = serving(1)
    assert made.advance(0.5 + TIMES.ask_interval) == (Ask(1),)
    assert made.advance(100.0) == ()
    made.answered(1, (), 100.0)
    assert made.deadline == 100.0 + TIMES.ask_interval


@pytest.mark.parametrize(
    ("death", "reason"), [(Death(2), Reason.EXIT), (Death(1), Reason.EXIT), (Death(None, signal.SIGSEGV), Reason.SIGNAL)]
)
def test_a_worker_that_dies_is_counted_by_reason_and_started_again(death: Death, reason: Reason) -> None:
    made = serving(2)
    restarted = made.died(2, death, 10.0)
    assert restarted is not None
    assert restarted.reason is reason
    assert made.restarts[reason] == 1
    assert made.worker(2).state is State.BACKOFF
    assert until(made, Start, 10.0) == (10.0 + restarted.wait, Start(2))


@pytest.mark.parametrize("death", [Death(0), Death(None, SIGTERM), Death(None, signal.SIGINT)])
def test_a_worker_that_leaves_as_it_was_asked_to_is_followed_at_once_and_waits_are_none_the_longer(death: Death) -> None:
    made = serving(1)
    for now in (10.0, 11.0):
        assert made.died(1, death, now) == Restarted(Reason.LEFT, 0.0)
        assert made.advance(now) == (Start(1),)
        made.answered(1, (), now)
    assert made.restarts[Reason.LEFT] == 2
    assert made.died(1, KILLED, 12.0) == Restarted(Reason.SIGNAL, TIMES.first_wait)


def test_a_worker_that_is_ended_before_it_has_answered_has_not_left() -> None:
    made = roster(1)
    made.advance(0.0)
    assert made.died(1, Death(None, SIGTERM), 1.0) == Restarted(Reason.START, TIMES.first_wait)


def test_the_waits_double_up_to_the_longest() -> None:
    made, now, waits = serving(1), 10.0, []
    for _ in range(9):
        restarted = made.died(1, KILLED, now)
        assert restarted is not None
        waits.append(restarted.wait)
        now, _ = until(made, Start, now)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_a_worker_that_was_up_for_long_begins_with_the_first_wait_again() -> None:
    made, now = serving(1), 10.0
    for _ in range(4):
        made.died(1, KILLED, now)
        now, _ = until(made, Start, now)
    restarted = made.died(1, KILLED, now + TIMES.steady_after)
    assert restarted is not None
    assert restarted.wait == TIMES.first_wait


def test_a_wait_is_drawn_between_its_half_and_the_whole() -> None:
    made = roster(1, random=0.0)
    made.advance(0.0)
    restarted = made.died(1, KILLED, 0.1)
    assert restarted is not None
    assert restarted.wait == TIMES.first_wait / 2


def test_who_will_not_be_back_soon_is_parked_if_there_are_others() -> None:
    made, now = serving(2), 10.0
    orders: list[Order] = []
    for _ in range(4):
        made.died(2, KILLED, now)
        orders += [order for order in made.advance(now) if isinstance(order, Park)]
        now, _ = until(made, Start, now)
    assert orders == [Park(2)]  # behind the fourth death only: 4 s


def test_the_only_worker_is_never_parked() -> None:
    made, now = serving(1), 10.0
    for _ in range(6):
        made.died(1, KILLED, now)
        assert made.advance(now) == ()
        now, _ = until(made, Start, now)


def test_a_worker_that_is_silent_for_several_questions_is_ended_then_killed() -> None:
    made, now = serving(1), 2.0
    for _ in range(SILENT_ASKS):
        now = max(now, made.deadline)
        assert made.advance(now) == (Ask(1),)
        now += TIMES.ask_deadline
        made.unanswered(1, now)
    assert made.worker(1).state is State.HUNG
    assert made.advance(now) == (Kill(1, SIGTERM),)
    assert made.advance(now + TIMES.end_deadline) == (Kill(1, SIGKILL),)
    restarted = made.died(1, KILLED, now + TIMES.end_deadline)
    assert restarted is not None
    assert restarted.reason is Reason.HUNG


def test_an_answer_in_between_makes_the_silence_begin_anew() -> None:
    made = serving(1)
    for now in (2.0, 10.0):
        for _ in range(SILENT_ASKS - 1):
            made.unanswered(1, now)
        made.answered(1, (), now)
    assert made.worker(1).state is State.READY


def test_a_new_process_has_longer_for_its_first_answer() -> None:
    made = roster(1)
    made.advance(0.0)
    for now in range(1, int(TIMES.start_deadline)):
        made.unanswered(1, float(now))
    assert made.worker(1).state is State.STARTING
    made.unanswered(1, TIMES.start_deadline)
    assert made.worker(1).state is State.HUNG


def test_a_stop_tells_all_at_once_and_is_over_when_all_are_gone() -> None:
    made = serving(2)
    made.stop(5.0)
    assert made.advance(5.0) == (Stop(1, early=False), Stop(2, early=False))
    assert made.died(1, Death(0), 6.0) is None
    assert made.advance(6.0) == ()
    made.died(2, Death(0), 7.0)
    assert made.advance(7.0) == (Over(),)
    assert made.advance(8.0) == ()
    assert sum(made.restarts.values()) == 0


def test_who_has_no_process_at_a_stop_is_gone_and_never_started() -> None:
    made = serving(2)
    made.died(2, KILLED, 2.0)
    made.stop(2.1)
    assert made.worker(2).state is State.GONE
    made.died(1, Death(0), 3.0)
    assert made.advance(1000.0)[-1] == Over()
    assert made.deadline == math.inf


def test_a_worker_that_has_not_answered_yet_is_stopped_as_such() -> None:
    made = roster(1)
    made.advance(0.0)
    made.stop(0.5)
    assert made.advance(0.5) == (Stop(1, early=True),)


def test_who_does_not_drain_in_time_is_killed() -> None:
    made = serving(1)
    made.stop(5.0)
    made.advance(5.0)
    assert made.deadline == 5.0 + TIMES.stop_deadline
    assert made.advance(made.deadline) == (Kill(1, SIGKILL),)


def test_a_hurry_is_passed_on_and_brings_the_kill_forward() -> None:
    made = serving(1)
    made.stop(5.0)
    made.advance(5.0)
    made.hurry(6.0)
    assert made.advance(6.0) == (Hurry(1),)
    assert made.deadline == 6.0 + TIMES.hurry_deadline


def test_a_worker_that_hangs_at_a_stop_is_killed_as_soon_as_without_it() -> None:
    made = serving(1)
    for _ in range(SILENT_ASKS):
        made.unanswered(1, 5.0)
    made.advance(5.0)
    made.stop(5.5)
    assert made.advance(5.5) == ()
    assert made.advance(5.0 + TIMES.end_deadline) == (Kill(1, SIGKILL),)


@pytest.mark.parametrize("state", [State.HUNG, State.DRAINING, State.BACKOFF])
def test_an_answer_that_comes_too_late_changes_nothing(state: State) -> None:
    made = serving(1)
    made.worker(1).state = state
    made.answered(1, (), 2.0)
    made.unanswered(1, 2.0)
    assert made.worker(1).state is state


def test_who_has_a_process_may_die_and_who_has_none_may_not() -> None:
    assert {state for state, happened in TABLE if happened is Happened.DIED} == set(ALIVE)


def test_a_death_says_how() -> None:
    assert [str(Death(3)), str(KILLED), str(Death(None, 77))] == ["exit status 3", "SIGKILL", "signal 77"]


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(("wait", "ready", "red", "silent", "die", "refuse", "stop", "hurry")), st.integers(1, 3), st.floats(0, 40)
    ),
    max_size=60,
)


@given(ACTIONS)
def test_whatever_happens_a_worker_has_one_process_and_a_stop_ends_all(actions: list[tuple[str, int, float]]) -> None:
    made, now = roster(3, random=0.0), 0.0
    processes: set[int] = set()
    starts = 0
    ended = False

    def obey() -> None:
        nonlocal ended, starts
        for order in made.advance(now):
            assert not ended
            if isinstance(order, Start):
                assert order.number not in processes
                assert not made.stopping
                processes.add(order.number)
                starts += 1
            elif isinstance(order, GiveUp | Over):
                assert not processes
                ended = True
            else:
                assert order.number in processes or isinstance(order, Park)

    for action, number, seconds in actions:
        now += seconds
        obey()
        if action == "ready":
            made.answered(number, (), now)
        elif action == "red":
            made.answered(number, ("store: away",), now)
        elif action == "silent":
            made.unanswered(number, now)
        elif action in ("die", "refuse") and number in processes:
            processes.discard(number)
            made.died(number, REFUSED if action == "refuse" else KILLED, now)
        elif action == "stop":
            made.stop(now)
        elif action == "hurry":
            made.hurry(now)
        obey()
        assert {worker.number for worker in made.workers if worker.state in ALIVE} == processes
    assert starts <= 3 * (1 + now / (TIMES.first_wait / 2))  # never a spin
    if not ended:
        made.stop(now)
        obey()
        for number in tuple(processes):
            processes.discard(number)
            made.died(number, Death(0), now)
        obey()
        assert ended


LEAVING = ("draining: another process takes over",)


def avoided(made: Roster, now: float) -> list[frozenset[int]]:
    return [order.numbers for order in made.advance(now) if isinstance(order, Avoid)]


def test_a_worker_that_leaves_is_avoided_until_the_next_one_is_ready() -> None:
    made = serving(3)
    made.answered(2, LEAVING, 2.0)
    assert avoided(made, 2.0) == [frozenset({2})]
    made.answered(2, LEAVING, 2.1)
    assert avoided(made, 2.1) == []
    made.died(2, Death(None, SIGTERM), 3.0)
    assert Start(2) in made.advance(3.0)
    made.answered(2, (), 4.0)
    assert avoided(made, 4.0) == [frozenset()]


def test_a_worker_that_is_drained_and_serves_again_is_avoided_meanwhile() -> None:
    made = serving(2)
    made.answered(1, ("probe: late", "draining: this node is being drained"), 2.0)
    assert avoided(made, 2.0) == [frozenset({1})]
    made.answered(1, (), 3.0)
    assert avoided(made, 3.0) == [frozenset()]


def test_workers_that_are_not_ready_for_another_reason_are_not_avoided() -> None:
    made = serving(2)
    made.answered(1, ("store: Redis is away",), 2.0)
    assert avoided(made, 2.0) == []


def test_where_all_leave_none_is_avoided() -> None:
    made = serving(2)
    made.answered(1, LEAVING, 2.0)
    made.answered(2, LEAVING, 2.0)
    assert avoided(made, 2.0) == []
    made.answered(2, (), 3.0)
    assert avoided(made, 3.0) == [frozenset({1})]


def test_a_worker_that_leaves_may_be_too_busy_to_answer_for_as_long_as_a_stop_may_take() -> None:
    made = serving(2)
    made.answered(2, LEAVING, 2.0)
    for second in range(3, int(TIMES.stop_deadline) + 2):
        made.unanswered(2, float(second))
    assert made.worker(2).state is State.UNREADY
    for second in range(SILENT_ASKS):
        made.unanswered(2, TIMES.stop_deadline + 2.0 + second)
    assert made.worker(2).state is State.HUNG


def test_the_process_behind_one_that_left_is_found_when_it_hangs() -> None:
    made = serving(2)
    made.answered(2, LEAVING, 2.0)
    made.died(2, Death(None, SIGTERM), 3.0)
    made.advance(3.0)
    made.unanswered(2, 3.0 + TIMES.start_deadline)
    assert made.worker(2).state is State.HUNG

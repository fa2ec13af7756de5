"""The time that messages go by: it follows the system's clock slowly, and time since boot exactly."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.push.steady import NANOSECONDS, SteadyClock

DAY = 86_400.0


class Machine:
    """A machine whose wall clock can be set."""

    def __init__(self) -> None:
        self.boot = 5_000.0
        self.set_by = 1_800_000_000.0  # wall time at boot
        self.steady = SteadyClock(self.system_ns, self.boot_ns)

    def boot_ns(self) -> int:
        return round(self.boot * NANOSECONDS)

    def system_ns(self) -> int:
        return round((self.boot + self.set_by) * NANOSECONDS)

    def wall(self) -> float:
        return self.steady.wall_ms() / 1000


def test_it_begins_with_the_systems_clock() -> None:
    machine = Machine()
    assert machine.wall() == 1_800_005_000.0
    assert machine.steady.deviation() == 0.0


def test_readings_of_one_millisecond_look_at_the_systems_clock_once() -> None:
    machine = Machine()
    looks = []

    def system_ns() -> int:
        looks.append(machine.boot)
        return machine.system_ns()

    steady = SteadyClock(system_ns, machine.boot_ns)
    looks.clear()
    machine.boot += 0.002
    times = []
    for _ in range(9):
        machine.boot += 0.00012
        times.append(steady.wall_ms())
    assert len(looks) == 1
    assert times[-1] - times[0] == 1
    assert times == sorted(times)


def test_it_goes_on_with_the_time_since_boot() -> None:
    machine = Machine()
    before = machine.wall()
    machine.boot += 12.5
    assert machine.wall() - before == 12.5


@pytest.mark.parametrize("jump", [DAY, -DAY, 3_600.0, -1.5])
def test_a_jump_of_the_systems_clock_is_worn_off_by_at_most_one_percent(jump: float) -> None:
    machine = Machine()
    before = machine.wall()
    machine.set_by += jump
    assert machine.wall() == before
    for _ in range(100):
        machine.boot += 0.01
        machine.wall()
    correction = machine.wall() - before - 1.0
    assert correction == pytest.approx(0.01 if jump > 0 else -0.01, abs=0.001)


def test_a_small_difference_is_gone_in_a_hundred_times_its_length() -> None:
    machine = Machine()
    machine.set_by += 0.25
    machine.boot += 24.0
    assert machine.steady.deviation() == pytest.approx(0.01, abs=1e-6)
    machine.boot += 1.0
    assert machine.steady.deviation() == pytest.approx(0.0, abs=1e-6)
    assert machine.wall() == pytest.approx(1_800_005_025.25, abs=0.001)


def test_a_machine_that_was_suspended_has_slept_for_that_long() -> None:
    machine = Machine()
    before = machine.wall()
    machine.boot += 8 * 3_600.0
    assert machine.wall() - before == 8 * 3_600.0
    assert machine.steady.stepped() == 0.0


def test_a_jump_is_told_once_with_its_size() -> None:
    machine = Machine()
    machine.boot += 1.0
    assert machine.steady.stepped() == 0.0
    machine.set_by -= DAY
    machine.boot += 1.0
    assert machine.steady.stepped() == -DAY
    machine.boot += 1.0
    assert machine.steady.stepped() == 0.0
    assert machine.steady.deviation() == pytest.approx(-DAY, abs=0.1)


def test_the_slow_correction_of_ntp_is_no_jump() -> None:
    machine = Machine()
    for _ in range(10):
        machine.boot += 3_600.0
        machine.set_by += 1.8  # 500 parts in a million
        assert machine.steady.stepped() == 0.0


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.floats(-2 * DAY, 2 * DAY)), max_size=30))
def test_it_never_goes_back_and_never_faster_than_a_hundredth_off(course: list[tuple[float, float]]) -> None:
    machine = Machine()
    seen = [(machine.boot, machine.steady.wall_ms())]
    for passed, jump in course:
        machine.boot += passed
        machine.set_by += jump
        seen.append((machine.boot, machine.steady.wall_ms()))
    for (boot, wall), (next_boot, next_wall) in pairwise(seen):
        passed_ms = (next_boot - boot) * 1000
        assert next_wall - wall >= 0
        assert abs(next_wall - wall - passed_ms) <= passed_ms / 100 + 1.001

"""A short round of the simulation; `make simulate` runs the long one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.__main__ import run_block
from tests.simulation.phone import Phone
from tests.simulation.scenario import EXPECTED, RARE, Scenario, simulate

SEEDS = 200

ROOT = Path(__file__).resolve().parents[2]

TRACES = """
import hashlib
from tests.simulation.scenario import Scenario
for seed in range(6):
    scenario = Scenario(seed, tracing=True)
    scenario.run()
    print(seed, len(scenario.lines), hashlib.sha256("\\n".join(scenario.lines).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def short_round() -> tuple[list[tuple[int, str]], Counter[str]]:
    """The failures of the first seeds, and how often what has happened."""
    return run_block(range(SEEDS))


def test_every_invariant_holds_whatever_happens(short_round: tuple[list[tuple[int, str]], Counter[str]]) -> None:
    failures, _ = short_round
    assert not failures, "\n".join(f"make simulate SEED={seed}\n{problem}" for seed, problem in failures)


def test_everything_that_the_simulation_is_about_happens(short_round: tuple[list[tuple[int, str]], Counter[str]]) -> None:
    _, seen = short_round
    assert not EXPECTED - RARE - seen.keys()


def test_a_seed_gives_the_same_course_in_every_process() -> None:
    courses = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", TRACES], env=environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
        )
        courses.append(done.stdout)
    assert courses[0] == courses[1]
    assert len(courses[0].splitlines()) == 6


@pytest.mark.usefixtures("collected")
def test_devices_that_always_forget_their_positions_break_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kill = Phone.kill
    monkeypatch.setattr(Phone, "kill", lambda self, *, silently, forgetting=False: kill(self, silently=silently, forgetting=True))
    for seed in range(20, 40):  # in 28 a greeting that nobody gets stores a place behind a backup
        simulate(seed)


@pytest.mark.usefixtures("collected")
def test_a_failing_seed_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scenario, "check_presence", lambda self: self.broken("I6", "on purpose"))
    with pytest.raises(AssertionError, match="on purpose") as caught:
        simulate(5)
    assert caught.value.__notes__ == ["replay it with: make simulate SEED=5"]

"""A short round of the simulation; `make simulate` runs the long one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.scenario import Scenario, simulate

ROOT = Path(__file__).resolve().parents[2]

TRACES = """
import hashlib
from tests.simulation.scenario import Scenario
for seed in range(6):
    scenario = Scenario(seed, tracing=True)
    scenario.run()
    print(seed, len(scenario.lines), hashlib.sha256("\\n".join(scenario.lines).encode()).hexdigest())
"""


@pytest.mark.parametrize("block", range(10))
def test_every_invariant_holds_whatever_happens(block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):
        simulate(seed)


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


def test_scenarios_are_about_something() -> None:
    """Over a few seeds messages are acknowledged and given to applications, and faults of every kind happen."""
    about = (
        "acknowledged:",
        "is given",
        "is cut",
        "goes dead",
        "server dies",
        "server drains",
        "disk is full",
        "put back",
        "forgets",
    )
    words = dict.fromkeys(about, 0)
    for seed in range(40):
        scenario = Scenario(seed, tracing=True)
        scenario.run()
        for word in words:
            words[word] += sum(word in line for line in scenario.lines)
    assert all(words.values()), words


def test_a_failing_seed_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scenario, "check_presence", lambda self: self.broken("I6", "on purpose"))
    with pytest.raises(AssertionError, match="on purpose") as caught:
        simulate(5)
    assert caught.value.__notes__ == ["replay it with: make simulate SEED=5"]

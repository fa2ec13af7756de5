"""Whatever happens in whatever order: each request ends once, and what was acted on is never said to be safe to send again."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.apns.http2.world import World


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 60))
def test_each_request_ends_once_and_its_verdict_is_true(random: Random, steps: int) -> None:
    world = World(random)
    world.run(steps)
    world.finish()


@pytest.mark.parametrize("seed", range(60))
def test_that_holds_in_long_conversations(seed: int) -> None:
    world = World(Random(seed))
    world.run(400)
    world.finish()

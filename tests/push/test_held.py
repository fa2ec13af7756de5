"""What waits for a key or certificate goes out when that is mended, and not minutes later."""

from __future__ import annotations

import pytest

from streampush.push import held
from streampush.push.values import PushAnswer, PushOutcome
from tests.push.fallback_world import TAKEN, FakeSender, FallbackWorld
from tests.push.test_pushing import slow

HELD = PushAnswer(PushOutcome.NOT_SENT, "credential stopped", again_in=300.0, held=True)


def waiting(devices: int = 1) -> FallbackWorld:
    """A world with that many pushes that wait for a person."""
    world = FallbackWorld(sender=FakeSender(HELD))
    for number in range(devices):
        world.known(f"d{number}", "alice")
    world.alert("user:alice" if devices > 1 else "device:d0")
    world.advance(1.0)
    assert len(world.sender.orders) == devices
    return world


def mend(world: FallbackWorld) -> None:
    world.sender.orders.clear()
    world.sender.usual = TAKEN
    world.sender.mended()
    world.advance(0.0)


@pytest.mark.parametrize("devices", [1, 3])
def test_what_was_held_is_tried_at_once_when_it_is_mended(devices: int) -> None:
    world = waiting(devices)
    mend(world)
    assert len(world.sender.orders) == devices
    assert world.work() == 0


def test_unless_it_is_mended_it_waits_for_its_time() -> None:
    world = waiting()
    world.sender.usual = TAKEN
    world.advance(298.0)
    assert len(world.sender.orders) == 1
    world.advance(2.0)
    assert len(world.sender.orders) == 2


def test_other_waits_are_not_cut_short() -> None:
    world = FallbackWorld(sender=FakeSender(PushAnswer(PushOutcome.REJECTED, "ServiceUnavailable", "id", again_in=60.0)))
    world.known("phone")
    world.alert("device:phone")
    mend(world)
    world.advance(58.0)
    assert world.sender.orders == []
    world.advance(2.0)
    assert len(world.sender.orders) == 1


def test_what_is_refused_again_is_held_again() -> None:
    world = waiting()
    world.sender.mended()
    world.advance(0.0)
    assert len(world.sender.orders) == 2
    mend(world)
    assert len(world.sender.orders) == 1
    assert world.work() == 0


def test_what_was_mended_before_the_store_knew_of_the_wait_is_tried_at_once() -> None:
    world = FallbackWorld(sender=FakeSender(HELD, slow=True))
    world.known("d0")
    world.alert("device:d0")
    world.sender.slow = False
    world.sender.usual = TAKEN
    world.sender.waiting.popleft().callback(HELD)
    world.sender.mended()
    world.advance(0.0)
    assert len(world.sender.orders) == 2
    assert world.work() == 0


def test_a_store_that_is_away_is_asked_again() -> None:
    world, store = slow(FakeSender(HELD), "outbox_hasten")
    world.known("d0")
    world.alert("device:d0")
    world.advance(1.0)
    mend(world)
    store.fail("outbox_hasten")
    world.pause()
    store.finish("outbox_hasten")
    world.advance(0.0)
    assert len(world.sender.orders) == 1
    assert world.work() == 0


def test_above_the_limit_the_oldest_wait_for_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "MAX_HELD", 2)
    world = waiting(3)
    mend(world)
    assert len(world.sender.orders) == 2
    world.advance(300.0)
    assert len(world.sender.orders) == 3
    assert world.work() == 0


def test_many_are_hastened_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "BATCH", 2)
    world = waiting(5)
    mend(world)
    assert len(world.sender.orders) == 5

"""Pushes that wait with the sender are taken back when the device, or a backend, has made them unwanted."""

from __future__ import annotations

from streampush.push.devices import DeviceChange
from streampush.push.values import PushToken
from tests.push.fallback_world import TAKEN, FakeSender, FallbackWorld
from tests.push.world import PUBLISHER


def waiting_world(*, written: bool = False) -> FallbackWorld:
    """The sender has no connection, or else has written what waits for its answer."""
    return FallbackWorld(sender=FakeSender(slow=True, writes=written))


def test_a_push_whose_message_is_acknowledged_meanwhile_is_not_sent() -> None:
    world = waiting_world()
    world.known("phone-1")
    published = world.alert("device:phone-1")
    attachment, _ = world.online("phone-1")
    world.acknowledge(attachment, "device:phone-1", published.offset)
    world.advance(0.1)
    assert world.outcome(published, "phone-1") == ("cancelled", "acknowledged")
    assert (len(world.sender.orders), len(world.sender.waiting), world.work()) == (1, 0, 0)


def test_an_acknowledgement_of_an_earlier_message_leaves_it_there() -> None:
    world = waiting_world()
    world.known("phone-1")
    earlier = world.alert("device:phone-1")
    world.alert("device:phone-1")
    attachment, _ = world.online("phone-1")
    world.acknowledge(attachment, "device:phone-1", earlier.offset)
    world.advance(0.1)
    assert [order.message_id == earlier.message_id for order in world.sender.orders] == [True, False]
    assert len(world.sender.waiting) == 1


def test_a_push_whose_message_is_recalled_meanwhile_is_not_sent() -> None:
    world = waiting_world()
    for device_id in ("phone-1", "tablet-1"):
        world.known(device_id, "alice")
    published, other = world.alert("user:alice"), world.alert("device:phone-1")
    assert len(world.sender.waiting) == 3
    world.run(world.service.recall(PUBLISHER, published.message_id))
    world.advance(0.1)
    assert world.outcome(published, "phone-1") == world.outcome(published, "tablet-1") == ("cancelled", "recalled")
    assert len(world.sender.waiting) == 1
    world.sender.waiting.popleft().callback(TAKEN)
    world.advance(0.1)
    assert world.outcome(other, "phone-1")[0] == "delivered"


def test_a_push_goes_to_the_token_that_was_registered_meanwhile() -> None:
    world = waiting_world()
    world.known("phone-1")
    published = world.alert("device:phone-1")
    world.sender.slow = False
    world.run(world.service.devices.register_token("phone-1", PushToken(b"new", "app", sandbox=False)))
    world.advance(0.1)
    assert [order.token.token for order in world.sender.orders] == [b"tokenphone-1", b"new"]
    assert world.outcome(published, "phone-1")[0] == "delivered"


def test_a_push_to_a_device_that_is_forgotten_meanwhile_is_not_sent() -> None:
    world = waiting_world()
    world.known("phone-1")
    world.alert("device:phone-1")
    world.run(world.service.devices.forget("phone-1"))
    world.advance(0.1)
    assert (len(world.sender.orders), len(world.sender.waiting), world.work()) == (1, 0, 0)


def test_a_push_of_a_users_message_to_a_device_that_is_somebody_elses_meanwhile_is_not_sent() -> None:
    world = waiting_world()
    world.known("phone-1", "alice")
    published = world.alert("user:alice")
    world.run(world.service.devices.change("phone-1", DeviceChange(user_id="bob")))
    world.advance(0.1)
    assert world.outcome(published, "phone-1") == ("cancelled", "left")
    assert (len(world.sender.orders), len(world.sender.waiting)) == (1, 0)


def test_what_is_written_is_waited_for() -> None:
    world = waiting_world(written=True)
    world.known("phone-1")
    published = world.alert("device:phone-1")
    world.run(world.service.recall(PUBLISHER, published.message_id))
    world.advance(0.1)
    assert len(world.sender.waiting) == 1
    world.sender.waiting.popleft().callback(TAKEN)
    world.advance(0.1)
    assert world.outcome(published, "phone-1")[0] == "delivered"

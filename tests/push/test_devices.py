"""Devices as backends make, change and forget them, and whom they belong to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streampush.config import StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Advice, Code
from streampush.protocol.terms import Outcome
from streampush.push.devices import MAX_ATTRIBUTE_BYTES, MAX_ATTRIBUTE_NAME_BYTES, MAX_ATTRIBUTES, DeviceChange
from streampush.push.values import DeviceRecord, PushToken
from tests.push.slow_world import slow_world
from tests.push.world import World, device, refuses

TOKEN = PushToken(b"secret", "org.example", False)


def change(world: World, device_id: str = "d", **wanted: Any) -> bool:
    made = world.run(world.service.devices.change(device_id, DeviceChange(**wanted)))
    world.settle()
    return made


def record(world: World, device_id: str = "d") -> DeviceRecord:
    found = world.run(world.memory.device(device_id))
    assert found is not None
    return found


def refusal(world: World, device_id: str = "d", **wanted: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        world.run(world.service.devices.change(device_id, DeviceChange(**wanted)))
    return caught.value


# --------------------------------------------------------------------------------------------------------- made and changed


def test_device_that_never_connected_is_made_and_gets_what_was_published_before_it_came() -> None:
    world = World()
    assert change(world, user_id="ada", attributes={"model": "x"})
    world.publish("device:d")
    world.publish("user:ada")
    _, link = world.connected(device("d"))
    world.settle()
    assert (link.offsets("device:d"), link.offsets("user:ada")) == ([1], [1])


def test_user_channel_begins_with_what_is_published_after_the_binding() -> None:
    world = World()
    change(world, "other", user_id="ada")
    world.publish("user:ada")
    change(world, user_id="ada")
    world.publish("user:ada")
    rows = {row.channel: row.waiting for row in world.run(world.service.backlog.channels("d"))}
    assert rows["user:ada"] == 1


def test_what_is_left_out_stays_as_it_is() -> None:
    world = World()
    change(world, user_id="ada", attributes={"model": "x"})
    world.run(world.service.devices.register_token("d", TOKEN))
    assert not change(world, attributes={"model": "y", "cohort": "7"})
    assert not change(world)
    found = record(world)
    token = replace(TOKEN, registered_at_ms=world.wall_ms())
    assert (found.user_id, dict(found.attributes), found.push_token) == ("ada", {"model": "y", "cohort": "7"}, token)


def test_a_token_is_registered_as_of_now_also_when_it_is_registered_again() -> None:
    world = World()
    change(world)
    world.run(world.service.devices.register_token("d", TOKEN))
    world.now += 5
    world.run(world.service.devices.register_token("d", TOKEN))
    assert record(world).push_token == replace(TOKEN, registered_at_ms=world.wall_ms())


def test_a_token_that_is_no_longer_good_is_dropped_unless_it_was_registered_again() -> None:
    world = World()
    change(world)
    world.run(world.service.devices.register_token("d", TOKEN))
    registered_at_ms = world.wall_ms()
    assert not world.run(world.service.devices.drop_token("d", TOKEN.token, registered_at_ms - 1))
    assert world.run(world.service.devices.drop_token("d", TOKEN.token, registered_at_ms))
    assert record(world).push_token is None


def test_a_dead_token_is_dropped_from_whatever_device_has_it_unless_it_was_registered_again() -> None:
    world = World()
    change(world)
    world.run(world.service.devices.register_token("d", TOKEN))
    registered_at_ms = world.wall_ms()
    assert not world.run(world.service.devices.drop_dead(TOKEN, registered_at_ms - 1))
    assert not world.run(world.service.devices.drop_dead(replace(TOKEN, token=b"other"), registered_at_ms))
    assert world.run(world.service.devices.drop_dead(TOKEN, registered_at_ms))
    assert record(world).push_token is None


@pytest.mark.parametrize("other", [{"topic": "other.topic"}, {"sandbox": not TOKEN.sandbox}])
def test_what_is_said_of_a_token_for_another_topic_or_environment_says_nothing_of_the_devices_own(other: dict[str, Any]) -> None:
    world = World()
    change(world)
    world.run(world.service.devices.register_token("d", TOKEN))
    assert not world.run(world.service.devices.drop_dead(replace(TOKEN, **other), world.wall_ms()))
    assert record(world).push_token is not None


def test_a_token_that_is_dropped_while_the_record_changes_does_not_come_back() -> None:
    world, store = slow_world()
    token = replace(TOKEN, registered_at_ms=1)
    world.run(world.memory.remember_device(DeviceRecord("d", push_token=token)))
    world.spawn(_ignore(world.service.devices.remember(device("d", "ada"))))
    world.spawn(_ignore(world.service.devices.drop_token("d", TOKEN.token, 1)))
    while store.calls:
        store.calls.pop().finish()  # the newest first
    assert record(world).push_token is None
    assert world.failures == []


def test_times_say_when_a_device_became_known_and_that_it_never_connected() -> None:
    world = World()
    change(world)
    world.now += 5
    change(world)
    assert (record(world).first_seen_ms, record(world).last_seen_ms) == (1_000_000, 0)


def test_binding_is_taken_back() -> None:
    world = World()
    change(world, user_id="ada")
    change(world, user_id="")
    assert record(world).user_id == ""
    assert [row.channel for row in world.run(world.service.backlog.channels("d"))] == ["device:d"]


@pytest.mark.parametrize("name", ["", "a" * 129, "a b", "a/b", "ä", "a\n", "$x", "a:b", "a*"])
def test_ids_that_no_certificate_can_have_are_refused(name: str) -> None:
    world = World()
    assert refusal(world, name).code is Code.SERIALIZATION_ERROR
    if name:
        assert refusal(world, user_id=name).code is Code.SERIALIZATION_ERROR
    assert world.run(world.memory.device("d")) is None


@pytest.mark.parametrize(
    "attributes",
    [
        {str(number): "" for number in range(MAX_ATTRIBUTES + 1)},
        {"": "x"},
        {"ü" * (MAX_ATTRIBUTE_NAME_BYTES // 2) + "x": "x"},
        {"x": "ü" * (MAX_ATTRIBUTE_BYTES // 2) + "x"},
    ],
    ids=["too many", "empty name", "long name", "long value"],
)
def test_attributes_above_their_limits_are_refused(attributes: dict[str, str]) -> None:
    assert refusal(World(), attributes=attributes).code is Code.SERIALIZATION_ERROR


def test_attributes_at_their_limits_are_taken() -> None:
    world = World()
    attributes = {f"{number:0{MAX_ATTRIBUTE_NAME_BYTES}}": "x" * MAX_ATTRIBUTE_BYTES for number in range(MAX_ATTRIBUTES)}
    change(world, attributes=attributes)
    assert dict(record(world).attributes) == attributes


def test_store_that_is_full_of_devices_takes_no_more() -> None:
    world = World(limits=StoreConfig(max_devices=1))
    change(world, "one")
    assert refusal(world, "two").code is Code.QUOTA_EXCEEDED
    assert not change(world, "one", user_id="ada")


# -------------------------------------------------------------------------------------------------------- whose it is


def test_user_in_the_certificate_wins_at_every_connect() -> None:
    world = World()
    change(world, user_id="ada")
    attachment, _ = world.attach(device("d", "bob"))
    assert (attachment.principal.user_id, record(world).user_id) == ("bob", "bob")


def test_stored_user_counts_if_the_certificate_names_none() -> None:
    world = World()
    change(world, user_id="ada")
    attachment, _ = world.attach(device("d"))
    results = world.run(world.service.resume(attachment, []))
    assert [result.channel for result in results] == ["device:d", "user:ada"]
    world.settle()
    assert world.run(world.memory.session("d")).user_id == "ada"  # type: ignore[union-attr]  # it is present


def connected(world: World, user_id: str = "") -> tuple[Any, Any]:
    attachment, link = world.connected(device("d", user_id))
    world.settle()
    return attachment, link


def test_connected_device_follows_its_new_user_at_once_and_the_old_one_no_more() -> None:
    world = World()
    change(world, "other", user_id="bob")
    change(world, user_id="ada")
    attachment, link = connected(world)
    world.publish("user:bob")
    change(world, user_id="bob")
    world.run(world.memory.remember_device(DeviceRecord("another", "ada")))
    world.publish("user:ada")
    world.publish("user:bob")
    world.settle()
    assert (link.offsets("user:ada"), link.offsets("user:bob")) == ([], [2])
    told = [event[1] for event in link.events if event[0] == "repositioned"]
    assert (told[0].channel, told[0].code) == ("user:ada", Code.NOT_SUBSCRIBED)
    assert [(found.channel, found.offset) for found in told[1:]] == [("user:bob", 1)]
    assert attachment.principal.user_id == "bob"
    assert "user:ada" not in world.run(world.memory.cursors("d"))


def test_presence_follows_the_binding_of_a_connected_device() -> None:
    world = World()
    change(world, user_id="ada")
    connected(world)
    change(world, user_id="bob")
    assert [session.device_id for session in world.run(world.service.devices.user_presence("bob", 9))] == ["d"]
    assert world.run(world.service.devices.channel_presence("user:bob", 9)).device_ids == ("d",)
    assert world.run(world.service.devices.channel_presence("user:ada", 9)).device_ids == ()


def test_connected_device_that_is_unbound_follows_no_user() -> None:
    world = World()
    change(world, user_id="ada")
    attachment, _ = connected(world)
    change(world, user_id="")
    assert set(attachment.feeds) == {"device:d"}


def test_binding_against_the_certificate_of_the_connection_is_refused() -> None:
    world = World()
    attachment, _ = connected(world, "ada")
    assert refusal(world, user_id="bob").code is Code.FORBIDDEN
    assert refusal(world, user_id="").code is Code.FORBIDDEN
    assert (record(world).user_id, attachment.principal.user_id) == ("ada", "ada")
    assert not change(world, attributes={"a": "b"})


def test_device_whose_certificate_names_another_user_leaves_the_old_one() -> None:
    world = World()
    change(world, "other", user_id="ada")
    attachment, _ = connected(world, "ada")
    world.service.detach(attachment, 0, "")
    world.settle()
    connected(world, "bob")
    world.publish("user:ada")
    cursors = world.run(world.memory.cursors("d"))
    assert set(cursors) == {"device:d", "user:bob"}


def test_changes_of_one_device_at_the_same_time_do_not_undo_each_other() -> None:
    world, store = slow_world()
    world.run(world.memory.remember_device(DeviceRecord("d")))
    world.spawn(world.service.devices.register_token("d", TOKEN))
    world.spawn(_ignore(world.service.devices.change("d", DeviceChange(attributes={"a": "b"}))))
    world.spawn(_ignore(world.service.devices.remember(device("d", "ada"))))
    while store.calls:
        store.calls.pop().finish()  # the newest first
    found = record(world)
    assert found.push_token is not None
    assert (found.push_token.token, dict(found.attributes), found.user_id) == (TOKEN.token, {"a": "b"}, "ada")
    assert world.failures == []


async def _ignore(work: Any) -> None:
    await work


# ------------------------------------------------------------------------------------------------------------- forgotten


def test_forgotten_device_is_unknown_and_leaves_nothing_behind() -> None:
    world = World()
    attachment, link = connected(world, "ada")
    world.subscribe(attachment, "news")
    world.run(world.memory.add_subscription("d", "news", 1, 10))
    assert world.run(world.service.devices.forget("d"))
    assert link.closed is not None
    assert link.closed[0] is Code.CONNECTION_TIMED_OUT
    world.service.detach(attachment, int(link.closed[0]), link.closed[1])
    world.settle()
    assert world.run(world.memory.device("d")) is None
    assert world.run(world.memory.subscriptions("d")) == ()
    assert world.run(world.memory.session("d")) is None
    assert not world.run(world.service.devices.forget("d"))


def test_acknowledgements_that_are_not_stored_yet_do_not_bring_a_forgotten_device_back() -> None:
    world = World()
    attachment, _ = connected(world)
    world.publish("device:d")
    world.settle()
    attachment.acknowledge("device:d", 1, Outcome.DELIVERED)
    world.service.detach(attachment, 0, "")
    world.run(world.service.devices.forget("d"))
    world.settle()
    assert world.run(world.memory.cursors("d")) == {}


def test_device_that_comes_back_after_it_was_forgotten_is_a_new_one() -> None:
    world = World()
    change(world, user_id="ada", attributes={"a": "b"})
    world.run(world.service.devices.forget("d"))
    world.now += 1
    world.attach(device("d"))
    assert (record(world).user_id, dict(record(world).attributes), record(world).first_seen_ms) == ("", {}, 1_001_000)


# ----------------------------------------------------------------------------------------------------------- questions


def test_description_has_what_the_record_has() -> None:
    world = World()
    change(world, user_id="ada", attributes={"a": "b"})
    attachment, _ = connected(world)
    world.now += 1
    world.service.detach(attachment, 2001, "heartbeat lost")
    for _ in range(2):  # before the store knows, and after
        status = world.run(world.service.describe_device("d"))
        assert (status.last_close_code, status.last_close_advice, status.last_close_at_ms) == (2001, Advice.RECONNECT, 1_001_000)
        world.settle()
    assert (status.user_id, dict(status.attributes), status.first_seen_ms) == ("ada", {"a": "b"}, 1_000_000)


def test_presence_of_a_user_whose_devices_are_away_is_empty_and_of_nobody_unknown() -> None:
    world = World()
    change(world, user_id="ada")
    assert world.run(world.service.devices.user_presence("ada", 9)) == ()
    with refuses(Code.UNKNOWN_RECIPIENT):
        world.run(world.service.devices.user_presence("nobody", 9))


def test_channel_tells_how_many_follow_it_and_who() -> None:
    world = World()
    for name in ("c", "a", "b"):
        world.follower(name, "news")
    found = world.run(world.service.devices.channel_presence("news", 2))
    assert (found.devices, found.device_ids) == (3, ("a", "b"))
    assert world.run(world.service.devices.channel_presence("sport", 2)).devices == 0
    with pytest.raises(Refused):
        world.run(world.service.devices.channel_presence("no name", 2))


def test_follower_that_leaves_a_channel_is_present_there_no_more() -> None:
    world = World()
    attachment, _ = world.follower("a", "news")
    world.run(world.service.unsubscribe(attachment, "news"))
    world.settle()
    assert world.run(world.service.devices.channel_presence("news", 2)).devices == 0

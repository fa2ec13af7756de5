"""What devices did not take: listed, shown, replayed, dropped."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.errors import Refused, StoreUnavailable
from streampush.protocol.codes import Code
from streampush.push.dead_letters import DeadLetters, LetterPlace
from streampush.push.values import DeadLetter, DeviceRecord, Undeliverable
from tests.push.world import World


def world_with(*times_ms: int, payload: bytes = b"poison") -> World:
    """A device that has followed a topic and not taken what was published there: one letter for each time."""
    world = World()
    world.run(world.memory.remember_device(DeviceRecord("d")))
    for at_ms in times_ms:
        published = world.publish("news", payload)
        letter = Undeliverable("d", "news", published.epoch, published.offset, 10, "not acknowledged", at_ms)
        world.run(world.memory.record([], [], [letter]))
    return world


def letters(world: World, limit: int = 100, behind: LetterPlace | None = None) -> list[DeadLetter]:
    return list(world.run(world.service.dead_letters.page("d", behind, limit)).letters)


def refusal(world: World, work: Any) -> Code:
    with pytest.raises(Refused) as caught:
        world.run(work)
    return caught.value.code


def test_letters_are_listed_the_newest_first() -> None:
    world = world_with(10, 30, 20)
    assert [letter.at_ms for letter in letters(world)] == [30, 20, 10]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=12), st.integers(1, 5))
def test_pages_hold_every_letter_once_also_of_one_moment(times: list[int], limit: int) -> None:
    world = world_with(*times)
    found: list[DeadLetter] = []
    behind = None
    while True:
        page = world.run(world.service.dead_letters.page("d", behind, limit))
        assert len(page.letters) <= limit
        found += page.letters
        if page.following is None:
            break
        assert len(page.letters) == limit
        behind = page.following
    assert sorted(letter.publication.message_id for letter in found) == sorted(f"id{n + 1}" for n in range(len(times)))
    assert [letter.at_ms for letter in found] == sorted(times, reverse=True)


def test_replay_publishes_a_copy_to_the_device_and_drops_the_letter() -> None:
    world = world_with(10)
    published = world.run(world.service.dead_letters.replay("d", "id1"))
    page = world.run(world.memory.read("device:d", 0, 10, 1000))
    assert (published.channel, published.duplicate) == ("device:d", False)
    assert [(entry.payload, entry.message_id) for entry in page.publications] == [(b"poison", published.message_id)]
    assert published.message_id != "id1"
    assert letters(world) == []


def test_letter_stays_until_the_copy_is_stored() -> None:
    world = world_with(10)

    async def no_store(*_: Any) -> Any:
        raise StoreUnavailable("away")

    dead_letters = DeadLetters(world.memory, no_store)
    assert refusal(world, dead_letters.replay("d", "id1")) is Code.STORE_UNAVAILABLE
    assert len(letters(world)) == 1


def test_replay_of_what_was_given_up_twice_publishes_twice() -> None:
    world = world_with(10)
    world.run(world.service.dead_letters.replay("d", "id1"))
    head = world.run(world.memory.head("news"))
    world.run(world.memory.record([], [], [Undeliverable("d", "news", head.epoch, 1, 10, "again", 99)]))
    assert not world.run(world.service.dead_letters.replay("d", "id1")).duplicate
    assert world.run(world.memory.head("device:d")).top_offset == 2


def test_replay_while_the_node_stops_is_refused_and_keeps_the_letter() -> None:
    world = world_with(10)
    world.service.refuse_publishing("stopping")
    assert refusal(world, world.service.dead_letters.replay("d", "id1")) is Code.DRAINING
    assert len(letters(world)) == 1


def test_dropped_letter_is_gone() -> None:
    world = world_with(10)
    assert world.run(world.service.dead_letters.drop("d", "id1"))
    assert not world.run(world.service.dead_letters.drop("d", "id1"))
    assert refusal(world, world.service.dead_letters.letter("d", "id1")) is Code.UNKNOWN_RECIPIENT


def test_unknown_devices_have_no_letters() -> None:
    world = World()
    service = world.service.dead_letters
    for work in (service.page("x", None, 1), service.letter("x", "m"), service.replay("x", "m"), service.drop("x", "m")):
        assert refusal(world, work) is Code.UNKNOWN_RECIPIENT


def test_payload_is_in_no_repr() -> None:
    assert "poison" not in repr(letters(world_with(10)))


def test_replay_after_a_drop_that_failed_gives_the_first_copy_again() -> None:
    world = world_with(10)
    letter = letters(world)[0]
    first = world.run(world.service.dead_letters.replay("d", "id1"))
    world.memory._letters.add(letter)
    again = world.run(world.service.dead_letters.replay("d", "id1"))
    assert (again.message_id, again.duplicate) == (first.message_id, True)
    assert letters(world) == []

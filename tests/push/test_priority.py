"""Priority decides which channel is served first, never the order within one: docs/protocol.md section 10.4."""

from __future__ import annotations

import pytest

from streampush.config import DeliveryConfig
from streampush.protocol.terms import Priority, Start
from streampush.push.delivery import Attachment
from streampush.push.pump import URGENT_RUN
from streampush.push.values import PublishRequest
from tests.push.world import PUBLISHER, RecordingLink, World, device

LOW, NORMAL, HIGH = Priority.LOW, Priority.NORMAL, Priority.HIGH


def publish(world: World, channel: str, *priorities: Priority) -> None:
    for priority in priorities:
        world.run(world.service.publish(PUBLISHER, PublishRequest(channel, b"", priority=priority)))


def following(world: World, *channels: str, start: Start = Start.LATEST) -> tuple[Attachment, RecordingLink]:
    attachment, link = world.attach(device("d"))
    for channel in channels:
        world.subscribe(attachment, channel, start=start)
    return attachment, link


def served(link: RecordingLink) -> list[tuple[str, int]]:
    return [(frame.channel, frame.offset) for frame in link.frames]


# --------------------------------------------------------------------------------------------------------------- live ones


def test_channels_with_something_high_go_out_first_and_those_with_nothing_but_low_last() -> None:
    world = World()
    _, link = following(world, "low", "mixed", "normal", "high")
    world.settle()
    publish(world, "low", LOW, LOW)
    publish(world, "mixed", LOW, NORMAL)
    publish(world, "normal", NORMAL)
    publish(world, "high", LOW, HIGH, NORMAL)
    world.settle()
    assert [channel for channel, _ in served(link)] == ["high"] * 3 + ["mixed"] * 2 + ["normal"] + ["low"] * 2


def test_order_within_a_channel_is_that_of_the_log() -> None:
    world = World()
    _, link = following(world, "news")
    world.settle()
    publish(world, "news", LOW, HIGH, NORMAL, HIGH, LOW)
    world.settle()
    assert link.offsets("news") == [1, 2, 3, 4, 5]


def test_channels_of_the_same_priority_keep_the_order_of_their_publications() -> None:
    world = World()
    _, link = following(world, "a", "b", "c")
    world.settle()
    for channel in ("c", "a", "b"):
        publish(world, channel, HIGH)
    world.settle()
    assert [channel for channel, _ in served(link)] == ["c", "a", "b"]


def test_priority_of_one_turn_says_nothing_about_the_next() -> None:
    world = World()
    _, link = following(world, "a", "b")
    world.settle()
    publish(world, "b", HIGH)
    world.settle()
    publish(world, "a", NORMAL)
    publish(world, "b", NORMAL)
    world.settle()
    assert [channel for channel, _ in served(link)] == ["b", "a", "b"]


# ------------------------------------------------------------------------------------------------------------ lagging ones


def lagging(*, urgent: int, others: int = 3) -> list[str]:
    """One page for each message: the channels in the order in which they were read."""
    world = World(delivery=DeliveryConfig(page_messages=1))
    publish(world, "other", *[NORMAL] * others)
    publish(world, "urgent", *[NORMAL] * (urgent - 1), HIGH, NORMAL)
    _, link = following(world, "other", "urgent", start=Start.EARLIEST)
    world.settle()
    assert (link.offsets("other"), link.offsets("urgent")) == (list(range(1, others + 1)), list(range(1, urgent + 2)))
    return [channel for channel, _ in served(link)]


def test_channel_with_something_urgent_in_front_is_read_before_the_others() -> None:
    assert lagging(urgent=2) == ["urgent", "urgent", "other", "urgent", "other", "other"]


def test_urgent_channel_does_not_starve_the_others() -> None:
    assert lagging(urgent=2 * URGENT_RUN, others=2)[: 2 * URGENT_RUN + 2] == (["urgent"] * URGENT_RUN + ["other"]) * 2


@pytest.mark.parametrize("priority", [LOW, NORMAL])
def test_without_anything_urgent_channels_take_turns(priority: Priority) -> None:
    world = World(delivery=DeliveryConfig(page_messages=1))
    for channel in ("a", "b"):
        publish(world, channel, priority, priority)
    _, link = following(world, "a", "b", start=Start.EARLIEST)
    world.settle()
    assert [channel for channel, _ in served(link)] == ["a", "b", "a", "b"]


def test_urgent_publication_that_comes_while_a_channel_lags_brings_it_to_the_front() -> None:
    world = World(delivery=DeliveryConfig(page_messages=1))
    for channel in ("a", "b", "c"):
        publish(world, channel, NORMAL, NORMAL, NORMAL)
    _, link = following(world, "a", "b", "c", start=Start.EARLIEST)
    while not link.frames:
        world.turn()
    publish(world, "c", HIGH)
    world.settle()
    order = [channel for channel, _ in served(link)]
    assert order == ["a", "b", *["c"] * URGENT_RUN, "a", "b", "a", "b"]  # it is heard of at the end of the turn

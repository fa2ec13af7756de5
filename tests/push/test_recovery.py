"""Where delivery begins, and which loss is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streampush.config import StoreConfig
from streampush.protocol.terms import LossReason, Priority, Start
from streampush.push.recovery import locate, wants
from streampush.push.values import CursorMove, DeviceRecord, Draft, Position, SubscribeRequest, Subscription
from tests.push.world import World


def with_log(count: int = 5, history_messages: int = 1000, channel: str = "news") -> tuple[World, str]:
    """A log with entries id1, id2 …; its epoch."""
    world = World(limits=StoreConfig(history_messages=history_messages))
    epoch = [world.publish(channel).epoch for _ in range(count)][-1]
    return world, epoch


def at(world: World, position: Position | None = None, start: Start = Start.UNSPECIFIED, channel: str = "news") -> Subscription:
    return without_id(world, ask(world, SubscribeRequest(channel, position, start)))


def ask(world: World, request: SubscribeRequest, pending: CursorMove | None = None) -> Subscription:
    (survey,) = world.run(world.memory.survey("d", [wants(request, pending)]))
    return locate(request, survey, pending)


def without_id(world: World, found: Subscription) -> Subscription:
    """Every answer carries the id of the publication at its offset; that is held here, so that the tests need not name it."""
    log = world.memory._logs.get(found.channel)
    expected = log.message_id(found.offset) if log is not None and found.offset else ""
    assert found.message_id == expected
    return replace(found, message_id="")


def test_a_position_that_is_proven_recovers() -> None:
    world, epoch = with_log()
    assert at(world, Position(epoch, 3, "id3")) == Subscription("news", epoch, 3, 5, True)


def test_the_newest_position_recovers() -> None:
    world, epoch = with_log()
    assert at(world, Position(epoch, 5, "id5")) == Subscription("news", epoch, 5, 5, True)


def test_the_position_before_the_first_needs_no_id() -> None:
    world, epoch = with_log()
    assert at(world, Position(epoch, 0)) == Subscription("news", epoch, 0, 5, True)


def test_the_position_at_the_floor_is_proven_by_its_id() -> None:
    world, epoch = with_log(history_messages=2)
    assert at(world, Position(epoch, 3, "id3")) == Subscription("news", epoch, 3, 5, True)
    assert at(world, Position(epoch, 3, "other")).loss is LossReason.ID_MISMATCH


LOSSES = {
    "another epoch": ({"epoch": "other"}, LossReason.EPOCH_CHANGED, 0, 3),
    "ahead of the log": ({"offset": 6}, LossReason.REWOUND, 0, 3),
    "behind the floor": ({"offset": 1, "message_id": "id1"}, LossReason.TRIMMED, 2, 3),
    "before the first": ({"offset": 0, "message_id": ""}, LossReason.TRIMMED, 3, 3),
    "another message": ({"message_id": "id3"}, LossReason.ID_MISMATCH, 0, 3),
    "no id": ({"message_id": ""}, LossReason.ID_MISMATCH, 0, 3),
}


@pytest.mark.parametrize("name", LOSSES)
def test_what_cannot_be_proven_is_named_as_a_loss_and_begins_at_the_oldest(name: str) -> None:
    changes, loss, lost, offset = LOSSES[name]
    world, epoch = with_log(history_messages=2)
    position = replace(Position(epoch, 4, "id4"), **changes)
    assert at(world, position) == Subscription("news", epoch, offset, 5, False, loss, lost)


def test_a_device_that_is_new_is_told_what_of_its_own_channel_has_left_the_log() -> None:
    world = World(limits=StoreConfig(history_messages=2))
    world.run(world.memory.remember_device(DeviceRecord("d")))
    epoch = world.publish("device:d").epoch
    assert at(world, channel="device:d") == Subscription("device:d", epoch, 0, 1)
    for _ in range(3):
        world.publish("device:d")
    assert at(world, channel="device:d") == Subscription("device:d", epoch, 2, 4, False, LossReason.TRIMMED, 2)


def test_what_expired_behind_the_position_is_counted() -> None:
    world, epoch = with_log(1)
    for ttl in (1.0, 0.0, 1.0):
        world.publish("news", ttl=ttl)
    assert at(world, Position(epoch, 1, "id1")).recovered
    world.now += 1
    assert at(world, Position(epoch, 1, "id1")) == Subscription("news", epoch, 1, 4, False, LossReason.EXPIRED, 2)
    assert at(world, Position(epoch, 4, "id4")).recovered


def test_without_a_position_it_is_the_stored_cursor() -> None:
    world, epoch = with_log()
    world.run(world.memory.record([CursorMove("d", "news", epoch, 2)]))
    assert at(world) == Subscription("news", epoch, 2, 5, True)


def test_a_stored_cursor_of_a_lost_log_is_a_loss() -> None:
    world, epoch = with_log()
    world.run(world.memory.record([CursorMove("d", "news", "other", 2)]))
    assert at(world) == Subscription("news", epoch, 0, 5, False, LossReason.EPOCH_CHANGED)


def test_a_stored_cursor_behind_the_floor_is_a_loss() -> None:
    world, epoch = with_log(history_messages=1)
    world.run(world.memory.record([CursorMove("d", "news", epoch, 2)]))
    assert at(world) == Subscription("news", epoch, 4, 5, False, LossReason.TRIMMED, 2)


def test_a_cursor_that_is_not_stored_yet_is_the_cursor() -> None:
    world, epoch = with_log()
    world.run(world.memory.record([CursorMove("d", "news", epoch, 2)]))
    for pending, offset in ((CursorMove("d", "news", epoch, 4), 4), (CursorMove("d", "news", epoch, 1), 2), (None, 2)):
        assert ask(world, SubscribeRequest("news"), pending).offset == offset


def test_of_two_epochs_the_cursor_of_the_logs_own_counts() -> None:
    world, epoch = with_log()
    world.run(world.memory.record([CursorMove("d", "news", epoch, 2)]))
    assert ask(world, SubscribeRequest("news"), CursorMove("d", "news", "old", 4)).offset == 2
    world.run(world.memory.record([CursorMove("d", "news", "old", 4)]))
    assert ask(world, SubscribeRequest("news"), CursorMove("d", "news", epoch, 3)).offset == 3


def test_another_devices_cursor_does_not_matter() -> None:
    world, epoch = with_log()
    world.run(world.memory.record([CursorMove("other", "news", epoch, 2)]))
    assert at(world).offset == 5


@pytest.mark.parametrize(("start", "offset"), [(Start.LATEST, 5), (Start.EARLIEST, 3), (Start.UNSPECIFIED, 5)])
def test_without_position_and_cursor_the_start_decides(start: Start, offset: int) -> None:
    world, epoch = with_log(history_messages=2)
    assert at(world, start=start) == Subscription("news", epoch, offset, 5)


@pytest.mark.parametrize(("start", "offset"), [(Start.LATEST, 5), (Start.EARLIEST, 0)])
def test_a_start_that_is_asked_for_wins_over_the_stored_cursor(start: Start, offset: int) -> None:
    world, epoch = with_log()
    world.run(world.memory.record([CursorMove("d", "news", epoch, 2)]))
    assert at(world, start=start).offset == offset


def test_a_position_wins_over_start_and_cursor() -> None:
    world, epoch = with_log()
    world.run(world.memory.record([CursorMove("d", "news", epoch, 2)]))
    assert at(world, Position(epoch, 3, "id3"), Start.EARLIEST).offset == 3


def test_a_new_device_gets_what_was_sent_to_it_by_name_and_not_the_past_of_user_and_topic() -> None:
    world = World()
    world.run(world.memory.remember_device(DeviceRecord("d", "u")))
    for channel in ("device:d", "user:u", "news"):
        world.run(world.memory.append(draft(world, channel)))
    begins = {channel: at(world, channel=channel).offset for channel in ("device:d", "user:u", "news")}
    assert begins == {"device:d": 0, "user:u": 1, "news": 1}


def test_a_channel_that_nobody_used_begins_empty() -> None:
    world = World()
    subscription = at(world)
    assert (subscription.offset, subscription.top_offset, subscription.loss) == (0, 0, LossReason.UNSPECIFIED)
    assert world.run(world.memory.peek("news")) is None


def test_delivery_that_begins_at_the_cursor_goes_on_with_its_attempts() -> None:
    world, epoch = with_log()
    world.run(world.memory.record([CursorMove("d", "news", epoch, 2, processed=1, attempts=3)]))
    found = ask(world, SubscribeRequest("news"))
    assert (found.offset, found.processed, found.attempts) == (2, 1, 3)
    proven = ask(world, SubscribeRequest("news", Position(epoch, 2, "id2")))
    assert (proven.processed, proven.attempts) == (1, 3)


def test_delivery_that_begins_elsewhere_has_no_attempts() -> None:
    world, epoch = with_log()
    world.run(world.memory.record([CursorMove("d", "news", epoch, 2, processed=1, attempts=3)]))
    for request in (SubscribeRequest("news", Position(epoch, 3, "id3")), SubscribeRequest("news", start=Start.LATEST)):
        found = ask(world, request)
        assert (found.processed, found.attempts) == (0, 0)


def test_the_attempts_of_a_cursor_that_is_not_stored_yet_count() -> None:
    world, epoch = with_log()
    world.run(world.memory.record([CursorMove("d", "news", epoch, 2, processed=2, attempts=3)]))
    found = ask(world, SubscribeRequest("news"), CursorMove("d", "news", epoch, 2, processed=1, attempts=4))
    assert (found.offset, found.processed, found.attempts) == (2, 2, 4)


def test_what_was_superseded_or_recalled_is_no_loss() -> None:
    world, epoch = with_log(1)
    for _ in range(2):
        world.run(world.memory.append(replace(draft(world, "news"), collapse_key="k", message_id=world.new_id(0), expires_at_ms=1)))
    world.run(world.memory.append(replace(draft(world, "news"), message_id="gone")))
    world.run(world.memory.recall("gone", "notice", 1))
    found = at(world, Position(epoch, 1, "id1"))
    assert (found.loss, found.lost_at_most) == (LossReason.EXPIRED, 1)  # the newer of the key, and nothing else


def test_the_newest_urgent_publication_is_named() -> None:
    world, _ = with_log()
    assert ask(world, SubscribeRequest("news")).urgent_offset == 0
    world.run(world.memory.append(replace(draft(world, "news"), priority=Priority.HIGH)))
    world.publish("news")
    assert ask(world, SubscribeRequest("news")).urgent_offset == 6


def draft(world: World, channel: str) -> Draft:
    return Draft(channel, "m", b"", world.wall_ms())


def test_a_position_ahead_of_the_stored_cursor_says_what_was_acknowledged_and_not_stored() -> None:
    world, epoch = with_log()
    world.run(world.memory.record([CursorMove("d", "news", epoch, 2)]))
    assert at(world, Position(epoch, 4, "id4")).unsaved == 2
    assert at(world, Position(epoch, 2, "id2")).unsaved == 0
    assert at(world, Position(epoch, 1, "id1")).unsaved == 0
    assert at(world, Position(epoch, 4, "other")).unsaved == 0
    assert at(world, start=Start.LATEST).unsaved == 0


def test_without_a_stored_cursor_a_position_says_nothing_of_what_was_acknowledged() -> None:
    world, epoch = with_log()
    assert at(world, Position(epoch, 4, "id4")).unsaved == 0
    world.run(world.memory.record([CursorMove("d", "news", "another", 2)]))
    assert at(world, Position(epoch, 4, "id4")).unsaved == 0

"""Acknowledgements, and what a device is told when it falls behind."""

from __future__ import annotations

from streampush.config import StoreConfig
from streampush.protocol.codes import Code
from streampush.protocol.terms import Durability, LossReason, Milestone, Outcome, Start
from streampush.push.delivery import Attachment
from streampush.push.values import Appended, ConnectionInfo, Cursor, Position, Publication, Subscription, SubscriptionRefused
from tests.push.slow_world import lose_log, stored
from tests.push.world import RecordingLink, World, device, refuses


def test_an_acknowledgement_is_cumulative_and_moves_the_stored_cursor() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    world.publish_many(3, "news")
    attachment.acknowledge("news", 2, Outcome.DELIVERED)
    assert stored(world, "d", "news") == 2
    assert attachment.cursors()[0].acknowledged == 2
    assert world.metrics.named("acknowledged") == [("delivered",)]


def test_an_older_acknowledgement_changes_nothing() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    world.publish_many(3, "news")
    attachment.acknowledge("news", 3, Outcome.PROCESSED)
    attachment.acknowledge("news", 1, Outcome.PROCESSED)
    assert stored(world, "d", "news") == 3
    assert world.metrics.named("acknowledgement_ignored") == [("older",)]


def cursor(*acks: tuple[int, Outcome]) -> tuple[int, int]:
    """Offset and processed offset of the stored cursor behind five deliveries and these acknowledgements."""
    world = World()
    attachment, _ = world.follower("d", "news")
    world.publish_many(5, "news")
    for offset, outcome in acks:
        attachment.acknowledge("news", offset, outcome)
        world.settle()
    found = world.run(world.memory.cursors("d"))["news"]
    return found.offset, found.processed


def test_delivered_and_processed_are_two_marks() -> None:
    assert cursor((3, Outcome.DELIVERED)) == (3, 0)
    assert cursor((3, Outcome.DELIVERED), (2, Outcome.PROCESSED)) == (3, 2)
    assert cursor((3, Outcome.DELIVERED), (3, Outcome.PROCESSED)) == (3, 3)
    assert cursor((3, Outcome.PROCESSED), (5, Outcome.DELIVERED)) == (5, 3)


def test_nothing_behind_what_is_held_counts_as_processed_before_it_is_answered() -> None:
    held = ((2, Outcome.RETRY_LATER), (5, Outcome.PROCESSED))
    assert cursor(*held) == (1, 1)
    assert cursor(*held, (2, Outcome.PROCESSED)) == (5, 5)
    assert cursor(*held, (2, Outcome.DELIVERED)) == (5, 1)
    assert cursor(*held, (2, Outcome.DELIVERED), (5, Outcome.PROCESSED)) == (5, 5)


def receipts(world: World, message_id: str, device_id: str = "d") -> set[Milestone]:
    """The milestones of a message on one device."""
    world.settle()
    record = world.run(world.memory.message(message_id, 10))
    assert record is not None
    return {milestone for receipt in record.devices if receipt.device_id == device_id for milestone in receipt.times}


def test_a_message_to_the_device_is_written_delivered_and_processed_one_after_the_other() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    world.subscribe(attachment, "device:d")
    world.settle()
    message_id = world.publish("device:d").message_id
    assert receipts(world, message_id) == {Milestone.WRITTEN}
    attachment.acknowledge("device:d", 1, Outcome.DELIVERED)
    assert receipts(world, message_id) == {Milestone.WRITTEN, Milestone.DELIVERED}
    attachment.acknowledge("device:d", 1, Outcome.PROCESSED)
    assert receipts(world, message_id) == {Milestone.WRITTEN, Milestone.DELIVERED, Milestone.PROCESSED}


def test_a_message_that_is_rejected_has_that_milestone_and_is_not_processed() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    world.subscribe(attachment, "device:d")
    ids = [world.publish("device:d").message_id for _ in range(2)]
    world.settle()
    attachment.acknowledge("device:d", 1, Outcome.REJECTED)
    attachment.acknowledge("device:d", 2, Outcome.PROCESSED)
    assert receipts(world, ids[0]) == {Milestone.WRITTEN, Milestone.DELIVERED, Milestone.REJECTED}
    assert Milestone.PROCESSED in receipts(world, ids[1])


def test_a_message_may_be_rejected_behind_its_delivery_but_not_behind_its_processing() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    world.subscribe(attachment, "device:d")
    ids = [world.publish("device:d").message_id for _ in range(2)]
    world.settle()
    attachment.acknowledge("device:d", 1, Outcome.PROCESSED)
    attachment.acknowledge("device:d", 2, Outcome.DELIVERED)
    attachment.acknowledge("device:d", 2, Outcome.REJECTED)
    attachment.acknowledge("device:d", 1, Outcome.REJECTED)
    assert Milestone.REJECTED in receipts(world, ids[1])
    assert Milestone.REJECTED not in receipts(world, ids[0])


def test_what_is_left_out_of_a_page_is_not_written() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    ids = [world.publish("device:d", ttl=ttl).message_id for ttl in (0, 1, 0)]
    world.now += 2
    world.subscribe(attachment, "device:d")
    world.settle()
    assert [receipts(world, message_id) for message_id in ids] == [{Milestone.WRITTEN}, set(), {Milestone.WRITTEN}]
    attachment.acknowledge("device:d", 3, Outcome.PROCESSED)
    assert receipts(world, ids[1]) == set()


def test_a_position_that_the_device_proves_says_that_it_has_everything_up_to_it() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    world.subscribe(attachment, "device:d")
    world.settle()
    published = [world.publish("device:d") for _ in range(2)]
    world.settle()
    world.service.detach(attachment, 0, "the acknowledgement was lost")
    again, _ = world.attach(device("d"))
    world.subscribe(again, "device:d", position=Position(published[0].epoch, 1, published[0].message_id))
    assert receipts(world, published[0].message_id) == {Milestone.WRITTEN, Milestone.DELIVERED}
    assert receipts(world, published[1].message_id) == {Milestone.WRITTEN}


def test_what_a_device_skips_has_no_receipt() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    message_id = world.publish("device:d").message_id
    world.subscribe(attachment, "device:d", start=Start.LATEST)
    assert receipts(world, message_id) == set()


def test_what_was_never_sent_cannot_be_acknowledged() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    world.publish("news")
    world.settle()
    with refuses(Code.POSITION_LOST):
        attachment.acknowledge("news", 2, Outcome.PROCESSED)
    assert stored(world, "d", "news") == 0


def test_a_channel_that_is_not_followed_cannot_be_acknowledged() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    with refuses(Code.NOT_SUBSCRIBED):
        attachment.acknowledge("sport", 1, Outcome.PROCESSED)


def acknowledged(*acks: tuple[int, Outcome]) -> int:
    """The stored cursor behind five deliveries and these acknowledgements."""
    world = World()
    attachment, _ = world.follower("d", "news")
    world.publish_many(5, "news")
    for offset, outcome in acks:
        attachment.acknowledge("news", offset, outcome)
    return stored(world, "d", "news")


def test_retry_later_keeps_the_cursor_in_front_whatever_comes_behind() -> None:
    assert acknowledged((3, Outcome.RETRY_LATER)) == 2
    assert acknowledged((3, Outcome.RETRY_LATER), (5, Outcome.PROCESSED)) == 2
    assert acknowledged((3, Outcome.RETRY_LATER), (2, Outcome.PROCESSED)) == 2


def test_an_answer_to_what_is_held_lets_the_cursor_jump_over_what_was_done_behind_it() -> None:
    for outcome in (Outcome.DELIVERED, Outcome.PROCESSED, Outcome.REJECTED):
        assert acknowledged((3, Outcome.RETRY_LATER), (4, Outcome.PROCESSED), (3, outcome)) == 4
    assert acknowledged((2, Outcome.RETRY_LATER), (4, Outcome.RETRY_LATER), (2, Outcome.PROCESSED)) == 3


def test_the_first_retry_later_counts_since_a_later_one_deals_with_all_below() -> None:
    assert acknowledged((2, Outcome.RETRY_LATER), (4, Outcome.RETRY_LATER)) == 1
    assert acknowledged((4, Outcome.RETRY_LATER), (2, Outcome.RETRY_LATER)) == 3


def test_retry_later_of_what_is_acknowledged_already_does_not_hold_the_cursor() -> None:
    assert acknowledged((3, Outcome.PROCESSED), (2, Outcome.RETRY_LATER), (5, Outcome.PROCESSED)) == 5


def test_rejected_counts_as_dealt_with() -> None:
    assert acknowledged((3, Outcome.REJECTED)) == 3


def test_retry_later_gives_its_room_back_and_delivery_goes_on() -> None:
    world = World()
    attachment, link = world.follower("d", "news", messages=1)
    world.publish_many(2, "news")
    attachment.acknowledge("news", 1, Outcome.RETRY_LATER)
    world.settle()
    assert link.offsets("news") == [1, 2]


def test_what_is_wanted_later_comes_again_on_the_next_connection() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    world.publish_many(3, "news")
    attachment.acknowledge("news", 2, Outcome.RETRY_LATER)
    attachment.acknowledge("news", 3, Outcome.PROCESSED)
    world.service.detach(attachment, 0, "gone")
    _, link = world.follower("d", "news")
    assert link.offsets("news") == [2, 3]


def test_a_device_may_acknowledge_inside_the_write() -> None:
    world = World()
    attachment, link = world.follower("d", "news", messages=1)
    link.hook = lambda: attachment.acknowledge("news", link.frames[-1].offset, Outcome.PROCESSED)
    world.publish_many(5, "news")
    assert link.offsets("news") == [1, 2, 3, 4, 5]
    assert stored(world, "d", "news") == 5


def test_a_reader_that_is_overtaken_by_trimming_is_told_what_it_lost() -> None:
    world = World(limits=StoreConfig(history_messages=2))
    attachment, link = world.follower("d", "news", messages=1)
    for _ in range(5):
        world.publish("news")
        world.settle()
    attachment.acknowledge("news", 1, Outcome.PROCESSED)
    world.settle()
    attachment.acknowledge("news", 4, Outcome.PROCESSED)
    world.settle()
    told = [event[1] for event in link.events if event[0] == "repositioned"]
    assert [(one.offset, one.loss, one.lost_at_most, one.recovered) for one in told] == [(3, LossReason.TRIMMED, 2, False)]
    assert link.offsets("news") == [1, 4, 5]
    assert link.events[-1] == ("backlog_end", "news", 5)
    assert world.metrics.named("positions_lost") == [("trimmed",)]


def test_a_live_feed_notices_a_log_that_was_begun_anew() -> None:
    world = World()
    attachment, link = world.follower("d", "news")
    world.publish_many(3, "news")
    lose_log(world, "news")
    world.publish("news")
    world.settle()
    told = [event[1] for event in link.events if event[0] == "repositioned"]
    assert [(one.loss, one.offset, one.lost_at_most) for one in told] == [(LossReason.EPOCH_CHANGED, 0, 0)]
    assert link.offsets("news") == [1, 2, 3, 1]
    attachment.acknowledge("news", 1, Outcome.PROCESSED, told[0].epoch)
    world.settle()
    assert world.run(world.memory.cursors("d"))["news"] == Cursor(told[0].epoch, 1, 1)


def test_an_acknowledgement_of_another_log_is_ignored_and_counted() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    world.publish("news")
    world.settle()
    attachment.acknowledge("news", 1, Outcome.PROCESSED, "another epoch")
    assert stored(world, "d", "news") == 0
    attachment.acknowledge("news", 1, Outcome.PROCESSED, attachment.feeds["news"].epoch)
    assert stored(world, "d", "news") == 1
    assert world.metrics.named("acknowledgement_ignored") == [("other_epoch",)]


def test_behind_a_change_of_the_log_an_acknowledgement_must_name_it() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    world.publish_many(2, "news")
    lose_log(world, "news")
    world.publish("news")
    world.settle()
    attachment.acknowledge("news", 1, Outcome.PROCESSED)  # perhaps of the old log: on its way when the new one was told
    assert stored(world, "d", "news") == 0
    subscription = world.subscribe(attachment, "news")  # does not help: it may still be under way
    world.settle()
    attachment.acknowledge("news", 1, Outcome.PROCESSED)
    assert stored(world, "d", "news") == 0
    attachment.acknowledge("news", 1, Outcome.PROCESSED, subscription.epoch)
    assert stored(world, "d", "news") == 1


def test_what_was_open_of_a_lost_log_does_not_fill_the_window() -> None:
    world = World()
    attachment, link = world.follower("d", "news", messages=2)
    world.publish_many(2, "news")
    lose_log(world, "news")
    world.publish_many(2, "news")
    assert link.offsets("news") == [1, 2]  # no room to learn of it
    attachment.acknowledge("news", 1, Outcome.PROCESSED)
    world.settle()
    assert link.offsets("news") == [1, 2, 1, 2]


def test_a_publication_of_another_epoch_does_not_continue_what_was_sent() -> None:
    world = World()
    attachment, link = world.follower("d", "news")
    world.publish("news")
    world.settle()
    publication = Publication("news", 2, "m2", b"", 0)
    world.fanout.appended(Appended(publication, "another epoch", Durability.MEMORY), world.now)
    world.settle()
    assert link.offsets("news") == [1]
    assert attachment.feeds["news"].live


class ClosingLink(RecordingLink):
    """Its connection ends while it says where delivery goes on."""

    attachment: Attachment | None = None

    def repositioned(self, subscription: Subscription | SubscriptionRefused) -> None:
        super().repositioned(subscription)
        assert self.attachment is not None
        self.attachment.detach()


def test_a_connection_that_closes_when_it_is_told_of_a_loss_gets_nothing_more() -> None:
    world = World(limits=StoreConfig(history_messages=1))
    link = ClosingLink()
    link.attachment = world.service.attach(device("d"), link, ConnectionInfo("s", "", 10, 10_000))
    link.attachment.begin()
    for _ in range(3):
        world.publish("news")
    epoch = world.run(world.memory.head("news")).epoch
    link.attachment.follow(Subscription("news", epoch, 1, 3))
    world.settle()
    assert [event[0] for event in link.events] == ["repositioned"]

"""Receipts on a publisher's connection, over the real service's receipts and the store in memory."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from streampush.observe.metrics import Metrics
from streampush.protocol import messages as m
from streampush.protocol.terms import Milestone
from streampush.push.values import Accepted, Published
from streampush.server.receipts import RUN, PublisherReceipts
from tests.push.receipt_world import ReceiptWorld


class Outlet:
    """See server.receipts.Outlet. `room`: how many more sendings fit."""

    def __init__(self) -> None:
        self.sent: list[m.Receipt] = []
        self.room = 1_000_000

    def has_room(self) -> bool:
        return self.room > 0

    def send_all(self, messages: Sequence[m.Message]) -> None:
        for message in messages:
            assert isinstance(message, m.Receipt)
            self.sent.append(message)
        self.room -= 1


class Publisher:
    """A publisher's connection."""

    def __init__(self, *, max_messages: int = 100, max_watched: int = 1_000) -> None:
        self.world = ReceiptWorld(max_watched=max_watched)
        self.outlet = Outlet()
        self.registry = CollectorRegistry()
        self.receipts = PublisherReceipts(self.outlet, self.world.receipts, Metrics(self.registry, "1"), max_messages)

    def publish(self, channel: str = "user:ada", *, ttl_ms: int = 0, duplicate: bool = False) -> Accepted:
        expires_at_ms = self.world.wall_ms() + ttl_ms if ttl_ms else 0
        accepted = self.world.publish(channel, expires_at_ms=expires_at_ms)
        self.follow(accepted, expires_at_ms, duplicate=duplicate)
        return accepted

    def follow(self, accepted: Accepted, expires_at_ms: int = 0, *, duplicate: bool = False) -> None:
        where = accepted.message_id, accepted.channel, accepted.offset, accepted.epoch
        self.receipts.published(Published(*where, accepted.durability, 0, duplicate), expires_at_ms)

    def told(self) -> list[tuple[str, str, Milestone]]:
        return [(receipt.message_id, receipt.device_id, receipt.milestone) for receipt in self.outlet.sent]

    def dropped(self) -> float | None:
        return self.registry.get_sample_value("streampush_receipts_dropped_total")


def test_a_receipt_names_message_device_milestone_and_time() -> None:
    publisher = Publisher()
    accepted = publisher.publish()
    publisher.world.written("phone", accepted.offset)
    at_ms = publisher.world.wall_ms()
    publisher.world.pause()
    assert publisher.outlet.sent == [m.Receipt("M1", "user:ada", 1, "phone", Milestone.WRITTEN, at_ms)]


def test_that_it_was_stored_is_not_told_again() -> None:
    publisher = Publisher()
    publisher.publish(duplicate=True)
    publisher.world.pause()
    assert publisher.outlet.sent == []


def test_each_milestone_comes_once() -> None:
    publisher = Publisher()
    accepted = publisher.publish("device:phone")
    for step in (publisher.world.written, publisher.world.delivered, publisher.world.delivered, publisher.world.processed):
        step("phone", accepted.offset, "device:phone")
        publisher.world.pause()
    assert [milestone for _, _, milestone in publisher.told()] == [Milestone.WRITTEN, Milestone.DELIVERED, Milestone.PROCESSED]


def test_of_a_scheduled_message_it_is_told_when_it_goes_out_and_where_it_is() -> None:
    publisher = Publisher()
    world = publisher.world
    world.publish("device:phone")
    publisher.follow(world.publish("device:phone", deliver_at_ms=world.wall_ms() + 1_000))
    world.pause(1.0)
    assert publisher.outlet.sent == []
    (fired,) = world.run(world.memory.fire_due(world.wall_ms(), 10))
    world.heard(fired)
    world.pause()
    ((receipt),) = publisher.outlet.sent
    assert (receipt.offset, receipt.milestone, receipt.device_id) == (2, Milestone.STORED, "phone")


def test_behind_the_end_of_a_message_it_is_not_followed() -> None:
    publisher = Publisher()
    publisher.world.processed("phone", publisher.publish("device:phone").offset, "device:phone")
    publisher.world.pause()
    assert publisher.world.receipts.watched == 0


def test_an_expired_message_is_told_for_each_device() -> None:
    publisher = Publisher()
    publisher.publish(ttl_ms=1_000)
    publisher.world.pause(5.0)
    assert publisher.told() == [("M1", "phone", Milestone.EXPIRED), ("M1", "tablet", Milestone.EXPIRED)]


def test_a_repeated_publish_tells_what_has_happened_already() -> None:
    publisher = Publisher()
    accepted = publisher.world.publish("device:phone")
    publisher.world.delivered("phone", accepted.offset, "device:phone")
    publisher.follow(accepted, duplicate=True)
    publisher.world.pause()
    assert publisher.told() == [("M1", "phone", Milestone.DELIVERED)]


def test_without_room_a_receipt_waits_and_comes_when_there_is_room() -> None:
    publisher = Publisher()
    publisher.outlet.room = 0
    publisher.world.processed("phone", publisher.publish("device:phone").offset, "device:phone")
    publisher.world.pause()
    assert publisher.outlet.sent == []
    publisher.outlet.room = 10
    publisher.receipts.room_again()
    publisher.world.pause()
    assert [milestone for _, _, milestone in publisher.told()] == [Milestone.DELIVERED, Milestone.PROCESSED]
    assert publisher.world.receipts.watched == 0


def test_a_message_to_many_devices_is_told_in_runs_as_room_allows() -> None:
    publisher = Publisher()
    accepted = publisher.publish()
    devices = 3 * RUN
    publisher.outlet.room = 1
    publisher.world.record([publisher.world.move(f"d{number:03}", "user:ada", accepted.offset) for number in range(devices)])
    publisher.world.pause()
    assert len(publisher.outlet.sent) == RUN
    publisher.outlet.room = 10
    publisher.receipts.room_again()
    publisher.world.pause()
    assert len(set(publisher.told())) == len(publisher.told()) == devices


def test_only_the_newest_messages_are_followed_and_the_others_are_counted() -> None:
    publisher = Publisher(max_messages=2)
    for _ in range(3):
        publisher.publish("device:phone")
    publisher.world.delivered("phone", 3, "device:phone")
    publisher.world.pause()
    assert [message_id for message_id, _, _ in publisher.told()] == ["M2", "M3"]
    assert (publisher.dropped(), publisher.world.receipts.watched) == (1, 2)


def test_a_node_that_watches_too_much_drops_the_message_and_counts_it() -> None:
    publisher = Publisher(max_watched=1)
    for _ in range(2):
        publisher.publish("device:phone")
    assert publisher.dropped() == 1


def test_the_end_of_the_connection_leaves_nothing() -> None:
    publisher = Publisher()
    for _ in range(3):
        publisher.publish(ttl_ms=60_000)
    publisher.outlet.room = 0
    publisher.world.delivered("phone", 3)
    publisher.world.pause()
    publisher.receipts.close()
    publisher.receipts.close()
    assert (publisher.world.receipts.watched, publisher.world.clock.getDelayedCalls()) == (0, [])


def test_a_message_that_leaves_the_log_is_forgotten() -> None:
    publisher = Publisher()
    accepted = publisher.world.publish(deliver_at_ms=publisher.world.wall_ms() + 9_000)
    publisher.follow(accepted)
    publisher.world.recall(accepted.message_id)
    publisher.world.pause()
    assert publisher.receipts._messages == {}
    assert publisher.dropped() == 0

"""Publications that leave their log before devices that follow it for good have taken them."""

from __future__ import annotations

from typing import Any

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from streampush.config import DeliveryConfig, StoreConfig
from streampush.errors import StoreUnavailable
from streampush.protocol.terms import Outcome
from streampush.push import left_behind
from streampush.push.left_behind import INTERVAL, LINE_INTERVAL
from streampush.push.values import DeviceRecord
from streampush.store.memory import MemoryStore
from tests.push.world import World, device

HISTORY = 3


class LeftBehindTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(limits=StoreConfig(history_messages=HISTORY), delivery=DeliveryConfig(subscribe=("*",)))
        self.world.service.left_behind.start()
        self.lines: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self._observe)
        self.addCleanup(globalLogPublisher.removeObserver, self._observe)

    def _observe(self, event: dict[str, Any]) -> None:
        if "left their logs" in str(event.get("log_format")):
            self.lines.append(event)

    def counted(self) -> list[int]:
        """What was counted, at each look that found something."""
        self.world.advance(INTERVAL)
        return [count for (count,) in self.world.metrics.named("left_behind")]

    def follower(self, device_id: str, channel: str, user_id: str = "", taken: int = 0) -> None:
        """Follows it for good, has taken all that was there and so much more, and is away."""
        attachment, _ = self.world.connected(device(device_id, user_id))
        if channel == "news":
            self.world.subscribe(attachment, channel, durable=True)
        self.world.publish_many(taken, channel)
        attachment.acknowledge(channel, self.world.run(self.world.memory.head(channel)).top_offset, Outcome.DELIVERED)
        self.world.settle()
        self.world.service.detach(attachment, 0, "")
        self.world.settle()

    def test_what_a_follower_has_not_taken_is_counted_when_it_goes_and_once(self) -> None:
        self.follower("d", "news")
        self.world.publish_many(HISTORY + 1, "news")
        self.assertEqual(self.counted(), [1])
        self.world.publish_many(2, "news")
        self.assertEqual(self.counted(), [1, 2])
        self.assertEqual(self.counted(), [1, 2])

    def test_what_a_follower_has_taken_is_no_loss(self) -> None:
        self.follower("d", "news", taken=2)
        self.world.publish_many(HISTORY, "news")
        self.assertEqual(self.counted(), [])
        self.world.publish_many(1, "news")
        self.assertEqual(self.counted(), [1])

    def test_each_follower_counts(self) -> None:
        for name in ("a", "b", "c"):
            self.follower(name, "news")
        self.patch(left_behind, "BATCH", 2)
        self.world.publish_many(HISTORY + 2, "news")
        self.assertEqual(self.counted(), [6])

    def test_no_more_followers_are_looked_at_than_may_be(self) -> None:
        for name in ("a", "b", "c"):
            self.follower(name, "news")
        self.patch(left_behind, "BATCH", 1)
        self.patch(left_behind, "MAX_FOLLOWERS", 2)
        self.world.publish_many(HISTORY + 1, "news")
        self.assertEqual(self.counted(), [2])

    def test_a_topic_that_nobody_follows_for_good_loses_nothing(self) -> None:
        self.world.connected(device("d"))
        self.world.publish_many(HISTORY + 1, "news")
        self.assertEqual(self.counted(), [])

    def test_a_device_that_was_never_there_loses_what_was_kept_for_it(self) -> None:
        self.world.run(self.world.memory.remember_device(DeviceRecord("d", "")))
        self.world.publish_many(HISTORY + 2, "device:d")
        self.assertEqual(self.counted(), [2])

    def test_a_users_devices_count_from_where_they_are_and_one_that_was_never_there_does_not(self) -> None:
        self.follower("a", "user:u", "u", taken=1)
        self.follower("b", "user:u", "u", taken=1)
        self.world.run(self.world.memory.remember_device(DeviceRecord("c", "u")))
        self.world.publish_many(HISTORY, "user:u")
        self.assertEqual(self.counted(), [1])

    def test_the_log_has_a_line_at_once_and_then_one_a_minute_with_what_was_lost_most(self) -> None:
        self.follower("d", "news")
        self.follower("e", "device:e")
        self.world.publish_many(HISTORY + 1, "news")
        self.counted()
        self.assertEqual([(line["channel"], line["publications"]) for line in self.lines], [("news", 1)])
        self.world.publish_many(1, "news")
        self.world.publish_many(HISTORY + 4, "device:e")
        self.counted()
        self.assertEqual(len(self.lines), 1)
        self.world.advance(LINE_INTERVAL)
        told = {name: self.lines[1][name] for name in ("channel", "most", "followers", "publications", "channels")}
        self.assertEqual(told, {"channel": "device:e", "most": 4, "followers": 1, "publications": 5, "channels": 2})
        self.assertEqual(len(self.lines), 2)

    def test_nothing_is_looked_at_behind_the_stop(self) -> None:
        self.follower("d", "news")
        self.world.publish_many(HISTORY + 1, "news")
        self.world.service.left_behind.stop()
        self.assertEqual((self.counted(), self.world.timers), ([], []))

    def test_a_store_that_is_away_is_asked_again(self) -> None:
        self.follower("d", "news")
        self.world.publish_many(HISTORY + 1, "news")

        async def away(store: MemoryStore, limit: int) -> list[tuple[str, int]]:
            raise StoreUnavailable("away")

        patch = self.patch(MemoryStore, "take_trimmed", away)
        self.assertEqual(self.counted(), [])
        patch.restore()
        self.assertEqual(self.counted(), [1])

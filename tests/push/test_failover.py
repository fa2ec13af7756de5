"""A failover of the store: what it kept goes on under a new epoch, and what was lost is told, to live and to resuming devices."""

from __future__ import annotations

from dataclasses import replace

from streampush.config import StoreConfig
from streampush.protocol.terms import LossReason, Outcome
from streampush.push.values import Cursor, CursorMove, DeviceRecord, Draft, Position, SubscribeRequest, Subscription, Survey, Want
from streampush.store.memory import MemoryStore
from tests.push.world import Attachment, RecordingLink, World, device


class FailingOver(MemoryStore):
    """Goes on under another epoch, with what it had at the last `replicated`."""

    former: frozenset[str] = frozenset()

    async def survey(self, device_id: str, wants: list[Want]) -> list[Survey]:  # type: ignore[override]  # a Sequence
        found = await super().survey(device_id, wants)
        return [replace(one, former=self.former, cursor=self._kept(one)) for one in found]

    def _kept(self, survey: Survey) -> Cursor | None:
        cursor = survey.cursor
        return replace(cursor, epoch=survey.head.epoch) if cursor is not None and cursor.epoch in self.former else cursor


class FailoverWorld(World):
    """One node, whose store is put back to what its replica had: the messages to `news` so far."""

    def __init__(self) -> None:
        self.older = self._store("old")
        super().__init__(store=_Switch(self.older))
        self.switch = self.service._store
        self.kept: list[tuple[str, bytes]] = []

    def _store(self, epoch: str) -> FailingOver:
        return FailingOver(StoreConfig(), lambda: 1_000_000, lambda: epoch)

    def replicated(self) -> None:
        """What is in the store now is on the replica."""
        page = self.run(self.older.read("news", 0, 1000, 1_000_000))
        self.kept = [(publication.message_id, publication.payload) for publication in page.publications]
        self._cursors = dict(self.run(self.older.cursors("d")))

    def promote(self) -> None:
        """The replica is the master now."""
        promoted = self._store("new")
        promoted.former = frozenset(("old",))
        self.run(promoted.remember_device(DeviceRecord("d")))
        for message_id, payload in self.kept:
            self.run(promoted.append(Draft("news", message_id, payload, 1_000_000)))
        for channel, cursor in self._cursors.items():
            self.run(promoted.record([CursorMove("d", channel, "new", cursor.offset)]))
        self.switch.store = promoted  # type: ignore[attr-defined]
        self.fanout.seen("news", "new", len(self.kept))
        self.settle()


class _Switch:
    """The store that is there now."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)


def phone(world: World, position: Position | None = None) -> tuple[Attachment, RecordingLink]:
    attachment, link = world.connected(device("d"), SubscribeRequest("news", position))
    world.settle()
    return attachment, link


def told(link: RecordingLink) -> list[Subscription]:
    found = [event[1] for event in link.events if event[0] == "repositioned"]
    return [one for one in found if isinstance(one, Subscription) and one.channel == "news"]


def test_a_live_device_goes_on_without_a_repeat_when_nothing_was_lost() -> None:
    world = FailoverWorld()
    attachment, link = phone(world)
    world.publish_many(5, "news")
    world.replicated()
    world.promote()
    (answer,) = told(link)
    assert (answer.epoch, answer.offset, answer.recovered, answer.loss) == ("new", 5, True, LossReason.UNSPECIFIED)
    world.publish_many(2, "news")
    assert link.offsets("news") == [1, 2, 3, 4, 5, 6, 7]
    attachment.acknowledge("news", 4, Outcome.DELIVERED)  # it has not heard of the new epoch yet
    attachment.acknowledge("news", 5, Outcome.DELIVERED, "old")
    attachment.acknowledge("news", 7, Outcome.DELIVERED, "new")
    world.settle()
    assert world.run(world.switch.cursors("d"))["news"].offset == 7  # type: ignore[attr-defined]


def test_a_live_device_is_told_of_what_was_lost_and_gets_what_is_there_instead() -> None:
    world = FailoverWorld()
    attachment, link = phone(world)
    world.publish_many(100, "news")
    attachment.acknowledge("news", 98, Outcome.DELIVERED)
    world.settle()
    world.replicated()
    world.publish_many(5, "news", b"acknowledged, and lost")
    attachment.acknowledge("news", 105, Outcome.DELIVERED)
    world.settle()
    link.writes.clear()
    world.promote()
    for _ in range(5):
        world.publish_many(1, "news", b"other")
    (answer,) = told(link)
    assert (answer.epoch, answer.offset, answer.recovered) == ("new", 98, False)
    assert answer.loss in (LossReason.REWOUND, LossReason.ID_MISMATCH)
    assert link.offsets("news") == list(range(99, 106))
    attachment.acknowledge("news", 105, Outcome.DELIVERED, "old")  # is about another message
    world.settle()
    assert world.run(world.switch.cursors("d"))["news"].offset == 98  # type: ignore[attr-defined]


def test_a_live_device_whose_place_has_another_message_is_told() -> None:
    world = FailoverWorld()
    _, link = phone(world)
    world.publish_many(3, "news")
    world.replicated()
    world.publish_many(2, "news")
    world.kept += [("other4", b""), ("other5", b""), ("other6", b"")]
    link.writes.clear()
    world.promote()
    (answer,) = told(link)
    assert (answer.loss, answer.offset) == (LossReason.ID_MISMATCH, 0)
    assert [frame.message_id for frame in link.frames][-3:] == ["other4", "other5", "other6"]


def test_a_device_that_comes_back_with_what_the_store_has_goes_on() -> None:
    world = FailoverWorld()
    phone(world)
    world.publish_many(5, "news")
    world.replicated()
    world.promote()
    world.publish_many(1, "news")
    _, link = phone(world, Position("old", 5, "id5"))
    (welcome,) = [event[1] for event in link.events if event[0] == "welcome"]
    (answer,) = [one for one in welcome if one.channel == "news"]
    assert (answer.epoch, answer.offset, answer.recovered) == ("new", 5, True)
    assert link.offsets("news") == [6]


def test_a_device_that_comes_back_with_what_was_lost_is_told() -> None:
    for position, reason in (
        (Position("old", 105, "id105"), LossReason.REWOUND),
        (Position("old", 3, "x"), LossReason.ID_MISMATCH),
    ):
        world = FailoverWorld()
        attachment, _ = phone(world)
        world.publish_many(5, "news")
        attachment.acknowledge("news", 2, Outcome.DELIVERED)
        world.settle()
        world.replicated()
        world.promote()
        _, link = phone(world, position)
        (welcome,) = [event[1] for event in link.events if event[0] == "welcome"]
        (answer,) = [one for one in welcome if one.channel == "news"]
        assert (answer.recovered, answer.loss, answer.offset) == (False, reason, 2)
        assert link.offsets("news") == [3, 4, 5]


def test_an_epoch_that_nobody_knows_is_another_log() -> None:
    world = FailoverWorld()
    phone(world)
    world.publish_many(2, "news")
    _, link = phone(world, Position("never heard of", 2, "id2"))
    (welcome,) = [event[1] for event in link.events if event[0] == "welcome"]
    (answer,) = [one for one in welcome if one.channel == "news"]
    assert answer.loss is LossReason.EPOCH_CHANGED

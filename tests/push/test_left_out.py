"""What a device that was away gets of a channel with collapse keys, versions, ends and recalls: compared with a plain model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streampush.protocol.terms import LossReason, Outcome
from streampush.push.delivery import Attachment
from streampush.push.values import Position, PublishRequest, Subscription
from tests.push.world import PUBLISHER, RecordingLink, World, device


def publish(world: World, **fields: Any) -> str:
    """Publishes to "news"; gives the message's id."""
    return world.run(world.service.publish(PUBLISHER, replace(PublishRequest("news", b"x"), **fields))).message_id


@dataclass
class Away:
    """A device that has read the channel "news" once, and then went away."""

    world: World = field(default_factory=World)
    position: Position | None = None

    def connect(self) -> tuple[Attachment, RecordingLink, Subscription]:
        attachment, link = self.world.attach(device("d"))
        subscription = self.world.subscribe(attachment, "news", position=self.position)
        self.world.settle()
        return attachment, link, subscription

    def leave(self, attachment: Attachment, link: RecordingLink, subscription: Subscription) -> None:
        """It acknowledges all that it got, keeps its position, and goes."""
        offset, message_id = subscription.offset, subscription.message_id
        if link.frames:
            offset, message_id = link.frames[-1].offset, link.frames[-1].message_id
            attachment.acknowledge("news", offset, Outcome.PROCESSED)
        self.position = Position(subscription.epoch, offset, message_id)
        self.world.settle()
        self.world.service.detach(attachment, 0, "")
        self.world.settle()


def ids(link: RecordingLink) -> list[str]:
    return [frame.message_id for frame in link.frames]


def test_a_connected_device_gets_every_message_of_a_key() -> None:
    world = World()
    _, link = world.follower("d", "news")
    sent = []
    for _ in range(3):
        sent.append(publish(world, collapse_key="k"))
        world.settle()
    assert ids(link) == sent


def test_a_device_that_was_away_gets_the_newest_of_each_key_and_what_has_none() -> None:
    away = Away()
    away.leave(*away.connect())
    world = away.world
    publish(world, collapse_key="a")
    first = publish(world)
    publish(world, collapse_key="b")
    second = publish(world, collapse_key="a")
    third = publish(world, collapse_key="b")
    _, link, subscription = away.connect()
    assert ids(link) == [first, second, third]
    assert (subscription.recovered, subscription.loss) == (True, LossReason.UNSPECIFIED)


def test_a_device_without_room_gets_the_newest_when_there_is_room_again() -> None:
    world = World()
    attachment, link = world.follower("d", "news", messages=1)
    first = publish(world, collapse_key="k")
    world.settle()
    publish(world, collapse_key="k")
    newest = publish(world, collapse_key="k")
    world.settle()
    assert ids(link) == [first]
    attachment.acknowledge("news", 1, Outcome.DELIVERED)
    world.settle()
    assert ids(link) == [first, newest]


def test_a_position_at_a_superseded_message_is_proven() -> None:
    away = Away()
    attachment, link, subscription = away.connect()
    world = away.world
    publish(world, collapse_key="k")
    world.settle()
    away.leave(attachment, link, subscription)
    newest = publish(world, collapse_key="k")
    _, link, subscription = away.connect()
    assert (subscription.recovered, subscription.offset) == (True, 1)
    assert ids(link) == [newest]


def test_an_expired_message_is_a_loss_and_a_superseded_one_that_expired_is_none() -> None:
    away = Away()
    away.leave(*away.connect())
    world = away.world
    publish(world, collapse_key="k", ttl=1.0)
    newest = publish(world, collapse_key="k")
    world.now += 2.0
    _, link, subscription = away.connect()
    assert (subscription.recovered, ids(link)) == (True, [newest])

    away = Away()
    away.leave(*away.connect())
    publish(away.world, ttl=1.0)
    away.world.now += 2.0
    _, link, subscription = away.connect()
    assert (subscription.recovered, subscription.loss, subscription.lost_at_most) == (False, LossReason.EXPIRED, 1)


def test_when_the_newest_of_a_key_is_recalled_the_older_does_not_come_back() -> None:
    away = Away()
    away.leave(*away.connect())
    world = away.world
    publish(world, collapse_key="k")
    newest = publish(world, collapse_key="k")
    answer = world.run(world.service.recall(PUBLISHER, newest))
    _, link, _ = away.connect()
    assert ids(link) == [answer.notice_id]


@dataclass
class Entry:
    """What the model knows of a message in the log."""

    message_id: str
    offset: int
    key: str = ""
    version: int = 0
    expires_at: float = float("inf")
    gone: bool = False  # superseded or recalled
    notice: bool = False


class Model:
    """The rules of docs/protocol.md section 10.8, told the plain way."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def publish(self, message_id: str, key: str, version: int, expires_at: float) -> bool:
        """False: superseded."""
        if version and any(entry.key == key and entry.version >= version for entry in self.entries):
            return False
        for entry in self.entries:
            entry.gone = entry.gone or bool(key and entry.key == key)
        self.entries.append(Entry(message_id, len(self.entries) + 1, key, version, expires_at))
        return True

    def recall(self, number: int, notice_id: str) -> bool:
        """False: it was recalled before."""
        self.entries[number].gone = True
        self.entries.append(Entry(notice_id, len(self.entries) + 1, notice=True))
        return True

    def readable(self, behind: int, now: float) -> list[str]:
        return [each.message_id for each in self.entries if each.offset > behind and not each.gone and each.expires_at > now]

    def expired(self, behind: int, now: float) -> int:
        return sum(1 for each in self.entries if each.offset > behind and not each.gone and each.expires_at <= now)


ACTIONS = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from(["", "a", "b"]), st.integers(0, 4), st.sampled_from([0.0, 1.0, 5.0])),
    st.tuples(st.just("recall"), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 2.0, 10.0])),
    st.tuples(st.just("visit")),
)


@given(st.lists(ACTIONS, max_size=25))
def test_a_device_that_comes_and_goes_gets_what_the_model_says(course: list[tuple[Any, ...]]) -> None:
    away, model = Away(), Model()
    away.leave(*away.connect())
    world = away.world
    recalled: set[int] = set()
    for action, *arguments in [*course, ("visit",)]:
        if action == "publish":
            key, version, ttl = arguments
            request = PublishRequest("news", b"x", collapse_key=key, version=version, ttl=ttl)
            answer = world.run(world.service.publish(PUBLISHER, request))
            assert model.publish(answer.message_id, key, version, world.now + ttl if ttl else float("inf")) != answer.superseded
        elif action == "recall":
            candidates = [number for number, each in enumerate(model.entries) if not each.notice and number not in recalled]
            if candidates:
                number = candidates[arguments[0] % len(candidates)]
                recalled.add(number)
                notice = world.run(world.service.recall(PUBLISHER, model.entries[number].message_id))
                model.recall(number, notice.notice_id)
        elif action == "wait":
            world.now += arguments[0]
        else:
            assert away.position is not None
            behind = away.position.offset
            attachment, link, subscription = away.connect()
            assert ids(link) == model.readable(behind, world.now)
            assert subscription.recovered == (model.expired(behind, world.now) == 0)
            assert subscription.lost_at_most == model.expired(behind, world.now)
            away.leave(attachment, link, subscription)

"""Recall: who may, what the answer says, and what devices get."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred

from streampush.config import PublishConfig, StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Outcome
from streampush.push.delivery import Attachment
from streampush.push.ids import clearing_id
from streampush.push.values import ChannelRules, Principal, Published, PublishRequest, Recalled
from streampush.store.memory import MemoryStore
from tests.push.world import PUBLISHER, RecordingLink, World, device
from tests.store.slow import SlowStore


def recall(world: World, message_id: str, principal: Principal = PUBLISHER) -> Recalled:
    return world.run(world.service.recall(principal, message_id))


def ids(link: RecordingLink) -> list[str]:
    return [frame.message_id for frame in link.frames]


def left(world: World, channel: str = "news") -> list[tuple[str, str]]:
    """(id, what it recalls) of what may be read."""
    entries = world.run(world.memory.read(channel, 0, 100, 100_000)).publications
    return [(entry.message_id, entry.recalls) for entry in entries]


def test_a_stored_message_is_replaced_by_a_notice_that_follows_it() -> None:
    world = World()
    first, second = world.publish("news"), world.publish("news")
    answer = recall(world, first.message_id)
    assert (answer.message_id, answer.channel, answer.was, answer.epoch, answer.notice_offset) == (
        first.message_id,
        "news",
        "stored",
        first.epoch,
        3,
    )
    assert left(world) == [(second.message_id, ""), (answer.notice_id, first.message_id)]
    assert world.metrics.named("recalled") == [("stored",)]


def test_devices_that_are_connected_get_the_notice() -> None:
    world = World()
    _, link = world.follower("d", "news")
    message = world.publish("news")
    world.settle()
    answer = recall(world, message.message_id)
    world.settle()
    assert ids(link) == [message.message_id, answer.notice_id]
    assert answer.connections == 1


def test_a_device_that_was_away_gets_the_notice_only() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    world.subscribe(attachment, "news")
    world.settle()
    world.service.detach(attachment, 0, "")
    message = world.publish("news")
    answer = recall(world, message.message_id)
    world.settle()
    attachment, link = world.attach(device("d"))
    world.subscribe(attachment, "news")
    world.settle()
    assert ids(link) == [answer.notice_id]


def test_a_scheduled_message_is_gone_without_a_trace() -> None:
    world = World()
    world.service.start()
    world.settle()
    message = world.run(world.service.publish(PUBLISHER, PublishRequest("news", b"", deliver_at_ms=world.wall_ms() + 1000)))
    answer = recall(world, message.message_id)
    assert (answer.was, answer.notice_offset, answer.notice_id) == ("scheduled", 0, "")
    world.advance(5.0)
    assert left(world) == []
    assert refusal(world, message.message_id).code is Code.UNKNOWN_RECIPIENT


def test_recalling_again_is_harmless() -> None:
    world = World()
    message = world.publish("news")
    notice = recall(world, message.message_id).notice_id
    answer = recall(world, message.message_id)
    assert (answer.was, answer.notice_offset) == ("recalled", 0)
    assert left(world) == [(notice, message.message_id)]


def refusal(world: World, message_id: str, principal: Principal = PUBLISHER) -> Refused:
    with pytest.raises(Refused) as caught:
        recall(world, message_id, principal)
    assert (caught.value.code,) in world.metrics.named("refused")
    return caught.value


def test_what_is_not_known_and_what_is_a_notice_cannot_be_recalled() -> None:
    world = World()
    notice = recall(world, world.publish("news").message_id).notice_id
    assert refusal(world, "nothing").code is Code.UNKNOWN_RECIPIENT
    assert refusal(world, notice).code is Code.UNKNOWN_RECIPIENT


def test_only_who_may_publish_to_the_channel_may_recall() -> None:
    world = World()
    message = world.publish("news")
    other = Principal("key", "k", may_publish=ChannelRules(("sport",)))
    assert refusal(world, message.message_id, other).code is Code.FORBIDDEN
    assert left(world) == [(message.message_id, "")]


def test_the_servers_own_messages_are_nobodys_to_recall() -> None:
    world = World()
    probe = replace(PUBLISHER, kind="probe")
    message = world.run(world.service.publish(probe, PublishRequest("$probe", b"")))
    assert refusal(world, message.message_id).code is Code.FORBIDDEN


def test_a_recall_counts_against_the_rate() -> None:
    world = World(publish=PublishConfig(publisher_rate=1.0, publisher_burst=1))
    message = world.publish("news")
    assert refusal(world, message.message_id).code is Code.MESSAGE_RATE_EXCEEDED


def test_a_node_that_stops_recalls_nothing() -> None:
    world = World()
    message = world.publish("news")
    world.service.refuse_publishing("it stops")
    assert refusal(world, message.message_id).code is Code.DRAINING


def test_of_two_recalls_at_once_one_makes_the_notice() -> None:
    memory = MemoryStore(StoreConfig(), lambda: 1, lambda: "epoch")
    store = SlowStore(memory)
    world = World(store=store)
    world.memory = memory
    published: list[Published] = []
    Deferred.fromCoroutine(world.service.publish(PUBLISHER, PublishRequest("news", b""))).addCallback(published.append)
    store.finish("append")
    answers: list[Recalled] = []
    for _ in range(2):
        Deferred.fromCoroutine(world.service.recall(PUBLISHER, published[0].message_id)).addCallback(answers.append)
    for name in ("message", "message", "recall", "recall"):
        store.finish(name)
    assert [answer.was for answer in answers] == ["stored", "recalled"]
    assert len(left(world)) == 1


@pytest.mark.parametrize("faster", [False, True])
def test_a_message_that_fires_while_it_is_recalled_gets_one_notice(faster: bool) -> None:
    memory = MemoryStore(StoreConfig(), lambda: 1, lambda: "epoch")
    store = SlowStore(memory)
    world = World(store=store)
    world.memory = memory
    published: list[Published] = []
    request = PublishRequest("news", b"", deliver_at_ms=world.wall_ms() + 1)
    Deferred.fromCoroutine(world.service.publish(PUBLISHER, request)).addCallback(published.append)
    store.finish("append")
    answers: list[Recalled] = []
    Deferred.fromCoroutine(world.service.recall(PUBLISHER, published[0].message_id)).addCallback(answers.append)
    store.finish("message")
    world.run(memory.fire_due(world.wall_ms() + 1, 1))
    if faster:
        world.run(memory.recall(published[0].message_id, "notice", 1))
    store.finish("recall")
    if faster:
        store.finish("message")
    assert [(answer.was, answer.notice_offset) for answer in answers] == [("recalled", 0) if faster else ("stored", 2)]
    assert len(left(world)) == 1


# ---------------------------------------------------------------------------------------------------------- clear on processed


class Household:
    """Two devices of one user, connected, and a message for that user."""

    def __init__(self, *, clear: bool = True) -> None:
        self.world = World()
        self.phone, self.phone_link = self._connect("phone")
        self.tablet, self.tablet_link = self._connect("tablet")
        request = PublishRequest("user:ada", b"x", clear_on_processed=clear)
        self.message = self.world.run(self.world.service.publish(PUBLISHER, request))
        self.world.settle()

    def _connect(self, name: str) -> tuple[Attachment, RecordingLink]:
        attachment, link = self.world.connected(device(name, "ada"))
        self.world.settle()
        return attachment, link

    def acknowledge(self, attachment: Attachment, outcome: Outcome, offset: int = 1) -> None:
        attachment.acknowledge("user:ada", offset, outcome)
        self.world.settle()


def test_what_one_device_has_processed_is_recalled_from_the_others() -> None:
    house = Household()
    house.acknowledge(house.phone, Outcome.DELIVERED)
    assert ids(house.tablet_link) == [house.message.message_id]
    house.acknowledge(house.phone, Outcome.PROCESSED)
    notice = clearing_id(house.message.message_id)
    assert ids(house.tablet_link) == [house.message.message_id, notice]
    assert left(house.world, "user:ada") == [(notice, house.message.message_id)]
    assert house.world.metrics.named("recalled") == [("processed",)]


def test_it_is_recalled_once_whoever_processes_it_afterwards() -> None:
    house = Household()
    house.acknowledge(house.phone, Outcome.PROCESSED)
    house.acknowledge(house.tablet, Outcome.PROCESSED)
    house.acknowledge(house.phone, Outcome.PROCESSED, 2)
    assert house.world.metrics.named("recalled") == [("processed",)]
    assert len(left(house.world, "user:ada")) == 1


@pytest.mark.parametrize("outcome", [Outcome.DELIVERED, Outcome.REJECTED, Outcome.RETRY_LATER])
def test_no_other_outcome_recalls(outcome: Outcome) -> None:
    house = Household()
    house.acknowledge(house.phone, outcome)
    assert left(house.world, "user:ada") == [(house.message.message_id, "")]


def test_a_message_that_does_not_ask_for_it_stays() -> None:
    house = Household(clear=False)
    house.acknowledge(house.phone, Outcome.PROCESSED)
    assert left(house.world, "user:ada") == [(house.message.message_id, "")]

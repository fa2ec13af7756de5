"""Publishing: what is refused and with which code, what is stored, and in which order it goes out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred

from streampush.config import PublishConfig, StoreConfig
from streampush.errors import Refused, StoreUnavailable
from streampush.protocol.codes import Code
from streampush.protocol.terms import Durability
from streampush.push.values import ChannelRules, DeviceRecord, Principal, PublishRequest
from streampush.store.memory import MemoryStore
from tests.push.world import ANYTHING, PUBLISHER, World, device
from tests.store.slow import SlowStore

LIMITS = PublishConfig(max_payload=10, max_headers=2, max_headers_bytes=8, max_ttl=60.0)
GOOD = PublishRequest("news", b"0123456789", "text/plain", {"a": "b"}, ttl=60.0)


def refusal(world: World, request: PublishRequest, principal: Principal = PUBLISHER) -> Refused:
    """The request is refused, counted, and nothing is stored."""
    with pytest.raises(Refused) as caught:
        world.run(world.service.publish(principal, request))
    assert world.metrics.named("refused") == [(caught.value.code,)]
    assert world.metrics.named("published") == []
    try:
        assert world.run(world.memory.peek(request.channel)) is None
    except UnicodeEncodeError:
        raise AssertionError("the store was asked for a name that is none") from None
    return caught.value


REFUSED = {
    "no channel": (replace(GOOD, channel=""), Code.UNKNOWN_RECIPIENT),
    "half a character in the channel": (replace(GOOD, channel="\ud800"), Code.UNKNOWN_RECIPIENT),
    "unknown device": (replace(GOOD, channel="device:nobody"), Code.UNKNOWN_RECIPIENT),
    "unknown user": (replace(GOOD, channel="user:nobody"), Code.UNKNOWN_RECIPIENT),
    "the server's own": (replace(GOOD, channel="$probe/x"), Code.FORBIDDEN),
    "payload": (replace(GOOD, payload=b"x" * 11), Code.PAYLOAD_TOO_LARGE),
    "number of headers": (replace(GOOD, headers={"a": "", "b": "", "c": ""}), Code.PAYLOAD_TOO_LARGE),
    "bytes of headers": (replace(GOOD, headers={"a": "ääää"}), Code.PAYLOAD_TOO_LARGE),
    "content type": (replace(GOOD, content_type="x" * 129), Code.PAYLOAD_TOO_LARGE),
    "half a character in a header": (replace(GOOD, headers={"a": "\ud800"}), Code.SERIALIZATION_ERROR),
    "half a character in a header's name": (replace(GOOD, headers={"\udfff": "a"}), Code.SERIALIZATION_ERROR),
    "half a character in the content type": (replace(GOOD, content_type="\ud800"), Code.SERIALIZATION_ERROR),
    "negative ttl": (replace(GOOD, ttl=-0.001), Code.MESSAGE_EXPIRED),
    "ttl that is no number": (replace(GOOD, ttl=float("nan")), Code.MESSAGE_EXPIRED),
    "long ttl": (replace(GOOD, ttl=60.001), Code.MESSAGE_EXPIRED),
    "endless ttl": (replace(GOOD, ttl=float("inf")), Code.MESSAGE_EXPIRED),
    "durability": (replace(GOOD, durability=Durability.LOCAL_FSYNC), Code.FORBIDDEN),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_request_is_refused_and_nothing_is_stored(name: str) -> None:
    request, code = REFUSED[name]
    assert refusal(World(publish=LIMITS), request).code is code


def test_a_request_at_every_limit_is_taken() -> None:
    world = World(publish=LIMITS)
    request = replace(GOOD, content_type="x" * 128, headers={"a": "äää", "b": ""}, durability=Durability.MEMORY)
    published = world.run(world.service.publish(PUBLISHER, request))
    assert (published.channel, published.offset, published.durability) == ("news", 1, Durability.MEMORY)
    assert world.metrics.named("published") == [("publisher", 10)]


def test_a_channel_outside_the_rules_is_forbidden() -> None:
    principal = Principal("key", "k", may_publish=ChannelRules(("sport",)))
    assert refusal(World(), GOOD, principal).code is Code.FORBIDDEN


def test_a_refusal_tells_neither_payload_nor_headers() -> None:
    secret = replace(GOOD, payload=b"s3cret-payload", headers={"authorization": "s3cret-header"})
    refused = refusal(World(publish=LIMITS), secret)
    assert "s3cret" not in f"{refused!r} {refused} {refused.detail} {secret!r}"


def test_a_full_store_refuses_with_its_code() -> None:
    world = World(limits=StoreConfig(max_channels=1))
    world.publish("other")
    with pytest.raises(Refused) as caught:
        world.publish("news")
    assert caught.value.code is Code.QUOTA_EXCEEDED
    assert world.metrics.named("refused") == [(Code.QUOTA_EXCEEDED,)]


def test_known_devices_and_users_can_be_published_to_while_they_are_away() -> None:
    world = World()
    world.run(world.memory.remember_device(DeviceRecord("d", "u")))
    assert world.publish("device:d").offset == 1
    assert world.publish("user:u").connections == 0


def test_the_rate_is_limited_per_publisher_and_the_wait_is_named() -> None:
    world = World(publish=PublishConfig(publisher_rate=2.0, publisher_burst=2))
    other = Principal("key", "backend", may_publish=ANYTHING)
    world.publish("news")
    world.publish("news")
    with pytest.raises(Refused) as caught:
        world.publish("news")
    assert (caught.value.code, caught.value.retry_after) == (Code.MESSAGE_RATE_EXCEEDED, 0.5)
    world.run(world.service.publish(other, GOOD))
    world.now += 0.5
    assert world.publish("news").offset == 4


def test_a_device_is_limited_by_the_rate_of_devices() -> None:
    world = World(publish=PublishConfig(device_rate=1.0, device_burst=1))
    principal = replace(device("d"), may_publish=ANYTHING)
    world.run(world.service.publish(principal, GOOD))
    with pytest.raises(Refused) as caught:
        world.service.charge(principal)
    assert caught.value.code is Code.MESSAGE_RATE_EXCEEDED


def test_ttl_becomes_the_time_of_expiry() -> None:
    world = World()
    world.publish("news", ttl=1.5)
    world.publish("news")
    world.publish("news", ttl=0.000001)
    entries = world.run(world.memory.read("news", 0, 10, 100)).publications
    assert [entry.expires_at_ms - entry.published_at_ms for entry in entries] == [1500, -world.wall_ms(), 1]


def test_the_publisher_is_told_when_the_store_has_it_and_not_before() -> None:
    memory = MemoryStore(StoreConfig(), lambda: 1, lambda: "epoch")
    store = SlowStore(memory)
    world = World(store=store)
    done = Deferred.fromCoroutine(world.service.publish(PUBLISHER, GOOD))
    store.calls[0].act()
    assert not done.called
    assert world.metrics.named("published") == []
    store.finish("append")
    assert done.called


def test_a_store_that_is_not_there_is_a_refusal_and_nothing_goes_out() -> None:
    store = SlowStore(MemoryStore(StoreConfig(), lambda: 1, lambda: "epoch"))
    world = World(store=store)
    failures: list[BaseException] = []
    Deferred.fromCoroutine(world.service.publish(PUBLISHER, GOOD)).addErrback(lambda failure: failures.append(failure.value))
    store.fail("append")
    assert isinstance(failures[0], StoreUnavailable)
    assert world.turns == []
    assert world.metrics.named("refused") == [(Code.STORE_UNAVAILABLE,)]


def test_the_publisher_is_told_how_many_connections_follow() -> None:
    world = World()
    world.follower("d1", "news")
    world.follower("d2", "news")
    assert world.publish("news").connections == 2


def test_appends_that_finish_out_of_order_are_delivered_in_order() -> None:
    memory = MemoryStore(StoreConfig(), lambda: 1, lambda: "epoch")
    store = SlowStore(memory)
    world = World(store=store)
    follower = Recorder()
    world.fanout.follow("news", follower, "epoch", 0)
    for _ in range(3):
        world.spawn(publish_quietly(world))
    for call in store.calls:
        call.act()
    for call in reversed(store.calls):
        call.finish()
    world.settle()
    assert follower.offers == [("epoch", 0, 3, 3)]


async def publish_quietly(world: World) -> None:
    await world.service.publish(PUBLISHER, GOOD)


class Recorder:
    """A follower that takes everything."""

    def __init__(self) -> None:
        self.offers: list[tuple[str, int, int, int]] = []

    def offer(self, epoch: str, before: int, last: int, frames: bytes, messages: int) -> bool:
        self.offers.append((epoch, before, last, messages))
        return True

    def missed(self) -> None:
        raise AssertionError("nothing was missed")

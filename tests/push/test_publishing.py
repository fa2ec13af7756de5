"""Publishing: what is refused and with which code, what is stored, and in which order it goes out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from streampush.config import PublishConfig, StoreConfig
from streampush.errors import Refused, StoreUnavailable
from streampush.protocol.codes import Code
from streampush.protocol.terms import Durability, Priority
from streampush.push.fanout import Piece
from streampush.push.publish_rules import fingerprint
from streampush.push.values import ChannelRules, DeviceRecord, Principal, Published, PublishRequest
from streampush.store.memory import MemoryStore
from tests.push.world import ANYTHING, PUBLISHER, World, device, refuses
from tests.store.slow import SlowStore

LIMITS = PublishConfig(max_payload=10, max_headers=2, max_headers_bytes=8, max_ttl=60.0, max_delay=600.0, max_collapse_key=4)
NOW_MS = 1_000_000
"""When a World begins."""
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
    "half a character in the collapse key": (replace(GOOD, collapse_key="\ud800"), Code.SERIALIZATION_ERROR),
    "collapse key": (replace(GOOD, collapse_key="ääx"), Code.PAYLOAD_TOO_LARGE),
    "idempotency key": (replace(GOOD, idempotency_key="k" * 129), Code.PAYLOAD_TOO_LARGE),
    "half a character in the idempotency key": (replace(GOOD, idempotency_key="\ud800"), Code.SERIALIZATION_ERROR),
    "idempotency key with a control character": (replace(GOOD, idempotency_key="a\tb"), Code.SERIALIZATION_ERROR),
    "idempotency key with a space at its end": (replace(GOOD, idempotency_key="a "), Code.SERIALIZATION_ERROR),
    "idempotency key beyond ASCII": (replace(GOOD, idempotency_key="ä"), Code.SERIALIZATION_ERROR),
    "negative version": (replace(GOOD, version=-1), Code.SERIALIZATION_ERROR),
    "large version": (replace(GOOD, version=1 << 63), Code.SERIALIZATION_ERROR),
    "two ends": (replace(GOOD, expires_at_ms=NOW_MS + 5), Code.SERIALIZATION_ERROR),
    "clearing of a topic": (replace(GOOD, clear_on_processed=True), Code.SERIALIZATION_ERROR),
    "clearing of a device": (replace(GOOD, channel="device:d", clear_on_processed=True), Code.SERIALIZATION_ERROR),
    "expired a millisecond ago": (replace(GOOD, ttl=0, expires_at_ms=NOW_MS - 1), Code.MESSAGE_EXPIRED),
    "expires now": (replace(GOOD, ttl=0, expires_at_ms=NOW_MS), Code.MESSAGE_EXPIRED),
    "expires too late": (replace(GOOD, ttl=0, expires_at_ms=NOW_MS + 60_001), Code.MESSAGE_EXPIRED),
    "due a millisecond ago": (replace(GOOD, deliver_at_ms=NOW_MS - 1), Code.MESSAGE_EXPIRED),
    "due too late": (replace(GOOD, deliver_at_ms=NOW_MS + 600_001), Code.MESSAGE_EXPIRED),
    "due at the end of time": (replace(GOOD, deliver_at_ms=(1 << 64) - 1), Code.MESSAGE_EXPIRED),
    "expires when it is due": (replace(GOOD, ttl=0, deliver_at_ms=NOW_MS + 9, expires_at_ms=NOW_MS + 9), Code.MESSAGE_EXPIRED),
    "expires too long after it is due": (
        replace(GOOD, ttl=0, deliver_at_ms=NOW_MS + 9, expires_at_ms=NOW_MS + 60_010),
        Code.MESSAGE_EXPIRED,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_request_is_refused_and_nothing_is_stored(name: str) -> None:
    request, code = REFUSED[name]
    assert refusal(World(publish=LIMITS), request).code is code


AT_THE_LIMIT = {
    "sizes": {"content_type": "x" * 128, "headers": {"a": "äää", "b": ""}, "collapse_key": "ää"},
    "key": {"idempotency_key": "k" * 128, "version": (1 << 63) - 1},
    "end": {"ttl": 0, "expires_at_ms": NOW_MS + 60_000},
    "soon": {"ttl": 0, "expires_at_ms": NOW_MS + 1},
}


@pytest.mark.parametrize("name", AT_THE_LIMIT)
def test_a_request_at_every_limit_is_taken(name: str) -> None:
    world = World(publish=LIMITS)
    request = replace(GOOD, durability=Durability.MEMORY, **AT_THE_LIMIT[name])  # type: ignore[arg-type]  # any field
    published = world.run(world.service.publish(PUBLISHER, request))
    assert (published.channel, published.offset, published.durability) == ("news", 1, Durability.MEMORY)
    assert world.metrics.named("published") == [("publisher", 10)]


@pytest.mark.parametrize("due_ms", [NOW_MS, NOW_MS + 600_000])
def test_a_time_at_either_limit_is_taken(due_ms: int) -> None:
    world = World(publish=LIMITS)
    published = world.run(world.service.publish(PUBLISHER, replace(GOOD, deliver_at_ms=due_ms)))
    assert (published.offset, published.deliver_at_ms) == (0, due_ms)


def test_a_refused_time_says_by_how_much() -> None:
    world = World(publish=LIMITS)
    assert refusal(world, replace(GOOD, deliver_at_ms=NOW_MS - 1_500)).detail == "deliver_at passed 1.500 s ago"


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
    with refuses(Code.QUOTA_EXCEEDED):
        world.publish("news")
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
    with refuses(Code.MESSAGE_RATE_EXCEEDED):
        world.run(world.service.charge(principal))
    assert world.metrics.named("refused") == [(Code.MESSAGE_RATE_EXCEEDED,)]


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

    def offer(self, piece: Piece) -> bool:
        self.offers.append((piece.epoch, piece.before, piece.last, piece.messages))
        return True

    def missed(self) -> None:
        raise AssertionError("nothing was missed")


# ----------------------------------------------------------------------------------------------------- idempotency and versions


def publish(world: World, request: PublishRequest, principal: Principal = PUBLISHER) -> Published:
    return world.run(world.service.publish(principal, request))


KEYED = replace(GOOD, idempotency_key="once")


def test_a_repeated_request_gets_the_first_answer_and_stores_nothing() -> None:
    world = World()
    first = publish(world, KEYED)
    world.now += 5.0
    again = publish(world, KEYED)
    assert again == replace(first, duplicate=True)
    assert world.publish("news").offset == 2
    assert world.metrics.named("published") == [("publisher", 10), ("publisher", 0)]
    assert world.metrics.named("not_published") == [("duplicate",)]


OTHERS = {
    "channel": {"channel": "sport"},
    "payload": {"payload": b"other"},
    "content type": {"content_type": "text/html"},
    "headers": {"headers": {"a": "c"}},
    "more headers": {"headers": {"a": "b", "c": ""}},
    "ttl": {"ttl": 59.0},
    "end": {"ttl": 0, "expires_at_ms": NOW_MS + 60_000},
    "durability": {"durability": Durability.MEMORY},
    "priority": {"priority": Priority.HIGH},
    "collapse key": {"collapse_key": "k"},
    "time": {"deliver_at_ms": NOW_MS + 1},
    "receipt": {"want_receipt": True},
    "version": {"version": 1},
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_same_key_with_another_request_is_refused(name: str) -> None:
    world = World()
    publish(world, KEYED)
    with refuses(Code.DUPLICATE):
        publish(world, replace(KEYED, **OTHERS[name]))  # type: ignore[arg-type]  # any field


def test_the_order_of_headers_makes_no_other_request() -> None:
    world = World()
    publish(world, replace(KEYED, headers={"a": "b", "c": "d"}))
    assert publish(world, replace(KEYED, headers={"c": "d", "a": "b"})).duplicate


def test_a_key_belongs_to_its_publisher() -> None:
    world = World()
    publish(world, KEYED)
    other = publish(world, KEYED, Principal("key", "backend", may_publish=ANYTHING))
    assert not other.duplicate
    assert other.offset == 2


def test_a_key_is_forgotten_when_its_window_is_over() -> None:
    world = World(publish=PublishConfig(idempotency_window=60.0))
    publish(world, KEYED)
    world.now += 59.999
    assert publish(world, KEYED).duplicate
    world.now += 0.001
    assert not publish(world, KEYED).duplicate


def test_a_repeat_gets_the_first_answer_although_its_times_have_passed_meanwhile() -> None:
    world = World()
    request = replace(KEYED, ttl=0, deliver_at_ms=NOW_MS + 1_000, expires_at_ms=NOW_MS + 2_000)
    first = publish(world, request)
    world.now += 5.0
    assert publish(world, request) == replace(first, duplicate=True)
    assert publish(world, request).deliver_at_ms == NOW_MS + 1_000


def test_a_late_request_with_a_used_key_is_the_wrong_one() -> None:
    world = World()
    publish(world, KEYED)
    assert late_refusal(world, replace(KEYED, ttl=0, expires_at_ms=1)) is Code.DUPLICATE


def test_a_late_request_with_a_new_key_is_late() -> None:
    assert late_refusal(World(), replace(KEYED, ttl=0, expires_at_ms=1)) is Code.MESSAGE_EXPIRED


def late_refusal(world: World, request: PublishRequest) -> Code:
    with pytest.raises(Refused) as caught:
        publish(world, request)
    return caught.value.code


def test_a_refused_request_leaves_its_key_free() -> None:
    world = World(limits=StoreConfig(max_channels=1))
    world.publish("other")
    with pytest.raises(Refused):
        publish(world, KEYED)
    assert not publish(world, replace(KEYED, channel="other")).duplicate


def test_repeats_count_against_the_rate() -> None:
    world = World(publish=PublishConfig(publisher_rate=1.0, publisher_burst=2))
    publish(world, KEYED)
    publish(world, KEYED)
    with refuses(Code.MESSAGE_RATE_EXCEEDED):
        publish(world, KEYED)


def test_a_repeat_that_comes_while_the_first_is_under_way_is_stored_once() -> None:
    store = SlowStore(MemoryStore(StoreConfig(), lambda: 1, lambda: "epoch"))
    world = World(store=store)
    answers: list[Published] = []
    for _ in range(2):
        Deferred.fromCoroutine(world.service.publish(PUBLISHER, KEYED)).addCallback(answers.append)
    store.finish("append")
    store.finish("append")
    first, again = answers
    assert again == replace(first, duplicate=True)


def test_a_repeat_after_the_store_failed_finds_what_was_stored() -> None:
    memory = MemoryStore(StoreConfig(), lambda: 1, lambda: "epoch")
    store = SlowStore(memory)
    world = World(store=store)
    lost = Deferred.fromCoroutine(world.service.publish(PUBLISHER, KEYED))
    lost.addErrback(lambda failure: failure.trap(StoreUnavailable))
    store.take("append").lose()
    answers: list[Published] = []
    Deferred.fromCoroutine(world.service.publish(PUBLISHER, KEYED)).addCallback(answers.append)
    store.finish("append")
    assert (answers[0].duplicate, answers[0].offset) == (True, 1)


def test_an_older_version_is_not_stored_and_the_answer_says_where_the_newer_is() -> None:
    world = World()
    state = replace(GOOD, collapse_key="score", version=2)
    publish(world, state)
    for version in (1, 2):
        answer = publish(world, replace(state, version=version))
        assert (answer.superseded, answer.offset, answer.duplicate) == (True, 1, False)
    assert publish(world, replace(state, version=3)).offset == 2
    assert publish(world, replace(state, collapse_key="other", version=1)).offset == 3
    assert publish(world, replace(state, version=0)).offset == 4
    assert world.metrics.named("not_published") == [("superseded",)] * 2


def test_the_store_is_told_who_published_and_how_it_is_to_be_treated() -> None:
    world = World()
    request = replace(GOOD, priority=Priority.HIGH, collapse_key="k", want_receipt=True)
    record = world.run(world.memory.message(publish(world, request).message_id, 0))
    assert record is not None
    assert (record.publisher, record.priority, record.collapse_key, record.want_receipt) == (
        "publisher:backend",
        Priority.HIGH,
        "k",
        True,
    )


def test_priority_that_is_not_given_is_normal() -> None:
    world = World()
    record = world.run(world.memory.message(world.publish("news").message_id, 0))
    assert record is not None
    assert record.priority is Priority.NORMAL


def test_what_moves_from_one_field_to_the_next_makes_another_fingerprint() -> None:
    request = PublishRequest("ab", b"cd", "ef", {"g": "h"}, collapse_key="ij")
    others = [
        replace(request, channel="abc", payload=b"d"),
        replace(request, payload=b"cde", content_type="f"),
        replace(request, content_type="efg", headers={"": "h"}),
        replace(request, headers={"gh": ""}),
        replace(request, headers={}, collapse_key="ghij"),
        replace(request, headers={"g": "h", "i": "j"}, collapse_key=""),
    ]
    assert len({fingerprint(each) for each in (request, *others)}) == 7


@given(st.data())
def test_other_requests_have_other_fingerprints(data: st.DataObject) -> None:
    texts = st.text(max_size=3)
    requests = st.builds(
        PublishRequest,
        texts,
        st.binary(max_size=3),
        texts,
        st.dictionaries(texts, texts, max_size=2),
        collapse_key=texts,
        ttl=st.sampled_from([0.0, 1.0]),
        version=st.integers(0, 2),
        deliver_at_ms=st.integers(0, 2),
        expires_at_ms=st.integers(0, 2),
        want_receipt=st.booleans(),
        clear_on_processed=st.booleans(),
    )
    one, other = data.draw(requests), data.draw(requests)
    assert (fingerprint(one) == fingerprint(other)) == (one == other)

"""Channels for Live Activities are asked for and published to as Apple wants it, and every request ends by its deadline."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from streampush.apns.apps import Route
from streampush.apns.broadcast import MAX_ANSWER, Broadcast, Channel, Storage
from streampush.apns.broadcast_sender import Created, Deleted, Listed, Published, management_route
from streampush.apns.errors import BadPush
from streampush.apns.outcome import NotSent, Rejected, Unknown, Why
from streampush.apns.simulator import Reason
from streampush.apns.simulator.broadcasts import Call
from streampush.apns.simulator.orders import (
    Close,
    Delay,
    Freeze,
    GoAway,
    OddAnswer,
    Order,
    RefuseStream,
    Reject,
    Stall,
    TinyWindows,
    When,
)
from streampush.apns.simulator.validation import Request
from tests.apns.apps_world import AppsWorld
from tests.apns.pooling import MemoryDialer
from tests.apns.simulator.providers import TOPIC

PAYLOAD = b'{"aps":{"event":"update"}}'
REQUEST_ID = "123e4567-e89b-12d3-a456-4266554400a0"
GONE = "AAAAAAAAAAAAAAAAAAAAAA=="

_Value = TypeVar("_Value")


class BroadcastWorld(AppsWorld):
    """Asks for the app `shop` and waits."""

    def begin(self, asked: Coroutine[Any, Any, _Value]) -> tuple[Deferred[_Value], list[Any]]:
        """`asked` on its way, and where its end will be."""
        ends: list[Any] = []
        asking = Deferred.fromCoroutine(asked)
        asking.addBoth(ends.append)
        return asking, ends

    def end(self, asked: Coroutine[Any, Any, _Value], seconds: float = 20.0) -> Any:
        """What became of it after so long."""
        _, ends = self.begin(asked)
        self.advance(seconds)
        (end,) = ends
        return end

    def until(self, timeout: float = 10.0) -> float:
        return self.clock.seconds() + timeout

    def create(self, storage: Storage = Storage.LATEST) -> Any:
        return self.end(self.clients.broadcasts.create("shop", storage, deadline=self.until()))

    def channels(self) -> Any:
        return self.end(self.clients.broadcasts.list("shop", deadline=self.until()))

    def publish(self, channel_id: str, **changes: Any) -> Any:
        broadcast = Broadcast(channel_id, PAYLOAD, **changes)
        return self.end(self.clients.broadcasts.publish("shop", broadcast, deadline=self.until()))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[BroadcastWorld]:
    world = BroadcastWorld(tmp_path)
    yield world
    world.stop()


def ordered(tmp_path: Path, *orders: Order) -> BroadcastWorld:
    return BroadcastWorld(tmp_path, orders)


# ------------------------------------------------------------------------------------------------------------------ as it should


def test_a_channel_is_created_listed_read_and_deleted(world: BroadcastWorld) -> None:
    broadcasts = world.clients.broadcasts
    created = world.create(Storage.LATEST)
    assert isinstance(created, Created)
    other = world.create(Storage.NOTHING)
    assert world.channels() == Listed((created.channel_id, other.channel_id))
    read = broadcasts.read("shop", created.channel_id, deadline=world.until())
    assert world.end(read) == Channel(created.channel_id, Storage.LATEST)
    deleted = broadcasts.delete("shop", created.channel_id, deadline=world.until())
    assert world.end(deleted) == Deleted(created.channel_id)
    assert world.channels() == Listed((other.channel_id,))


def test_a_broadcast_is_published_once_with_its_request_id(world: BroadcastWorld) -> None:
    channel_id = world.create().channel_id
    assert world.publish(channel_id, request_id=REQUEST_ID) == Published(REQUEST_ID)
    assert world.apple.ledger.accepted == 1


def test_apple_names_a_broadcast_that_has_no_request_id(world: BroadcastWorld) -> None:
    published = world.publish(world.create().channel_id)
    assert len(published.request_id) == 36


def test_a_list_as_long_as_apple_allows_is_read_whole(world: BroadcastWorld) -> None:
    for _ in range(3):
        world.create()
    one = json.dumps({"message-storage-policy": 0, "push-type": "LiveActivity"}).encode()
    for _ in range(9_997):
        world.apple.channels.carry_out(Call.CREATE, TOPIC, Request((), one, len(one)))
    listed = world.channels()
    assert len(listed.channel_ids) == 10_000


def test_pushes_and_channels_share_the_connection_and_the_provider_token_of_a_server_in_apples_place(tmp_path: Path) -> None:
    world = ordered(tmp_path)
    world.reload(world.app(host="127.0.0.1", port=2197))
    world.push(5)
    world.create()
    assert world.delivered_once()
    assert len(world.clients.pools) == 1
    assert world.apple.ledger.connections == 1
    world.stop()


# ------------------------------------------------------------------------------------------------------------- where it goes


def test_channels_are_managed_at_hosts_of_their_own(world: BroadcastWorld) -> None:
    world.create()
    world.publish(GONE)
    assert {(route.host, route.port) for route in world.clients.pools} == {
        ("api.sandbox.push.apple.com", 443),
        ("api-manage-broadcast.sandbox.push.apple.com", 2195),
    }


@pytest.mark.parametrize(
    ("changes", "authority"),
    [
        ({}, "api-manage-broadcast.sandbox.push.apple.com:2195"),
        ({"environment": "production"}, "api-manage-broadcast.push.apple.com:2196"),
        ({"host": "api.push.apple.com", "port": 2197}, "api-manage-broadcast.push.apple.com:2196"),
        ({"host": "localhost", "port": 2197}, "localhost:2197"),
        ({"host": "::1", "port": 443}, "[::1]"),
    ],
)
def test_a_server_in_apples_place_is_asked_for_everything(
    world: BroadcastWorld, changes: dict[str, object], authority: str
) -> None:
    world.reload(world.app(**changes))
    assert management_route(world.apps.all["shop"]).authority == authority


def test_the_connections_for_channels_are_left_with_the_key(world: BroadcastWorld) -> None:
    world.create()
    world.reload(world.app("second"))
    assert not world.clients.pools.keys() - world.apps.routes()
    assert isinstance(world.create(), Created)
    world.reload()
    assert dict(world.clients.pools) == {}


# -------------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("channel_id", ["", "not base64!", "A" * 129])
def test_what_is_no_channel_id_is_refused_before_anybody_is_asked(world: BroadcastWorld, channel_id: str) -> None:
    broadcasts = world.clients.broadcasts
    for asked in (
        broadcasts.read("shop", channel_id, deadline=world.until()),
        broadcasts.delete("shop", channel_id, deadline=world.until()),
        broadcasts.publish("shop", Broadcast(channel_id, PAYLOAD), deadline=world.until()),
    ):
        world.end(asked, 0.0).trap(BadPush)
    assert world.apple.ledger.connections == 0


def test_an_app_that_is_not_in_force_is_a_key_error(world: BroadcastWorld) -> None:
    world.end(world.clients.broadcasts.list("other", deadline=world.until())).trap(KeyError)


def test_apples_no_is_told_with_its_reason(world: BroadcastWorld) -> None:
    assert world.publish(GONE) == Rejected(400, "ChannelNotRegistered")
    read = world.clients.broadcasts.read("shop", GONE, deadline=world.until())
    assert world.end(read) == Rejected(400, "ChannelNotRegistered")
    channel_id = world.create(Storage.NOTHING).channel_id
    assert world.publish(channel_id, expiration=1_790_000_100) == Rejected(400, "BadExpirationDate")


def test_a_key_that_apple_does_not_know_is_told(world: BroadcastWorld) -> None:
    world.reload(world.app("unknown"))
    assert world.channels() == Rejected(403, "InvalidProviderToken")


def test_a_fault_at_apples_is_told_with_its_wait_and_not_repeated(tmp_path: Path) -> None:
    world = ordered(tmp_path, Reject(Reason.SERVICE_UNAVAILABLE, retry_after=7))
    assert world.create() == Rejected(503, "ServiceUnavailable", retry_after=7.0)
    assert world.apple.ledger.requests == 1
    world.stop()


# ------------------------------------------------------------------------------------------------------- what goes out again


def test_a_refused_request_goes_out_again_and_is_carried_out_once(tmp_path: Path) -> None:
    world = ordered(tmp_path, RefuseStream(When(until=2)), GoAway(When(at=3)))
    created = world.create()
    assert isinstance(created, Created)
    assert len(world.apple.channels) == 1
    world.stop()


def test_an_expired_provider_token_is_followed_by_a_new_one(tmp_path: Path) -> None:
    world = ordered(tmp_path, Reject(Reason.EXPIRED_PROVIDER_TOKEN, When(at=2)))
    world.create()
    world.advance(1500.0)  # Apple takes another token now
    assert isinstance(world.create(), Created)
    token = world.apps.provider_token(world.apps.all["shop"].route)
    assert token is not None
    assert (token.epoch, world.apple.ledger.requests) == (2, 3)
    world.stop()


def test_a_provider_token_that_is_too_young_to_be_replaced_is_told(tmp_path: Path) -> None:
    world = ordered(tmp_path, Reject(Reason.EXPIRED_PROVIDER_TOKEN))
    assert world.create() == Rejected(403, "ExpiredProviderToken")
    assert world.apple.ledger.requests == 1
    world.stop()


def test_a_server_that_shuts_down_is_followed_by_one_try_over_another_connection(tmp_path: Path) -> None:
    world = ordered(tmp_path, Reject(Reason.SHUTDOWN))
    assert world.create() == Rejected(503, "Shutdown")
    assert (world.apple.ledger.requests, world.apple.ledger.connections) == (2, 2)
    world.stop()


# ----------------------------------------------------------------------------------------------------------- nothing hangs


@pytest.mark.parametrize("order", [Stall(), Freeze(When(at=1)), Delay(60.0)])
def test_no_answer_is_unknown_by_the_deadline(tmp_path: Path, order: Order) -> None:
    world = ordered(tmp_path, order)
    _, ends = world.begin(world.clients.broadcasts.create("shop", Storage.LATEST, deadline=world.until(3.0)))
    world.advance(3.0)
    assert ends == [Unknown(Why.NO_ANSWER)]
    world.stop()


class UnreachableWorld(BroadcastWorld):
    """No connection comes about, and nobody says so."""

    def make_dialer(self, route: Route) -> MemoryDialer:
        dialer = super().make_dialer(route)
        dialer.hanging = True
        return dialer


def test_without_a_connection_it_was_not_sent_by_the_deadline(tmp_path: Path) -> None:
    world = UnreachableWorld(tmp_path)
    _, ends = world.begin(world.clients.broadcasts.list("shop", deadline=world.until(3.0)))
    world.advance(3.0)
    assert ends == [NotSent(Why.DEADLINE)]
    world.stop()


def test_a_deadline_that_has_passed_sends_nothing(world: BroadcastWorld) -> None:
    assert world.end(world.clients.broadcasts.list("shop", deadline=0.0), 0.0) == NotSent(Why.DEADLINE)
    assert world.apple.ledger.connections == 0


@pytest.mark.parametrize("status", [200, 204, 302])
def test_an_answer_that_is_none_of_apples_is_no_success(tmp_path: Path, status: int) -> None:
    world = ordered(tmp_path, OddAnswer(status=status, body=b"<html>"))
    expected = Rejected(302, "") if status == 302 else Unknown(Why.BAD_ANSWER)
    assert world.channels() == expected
    assert world.create() == expected
    world.stop()


def test_an_answer_without_an_end_is_given_up(tmp_path: Path) -> None:
    world = ordered(tmp_path, OddAnswer(status=400, body=b"x" * (MAX_ANSWER + 1)))
    assert world.channels() == Unknown(Why.BAD_ANSWER)
    world.stop()


def test_a_request_that_is_cancelled_ends_at_once(tmp_path: Path) -> None:
    world = ordered(tmp_path, Stall())
    asking, ends = world.begin(world.clients.broadcasts.list("shop", deadline=world.until()))
    world.advance(0.5)
    asking.cancel()
    (failure,) = ends
    failure.trap(CancelledError)
    world.stop()


def test_after_the_stop_nothing_is_sent(tmp_path: Path) -> None:
    world = ordered(tmp_path)
    world.stop()
    assert world.create() == NotSent(Why.STOPPING)
    assert not world.clock.getDelayedCalls()


troubles = st.lists(
    st.sampled_from(
        [
            RefuseStream(When(every=3)),
            GoAway(When(every=4)),
            Close(When(every=5)),
            Stall(When(every=7)),
            Reject(Reason.INTERNAL_SERVER_ERROR, When(every=6)),
            TinyWindows(),
            Delay(0.2),
        ]
    ),
    unique_by=type,
    max_size=4,
)


@given(troubles, st.integers(0, 1000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
def test_whatever_goes_wrong_each_request_ends_once_and_what_is_said_of_it_is_true(
    tmp_path: Path, orders: list[Order], seed: int
) -> None:
    world = BroadcastWorld(tmp_path, tuple(orders), seed=seed)
    broadcasts = world.clients.broadcasts
    asked = [world.begin(broadcasts.create("shop", Storage.LATEST, deadline=world.until(5.0)))[1] for _ in range(12)]
    world.advance(5.0)
    assert all(len(ends) == 1 for ends in asked), asked
    created = sum(isinstance(ends[0], Created) for ends in asked)
    unknown = sum(isinstance(ends[0], Unknown) for ends in asked)
    assert created <= len(world.apple.channels) <= created + unknown
    world.stop()

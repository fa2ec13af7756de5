"""Floods of frames that say nothing: what comes, and what becomes of pushes on a connection that is flooded."""

from __future__ import annotations

from collections import Counter

import pytest

from streampush.apns.http2 import FrameReader
from streampush.apns.outcome import Delivered, Unknown
from streampush.apns.simulator import Orders, SimulatedApple, Validation, When, describe, load_orders
from streampush.apns.simulator.orders import Flood, FloodOf
from tests.apns.clienting import ClientWorld
from tests.apns.simulator.providers import MINTED, H2Provider

TYPES = {
    FloodOf.SETTINGS: 4,
    FloodOf.PING: 6,
    FloodOf.WINDOW_UPDATE: 8,
    FloodOf.PRIORITY: 2,
    FloodOf.UNKNOWN: 0xFA,
    FloodOf.RST_STREAM: 3,
}


def flooded(order: Flood, seed: int = 0) -> bytes:
    """What the server writes at one request, without how the connection begins."""
    provider = H2Provider(SimulatedApple(Validation(keys=(MINTED.key,)), Orders((order,), seed)).connect(0.0))
    provider.exchange()
    provider.push()
    provider.connection.receive(provider.h2.data_to_send(), 0.0)
    return provider.connection.outbound()


def kinds(data: bytes) -> Counter[int]:
    reader = FrameReader()
    found = Counter(kind for kind, *_ in reader.feed(data))
    assert reader.fault is None
    return found


@pytest.mark.parametrize(("what", "kind"), TYPES.items())
def test_so_many_frames_of_that_kind_come(what: FloodOf, kind: int) -> None:
    found = kinds(flooded(Flood(When(), what, 300)))
    assert 300 <= found[kind] <= 302  # and what belongs to the request
    assert found[1] == (what is not FloodOf.RST_STREAM)  # which is answered as if nothing had happened


def test_a_mixed_one_has_all_kinds_but_the_one_that_ends_the_request() -> None:
    found = kinds(flooded(Flood(When(), FloodOf.MIXED, 500)))
    assert set(TYPES.values()) - {3} <= set(found)
    assert found[3] == 0


def test_the_seed_decides_what_comes() -> None:
    assert flooded(Flood(When()), 1) == flooded(Flood(When()), 1)
    assert len({flooded(Flood(When()), seed) for seed in range(3)}) == 3


def test_a_flood_is_an_order_of_a_file() -> None:
    orders = load_orders('[[order]]\nkind = "flood"\nwhat = "ping"\nframes = 7\nat = 3', "x")
    assert orders.orders == (Flood(When(at=3), FloodOf.PING, 7),)
    assert describe(orders.orders[0]) == "flood what=ping frames=7 at=3"


@pytest.mark.parametrize("what", FloodOf)
def test_a_flood_ends_its_connection_and_what_the_client_believes_is_true(what: FloodOf) -> None:
    world = ClientWorld((Flood(When(at=20), what, 5000),))
    world.push(40)
    world.advance(5.0)  # the breaker may have opened, and has let a probe through
    world.push()
    world.advance(5.0)
    world.push(50)
    world.advance(5.0)
    assert [type(sent.outcome) for sent in world.sent[41:]] == [Delivered] * 50
    assert world.apple.ledger.connections == 2
    for sent in world.sent:
        times = world.apple.ledger.times_accepted(sent.push.apns_id)
        assert times == 1 if isinstance(sent.outcome, Delivered) else times <= isinstance(sent.outcome, Unknown), sent.outcome
    world.stop()


@pytest.mark.parametrize("what", FloodOf)
def test_a_few_such_frames_are_borne(what: FloodOf) -> None:
    world = ClientWorld((Flood(When(at=20), what, 40),))
    world.push(100, timeout=30.0)
    world.advance(31.0)
    assert world.delivered() == 100
    assert world.apple.ledger.connections == 1
    world.stop()

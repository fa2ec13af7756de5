"""Storms: thousands of clients lose their connections at once. How fast do they come back, and when is the last one there?"""

from __future__ import annotations

import pytest

from streampush.config import AdmissionConfig
from streampush.protocol.messages import ReconnectPolicy
from streampush.server.governor import ANNOUNCED_EVERY, RESTART_PAUSE
from streampush.server.leaving import LEAD
from tests.server.storm import HANDSHAKE, Storm, StormNode, busiest

CLIENTS = 3_000
RATE = 200.0
POLICY = ReconnectPolicy()

SPREAD = CLIENTS / RATE
"""Seconds that all of them need at the announced rate."""


def storm(*caps: int, rate: float = RATE, clients: int = CLIENTS, **limits: int) -> Storm:
    configs = [AdmissionConfig(cap, accept_rate=rate, accept_burst=int(rate), max_handshakes=1_000, **limits) for cap in caps]
    return Storm(clients, *configs, policy=POLICY)


def drain(node: StormNode) -> None:
    node.admission.draining = True
    node.leaving.drain()


def stop(node: StormNode, seconds: float) -> None:
    node.admission.draining = True
    node.leaving.stop("stopped", seconds)


def comes_under(node: StormNode, rate: float) -> bool:
    """Whether nobody was refused, and no second and no ten of them had more than the rate, but for the ends of the window."""
    assert node.refused == node.told == 0
    return busiest(node.tried, 1.0) <= rate + 2 and busiest(node.tried, 10.0) <= 10 * rate + 2


def test_a_drain_fills_the_other_node_at_its_rate_and_is_over_in_the_announced_time() -> None:
    weather = storm(10_000, 10_000)
    old, new = weather.nodes
    drain(old)
    weather.clock.run(SPREAD + LEAD + HANDSHAKE)
    assert weather.away == 0
    assert (len(old.guests), len(new.guests)) == (0, CLIENTS)
    assert comes_under(new, RATE)
    assert len(new.tried) == CLIENTS


def test_during_a_drain_hardly_anybody_is_away() -> None:
    weather = storm(10_000, 10_000)
    drain(weather.nodes[0])
    most = 0
    while weather.nodes[0].guests:
        weather.clock.run(0.1)
        most = max(most, weather.away)
    assert most <= RATE * (LEAD + HANDSHAKE + 0.2)


def test_a_stop_has_told_all_within_half_of_its_time_and_all_are_back_in_the_announced_time() -> None:
    weather = storm(10_000, 10_000)
    old, new = weather.nodes
    stop(old, 10.0)
    weather.clock.run(5.5)
    assert not old.guests
    weather.clock.run(SPREAD + LEAD + HANDSHAKE - 5.5)
    assert weather.away == 0
    assert comes_under(new, RATE)


def test_a_node_that_is_alone_has_its_clients_back_at_its_own_rate_after_a_restart() -> None:
    weather = storm(10_000)
    (node,) = weather.nodes
    stop(node, 10.0)
    weather.clock.run(1.0)
    assert weather.away == CLIENTS
    node.admission.draining = False
    weather.clock.run(RESTART_PAUSE + SPREAD + HANDSHAKE - 1.0)
    assert weather.away == 0
    assert comes_under(node, RATE)


def test_several_nodes_take_more_together() -> None:
    weather = storm(10_000, 10_000, 10_000)
    drain(weather.nodes[0])
    weather.clock.run(SPREAD / 2 + 3 * LEAD)
    assert weather.away == 0
    assert sum(len(node.guests) for node in weather.nodes[1:]) == CLIENTS


def test_two_nodes_that_drain_at_once_share_the_rate_of_the_third() -> None:
    weather = storm(10_000, 10_000, 10_000)
    first, second, third = weather.nodes
    for client in weather.clients[::2]:  # half of them to the second
        first.guests.pop(client)
        first.admission.released(client.host)
        client.settle(second)
    first.admission.draining = second.admission.draining = True
    weather.clock.run(ANNOUNCED_EVERY)
    for node in (first, second):
        node.leaving.drain()
    weather.clock.run(2 * SPREAD)
    assert len(third.guests) == CLIENTS
    assert busiest(third.tried, 10.0) <= 10 * RATE * 1.3  # the first steps do not know of each other yet


def test_a_node_that_fills_up_gets_no_more_and_the_rest_stays_connected() -> None:
    weather = storm(10_000, 1_000)
    old, new = weather.nodes
    drain(old)
    weather.clock.run(2 * SPREAD)
    assert (len(old.guests), len(new.guests), weather.away) == (CLIENTS - 1_000, 1_000, 0)
    assert comes_under(new, RATE)


@pytest.mark.parametrize("dies", [True, False])
def test_who_is_cut_without_a_word_is_let_in_at_the_rate_and_all_are_back_in_the_end(dies: bool) -> None:
    """Nobody could tell them when to come: what holds is admission, then slots for some, and the backoff of the others."""
    weather = storm(10_000, 10_000)
    old, _ = weather.nodes
    old.up = not dies
    weather.cut(old)
    took = weather.run_until_back(SPREAD + POLICY.backoff_max_ms / 1000)
    assert took >= SPREAD / 2 - 5
    for node in weather.nodes:
        assert busiest(node.admitted, 1.0) <= 2 * RATE  # the burst, and a second at the rate
        assert busiest(node.admitted, 10.0) <= 11 * RATE
    assert sum(node.told for node in weather.nodes) > 0

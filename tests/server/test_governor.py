from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from streampush.protocol.codes import Code
from streampush.push.values import NodeRecord, NodeState
from streampush.server.capacity import HandshakeCapacity
from streampush.server.governor import LEAST_SHARE, LEAST_WAIT, RESTART_PAUSE, Governor

OTHER = NodeRecord("n2", 1, connections=10, cap=110, handshakes_per_second=100.0, free_per_second=60.0)
NOW = 1_000.0


def governor(*others: NodeRecord) -> Governor:
    made = Governor(HandshakeCapacity(2.0, 200.0, lambda: 0.0), Random(1))
    made.heard(others)
    return made


def test_without_others_nobody_is_taken() -> None:
    alone = governor()
    assert (alone.rate_elsewhere(), alone.room_elsewhere()) == (0.0, 0)


def test_others_take_together_what_they_have_free() -> None:
    joined = governor(OTHER, replace(OTHER, name="n3", free_per_second=20.0, cap=20))
    assert (joined.rate_elsewhere(), joined.room_elsewhere()) == (80.0, 110)


@pytest.mark.parametrize("state", [NodeState.DRAINING, NodeState.STARTING])
def test_a_node_that_does_not_serve_takes_nobody(state: NodeState) -> None:
    assert governor(replace(OTHER, state=state)).takers() == ()


def test_others_that_are_busy_are_sent_some_nevertheless() -> None:
    assert governor(replace(OTHER, free_per_second=0.0)).rate_elsewhere() == LEAST_SHARE * 100.0


def test_nodes_that_leave_at_the_same_time_share_what_is_free() -> None:
    leaver = replace(OTHER, name="n3", state=NodeState.DRAINING, leaving=5)
    joined = governor(OTHER, leaver)
    assert (joined.rate_elsewhere(), joined.room_elsewhere()) == (30.0, 50)


def test_whom_the_others_were_sent_just_now_takes_room_until_their_figures_have_them() -> None:
    joined = governor(OTHER)
    for _ in range(7):
        joined.slot_elsewhere(NOW)
    assert joined.room_elsewhere() == 93
    joined.heard([OTHER])
    assert joined.room_elsewhere() == 93  # they may have announced themselves before these arrived
    joined.heard([replace(OTHER, connections=17)])
    assert joined.room_elsewhere() == 93


def test_what_they_are_busy_with_because_of_this_node_does_not_slow_it_down() -> None:
    joined = governor(OTHER)
    for _ in range(60):
        joined.slot_elsewhere(NOW)
    joined.heard([replace(OTHER, free_per_second=30.0)])
    assert joined.rate_elsewhere() == 60.0


def test_slots_elsewhere_come_at_the_others_rate_and_here_at_our_own() -> None:
    joined = governor(OTHER)
    assert [joined.slot_elsewhere(NOW) for _ in range(3)] == pytest.approx([0.0, 1 / 60, 2 / 60])
    assert [joined.slot_here(NOW, RESTART_PAUSE) for _ in range(2)] == pytest.approx([RESTART_PAUSE, RESTART_PAUSE + 1 / 200])


def test_one_who_is_refused_gets_a_slot_where_the_advice_sends_it() -> None:
    joined = governor(OTHER)
    for code in (Code.DRAINING, Code.CONNECTION_LIMIT, Code.ACCEPT_RATE_LIMIT):
        assert joined.slot_for_refusal(code, NOW) >= LEAST_WAIT
    assert joined.wait_elsewhere(NOW) == pytest.approx(LEAST_WAIT + 2 / 60)


def test_without_others_even_elsewhere_is_here() -> None:
    alone = governor()
    assert [alone.slot_for_refusal(Code.DRAINING, NOW) for _ in range(2)] == pytest.approx([LEAST_WAIT, LEAST_WAIT + 1 / 200])
    assert alone.promised(NOW) == 2

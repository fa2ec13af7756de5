"""The client's side: docs/protocol.md sections 6.2, 7 and 8."""

from __future__ import annotations

import pytest

from streampush.protocol import messages as m
from streampush.protocol.client_session import ClientSession
from streampush.protocol.codes import Advice, Code
from streampush.protocol.session import Closed, Received, SessionSettings
from streampush.protocol.state import State
from tests.protocol.driving import client, sent, wire
from tests.protocol.test_session import run

TOO_MANY = m.Error.of(Code.TOO_MANY_PINGS)


def pings(session: ClientSession, until: float) -> list[float]:
    """When the session pings a server that says nothing; it may be lost before `until`."""
    at: list[float] = []
    while session.deadline <= until and not session.closed:
        now = session.deadline
        session.tick(now)
        at += [now for _, message in sent(session) if isinstance(message, m.Ping)]
    return at


class TestWatch:
    def test_it_watches_one_reply_timeout_later_than_the_server(self) -> None:
        assert pings(client(), 119.0) == [40.0, 80.0, 110.0]

    def test_a_silent_server_is_lost(self) -> None:
        closed = Closed(Code.HEARTBEAT_LOST, Advice.RECONNECT, "silent for 120.0 s")
        assert run(client(), 1000.0)[-1] == (120.0, closed)

    def test_the_announced_policy_counts(self) -> None:
        session = client(welcome=m.Welcome(heartbeat=m.HeartbeatPolicy(5000, 1000, 2)))
        assert pings(session, 1000.0) == [6.0, 11.0]

    @pytest.mark.parametrize(
        "policy",
        [m.HeartbeatPolicy(0, 0, 0), m.HeartbeatPolicy(1000, 2000, 3), m.HeartbeatPolicy(1000, 900, 1)],
    )
    def test_a_policy_that_makes_no_sense_is_replaced(self, policy: m.HeartbeatPolicy) -> None:
        assert pings(client(welcome=m.Welcome(heartbeat=policy)), 119.0) == [40.0, 80.0, 110.0]

    def test_before_welcome_nobody_is_watched(self) -> None:
        session = client(State.AWAIT_HELLO)
        assert session.receive(wire(m.Ping(), request_id=8), 1.0) == []
        assert sent(session) == [(8, m.Pong())]
        assert session.deadline == 10.0


class TestSlowDown:
    def test_2008_doubles_the_interval_from_now_on(self) -> None:
        session = client(first_ping=0.1)
        session.tick(4.0)
        sent(session)
        session.receive(wire(TOO_MANY), 4.5)
        assert pings(session, 230.0) == [84.5, 164.5]
        assert session.slowdown == 2

    def test_it_doubles_again(self) -> None:
        session = client()
        session.receive(wire(TOO_MANY, TOO_MANY), 0.0)
        assert pings(session, 320.0) == [160.0, 320.0]

    def test_it_stops_at_an_hour(self) -> None:
        session = client()
        session.receive(wire(*[TOO_MANY] * 2000), 0.0)
        assert pings(session, 3600.0) == [3600.0]
        assert session.slowdown == 4096

    def test_an_interval_above_an_hour_stays(self) -> None:
        session = client(welcome=m.Welcome(heartbeat=m.HeartbeatPolicy(7_200_000, 1000, 3)))
        session.receive(wire(TOO_MANY), 0.0)
        assert pings(session, 8000.0) == [7201.0]

    def test_the_next_connection_goes_on_with_it(self) -> None:
        session = ClientSession(SessionSettings(), 0.0, 1.0, slowdown=2.0)
        session.tls_done(0.0)
        session.receive(wire(m.Welcome()), 0.0)
        assert pings(session, 100.0) == [80.0]

    def test_a_goaway_with_2008_counts_too(self) -> None:
        session = client(State.AWAIT_HELLO)
        session.receive(wire(m.GoAway(Code.TOO_MANY_PINGS)), 0.0)
        assert session.slowdown == 2

    def test_other_errors_change_nothing(self) -> None:
        session = client()
        session.receive(wire(m.Error.of(Code.FORBIDDEN), m.GoAway(Code.DRAINING)), 0.0)
        assert session.slowdown == 1


class TestLeaving:
    def test_a_goaway_leaves_the_time_that_it_names(self) -> None:
        session = client()
        goaway = m.GoAway(Code.DRAINING, Advice.RECONNECT_ELSEWHERE, "draining", 50_000, 6, 2500)
        assert session.receive(wire(goaway), 1.0) == [Received(0, goaway)]
        assert session.state is State.DRAINING
        assert run(session, 100.0) == [(3.5, Closed(Code.DRAINING, Advice.RECONNECT_ELSEWHERE, "draining"))]
        assert sent(session)[-1] == (0, m.GoAway(Code.DRAINING, Advice.RECONNECT_ELSEWHERE, "draining", 47_500, 6, 0))

    def test_without_a_time_it_is_the_drain_timeout(self) -> None:
        session = client(settings=SessionSettings(drain_timeout=4.0))
        session.receive(wire(m.GoAway(Code.DRAINING)), 1.0)
        assert session.deadline == 5.0

    def test_a_refusal_before_welcome_ends_the_wait_for_it(self) -> None:
        session = client(State.AWAIT_HELLO)
        session.receive(wire(m.GoAway(Code.FORBIDDEN, close_after_ms=60_000)), 1.0)
        assert session.deadline == 61.0

    def test_an_unknown_code_keeps_its_number(self) -> None:
        session = client()
        session.receive(wire(m.GoAway(4242, Advice.UPGRADE, close_after_ms=1)), 0.0)
        assert run(session, 1.0)[-1][1] == Closed(4242, Advice.UPGRADE, "")

    def test_a_welcome_that_crosses_a_drain_is_taken(self) -> None:
        session = client(State.AWAIT_HELLO)
        events = session.receive(wire(m.GoAway(Code.DRAINING), m.Welcome(), m.BacklogEnd("c", 1)), 0.0)
        assert [type(event.message) for event in events if isinstance(event, Received)] == [m.GoAway, m.Welcome, m.BacklogEnd]

    def test_it_says_goodbye(self) -> None:
        session = client()
        session.send(m.GoAway(0))
        assert sent(session) == [(0, m.GoAway(0))]


class TestFirstPing:
    def test_it_comes_at_its_random_point(self) -> None:
        assert pings(client(first_ping=0.5), 119.0) == [20.0, 40.0, 80.0, 110.0]

    def test_it_is_left_out_if_the_next_one_would_come_sooner_than_the_minimum(self) -> None:
        assert pings(client(first_ping=0.8), 119.0) == [40.0, 80.0, 110.0]

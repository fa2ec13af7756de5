"""What both sides have in common: faults, damage, deadlines, heartbeats, closing. docs/protocol.md sections 3.2 and 6 to 9."""

from __future__ import annotations

import pytest

from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from streampush.protocol.errors import LocalProtocolError
from streampush.protocol.framing import encode_frame
from streampush.protocol.heartbeat import HeartbeatSettings
from streampush.protocol.session import (
    Closed,
    Event,
    Faulted,
    Jittered,
    PingMissed,
    Received,
    RoundTripped,
    Session,
    SessionSettings,
)
from streampush.protocol.state import State
from tests.protocol.driving import client, sent, server, wire

BAD_CHECKSUM = encode_frame(b"x")[:-1] + b"\0"
GARBAGE = encode_frame(b"\xff\xff")
ACK = m.Ack("c", 1)
PATIENT = HeartbeatSettings(1e6, 1.0, 3)


def run(session: Session, until: float) -> list[tuple[float, Event]]:
    """Ticks exactly at every deadline up to `until`."""
    seen: list[tuple[float, Event]] = []
    while session.deadline <= until:
        now = session.deadline
        seen += [(now, event) for event in session.tick(now)]
    return seen


class TestDamage:
    @pytest.mark.parametrize(
        ("damage", "code", "detail"),
        [
            (BAD_CHECKSUM, Code.CHECKSUM_MISMATCH, "frame of 1 bytes"),
            (GARBAGE, Code.SERIALIZATION_ERROR, "2 bytes are no Envelope"),
            (bytes(8), Code.EMPTY_FRAME, "length 0, allowed are 1 to 1048576"),
            (b"\xff" * 8, Code.FRAME_TOO_LARGE, "length 4294967295, allowed are 1 to 1048576"),
        ],
        ids=["checksum", "garbage", "empty", "too large"],
    )
    def test_damage_is_answered_and_survived(self, damage: bytes, code: Code, detail: str) -> None:
        session = server()
        assert session.receive(damage + wire(ACK), 1.0) == [Faulted(code, detail), Received(0, ACK)]
        assert sent(session) == [(0, m.Error.of(code, detail))]

    def test_damage_before_hello_is_answered_too(self) -> None:
        session = server(State.AWAIT_HELLO)
        session.receive(BAD_CHECKSUM + wire(m.Hello()), 1.0)
        assert [type(message) for _, message in sent(session)] == [m.Error]
        assert session.state is State.ESTABLISHED

    def test_damage_before_tls_has_no_answer(self) -> None:
        session = server(State.AWAIT_TLS)
        assert session.receive(BAD_CHECKSUM, 1.0) == [Faulted(Code.CHECKSUM_MISMATCH, "frame of 1 bytes")]
        assert session.data_to_send() == b""

    def test_too_many_in_a_row_close(self) -> None:
        session = server(settings=SessionSettings(max_bad_frames=2))
        events = session.receive((BAD_CHECKSUM + GARBAGE) * 2, 1.0)
        detail = "3 bad frames in a row, the last: frame of 1 bytes"
        assert [type(event) for event in events] == [Faulted, Faulted, Closed]
        assert events[-1] == Closed(Code.CHECKSUM_MISMATCH, Advice.RETRY, detail)
        assert sent(session)[-1] == (0, m.GoAway(Code.CHECKSUM_MISMATCH, Advice.RETRY, detail))

    @pytest.mark.parametrize("good", [ACK, m.Ping(), m.Unknown()], ids=["ack", "ping", "unknown"])
    def test_a_good_envelope_ends_the_row(self, good: m.Message) -> None:
        session = server(settings=SessionSettings(max_bad_frames=2))
        for _ in range(3):
            session.receive(BAD_CHECKSUM * 2 + wire(good), 1.0)
        assert not session.closed

    def test_none_in_a_row_closes_with_the_first(self) -> None:
        session = server(settings=SessionSettings(max_bad_frames=0))
        assert isinstance(session.receive(GARBAGE, 1.0)[-1], Closed)

    def test_a_stream_beyond_repair_closes(self) -> None:
        session = server(settings=SessionSettings(max_resync_bytes=16))
        events = session.receive(wire(ACK) + b"\xff" * 40, 1.0)
        detail = "no frame within 16 bytes behind a lost position"
        assert events[0] == Received(0, ACK)
        assert events[-1] == Closed(Code.FRAME_TOO_LARGE, Advice.DO_NOT_RECONNECT, detail)

    def test_nothing_behind_a_close_is_looked_at(self) -> None:
        session = server()
        events = session.receive(wire(m.Hello(), ACK, ACK), 1.0)
        assert [type(event) for event in events] == [Closed]

    def test_frames_are_counted_whether_they_decode_or_not(self) -> None:
        session = server()
        before = session.frames_received
        session.receive(wire(ACK, m.Ping()) + GARBAGE + BAD_CHECKSUM, 1.0)
        assert session.frames_received == before + 3


class TestFrameTimeout:
    def test_a_started_frame_must_be_complete_in_time(self) -> None:
        session = server(settings=SessionSettings(heartbeat=PATIENT))
        session.receive(wire(ACK)[:5], 1.0)
        assert session.deadline == 31.0
        detail = "a started frame was not completed in time"
        assert session.tick(31.0) == [Closed(Code.FRAME_TIMEOUT, Advice.RECONNECT, detail)]

    def test_a_trickling_peer_gains_nothing(self) -> None:
        session = server(settings=SessionSettings(heartbeat=PATIENT))
        for second, byte in enumerate(wire(m.Publish("c", b"x" * 100))):
            session.receive(bytes((byte,)), float(second))
            if session.deadline <= second + 1:
                break
        assert session.deadline == 30.0

    def test_it_is_told_that_a_frame_waits_for_its_rest(self) -> None:
        session = server()
        frame = wire(m.Ping(), request_id=1)
        seen = [session.mid_frame]
        for part in (frame[:3], frame[3:]):
            session.receive(part, 1.0)
            seen.append(session.mid_frame)
        assert seen == [False, True, False]

    def test_a_complete_frame_ends_it(self) -> None:
        session = server(settings=SessionSettings(heartbeat=PATIENT))
        session.receive(wire(ACK)[:5], 1.0)
        session.receive(wire(ACK)[5:], 2.0)
        assert session.deadline > 1e5

    def test_the_frame_begun_behind_a_complete_one_has_its_own_time(self) -> None:
        session = server(settings=SessionSettings(heartbeat=PATIENT))
        session.receive(wire(ACK)[:5], 1.0)
        session.receive(wire(ACK)[5:] + b"\0", 20.0)
        assert session.deadline == 50.0

    def test_a_scan_must_find_a_frame_in_time(self) -> None:
        session = server(settings=SessionSettings(heartbeat=PATIENT))
        session.receive(bytes(8), 1.0)
        assert session.deadline == 31.0
        session.receive(wire(ACK), 30.0)
        assert session.deadline > 1e5


class TestGreeting:
    def test_the_handshake_has_its_time(self) -> None:
        session = server(State.AWAIT_TLS)
        assert session.deadline == 10.0
        assert session.tick(9.99) == []
        detail = "TLS handshake not done in time"
        assert session.tick(10.0) == [Closed(Code.CONNECTION_TIMED_OUT, Advice.RECONNECT, detail)]
        assert session.data_to_send() == b""

    @pytest.mark.parametrize("make", [server, client])
    def test_the_greeting_has_its_time(self, make: type[Session]) -> None:
        session = make(State.AWAIT_HELLO)  # type: ignore[arg-type,call-arg]  # a function that makes one
        assert session.deadline == 10.0
        assert session.tick(10.0) == [Closed(Code.HELLO_TIMEOUT, Advice.RECONNECT, "no greeting in time")]
        assert sent(session) == [(0, m.GoAway(Code.HELLO_TIMEOUT, Advice.RECONNECT, "no greeting in time"))]

    def test_the_time_for_the_greeting_begins_with_the_first_handshake(self) -> None:
        session = server(State.AWAIT_TLS)
        session.tls_done(4.0)
        session.tls_done(9.0)
        assert session.deadline == 14.0


class TestCertificate:
    def test_a_certificate_that_expires_ends_the_connection(self) -> None:
        session = server(State.AWAIT_TLS)
        session.tls_done(1.0, certificate_deadline=5.0)
        session.receive(wire(m.Hello()), 1.0)
        detail = "certificate expired while connected"
        assert run(session, 5.0) == [(5.0, Closed(Code.CERTIFICATE_REJECTED, Advice.RENEW_CERTIFICATE, detail))]

    def test_a_later_handshake_brings_a_later_date(self) -> None:
        session = server(State.AWAIT_TLS)
        session.tls_done(1.0, certificate_deadline=5.0)
        session.receive(wire(m.Hello()), 1.0)
        session.tls_done(2.0, certificate_deadline=1e9)
        assert run(session, 6.0) == []


class TestIdle:
    SETTINGS = SessionSettings(idle_timeout=100.0, heartbeat=PATIENT)

    def test_a_connection_that_only_beats_is_closed(self) -> None:
        session = server(settings=self.SETTINGS)
        session.tick(100.0)  # Hello was activity
        session.receive(wire(m.Ping()), 150.0)
        closed = Closed(Code.CONNECTION_TIMED_OUT, Advice.RECONNECT, "idle for too long")
        assert run(session, 300.0) == [(200.0, closed)]

    def test_a_message_keeps_it_open(self) -> None:
        session = server(settings=self.SETTINGS)
        session.tick(100.0)
        session.receive(wire(ACK), 199.0)
        assert run(session, 250.0) == []
        assert session.deadline == 300.0

    def test_a_delivery_keeps_it_open(self) -> None:
        session = server(settings=self.SETTINGS)
        session.tick(100.0)
        session.active = True
        assert run(session, 250.0) == []


class TestAge:
    @pytest.mark.parametrize(("first_ping", "at"), [(0.0, 90.0), (0.5, 100.0), (1.0, 110.0)])
    def test_an_old_connection_drains_at_an_age_that_is_spread(self, first_ping: float, at: float) -> None:
        session = server(settings=SessionSettings(max_age=100.0, heartbeat=PATIENT), first_ping=first_ping)
        run(session, at - 1)
        session.data_to_send()
        assert session.state is State.ESTABLISHED
        run(session, at + 0.1)  # 0.9 and 0.2 are no exact floats
        assert session.state is State.DRAINING
        assert sent(session) == [(0, m.GoAway(Code.MAXIMUM_AGE, Advice.RECONNECT, "maximum age", close_after_ms=10_000))]

    def test_it_is_closed_if_it_does_not_leave(self) -> None:
        session = server(settings=SessionSettings(max_age=100.0, heartbeat=PATIENT), first_ping=0.5)
        assert run(session, 1000.0)[-1] == (110.0, Closed(Code.MAXIMUM_AGE, Advice.RECONNECT, "maximum age"))


class TestDraining:
    def test_messages_still_pass(self) -> None:
        session = server(State.DRAINING)
        assert session.receive(wire(ACK), 1.0) == [Received(0, ACK)]
        session.send(m.Ok(), 1)
        assert sent(session) == [(1, m.Ok())]

    def test_the_last_goaway_repeats_the_first_and_names_the_same_moment(self) -> None:
        session = server()
        goaway = session.goaway(Code.OVERLOADED, "too hot", retry_after_ms=60_000, jitter_ms=6)
        session.drain(1.0, goaway)
        sent(session)
        closed = Closed(Code.OVERLOADED, Advice.RECONNECT_ELSEWHERE, "too hot")
        assert run(session, 11.0) == [(11.0, closed)]
        assert sent(session) == [(0, m.GoAway(Code.OVERLOADED, Advice.RECONNECT_ELSEWHERE, "too hot", 50_000, 6, 0))]

    def test_a_second_drain_changes_the_reason_and_never_gives_more_time(self) -> None:
        session = server()
        session.drain(1.0, session.goaway(Code.MAXIMUM_AGE))
        session.drain(5.0, session.goaway(Code.DRAINING))
        assert run(session, 11.0) == [(11.0, Closed(Code.DRAINING, Advice.RECONNECT_ELSEWHERE, "draining"))]

    def test_the_peer_may_leave_before(self) -> None:
        session = server(State.DRAINING)
        goodbye = m.GoAway(0, detail="bye")
        assert session.receive(wire(goodbye), 1.0) == [Received(0, goodbye), Closed(0, Advice.UNSPECIFIED, "bye", by_peer=True)]
        assert sent(session) == []


class TestClosing:
    def test_advice_and_waiting_times_can_be_given(self) -> None:
        session = server()
        (closed,) = session.close(Code.FORBIDDEN, "no", advice=Advice.RECONNECT, retry_after_ms=7, jitter_ms=8)
        assert closed == Closed(Code.FORBIDDEN, Advice.RECONNECT, "no")
        assert sent(session) == [(0, m.GoAway(Code.FORBIDDEN, Advice.RECONNECT, "no", 7, 8))]

    def test_advice_unspecified_is_an_advice(self) -> None:
        assert server().close(Code.DRAINING, advice=Advice.UNSPECIFIED) == [Closed(Code.DRAINING, Advice.UNSPECIFIED, "draining")]

    def test_what_was_queued_goes_out_before_the_goaway(self) -> None:
        session = server()
        session.send(m.Ok(), 4)
        session.close(Code.REPLACED)
        assert [type(message) for _, message in sent(session)] == [m.Ok, m.GoAway]

    def test_a_message_above_the_frame_limit_is_our_fault(self) -> None:
        session = server(settings=SessionSettings(max_frame=100))
        with pytest.raises(LocalProtocolError, match="allowed are 1 to 100"):
            session.send(m.Delivery("c", 1, "m", b"x" * 100))

    def test_two_deadlines_at_once_close_once(self) -> None:
        session = server(State.AWAIT_TLS)
        session.receive(b"\0", 0.0)
        assert [type(event) for event in session.tick(1e9)] == [Closed]


class TestHeartbeat:
    def test_silence_is_pinged_noticed_and_cut(self) -> None:
        session = server()
        events = run(session, 1000.0)
        assert events == [
            (40.0, PingMissed()),
            (60.0, Jittered(60.0)),
            (70.0, PingMissed()),
            (90.0, PingMissed()),
            (90.0, Closed(Code.HEARTBEAT_LOST, Advice.RECONNECT, "silent for 90.0 s")),
        ]
        messages = sent(session)
        assert messages[:3] == [(1, m.Ping()), (2, m.Ping()), (3, m.Ping())]
        assert isinstance(messages[3][1], m.GoAway)

    @pytest.mark.parametrize("life", [wire(m.Pong()), wire(ACK), wire(m.Unknown()), GARBAGE])
    def test_any_frame_with_a_right_checksum_is_life(self, life: bytes) -> None:
        session = server()
        run(session, 80.0)
        session.receive(life, 85.0)
        assert run(session, 114.0) == []

    def test_a_frame_with_a_wrong_checksum_is_no_life(self) -> None:
        session = server()
        run(session, 80.0)
        session.receive(BAD_CHECKSUM, 85.0)
        assert isinstance(run(session, 90.0)[-1][1], Closed)

    def test_an_answer_gives_the_round_trip(self) -> None:
        session = server()
        run(session, 30.0)
        ((number, _),) = sent(session)
        assert session.receive(wire(m.Pong(), request_id=number), 30.5) == [RoundTripped(0.5)]

    def test_an_answer_to_nothing_is_no_event(self) -> None:
        assert server().receive(wire(m.Pong(), request_id=9), 1.0) == []

    def test_heartbeats_go_on_while_draining(self) -> None:
        session = server(State.DRAINING, SessionSettings(drain_timeout=1000.0))
        assert isinstance(run(session, 90.0)[-1][1], Closed)


class TestFirstPing:
    def test_the_session_hands_its_point_to_the_heartbeat(self) -> None:
        session = server(first_ping=0.25)
        assert session.deadline == 7.5
        session.tick(7.5)
        assert sent(session) == [(1, m.Ping())]


class TestPingGuard:
    def test_pings_at_the_minimum_are_welcome(self) -> None:
        session = server()
        for second in range(0, 100, 10):
            assert session.receive(wire(m.Ping(), request_id=3), float(second)) == []
        assert set(sent(session)) == {(3, m.Pong())}

    def test_a_ping_too_soon_is_answered_and_told(self) -> None:
        session = server()
        session.receive(wire(m.Ping(), request_id=3), 0.0)
        sent(session)
        detail = "pings must be 10 s apart"
        assert session.receive(wire(m.Ping(), request_id=4), 9.9) == [Faulted(Code.TOO_MANY_PINGS, detail)]
        assert sent(session) == [(4, m.Pong()), (0, m.Error.of(Code.TOO_MANY_PINGS, detail))]

    def test_the_fourth_strike_closes(self) -> None:
        session = server()
        events = session.receive(wire(*[m.Ping()] * 6), 1.0)
        assert [type(event) for event in events] == [Faulted, Faulted, Faulted, Closed]
        assert events[-1] == Closed(Code.TOO_MANY_PINGS, Advice.SLOW_DOWN, "pings must be 10 s apart")

    def test_a_ping_in_time_takes_a_strike_back(self) -> None:
        session = server()
        now = 0.0
        session.receive(wire(m.Ping()), now)
        for _ in range(20):
            now += 1.0
            session.receive(wire(m.Ping()), now)
            now += 10.0
            session.receive(wire(m.Ping()), now)
        assert not session.closed

    def test_a_ping_in_time_takes_one_strike_back_only(self) -> None:
        session = server()
        session.receive(wire(*[m.Ping()] * 4), 0.0)
        session.receive(wire(m.Ping(), m.Ping()), 10.0)
        assert not session.closed
        assert isinstance(session.receive(wire(m.Ping()), 10.0)[-1], Closed)

    def test_a_client_does_not_count_the_servers_pings(self) -> None:
        session = client()
        assert session.receive(wire(*[m.Ping()] * 50), 1.0) == []
        assert len(sent(session)) == 50


class TestVersions:
    @pytest.mark.parametrize(("low", "high"), [(2, 9), (0, 0), (3, 1)])
    def test_a_range_without_our_version_is_refused(self, low: int, high: int) -> None:
        session = server(State.AWAIT_HELLO)
        detail = f"client speaks protocol {low} to {high}, this server 1"
        events = session.receive(wire(m.Hello(low, high)), 1.0)
        assert events == [Closed(Code.UNSUPPORTED_VERSION, Advice.UPGRADE, detail)]

    def test_a_range_around_our_version_is_welcome(self) -> None:
        assert server(State.AWAIT_HELLO).receive(wire(m.Hello(0, 7)), 1.0) == [Received(0, m.Hello(0, 7))]

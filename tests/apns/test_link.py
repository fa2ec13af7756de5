"""One connection: turns, writes, backpressure, and its end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from streampush.apns.exchange import Exchange, Fault
from streampush.apns.http2 import ClientConnection, ErrorCode, HeaderList, Limits, RemoteProtocolError, Verdict, frames
from streampush.apns.http2.frames import PREFACE, FrameReader, FrameType
from streampush.apns.http2.settings import Setting
from streampush.apns.link import Link
from streampush.apns.link_state import LinkEnd, LinkState
from streampush.apns.outcome import Why
from streampush.apns.pool_limits import PoolLimits
from tests.apns.http2.driving import OK
from tests.apns.pooling import PlainSecurity, Push


class Transport(StringTransport):
    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled


class Owner:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.moves: list[LinkState] = []
        self.worn: list[str] = []
        self.ends: list[LinkEnd] = []
        self.returned: list[tuple[Exchange, Fault]] = []
        self.goaways: list[int] = []
        self.idle = 0
        self.ready = 0

    def link_ready(self) -> None:
        self.ready += 1

    def link_moved(self, link: Link, old: LinkState) -> None:
        self.moves.append(link.state)

    def link_worn(self, link: Link, why: str) -> None:
        self.worn.append(why)

    def link_idle(self, link: Link) -> None:
        self.idle += 1

    def link_gone_away(self, link: Link, code: int) -> None:
        self.goaways.append(code)

    def link_closed(self, link: Link, end: LinkEnd) -> None:
        self.ends.append(end)

    def exchange_returned(self, exchange: Exchange, fault: Fault) -> None:
        self.returned.append((exchange, fault))


class Bench:
    """A link on a transport that a test looks at; SETTINGS are exchanged unless it says otherwise."""

    def __init__(self, *, greeted: bool = True, age: float = 1e6, limits: PoolLimits | None = None) -> None:
        self.clock = Clock()
        self.owner = Owner()
        self.security = PlainSecurity()
        core = ClientConnection(Limits(assumed_max_streams=0))
        limits = limits or PoolLimits(probing_streams=100)
        self.link = Link(core, self.clock, self.owner, self.security, limits, 1, age)
        self.transport = Transport()
        self._reader = FrameReader(frames.HIGHEST_MAX_FRAME_SIZE)
        self.link.makeConnection(self.transport)
        if greeted:
            self.link.handshakeCompleted()
            self.clock.advance(0)
            self.serve(frames.settings([]), frames.settings_ack())
            self.written()

    def serve(self, *parts: bytes) -> None:
        self.link.dataReceived(b"".join(parts))

    def written(self) -> list[frames.Frame]:
        data = self.transport.value()
        self.transport.clear()
        return self._reader.feed(data.removeprefix(PREFACE))

    def push(self, timeout: float = 10.0) -> Push:
        push = Push(self.clock.seconds() + timeout)
        self.link.send(push)
        return push

    def answer(self, push: Push) -> None:
        self.serve(frames.headers(push.stream_id, OK, True))


def test_small_packets_are_not_held_back() -> None:
    assert Bench().transport.no_delay is True


def test_all_requests_of_a_turn_leave_in_one_write() -> None:
    bench = Bench()
    for _ in range(10):
        bench.push()
    assert bench.transport.value() == b""
    bench.clock.advance(0)
    assert len(bench.written()) == 20
    bench.clock.advance(0)
    assert bench.transport.value() == b""


def test_what_answers_bring_about_leaves_with_the_same_turn() -> None:
    bench = Bench()
    push = bench.push()
    bench.clock.advance(0)
    bench.written()
    again = Push(100.0)
    bench.owner.link_ready = lambda: bench.link.send(again) if not again.tries else None  # type: ignore[method-assign]  # the pool does so
    bench.answer(push)
    assert [FrameType(frame[0]) for frame in bench.written()] == [FrameType.HEADERS, FrameType.DATA]


def test_a_transport_that_has_enough_gets_no_more_and_there_is_no_room() -> None:
    bench = Bench()
    bench.link.pauseProducing()
    assert bench.link.room == 0
    bench.push()
    bench.clock.advance(0)
    assert bench.transport.value() == b""
    bench.link.resumeProducing()
    assert len(bench.written()) == 2
    assert bench.link.room > 0


def test_what_waited_in_a_full_transport_was_never_written() -> None:
    bench = Bench()
    bench.link.pauseProducing()
    push = bench.push()
    bench.clock.advance(0)
    bench.link.connectionLost()
    assert bench.owner.returned == [(push, Fault(Verdict.NOT_WRITTEN, Why.NOT_WRITTEN, "the connection ended"))]


def test_garbage_ends_the_connection_and_says_so_to_the_server() -> None:
    bench = Bench()
    push = bench.push()
    bench.clock.advance(0)
    bench.written()
    bench.serve(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert [FrameType(frame[0]) for frame in bench.written()] == [FrameType.GOAWAY]
    assert bench.transport.disconnecting
    (returned,) = bench.owner.returned
    assert returned[0] is push
    assert (returned[1].verdict, returned[1].why) == (Verdict.UNKNOWN, Why.BAD_ANSWER)


def test_a_server_that_does_not_close_is_reset() -> None:
    bench = Bench(limits=PoolLimits(close_timeout=3.0))
    bench.serve(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    bench.clock.advance(2.9)
    assert not bench.transport.disconnected
    bench.clock.advance(0.2)
    assert bench.transport.disconnected


def test_the_end_leaves_no_timer_behind() -> None:
    bench = Bench()
    bench.push()
    bench.link.connectionLost()
    assert bench.clock.getDelayedCalls() == []
    assert bench.owner.moves[-1] is LinkState.CLOSED
    assert bench.owner.ends == [LinkEnd("the server ended the connection before it was of use")]


def test_a_second_handshake_on_the_connection_changes_nothing() -> None:
    bench = Bench()
    bench.link.handshakeCompleted()
    bench.clock.advance(0)
    assert bench.transport.value() == b""
    assert bench.link.state is LinkState.PROBING


def test_a_server_that_is_the_wrong_one_gets_no_byte_of_http() -> None:
    bench = Bench(greeted=False)
    bench.security.problem = "the server's certificate is not valid for example.com"
    bench.link.handshakeCompleted()
    assert bench.transport.value() == b""
    assert bench.transport.disconnecting
    bench.link.connectionLost()
    assert bench.owner.ends == [LinkEnd("the server's certificate is not valid for example.com", permanent=True)]


def test_a_handshake_that_takes_too_long_is_given_up() -> None:
    bench = Bench(greeted=False, limits=PoolLimits(connect_timeout=4.0))
    bench.clock.advance(4.0)
    assert bench.transport.disconnected
    bench.link.connectionLost()
    assert bench.owner.ends == [LinkEnd("not connected within 4 s")]


def test_the_first_answer_opens_the_connection() -> None:
    bench = Bench()
    push = bench.push()
    bench.clock.advance(0)
    assert bench.link.state is LinkState.PROBING
    bench.answer(push)
    assert bench.link.state is LinkState.OPEN
    assert push.status == 200


def test_draining_closes_behind_the_last_answer() -> None:
    bench = Bench()
    push = bench.push()
    bench.clock.advance(0)
    bench.link.drain("not used")
    assert bench.link.room == 0
    bench.clock.advance(0)
    assert not bench.transport.disconnecting
    bench.answer(push)
    assert bench.transport.disconnecting


def test_a_late_answer_casts_doubt_until_something_is_heard() -> None:
    bench = Bench()
    bench.push(timeout=5.0)
    bench.clock.advance(0)
    bench.written()
    bench.clock.advance(5.0)
    assert [FrameType(frame[0]) for frame in bench.written()] == [FrameType.RST_STREAM, FrameType.PING]
    assert bench.owner.returned[0][1].why is Why.NO_ANSWER
    assert bench.link.room == 0
    bench.serve(frames.window_update(0, 1))
    assert bench.link.room > 0


def test_many_late_answers_cost_few_pings() -> None:
    bench = Bench(limits=PoolLimits(probing_streams=1000, doubt_interval=1.0))
    pings = 0
    for _ in range(40):
        bench.push(timeout=0.06)
        bench.clock.advance(0)
        bench.clock.advance(0.1)
        pings += sum(frame[0] == FrameType.PING for frame in bench.written())
        bench.serve(frames.window_update(0, 1))
    assert len(bench.owner.returned) == 40
    assert 3 <= pings <= 5


def test_exchanges_end_no_later_than_their_deadlines_and_hardly_before() -> None:
    bench = Bench()
    pushes = [bench.push(timeout=5.0 + number / 100) for number in range(100)]
    bench.clock.advance(0)
    at: dict[Push, float] = {}
    for _ in range(700):
        bench.clock.advance(0.01)
        for exchange, _fault in bench.owner.returned:
            at.setdefault(exchange, bench.clock.seconds())  # type: ignore[arg-type]  # all are pushes
    for push in pushes:
        assert push.deadline - 0.07 <= at[push] <= push.deadline + 0.011


@pytest.mark.parametrize(
    "behind",
    [frames.goaway(1, ErrorCode.NO_ERROR), frames.settings([(Setting.MAX_CONCURRENT_STREAMS, 0)]), b"\x00" * 9],
    ids=["goaway", "settings", "garbage"],
)
def test_an_answer_that_brings_about_a_request_finds_the_room_that_is_left_behind_its_segment(behind: bytes) -> None:
    bench = Bench()

    class Followed(Push):
        def answered(self, headers: HeaderList, ended: bool) -> None:
            super().answered(headers, ended)
            if bench.link.room:
                bench.push()

    push = Followed(100.0)
    bench.link.send(push)
    bench.clock.advance(0)
    bench.serve(frames.headers(push.stream_id, OK, True), behind)
    assert push.status == 200
    assert bench.link.in_flight == 0
    assert not bench.owner.returned


def test_what_is_to_be_done_afterwards_is_done_once_behind_all_answers_whatever_fails() -> None:
    bench = Bench()
    happened: list[object] = []

    class Asking(Push):
        def answered(self, headers: HeaderList, ended: bool) -> None:
            super().answered(headers, ended)
            assert self.carrier is not None
            happened.append(self.stream_id)
            self.carrier.afterwards(lambda: happened.append("afterwards"))

    class Failing(Asking):
        def answered(self, headers: HeaderList, ended: bool) -> None:
            super().answered(headers, ended)
            raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "of its own")

    first, second = Failing(100.0), Asking(100.0)
    for push in (first, second):
        bench.link.send(push)
    bench.clock.advance(0)
    bench.serve(frames.headers(first.stream_id, OK, True), frames.headers(second.stream_id, OK, True))
    assert happened == [first.stream_id, second.stream_id, "afterwards", "afterwards"]
    bench.serve(frames.ping(bytes(8)))
    assert happened[4:] == []


def test_goaway_returns_what_is_above_and_waits_for_the_rest() -> None:
    bench = Bench()
    first, second = bench.push(), bench.push()
    bench.clock.advance(0)
    third = bench.push()
    bench.serve(frames.goaway(first.stream_id, ErrorCode.NO_ERROR, b'{"reason":"Shutdown"}'))
    verdicts = {exchange: fault.verdict for exchange, fault in bench.owner.returned}
    assert verdicts == {second: Verdict.REFUSED, third: Verdict.NOT_WRITTEN}
    assert bench.owner.goaways == [ErrorCode.NO_ERROR]
    bench.answer(first)
    assert first.status == 200
    assert bench.transport.disconnecting
    assert any("Shutdown" in moment.what for moment in bench.link.timeline.moments())


@pytest.mark.parametrize("code", [ErrorCode.CANCEL, ErrorCode.INTERNAL_ERROR, 0x1234])
def test_a_reset_stream_is_unknown(code: int) -> None:
    bench = Bench()
    push = bench.push()
    bench.clock.advance(0)
    bench.serve(frames.rst_stream(push.stream_id, code))
    assert bench.owner.returned[0][1].why is Why.STREAM_RESET


def test_a_fault_of_our_own_ends_the_connection_and_what_is_on_it() -> None:
    bench = Bench()
    push = bench.push()

    def broken() -> None:
        raise ZeroDivisionError

    bench.owner.link_ready = broken  # type: ignore[method-assign]  # as a bug in the pool would do
    bench.clock.advance(0)
    assert bench.transport.disconnected
    bench.link.connectionLost()
    assert [exchange for exchange, _ in bench.owner.returned] == [push]
    assert bench.clock.getDelayedCalls() == []


def test_an_old_link_says_so_once() -> None:
    bench = Bench(age=50.0)
    bench.clock.advance(49.0)
    bench.serve(frames.window_update(0, 1))
    assert not bench.owner.worn
    bench.clock.advance(2.0)
    bench.serve(frames.window_update(0, 1))
    bench.clock.advance(5.0)
    assert bench.owner.worn == ["its age"]


def test_a_link_that_is_not_used_says_so() -> None:
    bench = Bench(limits=PoolLimits(idle_timeout=20.0, probing_streams=5))
    push = bench.push()
    bench.clock.advance(0)
    bench.answer(push)
    bench.clock.advance(20.0)
    assert bench.owner.idle == 0
    bench.clock.advance(20.0)
    assert bench.owner.idle == 1


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.just("push"),
            st.just("turn"),
            st.just("pause"),
            st.just("resume"),
            st.floats(0.0, 8.0),
            st.binary(max_size=40),
            st.builds(frames.frame, st.integers(0, 10), st.integers(0, 255), st.sampled_from((0, 1, 3, 5)), st.binary(max_size=12)),
            st.sampled_from([frames.headers(each, OK, True) for each in (1, 3, 5, 7)]),
            st.sampled_from([frames.rst_stream(each, code) for each in (1, 3, 5) for code in (0, 7, 8)]),
            st.sampled_from([frames.goaway(each, 0) for each in (0, 1, 3)]),
        ),
        max_size=25,
    )
)
def test_whatever_a_server_sends_every_exchange_ends_once_and_in_time_and_nothing_is_left(steps: list[object]) -> None:
    bench = Bench()
    pushes: list[Push] = []
    for step in steps:
        if step == "push":
            if bench.link.room:
                pushes.append(bench.push(timeout=5.0))
        elif step == "turn":
            bench.clock.advance(0)
        elif step == "pause":
            bench.link.pauseProducing()
        elif step == "resume":
            bench.link.resumeProducing()
        elif isinstance(step, float):
            for _ in range(10):  # in parts, as time passes in small steps
                bench.clock.advance(step / 10)
        elif isinstance(step, bytes) and not bench.transport.disconnecting:
            bench.serve(step)
    late = [push for push in pushes if push.deadline < bench.clock.seconds() and not push.ended]
    assert {push for push, _ in bench.owner.returned} >= set(late)
    bench.link.connectionLost()
    for push in pushes:
        assert push.calls + [exchange for exchange, _ in bench.owner.returned].count(push) == 1
    assert bench.clock.getDelayedCalls() == []
    assert bench.link.state is LinkState.CLOSED
    assert len(bench.owner.ends) == 1

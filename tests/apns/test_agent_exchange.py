"""A request of the agent: its upload, its deadlines, its answer. In memory, with a server that a test plays by hand."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock, Cooperator
from twisted.python.failure import Failure
from twisted.web.client import FileBodyProducer, ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from streampush.apns.agent_errors import AnswerNeverCame, BodyFailed, RequestNotSent
from streampush.apns.agent_exchange import AgentExchange
from streampush.apns.agent_limits import AgentLimits
from streampush.apns.http2 import ErrorCode, frames, hpack
from streampush.apns.http2.frames import END_STREAM, PREFACE, Frame, FrameReader, FrameType
from streampush.apns.http2.settings import Setting
from streampush.apns.outcome import Why
from streampush.apns.pool import Pool
from streampush.apns.response import SentRequest
from tests.apns.http2.driving import BLOCK
from tests.apns.pooling import MemoryDialer
from tests.apns.wire import advance


class ByHand(Protocol):
    """A server: keeps what came, and writes what the test gives it."""

    def __init__(self, window: int = 65_535) -> None:
        self.frames: list[Frame] = []
        self._reader = FrameReader(frames.HIGHEST_MAX_FRAME_SIZE)
        self._preface = PREFACE
        self._window = window

    def connectionMade(self) -> None:
        self.write(frames.settings([(Setting.INITIAL_WINDOW_SIZE, self._window)]))

    def dataReceived(self, data: bytes) -> None:
        taken = min(len(self._preface), len(data))
        self._preface = self._preface[taken:]
        for frame in self._reader.feed(data[taken:]):
            if frame[0] == FrameType.SETTINGS and not frame[1]:
                self.write(frames.settings_ack())
            self.frames.append(frame)

    def write(self, *parts: bytes) -> None:
        transport: Any = self.transport
        transport.write(b"".join(parts))

    def body(self) -> bytes:
        return b"".join(payload for kind, _, _, payload in self.frames if kind == FrameType.DATA)

    def kinds(self) -> list[int]:
        return [frame[0] for frame in self.frames]


class Bench:
    """One request at a time to a server by hand."""

    def __init__(self, limits: AgentLimits | None = None, window: int = 65_535) -> None:
        self.clock = Clock()
        self.server = ByHand(window)
        self.limits = limits or AgentLimits(answer_timeout=10.0, body_timeout=5.0, unclaimed_timeout=3.0, gathered_body=1000)
        dialer = MemoryDialer(self.clock, lambda: self.server)
        self.pool = Pool(
            dialer, self.clock, limits=self.limits.pool, http2=self.limits.http2, random=Random(1), automatic_windows=False
        )
        self.result: Any = None

    def request(self, producer: IBodyProducer | None = None, method: bytes = b"POST") -> Deferred[Any]:
        sent = SentRequest(method, b"https://localhost/", Headers())
        exchange = AgentExchange(self.pool, self.clock, self.limits, BLOCK, sent, producer)
        exchange.response.addBoth(self._keep)
        exchange.submit()
        self.advance(0.1)
        return exchange.response

    def _keep(self, result: Any) -> None:
        self.result = result

    def advance(self, seconds: float) -> None:
        advance(self.clock, seconds)

    def answer(self, *fields: tuple[bytes, bytes], ended: bool = False, status: bytes = b"200") -> None:
        self.server.write(frames.headers(1, hpack.block([(b":status", status), *fields]), ended))
        self.advance(0)

    def data(self, data: bytes, ended: bool = False) -> None:
        self.server.write(frames.data(1, data, ended))
        self.advance(0)

    def read(self) -> Reader:
        reader = Reader()
        self.result.deliverBody(reader)
        return reader

    def error(self) -> BaseException:
        assert isinstance(self.result, Failure), self.result
        return self.result.value


class Reader(Protocol):
    def __init__(self) -> None:
        self.heard = b""
        self.reasons: list[Exception] = []

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure | None = None) -> None:
        assert reason is not None
        self.reasons.append(reason.value)


@implementer(IBodyProducer)
class Producer:
    """Writes what the test tells it to."""

    def __init__(self, length: Any = UNKNOWN_LENGTH) -> None:
        self.length = length
        self.done: Deferred[None] = Deferred()
        self.calls: list[str] = []
        self.consumer: Any = None

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self.calls.append("start")
        self.consumer = consumer
        return self.done

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


@pytest.fixture
def bench() -> Iterator[Bench]:
    found = Bench()
    yield found
    stopped = found.pool.stop()
    found.advance(60)
    assert stopped.called
    assert found.clock.getDelayedCalls() == []


# -------------------------------------------------------------------------------------------------------------------- uploads


def test_a_short_body_is_collected_and_sent_whole(bench: Bench) -> None:
    producer = Producer(6)
    bench.request(producer)
    assert bench.server.kinds() == []
    producer.consumer.write(b"abc")
    producer.consumer.write(b"def")
    producer.done.callback(None)
    bench.advance(0.1)
    assert (bench.server.body(), bench.server.frames[-1][1]) == (b"abcdef", END_STREAM)


def test_a_body_is_written_as_it_comes_and_held_back_by_the_window(bench: Bench) -> None:
    producer = Producer()
    bench.request(producer)
    producer.consumer.write(b"a" * 60_000)
    assert producer.calls == ["start"]
    producer.consumer.write(b"b" * 10_000)
    assert producer.calls == ["start", "pause"]
    bench.advance(0.1)
    assert len(bench.server.body()) == 65_535
    bench.server.write(frames.window_update(0, 100_000), frames.window_update(1, 100_000))
    bench.advance(0.1)
    assert producer.calls == ["start", "pause", "resume"]
    producer.done.callback(None)
    bench.advance(0.1)
    assert len(bench.server.body()) == 70_000
    assert bench.server.frames[-1][1] == END_STREAM


def test_a_full_transport_holds_a_body_back_too() -> None:
    bench = Bench(window=2**30)
    producer = Producer()
    bench.request(producer)
    bench.server.write(frames.window_update(0, 2**30))
    bench.advance(0.1)
    link = bench.pool._usable[0]
    link.pauseProducing()
    producer.consumer.write(b"a" * 1000)
    assert producer.calls == ["start", "pause"]
    link.resumeProducing()
    assert producer.calls == ["start", "pause", "resume"]
    bench.pool.stop()


@pytest.mark.parametrize("length", [5, 5000])
def test_a_body_longer_than_it_said_is_not_sent_on(bench: Bench, length: int) -> None:
    producer = Producer(length)
    bench.request(producer)
    producer.consumer.write(b"x" * (length + 1))
    bench.advance(0.1)
    assert isinstance(bench.error(), BodyFailed)
    assert producer.calls == ["start", "stop"]
    assert bench.server.body() == b""


@pytest.mark.parametrize("length", [5, UNKNOWN_LENGTH])
def test_a_producer_that_fails_ends_the_request(bench: Bench, length: Any) -> None:
    producer = Producer(length)
    bench.request(producer)
    producer.done.errback(OSError("the disk is on fire"))
    bench.advance(0.1)
    assert isinstance(bench.error(), BodyFailed)
    assert isinstance(bench.error().__cause__, OSError)
    assert (FrameType.RST_STREAM in bench.server.kinds()) == (length == UNKNOWN_LENGTH)


def test_a_producer_that_never_ends_does_not_hang_the_request(bench: Bench) -> None:
    producer = Producer(5)
    bench.request(producer)
    bench.advance(10)
    assert isinstance(bench.error(), RequestNotSent)
    assert producer.calls == ["start", "stop"]


def test_a_streamed_body_that_stalls_ends_in_time_and_progress_moves_the_end(bench: Bench) -> None:
    producer = Producer()
    bench.request(producer)
    bench.advance(8)
    producer.consumer.write(b"x")
    bench.advance(9)
    assert bench.result is None
    bench.advance(2)
    assert isinstance(bench.error(), AnswerNeverCame)
    assert producer.calls == ["start", "stop"]


def test_an_answer_before_the_end_of_the_body_stops_the_producer(bench: Bench) -> None:
    producer = Producer()
    bench.request(producer)
    bench.answer(ended=True, status=b"413")
    bench.advance(0.1)
    assert bench.result.code == 413
    assert producer.calls == ["start", "stop"]
    assert bench.server.frames[-1][0] == FrameType.RST_STREAM


def test_cancelling_while_the_body_is_collected(bench: Bench) -> None:
    producer = Producer(5)
    bench.request(producer).cancel()
    assert isinstance(bench.error(), CancelledError)
    assert producer.calls == ["start", "stop"]
    assert bench.server.kinds() == []


def test_a_request_that_never_got_a_connection_does_not_start_its_body(bench: Bench) -> None:
    bench.pool.stop()
    producer = Producer()
    bench.request(producer)
    assert isinstance(bench.error(), RequestNotSent)
    assert producer.calls == []


def test_a_file_is_a_body(bench: Bench) -> None:
    cooperator = Cooperator(scheduler=lambda call: bench.clock.callLater(0.01, call))
    bench.request(FileBodyProducer(BytesIO(b"f" * 5000), cooperator, readSize=1000))
    bench.advance(1)
    assert bench.server.body() == b"f" * 5000


# -------------------------------------------------------------------------------------------------------------------- answers


def test_a_body_that_came_before_its_reader_waits(bench: Bench) -> None:
    bench.request()
    bench.answer((b"content-length", b"6"), (b"x-one", b"1"))
    bench.data(b"abc")
    bench.data(b"def", ended=True)
    assert (bench.result.code, bench.result.phrase, bench.result.length) == (200, b"OK", 6)
    assert list(bench.result.headers.getAllRawHeaders()) == [(b"Content-Length", [b"6"]), (b"X-One", [b"1"])]
    reader = bench.read()
    assert reader.heard == b"abcdef"
    assert [type(reason) for reason in reader.reasons] == [ResponseDone]
    with pytest.raises(RuntimeError):
        bench.read()


@pytest.mark.parametrize("data", [b"abc", b"abcdefg"])
def test_a_body_that_is_not_as_long_as_it_said_breaks_off(bench: Bench, data: bytes) -> None:
    bench.request()
    bench.answer((b"content-length", b"6"))
    reader = bench.read()
    bench.data(data, ended=True)
    (reason,) = reader.reasons
    assert isinstance(reason, ResponseFailed)
    assert reason.reasons[0].check(AnswerNeverCame)


@pytest.mark.parametrize(
    "fields",
    [
        [(b"content-length", b"6"), (b"content-length", b"7")],
        [(b"content-length", b"many")],
        [(b"connection", b"close")],
        [(b"X-Upper", b"1")],
        [(b"x", b"a\r\nb")],
        [(b":path", b"/")],
    ],
)
def test_an_answer_that_http_does_not_allow_is_none(bench: Bench, fields: list[tuple[bytes, bytes]]) -> None:
    bench.request()
    block = hpack.block([(b":status", b"200")])
    for name, value in fields:
        block += b"\x00" + hpack.string(name) + hpack.string(value)
    bench.server.write(frames.headers(1, block, False))
    bench.advance(0.1)
    error = bench.error()
    assert isinstance(error, AnswerNeverCame)
    assert error.fault.why is Why.BAD_ANSWER
    assert bench.server.frames[-1][0] == FrameType.RST_STREAM


def test_an_answer_without_a_word_of_body_may_not_announce_one(bench: Bench) -> None:
    bench.request()
    bench.answer((b"content-length", b"6"), ended=True)
    assert isinstance(bench.error(), AnswerNeverCame)


def test_an_answer_that_nobody_reads_is_given_up(bench: Bench) -> None:
    bench.request()
    bench.answer()
    bench.advance(3)
    assert bench.pool.figures().in_flight == 0
    reader = bench.read()
    assert isinstance(reader.reasons[0], ResponseFailed)


def test_a_body_that_stalls_breaks_off_but_not_while_its_reader_pauses(bench: Bench) -> None:
    bench.request()
    bench.answer()
    reader = bench.read()
    assert reader.transport is not None
    reader.transport.pauseProducing()
    bench.data(b"abc")
    bench.advance(1000)
    assert (reader.heard, reader.reasons) == (b"", [])
    reader.transport.resumeProducing()
    assert reader.heard == b"abc"
    bench.advance(5)
    assert isinstance(reader.reasons[0], ResponseFailed)


def test_the_window_of_a_paused_reader_stays_shut_and_opens_as_it_reads(bench: Bench) -> None:
    bench.request()
    bench.answer()
    reader = bench.read()
    assert reader.transport is not None
    reader.transport.pauseProducing()
    for _ in range(16):
        bench.data(b"x" * 16_384)
    assert not [frame for frame in bench.server.frames if frame[0] == FrameType.WINDOW_UPDATE and frame[2] == 1]
    reader.transport.resumeProducing()
    bench.advance(0.1)
    opened = [frame for frame in bench.server.frames if frame[0] == FrameType.WINDOW_UPDATE and frame[2] == 1]
    assert sum(int.from_bytes(frame[3], "big") for frame in opened) == 16 * 16_384


def test_a_reader_may_pause_within_its_own_data(bench: Bench) -> None:
    class Pausing(Reader):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            assert self.transport is not None
            self.transport.pauseProducing()

    bench.request()
    bench.answer()
    bench.data(b"one")
    bench.data(b"two", ended=True)
    reader = Pausing()
    bench.result.deliverBody(reader)
    assert (reader.heard, reader.reasons) == (b"one", [])
    assert reader.transport is not None
    reader.transport.resumeProducing()
    assert reader.heard == b"onetwo"
    assert isinstance(reader.reasons[0], ResponseDone)


def test_a_stream_that_is_reset_within_the_body_breaks_it_off(bench: Bench) -> None:
    bench.request()
    bench.answer()
    reader = bench.read()
    bench.data(b"abc")
    bench.server.write(frames.rst_stream(1, ErrorCode.INTERNAL_ERROR))
    bench.advance(0)
    assert reader.heard == b"abc"
    assert isinstance(reader.reasons[0], ResponseFailed)


def test_an_abandoned_body_is_reset(bench: Bench) -> None:
    bench.request()
    bench.answer()
    reader = bench.read()
    transport: Any = reader.transport
    transport.abortConnection()
    transport.abortConnection()
    assert len(reader.reasons) == 1
    bench.advance(0.1)
    assert bench.server.frames[-1][0] == FrameType.RST_STREAM


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.integers(0, 16_384),
            st.sampled_from(("read", "pause", "resume", "end", "reset", "goaway", "abandon")),
            st.floats(0.1, 2.0),
        ),
        max_size=15,
    )
)
def test_whatever_happens_a_reader_gets_the_body_in_order_and_is_told_of_its_end_once(steps: list[object]) -> None:
    bench = Bench()
    bench.request()
    bench.answer()
    sent, over = b"", False
    reader: Reader | None = None
    for number, step in enumerate(steps):
        if isinstance(step, float):
            bench.advance(step)
        elif isinstance(step, int) and not over:
            data = bytes([number]) * step
            sent += data
            bench.data(data)
        elif step == "read" and reader is None:
            reader = bench.read()
        elif step in ("pause", "resume", "abandon") and reader is not None and not reader.reasons:
            transport: Any = reader.transport
            {"pause": transport.pauseProducing, "resume": transport.resumeProducing, "abandon": transport.abortConnection}[step]()
        elif step == "end" and not over:
            over = True
            bench.data(b"", ended=True)
        elif step == "reset" and not over:
            over = True
            bench.server.write(frames.rst_stream(1, ErrorCode.INTERNAL_ERROR))
            bench.advance(0)
        elif step == "goaway":
            bench.server.write(frames.goaway(1, ErrorCode.NO_ERROR))
            bench.advance(0)
    reader = reader or bench.read()
    if not reader.reasons:
        live: Any = reader.transport
        live.resumeProducing()
    bench.advance(10)  # the server says no more
    assert len(reader.reasons) == 1
    assert sent.startswith(reader.heard)
    if isinstance(reader.reasons[0], ResponseDone):
        assert reader.heard == sent
    stopped = bench.pool.stop()
    bench.advance(60)
    assert stopped.called
    assert bench.clock.getDelayedCalls() == []


@pytest.mark.parametrize("name", ["answer_timeout", "max_hosts", "gathered_body"])
def test_limits_make_sense(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        AgentLimits(**{name: -1})

"""The server's side of one HTTP/2 connection, without IO: RFC 9113, RFC 7541.

It is the opposite side of our client in its tests, so it is strict where a client can be wrong: stream ids, windows, header
fields, sizes. It knows nothing of pushes. A request becomes two events, `Opened` with its headers and `Completed` with its body;
what is answered is decided above, at any later time. Requests may use a dynamic table, since the clients of others do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from streampush.apns.http2 import frames
from streampush.apns.http2.errors import ErrorCode, RemoteProtocolError, StreamError
from streampush.apns.http2.frames import FrameReader, FrameType
from streampush.apns.http2.header_list import HeaderList
from streampush.apns.http2.hpack import HeaderDecoder
from streampush.apns.http2.settings import Setting
from streampush.apns.http2.windows import DEFAULT_WINDOW
from streampush.apns.simulator.fields import announced_length, find_fault
from streampush.apns.simulator.inlet import Inlet
from streampush.apns.simulator.outlet import Outlet
from streampush.apns.simulator.stream import Stream
from streampush.apns.simulator.table_encoder import TableEncoder
from streampush.apns.simulator.unusual import unusual_answer, unusual_size
from streampush.apns.simulator.wire_events import Abandoned, Broken, Completed, Fields, Opened, WireEvent

DEFAULT_MAX_STREAMS: Final = 1000
"""Requests at once on a connection; Apple allows about as many."""

MAX_BLOCK: Final = 64 * 1024
"""Bytes of a request's field block."""

MAX_OUTBOUND: Final = 16 * 1024 * 1024
"""Bytes that wait because the client does not read; then the connection is over."""

_REMEMBERED: Final = 4096
"""Streams that we reset, for which frames may still be under way."""

_TABLE_SIZE: Final = 4096  # RFC 9113 section 6.5.2, initial SETTINGS_HEADER_TABLE_SIZE


class ServerWire:
    """One connection. `max_streams`: see `change_limit`. `window`: bytes of body that a stream may carry before a WINDOW_UPDATE.

    With `use_table` answers use a dynamic table, whatever the client announced. With `hold_windows` a WINDOW_UPDATE is sent only
    on `open_windows`, else at once when half of a window is used.
    """

    def __init__(
        self,
        *,
        max_streams: int = DEFAULT_MAX_STREAMS,
        window: int = DEFAULT_WINDOW,
        hold_windows: bool = False,
        use_table: bool = False,
        start: bool = True,
    ) -> None:
        self.max_streams = max_streams
        self.failed = False
        self.last_opened = 0
        """The highest stream id that was looked at."""
        self._preface = frames.PREFACE
        self._seen_settings = False
        self._last_accepted = frames.MAX_STREAM_ID
        self._reader = FrameReader()
        self._decoder = HeaderDecoder(_TABLE_SIZE)
        self._streams: dict[int, Stream] = {}
        self._reset: deque[int] = deque(maxlen=_REMEMBERED)
        self._block: tuple[int, int, bytearray] | None = None  # stream, flags of HEADERS, fragments so far
        self._outlet = Outlet(TableEncoder() if use_table else None)
        self._write = self._outlet.write
        self._inlet = Inlet(self._streams, self._write, window, hold=hold_windows)
        self._on: dict[int, Callable[[int, int, bytes], None]] = {
            FrameType.DATA: self._data,
            FrameType.HEADERS: self._headers,
            FrameType.PRIORITY: frames.check_priority,
            FrameType.RST_STREAM: self._rst_stream,
            FrameType.SETTINGS: self._settings,
            FrameType.PUSH_PROMISE: self._push_promise,
            FrameType.PING: self._ping,
            FrameType.GOAWAY: self._goaway,
            FrameType.WINDOW_UPDATE: self._window_update,
            FrameType.CONTINUATION: self._continuation,
        }
        self._events: list[WireEvent] = []
        if start:
            pairs = [(Setting.MAX_CONCURRENT_STREAMS, max_streams)]
            self._write(frames.settings([*pairs, (Setting.INITIAL_WINDOW_SIZE, window)] if window != DEFAULT_WINDOW else pairs))

    # ------------------------------------------------------------------------------------------------------------- for the owner

    @property
    def open_streams(self) -> int:
        """Requests that are not answered to their end."""
        return len(self._streams)

    def is_open(self, stream_id: int) -> bool:
        """Whether an answer on this stream would still be heard."""
        stream = self._streams.get(stream_id)
        return stream is not None and not stream.answered and not self.failed

    def receive(self, data: bytes) -> Iterator[WireEvent]:
        """What these bytes mean, frame by frame: what is done about an event is in force before the next frame is looked at.

        Never raises for what the client does. Behind a `Broken` of the connection nothing is read.
        """
        if self._preface:
            data = self._take_preface(data)
        for frame_type, flags, stream_id, payload in self._frames(data):
            try:
                self._frame(frame_type, flags, stream_id, payload)
            except StreamError as error:
                self.reset(error.stream_id, error.code)
                self._events.append(Broken(error.stream_id, error.code, error.text))
            except RemoteProtocolError as error:
                self._fail(error)
            if self._events:
                events, self._events = self._events, []
                yield from events
            if self.failed:
                return
        if not self.failed and self._reader.fault is not None:
            self._fail(self._reader.fault)
        yield from self._events
        self._events = []

    def respond(self, stream_id: int, fields: Iterable[tuple[bytes, bytes]], body: bytes = b"") -> None:
        """The whole answer. The body goes out as the client's windows allow. A stream that is gone is passed over."""
        if not self.is_open(stream_id):
            return
        stream = self._streams[stream_id]
        if self._outlet.answer(stream_id, stream, fields, body):
            self._finish(stream_id, stream)

    def respond_unusually(self, stream_id: int, fields: Fields, body: bytes) -> None:
        """The same in frames that are seldom seen; as usual when a window is too small for that."""
        if not self.is_open(stream_id):
            return
        stream = self._streams[stream_id]
        if not self._outlet.spend(stream, unusual_size(body)):
            self.respond(stream_id, fields, body)
            return
        stream.answered = True
        self._write(unusual_answer(stream_id, fields, body, self._outlet.take_prefix()))
        self._finish(stream_id, stream)

    def reset(self, stream_id: int, code: int) -> None:
        """RST_STREAM, if the stream is still open."""
        if self._streams.pop(stream_id, None) is not None:
            self._reset.append(stream_id)
            self._write(frames.rst_stream(stream_id, code))

    def go_away(self, last_stream_id: int, code: int = 0, debug: bytes = b"") -> None:
        """GOAWAY. Streams above the last id are not looked at any more; those that are open are forgotten."""
        self._last_accepted = min(self._last_accepted, last_stream_id)
        for stream_id in [stream_id for stream_id in self._streams if stream_id > last_stream_id]:
            del self._streams[stream_id]
        self._write(frames.goaway(last_stream_id, code, debug))

    def change_limit(self, max_streams: int) -> None:
        """Tells the client how many requests it may have under way; more are refused from now on."""
        if max_streams != self.max_streams:
            self.max_streams = max_streams
            self._write(frames.settings([(Setting.MAX_CONCURRENT_STREAMS, max_streams)]))

    def open_windows(self) -> None:
        """Gives back all that was received: WINDOW_UPDATE for the connection and for every request that is still coming."""
        self._inlet.open_windows()

    def write_raw(self, data: bytes) -> None:
        """Any bytes, also such that are no frames."""
        self._write(data)

    def mute(self) -> None:
        """Nothing that is written from now on leaves: what was written last cannot be followed by frames."""
        self._outlet.mute = True

    def outbound(self) -> bytes:
        """Takes what is to be written."""
        return self._outlet.take()

    # ----------------------------------------------------------------------------------------------------------------- reading

    def _take_preface(self, data: bytes) -> bytes:
        expected = self._preface
        got = data[: len(expected)]
        if not expected.startswith(got):
            self._fail(RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 connection preface"))
            return b""
        self._preface = expected[len(got) :]
        return data[len(got) :]

    def _frames(self, data: bytes) -> list[frames.Frame]:
        return self._reader.feed(data) if data and not self.failed else []

    def _frame(self, frame_type: int, flags: int, stream_id: int, payload: bytes) -> None:
        if not self._seen_settings and (frame_type != FrameType.SETTINGS or flags & frames.ACK):
            raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if self._block is not None and (frame_type != FrameType.CONTINUATION or stream_id != self._block[0]):
            raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "a frame inside a field block")
        take = self._on.get(frame_type)
        if take is not None:  # RFC 9113 section 4.1: unknown types mean nothing
            take(flags, stream_id, payload)
        if self._outlet.size > MAX_OUTBOUND:
            raise RemoteProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "answers are not read")

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        fragment = frames.parse_headers(flags, stream_id, payload)
        if not stream_id % 2:
            raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream id that is even")
        if flags & frames.END_HEADERS:
            self._whole_block(flags, stream_id, fragment)
        else:
            self._block = (stream_id, flags, bytearray(fragment))

    def _continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None:
            raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        fragments = self._block[2]
        fragments += payload
        if len(fragments) > MAX_BLOCK:
            raise RemoteProtocolError(ErrorCode.ENHANCE_YOUR_CALM, f"a field block of more than {MAX_BLOCK} bytes")
        if flags & frames.END_HEADERS:
            _, first_flags, _ = self._block
            self._block = None
            self._whole_block(first_flags, stream_id, bytes(fragments))

    def _whole_block(self, flags: int, stream_id: int, encoded: bytes) -> None:
        fields = self._decoder.decode(encoded)  # whatever becomes of the stream, or the table would be wrong
        ended = bool(flags & frames.END_STREAM)
        if stream_id > self._last_accepted:
            return
        if stream_id > self.last_opened:
            self._open(stream_id, fields, ended)
        elif stream_id in self._streams:
            self._trailers(stream_id, self._streams[stream_id], ended)
        else:
            self._demand_reset(stream_id, "HEADERS")

    def _open(self, stream_id: int, headers: HeaderList, ended: bool) -> None:
        self.last_opened = stream_id
        fields = tuple(headers)
        self._streams[stream_id] = stream = Stream(fields, self._inlet.new_window, self._outlet.new_window)
        if len(self._streams) > self.max_streams:
            raise StreamError(stream_id, ErrorCode.REFUSED_STREAM, "more streams than are allowed at once")
        fault = "a field list that is too long" if headers.too_long else find_fault(fields)
        if fault:
            raise StreamError(stream_id, ErrorCode.PROTOCOL_ERROR, fault)
        self._events.append(Opened(stream_id, fields))
        if ended:
            self._end(stream_id, stream)

    def _trailers(self, stream_id: int, stream: Stream, ended: bool) -> None:
        if stream.ended:
            raise StreamError(stream_id, ErrorCode.STREAM_CLOSED, "HEADERS behind the end of the stream")
        if not ended:
            raise StreamError(stream_id, ErrorCode.PROTOCOL_ERROR, "trailers that do not end the stream")
        self._end(stream_id, stream)

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        data = frames.parse_data(flags, stream_id, payload)
        self._inlet.charge(len(payload))
        stream = self._streams.get(stream_id)
        if stream is None:
            if stream_id <= self._last_accepted:
                self._demand_reset(stream_id, "DATA")
        else:
            self._inlet.take(stream_id, stream, data, len(payload))
            if stream.too_long and not stream.complete:
                self._complete(stream_id, stream)
            if flags & frames.END_STREAM and stream_id in self._streams:
                self._end(stream_id, stream)
        self._inlet.give_back(stream_id)

    def _end(self, stream_id: int, stream: Stream) -> None:
        stream.ended = True
        length = announced_length(stream.fields)
        if length is not None and length != stream.size:
            raise StreamError(stream_id, ErrorCode.PROTOCOL_ERROR, "a body of another length than announced")
        if not stream.complete:
            self._complete(stream_id, stream)

    def _complete(self, stream_id: int, stream: Stream) -> None:
        stream.complete = True
        self._events.append(Completed(stream_id, stream.fields, bytes(stream.body), stream.size))

    def _rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        code = frames.parse_rst_stream(flags, stream_id, payload)
        if stream_id > self.last_opened and stream_id <= self._last_accepted:
            raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on a stream that is idle")
        if self._streams.pop(stream_id, None) is not None:
            self._events.append(Abandoned(stream_id, code))

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        pairs = frames.parse_settings(flags, stream_id, payload)
        self._seen_settings = True
        if flags & frames.ACK:
            self._inlet.acknowledged()
            return
        for key, value in pairs:
            self._setting(key, value)
        self._write(frames.settings_ack())

    def _setting(self, key: int, value: int) -> None:
        if key == Setting.HEADER_TABLE_SIZE:
            if value < _TABLE_SIZE:
                self._outlet.drop_table()
        elif key == Setting.ENABLE_PUSH:
            if value > 1:
                raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH is neither 0 nor 1")
        elif key == Setting.INITIAL_WINDOW_SIZE:
            self._outlet.widen_all(self._streams.values(), value)
            self._flush_all()
        elif key == Setting.MAX_FRAME_SIZE:
            if not frames.DEFAULT_MAX_FRAME_SIZE <= value <= frames.HIGHEST_MAX_FRAME_SIZE:
                raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is out of range")
            self._outlet.frame_size = value

    def _push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        opaque = frames.parse_ping(flags, stream_id, payload)
        if not flags & frames.ACK:
            self._write(frames.ping(opaque, ack=True))

    def _goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        frames.parse_goaway(flags, stream_id, payload)  # the client opens no more streams; what is open goes on

    def _demand_reset(self, stream_id: int, name: str) -> None:
        """A frame on a stream that is not open is an error, unless we reset the stream and the client could not know."""
        if stream_id > self.last_opened:
            raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, f"{name} on a stream that is idle")
        if stream_id not in self._reset:
            raise RemoteProtocolError(ErrorCode.STREAM_CLOSED, f"{name} on a stream that is closed")

    # ----------------------------------------------------------------------------------------------------------------- writing

    def _window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        increment = frames.parse_window_update(flags, stream_id, payload)
        if not stream_id:
            self._outlet.widen(increment)
            self._flush_all()
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            if self.last_opened < stream_id <= self._last_accepted:
                raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE on a stream that is idle")
            return
        stream.send_window += increment
        if stream.send_window > frames.MAX_WINDOW:
            raise StreamError(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "the window of the stream is too large")
        self._flush(stream_id, stream)

    def _flush_all(self) -> None:
        for stream_id, stream in list(self._streams.items()):
            self._flush(stream_id, stream)

    def _flush(self, stream_id: int, stream: Stream) -> None:
        if self._outlet.flush(stream_id, stream):
            self._finish(stream_id, stream)

    def _finish(self, stream_id: int, stream: Stream) -> None:
        """The answer is written; a client that is not done with its request is told to stop (RFC 9113 section 8.1)."""
        if stream.ended:
            del self._streams[stream_id]
        else:
            self.reset(stream_id, ErrorCode.NO_ERROR)

    def _fail(self, error: RemoteProtocolError) -> None:
        self.failed = True
        self._streams.clear()
        self._write(frames.goaway(self.last_opened, error.code, error.text.encode()))
        self._events.append(Broken(0, error.code, error.text))

"""What the server's frames do: order, rules, limits, and the events that come of them. RFC 9113 sections 5 to 8."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from streampush.apns.http2 import frames
from streampush.apns.http2.blocks import PartialBlock
from streampush.apns.http2.errors import ErrorCode, RemoteProtocolError, StreamError
from streampush.apns.http2.events import (
    ConnectionFailed,
    DataReceived,
    Event,
    GoneAway,
    PingAnswered,
    ResponseReceived,
    SettingsChanged,
    StreamReset,
    TrailersReceived,
    Verdict,
    WindowOpened,
)
from streampush.apns.http2.frames import ACK, END_HEADERS, END_STREAM, FrameReader, FrameType
from streampush.apns.http2.header_list import HeaderList
from streampush.apns.http2.hpack import HeaderDecoder
from streampush.apns.http2.keepalive import Keepalive
from streampush.apns.http2.limits import Allowance, Limits
from streampush.apns.http2.settings import PeerSettings
from streampush.apns.http2.streams import ConnectionState, Streams

_HEADERS = int(FrameType.HEADERS)
_SETTINGS = int(FrameType.SETTINGS)
_GOAWAY = int(FrameType.GOAWAY)
_CONTINUATION = int(FrameType.CONTINUATION)
_WHOLE_ANSWER = END_STREAM | END_HEADERS


class Incoming:
    """Reads what the server sends and acts on the streams.

    `peer`: the server's settings. `settings_came`: whether it sent any. `acknowledged`: whether it answered ours.
    """

    __slots__ = (
        "_block",
        "_decoder",
        "_granted",
        "_idle",
        "_keepalive",
        "_limits",
        "_pings",
        "_plain",
        "_reader",
        "_settings",
        "_streams",
        "acknowledged",
        "peer",
        "settings_came",
    )

    def __init__(self, streams: Streams, keepalive: Keepalive, limits: Limits) -> None:
        self._streams = streams
        self._keepalive = keepalive
        self._limits = limits
        self._reader = FrameReader(limits.max_frame_size)
        self._decoder = HeaderDecoder(0, limits.max_header_list_size)
        self._block: PartialBlock | None = None
        self._plain = False  # the server's SETTINGS came and no block is partial: any frame may come
        self.settings_came = False
        self.acknowledged = False
        self.peer = PeerSettings()
        self._pings = Allowance(limits.pings_rate, limits.pings_burst)
        self._settings = Allowance(limits.settings_rate, limits.settings_burst)
        self._idle = Allowance(limits.idle_rate, limits.idle_burst)
        self._granted = streams.next_id // 2  # frames of ours that have added to the idle allowance

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Bytes of the server, cut anyhow; never raises."""
        events: list[Event] = []
        found = self._reader.feed(data)
        if found:
            self._keepalive.heard(now)
        try:
            self._take_frames(found, now, events)
            if self._reader.fault is not None:
                raise self._reader.fault
            if self._streams.outbound.replied > self._limits.max_replies:
                raise RemoteProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "the server makes us answer and does not read")
        except RemoteProtocolError as error:
            self.fail(error.code, error.text, events)
        self.wake(events)
        return events

    def fail(self, code: ErrorCode, text: str, events: list[Event]) -> None:
        """Ends the connection from our side."""
        outbound = self._streams.outbound
        started = outbound.taken
        events.append(ConnectionFailed(code, text, self._streams.end()))
        if started:  # else there is no preface for it to follow
            outbound.frames.append(frames.goaway(0, code))

    def wake(self, events: list[Event]) -> None:
        """Reports the streams that can take more."""
        woken = self._streams.uploads.woken
        if woken:
            events += [WindowOpened(stream_id) for stream_id in woken]
            woken.clear()

    def _take_frames(self, found: list[frames.Frame], now: float, events: list[Event]) -> None:
        streams = self._streams
        answers = streams.open
        written_to = streams.outbound.written_to
        decode = self._decoder.decode
        unfinished = streams.uploads.unfinished
        for kind, flags, stream_id, payload in found:
            try:
                # Nearly every frame is a whole answer, and takes this short way. What is not takes the one with all rules.
                quick = flags == _WHOLE_ANSWER and kind == _HEADERS and self._plain
                if quick and stream_id in answers and stream_id <= written_to:
                    fields = decode(payload)
                    if fields.status >= 200 and not fields.too_long and answers[stream_id] is None:
                        if unfinished:
                            streams.complete(stream_id)
                        else:
                            del answers[stream_id]
                        events.append(ResponseReceived(stream_id, fields, True))
                    else:
                        self._take_fields(stream_id, fields, True, now, events)
                    continue
                if not self._plain:
                    self._check_order(kind, flags, stream_id)
                take = _TAKE.get(kind)
                if take is None:
                    self._spend_idle(now)
                else:
                    take(self, flags, stream_id, payload, now, events)
            except StreamError as error:
                self._stream_failed(error, now, events)

    def _check_order(self, kind: int, flags: int, stream_id: int) -> None:
        """In a field block only its rest may come; before SETTINGS only GOAWAY, from a server that ends the connection at once."""
        block = self._block
        if block is not None:
            if kind != _CONTINUATION or stream_id != block.stream_id:
                text = f"frame of type {kind} on stream {stream_id} within the field block of stream {block.stream_id}"
                raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, text)
        elif kind != _GOAWAY and (kind != _SETTINGS or flags & ACK):
            raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, f"frame of type {kind} before the server's SETTINGS")

    def _take_data(self, flags: int, stream_id: int, payload: bytes, now: float, events: list[Event]) -> None:
        data = frames.parse_data(flags, stream_id, payload)
        size = len(payload)
        streams = self._streams
        streams.downloads.charge(size)
        window = streams.open.get(stream_id)
        if window is None:
            streams.downloads.discard(size)
            if streams.is_written(stream_id):
                raise StreamError(stream_id, ErrorCode.PROTOCOL_ERROR, "DATA in front of the answer's HEADERS")
            self._stray(stream_id, now)
            return
        ended = bool(flags & END_STREAM)
        streams.downloads.receive(stream_id, window, size, size - len(data), ended)
        if ended:
            streams.complete(stream_id)
        elif not data:
            self._spend_idle(now)
            return
        events.append(DataReceived(stream_id, data, ended))

    def _take_headers(self, flags: int, stream_id: int, payload: bytes, now: float, events: list[Event]) -> None:
        fragment = frames.parse_headers(flags, stream_id, payload)
        if not self._streams.was_used(stream_id):
            raise _idle_stream(stream_id)
        ended = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            self._take_block(stream_id, fragment, ended, now, events)
        else:
            self._block = PartialBlock(stream_id, fragment, ended, self._limits)
            self._plain = False

    def _take_continuation(self, flags: int, stream_id: int, payload: bytes, now: float, events: list[Event]) -> None:
        block = self._block
        if block is None:
            raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, f"CONTINUATION on stream {stream_id} without HEADERS")
        block.add(frames.parse_continuation(flags, stream_id, payload))
        if flags & END_HEADERS:
            self._block = None
            self._plain = True
            self._take_block(stream_id, block.join(), block.ended, now, events)

    def _take_block(self, stream_id: int, block: bytes, ended: bool, now: float, events: list[Event]) -> None:
        fields = self._decoder.decode(block)  # whatever becomes of the stream: the blocks share a table
        if stream_id in self._streams.open:
            self._take_fields(stream_id, fields, ended, now, events)
        else:
            self._spend_idle(now)

    def _take_fields(self, stream_id: int, fields: HeaderList, ended: bool, now: float, events: list[Event]) -> None:
        """Fields for an open stream: RFC 9113 section 8.1."""
        streams = self._streams
        if fields.too_long:
            text = f"fields of more than {self._limits.max_header_list_size} bytes"
            raise StreamError(stream_id, ErrorCode.ENHANCE_YOUR_CALM, text)
        if streams.open[stream_id] is not None:
            self._take_trailers(stream_id, fields, ended, events)
            return
        if fields.status < 200:
            if fields.status < 100 or fields.status == 101 or ended:
                raise StreamError(stream_id, ErrorCode.PROTOCOL_ERROR, "HEADERS that are no answer")
            self._spend_idle(now)
            return
        if ended:
            streams.complete(stream_id)
        else:
            streams.open[stream_id] = streams.downloads.begin()
        events.append(ResponseReceived(stream_id, fields, ended))

    def _take_trailers(self, stream_id: int, fields: HeaderList, ended: bool, events: list[Event]) -> None:
        if not ended:
            raise StreamError(stream_id, ErrorCode.PROTOCOL_ERROR, "HEADERS within the body")
        if fields.status:
            raise StreamError(stream_id, ErrorCode.PROTOCOL_ERROR, "a second answer in the place of trailers")
        self._streams.complete(stream_id)
        events.append(TrailersReceived(stream_id, fields))

    def _take_priority(self, flags: int, stream_id: int, payload: bytes, now: float, events: list[Event]) -> None:
        self._spend_idle(now)
        frames.check_priority(flags, stream_id, payload)

    def _take_rst_stream(self, flags: int, stream_id: int, payload: bytes, now: float, events: list[Event]) -> None:
        code = frames.parse_rst_stream(flags, stream_id, payload)
        streams = self._streams
        if not streams.is_written(stream_id):
            self._stray(stream_id, now)
            return
        refused = code == ErrorCode.REFUSED_STREAM and streams.open[stream_id] is None
        streams.forget(stream_id)
        events.append(StreamReset(stream_id, _known(code), Verdict.REFUSED if refused else Verdict.UNKNOWN))

    def _take_settings(self, flags: int, stream_id: int, payload: bytes, now: float, events: list[Event]) -> None:
        pairs = frames.parse_settings(flags, stream_id, payload)
        if flags & ACK:
            if self.acknowledged:
                self._spend_idle(now)
            self.acknowledged = True
        else:
            self._change_settings(pairs, now, events)
        if self.settings_came and self.acknowledged:
            self._keepalive.settled()

    def _change_settings(self, pairs: list[tuple[int, int]], now: float, events: list[Event]) -> None:
        if len(pairs) > self._limits.max_settings_pairs or not self._settings.take(now):
            raise RemoteProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "too many SETTINGS")
        streams = self._streams
        self.peer.change(pairs)
        streams.outbound.reply(frames.settings_ack())  # in front of what the new windows let go
        streams.uploads.change(self.peer.initial_window, self.peer.max_frame_size)
        self.settings_came = self._plain = True
        allowed = self._limits.max_streams
        if self.peer.max_streams is not None:
            allowed = min(allowed, self.peer.max_streams)
        if streams.state is ConnectionState.OPEN:
            streams.limit = allowed
        events.append(SettingsChanged(allowed))

    def _take_push_promise(self, flags: int, stream_id: int, payload: bytes, now: float, events: list[Event]) -> None:
        raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, which our SETTINGS forbid")

    def _take_ping(self, flags: int, stream_id: int, payload: bytes, now: float, events: list[Event]) -> None:
        opaque = frames.parse_ping(flags, stream_id, payload)
        if not flags & ACK:
            if not self._pings.take(now):
                raise RemoteProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "too many PINGs")
            self._streams.outbound.reply(frames.ping(opaque, ack=True))
            return
        ping_id = int.from_bytes(opaque, "big")
        seconds = self._keepalive.answered(ping_id, now)
        if seconds is None:
            self._spend_idle(now)
        else:
            events.append(PingAnswered(ping_id, seconds))

    def _take_goaway(self, flags: int, stream_id: int, payload: bytes, now: float, events: list[Event]) -> None:
        last, code, debug = frames.parse_goaway(flags, stream_id, payload)
        self._spend_idle(now)
        ended = self._streams.refuse_above(last)
        events.append(GoneAway(self._streams.last_processed, _known(code), debug[: self._limits.max_debug_size], ended))

    def _take_window_update(self, flags: int, stream_id: int, payload: bytes, now: float, events: list[Event]) -> None:
        increment = frames.parse_window_update(flags, stream_id, payload)
        self._spend_idle(now)
        if not stream_id:
            self._streams.uploads.open_connection(increment)
        elif self._streams.was_used(stream_id):
            self._streams.uploads.open_stream(stream_id, increment)
        else:
            raise _idle_stream(stream_id)

    def _stray(self, stream_id: int, now: float) -> None:
        """A frame for a stream that is not open. Raises RemoteProtocolError for one that was never used."""
        if not self._streams.was_used(stream_id):
            raise _idle_stream(stream_id)
        self._spend_idle(now)

    def _spend_idle(self, now: float) -> None:
        """A frame came that brings nothing, or little."""
        if self._idle.take(now):
            return
        sent = self._streams.next_id // 2 + self._streams.uploads.frames_sent
        self._idle.grant((sent - self._granted) * self._limits.idle_per_frame)
        self._granted = sent
        if not self._idle.take(now):
            raise RemoteProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that bring nothing")

    def _stream_failed(self, error: StreamError, now: float, events: list[Event]) -> None:
        stream_id = error.stream_id
        streams = self._streams
        if not streams.is_written(stream_id):
            self._stray(stream_id, now)
            return
        streams.forget(stream_id)
        streams.outbound.frames.append(frames.rst_stream(stream_id, error.code))
        events.append(StreamReset(stream_id, error.code, Verdict.UNKNOWN, error.text))


def _idle_stream(stream_id: int) -> RemoteProtocolError:
    return RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, f"frame for stream {stream_id}, which was never used")


_CODES = frozenset(map(int, ErrorCode))


def _known(code: int) -> int:
    """An ErrorCode where there is one, for readable events."""
    return ErrorCode(code) if code in _CODES else code


_Take: TypeAlias = Callable[[Incoming, int, int, bytes, float, list[Event]], None]

_TAKE: dict[int, _Take] = {
    FrameType.DATA: Incoming._take_data,
    FrameType.HEADERS: Incoming._take_headers,
    FrameType.PRIORITY: Incoming._take_priority,
    FrameType.RST_STREAM: Incoming._take_rst_stream,
    FrameType.SETTINGS: Incoming._take_settings,
    FrameType.PUSH_PROMISE: Incoming._take_push_promise,
    FrameType.PING: Incoming._take_ping,
    FrameType.GOAWAY: Incoming._take_goaway,
    FrameType.WINDOW_UPDATE: Incoming._take_window_update,
    FrameType.CONTINUATION: Incoming._take_continuation,
}

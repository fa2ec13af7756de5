"""The client side of one HTTP/2 connection: bytes in, events and bytes out, time as input. RFC 9113.

Theory of operation.

*What it is for.* A push must reach Apple once. So the core's first duty is to know, of every request that got no answer, whether
the server can have acted on it. Everything below serves that, or a thousand requests in flight at a few microseconds each.

*Rooms.* `streams` holds what is open and knows how it ends; `incoming` knows the rules for the server's frames; `uploads` and
`downloads` are flow control of both directions, `outbound` the buffer, `keepalive` the clock's part. Here is what the caller sees.

*Streams.* `Streams.open` holds what is open, by id, so ids rise in it. The value is the answer so far: None until its HEADERS came,
then the window of its body. Nearly every push is one None until its answer ends it in one frame, so a request makes no object.

*The end of a stream* is where it leaves `open`. Whoever takes it out makes the one event that reports it, or is `reset`.

*What the server can know.* All output gathers in one buffer until `outbound` takes it; `written_to` is the highest stream id that
was ever taken. A request above it was never on the wire. As long as that is so it can be taken back: its frames are swept
out of the buffer before the next bytes leave, and its verdict is NOT_WRITTEN whatever the server says or does. That holds for
`reset`, for GOAWAY (a client must not open streams behind it, section 6.8), and when the connection fails, because then nothing
but our GOAWAY leaves. Ids that were taken back are skipped on the wire, which the RFC allows; our field blocks do not depend on
one another, so none misses one that was swept out. A server that names a stream above `written_to` names an idle one.

*GOAWAY* says that streams above an id were not and will not be acted on: they are REFUSED. The others go on to their answers.
A later GOAWAY may lower the id, never raise it. If an answer had begun, what GOAWAY or REFUSED_STREAM says about it cannot be
true, and the verdict is UNKNOWN: only a request of which nothing was ever heard is REFUSED.

*Faults of the server.* A parser or a rule raises RemoteProtocolError or StreamError; `Incoming` catches both, nobody else does. The
first ends the connection: open streams get their verdicts, the buffer holds a GOAWAY and nothing else, `receive` gives nothing
from then on. The second ends one stream. Frames in front of a fault in the same bytes count, those behind it do not.

*Streams that are over.* The server may not yet know that a stream is, because our RST_STREAM is on its way, so what comes for it
is read for the sake of the tables and windows, and dropped. To tell those from a server that goes on after its own end (a fault,
section 5.1) would need a memory of every reset, and to end the connection for it would make every other push in flight
UNKNOWN. So both are dropped, and counted among the frames that bring nothing, of which a server may send only so many.

*Header compression.* Requests come as finished field blocks that touch no dynamic table. A server may lower the table's size and
then demands that the next block says so (section 4.3.1), so each block until one has left begins with "size 0": after that
there is nothing left to lower.

*Time.* `deadline` tells when `tick` wants to be called. It moves with every call, so ask again after each; that is cheap.
"""

from __future__ import annotations

from struct import Struct

from streampush.apns.http2 import frames
from streampush.apns.http2.errors import ErrorCode, LocalProtocolError
from streampush.apns.http2.events import ConnectionEnded, Event, Verdict
from streampush.apns.http2.frames import END_HEADERS, END_STREAM, MAX_STREAM_ID, FrameType
from streampush.apns.http2.incoming import Incoming
from streampush.apns.http2.keepalive import Due, Keepalive
from streampush.apns.http2.limits import Limits
from streampush.apns.http2.settings import our_settings
from streampush.apns.http2.streams import ConnectionState, Streams
from streampush.apns.http2.windows import DEFAULT_WINDOW

_pack_header = Struct(">IBI").pack  # as frames.py has it: two frames of each push are written here without a call
_HEADERS = int(FrameType.HEADERS)
_DATA = int(FrameType.DATA)


class ClientConnection:
    """One connection to a server that speaks HTTP/2.

    `first_ping_id`: 0 to 2**64 - 1, of the first PING. `first_stream_id`: odd; of the first request. `automatic_windows`: what
    comes of answers counts as consumed at once; without it the caller says so by `consumed`.

    Whoever holds it writes what `outbound` gives after each call, and calls `tick` at `deadline`. No method does IO.
    """

    __slots__ = ("_first_stream_id", "_incoming", "_keepalive", "_limits", "_streams")

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        first_ping_id: int = 0,
        first_stream_id: int = 1,
        automatic_windows: bool = True,
    ) -> None:
        self._limits = limits or Limits()
        self._first_stream_id = first_stream_id
        self._streams = Streams(self._limits, first_stream_id, automatic_windows)
        self._keepalive = Keepalive(self._limits, first_ping_id)
        self._incoming = Incoming(self._streams, self._keepalive, self._limits)

    # What the caller asks.

    @property
    def state(self) -> ConnectionState:
        """Where the connection is in its life."""
        return self._streams.state

    @property
    def open_streams(self) -> int:
        """Requests that are not over."""
        return len(self._streams.open)

    @property
    def requests(self) -> int:
        """Requests in all."""
        return (self._streams.next_id - self._first_stream_id) // 2

    @property
    def max_header_list_size(self) -> int | None:
        """Bytes of one request's fields that the server takes (RFC 9113 section 6.5.2); None: it did not say."""
        return self._incoming.peer.max_header_list_size

    def room(self) -> int:
        """How many requests can be made now; 0 before `start`, after GOAWAY of either side, and when the ids are used up."""
        streams = self._streams
        if streams.next_id > MAX_STREAM_ID:
            return 0
        return max(0, streams.limit - len(streams.open))

    def writable(self, stream_id: int) -> int:
        """Bytes that `send_data` would write now. After a 0 the event WindowOpened tells when there is room."""
        return self._streams.uploads.writable(stream_id)

    @property
    def deadline(self) -> float | None:
        """When to call `tick`, in seconds of the clock that gives `now`; it may have passed. None: never."""
        state = self._streams.state
        if state is ConnectionState.IDLE or state is ConnectionState.CLOSED:
            return None
        if self._streams.uploads.woken:
            return float("-inf")
        return self._keepalive.deadline

    # What the caller does.

    def start(self, now: float) -> None:
        """Puts preface, SETTINGS and the window of the connection into the buffer: RFC 9113 section 3.4."""
        streams = self._streams
        if streams.state is not ConnectionState.IDLE:
            raise LocalProtocolError(f"start of a connection that is {streams.state.value}")
        streams.state = ConnectionState.OPEN
        streams.limit = self._limits.assumed_max_streams
        self._keepalive.start(now)
        outgoing = streams.outbound.frames
        outgoing.append(frames.PREFACE)
        outgoing.append(frames.settings(our_settings(self._limits)))
        if more := self._limits.connection_window - DEFAULT_WINDOW:
            outgoing.append(frames.window_update(0, more))

    def request(self, block: bytes, body: bytes = b"", *, end_stream: bool = True) -> int:
        """Begins a request; gives its stream id.

        `block`: its fields, encoded without a dynamic table (hpack). `body` goes out as windows allow, the rest is kept and
        follows by itself. `end_stream=False`: more comes by `send_data`. Raises LocalProtocolError if `room` is 0.
        """
        streams = self._streams
        answers = streams.open
        stream_id = streams.next_id
        if len(answers) >= streams.limit or stream_id > MAX_STREAM_ID:
            raise LocalProtocolError(f"no room: the connection is {streams.state.value}, {len(answers)} streams are open")
        streams.next_id = stream_id + 2
        answers[stream_id] = None
        if streams.prefix:
            block = streams.prefix + block
        uploads = streams.uploads
        size = len(body)
        head = len(block)
        if not size or not end_stream or size > uploads.quick_size or size > uploads.window or head > uploads.max_frame_size:
            self._request_slowly(stream_id, block, body, end_stream)
        else:
            uploads.window -= size
            outgoing = streams.outbound.frames
            outgoing += (
                _pack_header(head << 8 | _HEADERS, END_HEADERS, stream_id),
                block,
                _pack_header(size << 8 | _DATA, END_STREAM, stream_id),
                body,
            )
        return stream_id

    def _request_slowly(self, stream_id: int, block: bytes, body: bytes, end_stream: bool) -> None:
        """What does not go out as one HEADERS and one DATA."""
        streams = self._streams
        uploads = streams.uploads
        alone = end_stream and not body
        streams.outbound.frames.append(frames.headers(stream_id, block, alone, uploads.max_frame_size))
        if not alone:
            uploads.begin(stream_id)
            uploads.send(stream_id, body, end_stream)

    def send_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Goes on with a body; what the windows do not allow is kept, and WindowOpened tells when all of it is gone.

        Data for a stream that is over is dropped. Raises LocalProtocolError behind the end of the body.
        """
        if self._streams.is_open(stream_id):
            self._streams.uploads.send(stream_id, data, end_stream)

    def consumed(self, stream_id: int, size: int) -> None:
        """The caller is done with so many bytes of DataReceived; the server may send as many again. Without effect if automatic.

        Raises LocalProtocolError for more than it was given.
        """
        self._streams.downloads.consumed(stream_id, self._streams.open.get(stream_id), size)

    def reset(self, stream_id: int, code: int = ErrorCode.CANCEL) -> Verdict | None:
        """Ends a stream without an event; gives what the server can know of the request, or None if it was over already.

        UNKNOWN: RST_STREAM goes out. NOT_WRITTEN: nothing goes out. What the caller was given of the body counts as consumed.
        """
        streams = self._streams
        if not streams.is_open(stream_id):
            streams.downloads.give_up(stream_id)
            return None
        if not streams.is_written(stream_id):
            streams.take_back(stream_id)
            return Verdict.NOT_WRITTEN
        streams.forget(stream_id)
        streams.outbound.frames.append(frames.rst_stream(stream_id, code))
        return Verdict.UNKNOWN

    def ping(self, now: float) -> int:
        """Asks the server for a sign of life; gives the id that PingAnswered will have.

        Silence from here on ends the connection after `Limits.ping_timeout`. To a server that leaves `Limits.max_pings` without
        answer no more go out; the id is that of the last. Raises LocalProtocolError if the connection is not open.
        """
        if self.deadline is None:
            raise LocalProtocolError(f"PING on a connection that is {self.state.value}")
        if self._keepalive.unanswered >= self._limits.max_pings:
            return self._keepalive.last_id
        ping_id = self._keepalive.ping(now)
        self._streams.outbound.frames.append(frames.ping(ping_id.to_bytes(8, "big")))
        return ping_id

    def close(self, code: int = ErrorCode.NO_ERROR) -> None:
        """Tells the server that no more requests come. Open streams go on; end the transport when `open_streams` is 0."""
        streams = self._streams
        if streams.state is ConnectionState.IDLE:
            streams.state = ConnectionState.CLOSED
        elif streams.state is not ConnectionState.CLOSED:
            streams.drain()
            streams.outbound.frames.append(frames.goaway(0, code))

    def outbound(self) -> bytes:
        """Takes what is to be written. From here on the server may know of it."""
        return self._streams.take_outbound()

    # What happens to the connection.

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Bytes from the server, cut anyhow. Never raises for what the server does: ConnectionFailed, if it comes, is the last."""
        if self._streams.state is ConnectionState.CLOSED:
            return []
        return self._incoming.receive(data, now)

    def end_of_input(self) -> list[Event]:
        """The transport is gone, for whatever reason."""
        if self._streams.state is ConnectionState.CLOSED:
            return []
        return [ConnectionEnded(self._streams.end())]

    def tick(self, now: float) -> list[Event]:
        """`deadline` has come. Calling it at another time does no harm."""
        events: list[Event] = []
        if self.deadline is None:
            return events
        incoming = self._incoming
        due = self._keepalive.due(now)
        if due is Due.SETTINGS_LATE:
            what = "acknowledgement of SETTINGS" if incoming.settings_came else "SETTINGS"
            incoming.fail(ErrorCode.SETTINGS_TIMEOUT, f"no {what} within {self._limits.settings_timeout:g} s", events)
        elif due is Due.GIVE_UP:
            incoming.fail(ErrorCode.NO_ERROR, f"silence for {self._limits.ping_timeout:g} s after a PING", events)
        elif due is Due.PING:
            self.ping(now)
        incoming.wake(events)
        return events

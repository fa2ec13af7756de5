"""A server that answers pushes and looks at nothing: quick enough that a client on another core is what is measured.

python -m bench.apple --certificate FILE --key FILE [--core N] [--delay-ms MS] [--echo]: TLS and HTTP/2, prints its port.
`--echo` gives each push its own apns-id back, for clients that find their pushes by it; it takes decoding all that they send.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import ssl
import time
from collections import deque

from hpack import Decoder

from streampush.apns.http2 import frames, hpack
from streampush.apns.http2.frames import END_HEADERS, END_STREAM, FRAME_HEADER, MAX_WINDOW, FrameType
from streampush.apns.http2.settings import Setting

READ = 256 * 1024
MAX_STREAMS = 1000
ANSWER_HEAD = hpack.block([(b":status", b"200")]) + hpack.name_prefix(b"apns-id")
ANSWER = ANSWER_HEAD + hpack.string(b"123e4567-e89b-12d3-a456-426614174000")
REFILL = 64 * 1024 * 1024
GREETING = frames.settings(
    [(Setting.MAX_CONCURRENT_STREAMS, MAX_STREAMS), (Setting.INITIAL_WINDOW_SIZE, MAX_WINDOW)]
) + frames.window_update(0, MAX_WINDOW - 65_535)
HEADERS, DATA, SETTINGS, PING = (int(each) for each in (FrameType.HEADERS, FrameType.DATA, FrameType.SETTINGS, FrameType.PING))


class Connection:
    """One client."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, echo: bool) -> None:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.settimeout(10)
        self.socket = context.wrap_socket(plain, server_side=True)
        self.socket.settimeout(0)
        self._unread = b""
        self._unsent = bytearray(GREETING)
        self._preface = len(frames.PREFACE)
        self._taken = 0
        self._decoder = Decoder() if echo else None
        self._ids: dict[int, bytes] = {}

    def read(self) -> bytes:
        """What is to be answered to what came; raises ConnectionError at the end."""
        parts = [self._unread]
        try:
            while True:
                data = self.socket.recv(READ)
                if not data:
                    raise ConnectionResetError
                parts.append(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            raise ConnectionResetError from error
        return self._take(b"".join(parts))

    def _take(self, data: bytes) -> bytes:
        at, end = self._preface, len(data)
        if at > end:
            self._unread = data
            return b""
        self._preface = 0
        answers = []
        while at + FRAME_HEADER <= end:
            length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            kind, flags = data[at + 3], data[at + 4]
            body = at + FRAME_HEADER
            if body + length > end:
                break
            stream_id = int.from_bytes(data[at + 5 : body], "big")
            at = body + length
            if kind == HEADERS and self._decoder is not None:
                self._ids[stream_id] = dict(self._decoder.decode(data[body:at], raw=True))[b"apns-id"]
            if kind == DATA:
                self._taken += length
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                answers.append(self._answer(stream_id))
            elif kind == SETTINGS and not flags:
                answers.append(frames.settings_ack())
            elif kind == PING and not flags:
                answers.append(frames.ping(data[body:at], ack=True))
        self._unread = data[at:]
        if self._taken > REFILL:
            answers.append(frames.window_update(0, self._taken))
            self._taken = 0
        return b"".join(answers)

    def _answer(self, stream_id: int) -> bytes:
        block = ANSWER if self._decoder is None else ANSWER_HEAD + hpack.string(self._ids.pop(stream_id))
        return b"%c%c%c%c%c" % (0, 0, len(block), HEADERS, END_HEADERS | END_STREAM) + stream_id.to_bytes(4, "big") + block

    def write(self, data: bytes) -> None:
        """Writes what goes, keeps the rest."""
        self._unsent += data
        try:
            while self._unsent:
                del self._unsent[: self.socket.send(self._unsent[:READ])]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass

    @property
    def writing(self) -> bool:
        return bool(self._unsent)


def serve(listener: socket.socket, context: ssl.SSLContext, delay: float, echo: bool) -> None:
    """For ever."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ, None)
    late: deque[tuple[float, Connection, bytes]] = deque()
    while True:
        wait = max(0.0, late[0][0] - time.monotonic()) if late else None
        for key, _ in selector.select(wait):
            if key.data is None:
                _accept(listener, context, echo, selector)
            else:
                _serve(key.data, selector, late, delay)
        while late and late[0][0] <= time.monotonic():
            _, connection, data = late.popleft()
            _write(connection, data, selector)


def _accept(listener: socket.socket, context: ssl.SSLContext, echo: bool, selector: selectors.BaseSelector) -> None:
    try:
        connection = Connection(listener.accept()[0], context, echo)
    except OSError:
        return
    selector.register(connection.socket, selectors.EVENT_READ, connection)
    _write(connection, b"", selector)


def _serve(
    connection: Connection, selector: selectors.BaseSelector, late: deque[tuple[float, Connection, bytes]], delay: float
) -> None:
    try:
        data = connection.read()
    except OSError:
        selector.unregister(connection.socket)
        connection.socket.close()
        return
    if data and delay:
        late.append((time.monotonic() + delay, connection, data))
    else:
        _write(connection, data, selector)


def _write(connection: Connection, data: bytes, selector: selectors.BaseSelector) -> None:
    if connection.socket.fileno() < 0:
        return
    try:
        connection.write(data)
    except OSError:
        return  # its end is read next
    events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.writing else 0)
    selector.modify(connection.socket, events, connection)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.apple", description=__doc__)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--core", type=int)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--echo", action="store_true")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    context.set_alpn_protocols(["h2"])
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    serve(listener, context, options.delay_ms / 1000, options.echo)


if __name__ == "__main__":
    main()

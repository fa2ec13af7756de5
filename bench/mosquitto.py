"""Mosquitto, the MQTT broker that most people know, as a peer for durable publishing; and what an MQTT 3.1.1 publisher says to it.

What it promises is not what streampush promises. With `autosave_interval 1` and `autosave_on_changes true`, the nearest it has,
it writes everything it holds to a new file after each turn of its loop that changed something; the acknowledgement (PUBACK) has
gone out before that, so a crash may lose what was acknowledged. By default it saves every half hour, and at its end. Either way
only what a subscriber that is away would miss is kept, so there is one here: with a durable session (clean session 0), QoS 1.
"""

from __future__ import annotations

import getpass
import shutil
import socket
import ssl
import struct
from itertools import cycle

from bench.clients import STALL_SECONDS, client_context
from bench.credentials import Credentials
from bench.dialects import TOPIC, LoadError
from bench.servers import Server, free_port, launched

MOSQUITTO = "mosquitto"
SUBSCRIBER = b"bench-away"

_CONNECT, _CONNACK, _PUBLISH_QOS1, _PUBACK, _SUBSCRIBE, _SUBACK, _DISCONNECT = 0x10, 0x20, 0x32, 0x40, 0x82, 0x90, 0xE0
_CLEAN_SESSION = 2


def is_installed() -> bool:
    return shutil.which(MOSQUITTO) is not None


def start_mosquitto(subject: str, credentials: Credentials, core: int, *, save_at_every_change: bool) -> Server:
    """A broker on one core, with mutual TLS like the others, its file on the same disk. Raises LoadError."""
    port = free_port()
    directory = credentials.root / f"mosquitto-{port}"
    directory.mkdir()
    every_change = "autosave_interval 1\nautosave_on_changes true" if save_at_every_change else "autosave_interval 1800"
    settings = directory / "mosquitto.conf"
    settings.write_text(
        f"""
user {getpass.getuser()}
listener {port} 127.0.0.1
cafile {credentials.ca}
certfile {credentials.server_certificate}
keyfile {credentials.server_key}
require_certificate true
allow_anonymous true
set_tcp_nodelay true
max_queued_messages 0
persistence true
persistence_location {directory}/
{every_change}
log_dest stdout
log_type error
"""
    )
    program = shutil.which(MOSQUITTO) or "/usr/sbin/mosquitto"
    return launched(subject, core, [program, "-c", str(settings)], port, directory)


def subscribe_and_leave(address: tuple[str, int], credentials: Credentials) -> None:
    """Makes a subscriber with a durable session that is away, and drops what waited for it. Raises LoadError."""
    for clean in (True, False):
        raw = socket.create_connection(address, STALL_SECONDS)
        with client_context(credentials.publisher).wrap_socket(raw) as sock:
            sock.sendall(_connect(SUBSCRIBER, clean=clean))
            _expect(sock, _CONNACK)
            if not clean:
                sock.sendall(_packet(_SUBSCRIBE, b"\0\x01" + _text(TOPIC.encode()) + b"\x01"))
                _expect(sock, _SUBACK)
            sock.sendall(_packet(_DISCONNECT, b""))


def _expect(sock: ssl.SSLSocket, kind: int) -> None:
    data = b""
    while len(data) < 2 or len(data) < 2 + data[1]:
        got = sock.recv(64)
        if not got:
            raise LoadError("mosquitto has closed the connection")
        data += got
    if data[0] != kind or data[-1] & 0x80:
        raise LoadError(f"mosquitto answers {data.hex()}")


class MqttWire:
    """Publishes with QoS 1; see bench.publishers.Wire."""

    def __init__(self) -> None:
        self._ids = cycle(range(1, 65536))  # of one connection at a time far fewer are in use

    def greeting(self, number: int) -> bytes:
        return _connect(b"bench-%d" % number, clean=True)

    def publish(self, payload: bytes) -> bytes:
        return _packet(_PUBLISH_QOS1, _text(TOPIC.encode()) + struct.pack("!H", next(self._ids)) + payload)

    def take(self, data: bytes) -> tuple[int, bytes, bytes]:
        replies = at = 0
        while len(data) - at >= 4:  # CONNACK and PUBACK have two bytes behind their head
            kind, _, _, code = data[at : at + 4]
            if kind not in (_CONNACK, _PUBACK) or (kind == _CONNACK and code):
                raise LoadError(f"mosquitto answers {data[at : at + 4].hex()}")
            replies += 1
            at += 4
        return replies, data[at:], b""


def _connect(client_id: bytes, *, clean: bool) -> bytes:
    return _packet(_CONNECT, _text(b"MQTT") + bytes((4, _CLEAN_SESSION if clean else 0, 0, 0)) + _text(client_id))


def _packet(kind: int, body: bytes) -> bytes:
    length, rest = bytearray(), len(body)
    while True:
        rest, digit = divmod(rest, 128)
        length.append(digit | (0x80 if rest else 0))
        if not rest:
            return bytes((kind,)) + bytes(length) + body


def _text(text: bytes) -> bytes:
    return struct.pack("!H", len(text)) + text

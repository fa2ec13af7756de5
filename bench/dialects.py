"""What the load clients say to either server: the same conversation in the words of each."""

from __future__ import annotations

import struct
from enum import Enum, auto
from itertools import count
from typing import Protocol

from bench.report import NAIVE, OURS
from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.framing import TRAILER_SIZE, encode_frame
from streampush.protocol.terms import Outcome

TOPIC = "bench/all"
NOBODY = "bench/nobody"


class LoadError(Exception):
    """The server did not do what a benchmark needs."""


class Meaning(Enum):
    """What a frame other than a delivery means to a load client."""

    GREETED = auto()
    SUBSCRIBED = auto()
    REPLIED = auto()
    PINGED = auto()
    NOTHING = auto()


class Dialect(Protocol):
    """`delivery`: the first byte of a delivery's payload; `trailer`: bytes of a frame behind its payload."""

    delivery: int
    trailer: int

    def greeting(self, name: str) -> bytes:
        """The first frame of a client."""

    def subscription(self) -> bytes:
        """Asks for the topic; empty if the server sends everything to everybody."""

    def broadcast(self, payload: bytes) -> bytes:
        """A publish to everybody."""

    def unicast(self, name: str, payload: bytes) -> bytes:
        """A publish to one device."""

    def to_nobody(self, payload: bytes) -> bytes:
        """A publish that nobody gets."""

    def acknowledgement(self, delivery: bytes) -> bytes:
        """The answer to a delivery."""

    def payload(self, delivery: bytes) -> bytes:
        """The application's bytes in a delivery."""

    def meaning(self, frame: bytes) -> tuple[Meaning, bytes]:
        """What another frame means, and what to answer. Raises LoadError for a refusal."""


class StreampushDialect:
    delivery = 0x0A  # the tag of Envelope.delivery
    trailer = TRAILER_SIZE

    def __init__(self) -> None:
        self._ids = count(1)

    def greeting(self, name: str) -> bytes:
        return encode_frame(codec.encode(m.Hello(app="bench", app_version="1", sdk="bench", sdk_version="1")))

    def subscription(self) -> bytes:
        return self._request(m.Subscribe(TOPIC))

    def broadcast(self, payload: bytes) -> bytes:
        return self._request(m.Publish(TOPIC, payload))

    def unicast(self, name: str, payload: bytes) -> bytes:
        return self._request(m.Publish(f"device:{name}", payload))

    def to_nobody(self, payload: bytes) -> bytes:
        return self._request(m.Publish(NOBODY, payload))

    def _request(self, message: m.Message) -> bytes:
        return encode_frame(codec.encode(message, next(self._ids)))

    def acknowledgement(self, delivery: bytes) -> bytes:
        message = self._delivery(delivery)
        return encode_frame(codec.encode(m.Ack(message.channel, message.offset, Outcome.PROCESSED)))

    def payload(self, delivery: bytes) -> bytes:
        return self._delivery(delivery).payload

    def _delivery(self, payload: bytes) -> m.Delivery:
        _, message = codec.decode(payload)
        if not isinstance(message, m.Delivery):
            raise LoadError(f"expected a Delivery, got {type(message).__name__}")
        return message

    def meaning(self, frame: bytes) -> tuple[Meaning, bytes]:
        request_id, message = codec.decode(frame)
        if isinstance(message, m.Ping):
            return Meaning.PINGED, encode_frame(codec.encode(m.Pong(), request_id))
        if isinstance(message, m.PublishOk):
            return Meaning.REPLIED, b""
        if isinstance(message, m.Welcome):
            return Meaning.GREETED, b""
        if isinstance(message, m.Subscribed):
            if message.code:
                raise LoadError(f"subscription refused: {message.code} {message.detail}")
            return Meaning.SUBSCRIBED, b""
        if isinstance(message, m.Error | m.GoAway):
            raise LoadError(f"{type(message).__name__}: {message.code} {message.detail}")
        return Meaning.NOTHING, b""


def _string(text: bytes) -> bytes:
    return struct.pack("!I", len(text)) + text


class NaiveDialect:
    delivery = ord("D")
    trailer = 0

    def greeting(self, name: str) -> bytes:
        return _string(b"N" + name.encode())

    def subscription(self) -> bytes:
        return b""

    def broadcast(self, payload: bytes) -> bytes:
        return _string(b"B" + payload)

    def unicast(self, name: str, payload: bytes) -> bytes:
        return _string(b"U" + name.encode() + b"\0" + payload)

    def to_nobody(self, payload: bytes) -> bytes:
        return self.unicast("nobody", payload)

    def acknowledgement(self, delivery: bytes) -> bytes:
        return _string(b"A" + bytes(8))

    def payload(self, delivery: bytes) -> bytes:
        return delivery[1:]

    def meaning(self, frame: bytes) -> tuple[Meaning, bytes]:
        kind = frame[:1]
        if kind == b"N":
            return Meaning.GREETED, b""
        if kind in (b"O", b"X"):
            return Meaning.REPLIED, b""
        if kind == b"P":
            return Meaning.PINGED, _string(b"P")
        raise LoadError(f"unknown kind {kind!r}")


def dialect_of(subject: str) -> Dialect:
    """The dialect of a subject of the report."""
    dialects: dict[str, type[Dialect]] = {OURS: StreampushDialect, NAIVE: NaiveDialect}
    return dialects[subject.split(" ")[0]]()

"""Writes tests/vectors/frames.json, the golden vectors that docs/protocol.md section 14 describes.

    python -m tests.vectors.make_vectors

What a vector should give is written down here, never computed by our decoder; frames are made with struct and zlib alone, and
payloads with the generated protobuf code alone. So the vectors hold our code to the page, not to itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from struct import pack
from typing import Any
from zlib import crc32

from google.protobuf.json_format import MessageToDict

from streampush._pb import streampush_pb2 as pb

FILE = Path(__file__).with_name("frames.json")

U32 = 2**32 - 1
U64 = 2**64 - 1
MAX_FRAME = 1024 * 1024
RESYNC = 64 * 1024
UNICODE = "grüße 東京 🦊 \u202eعربي\u202c e\u0301 \u0000 end"


@dataclass(frozen=True, slots=True)
class Vector:
    """`results` holds payloads (bytes), damages (int), and payloads that are no Envelope (a list of one)."""

    name: str
    about: str
    data: bytes
    results: tuple[Any, ...]
    failure: int | None = None
    waiting: bool = False
    max_frame: int = MAX_FRAME
    max_resync_bytes: int = RESYNC
    repeat: tuple[bytes, int] | None = None

    def as_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "name": self.name,
            "about": self.about,
            "max_frame": self.max_frame,
            "max_resync_bytes": self.max_resync_bytes,
            "bytes": self.data.hex(),
            "results": [_result(item) for item in self.results],
            "failure": self.failure,
            "waiting": self.waiting,
            "canonical": self._canonical(),
        }
        if self.repeat is not None:
            row["repeat"] = {"bytes": self.repeat[0].hex(), "times": self.repeat[1]}
        return row

    def _canonical(self) -> bool:
        if not self.results or self.repeat or not all(isinstance(item, bytes) for item in self.results):
            return False
        known = [pb.Envelope.FromString(item) for item in self.results]
        for envelope in known:
            envelope.DiscardUnknownFields()
        return b"".join(frame(envelope.SerializeToString(deterministic=True)) for envelope in known) == self.data


def _result(item: Any) -> dict[str, Any]:
    if isinstance(item, int):
        return {"damage": item}
    if isinstance(item, list):
        return {"payload": item[0].hex(), "undecodable": 2002}
    envelope = MessageToDict(pb.Envelope.FromString(item), preserving_proto_field_name=True)
    return {"payload": item.hex(), "envelope": json.loads(json.dumps(envelope, sort_keys=True))}


def frame(payload: bytes, checksum: int | None = None, length: int | None = None) -> bytes:
    """A frame, with a wrong checksum or length if one is given."""
    length = len(payload) if length is None else length
    checksum = crc32(payload) if checksum is None else checksum
    return pack(">I", length) + payload + pack(">I", checksum)


def envelope(request_id: int = 0, **body: Any) -> bytes:
    return pb.Envelope(id=request_id, **body).SerializeToString(deterministic=True)


PING = envelope(1, ping=pb.Ping())
ACK = envelope(ack=pb.Ack(channel="device:phone-1", offset=7, outcome=pb.OUTCOME_PROCESSED))
DELIVERY = envelope(
    delivery=pb.Delivery(channel="topic", offset=8, message_id="m-8", payload=b"hello", published_at_ms=1_790_000_000_000)
)


def good(name: str, about: str, *payloads: bytes, **limits: Any) -> Vector:
    return Vector(name, about, b"".join(frame(payload) for payload in payloads), payloads, **limits)


def filled_messages() -> list[Vector]:
    """Every message with every field set to something ordinary."""
    position = pb.Position(epoch="e1", offset=41, last_message_id="m-41")
    subscribed = pb.Subscribed(
        channel="news/sport",
        epoch="e1",
        offset=41,
        top_offset=44,
        recovered=True,
        last_message_id="m-41",
        durable=True,
    )
    lost = pb.Subscribed(
        channel="user:alice",
        epoch="e2",
        offset=9,
        top_offset=12,
        loss=pb.LOSS_REASON_TRIMMED,
        lost_at_most=5,
    )
    refused = pb.Subscribed(channel="secret", code=pb.CODE_FORBIDDEN, detail="forbidden")
    bodies: dict[str, dict[str, Any]] = {
        "hello": {
            "hello": pb.Hello(
                protocol_min=1,
                protocol_max=1,
                features=1,
                app="com.example.app",
                app_version="4.2.0",
                sdk="streampush-swift",
                sdk_version="1.0.0",
                device_id="phone-1",
                receive_window_messages=64,
                receive_window_bytes=262144,
                resume=[pb.Resume(channel="news/sport", position=position), pb.Resume(channel="new")],
                state=pb.APP_STATE_FOREGROUND,
            )
        },
        "welcome": {
            "welcome": pb.Welcome(
                protocol=1,
                features=1,
                session_id="s-1",
                node="node-a",
                heartbeat=pb.HeartbeatPolicy(interval_ms=30000, reply_timeout_ms=10000, misses=3, min_ping_interval_ms=10000),
                limits=pb.Limits(
                    max_frame=1048576,
                    max_payload=262144,
                    max_subscriptions=1000,
                    receive_window_messages=64,
                    receive_window_bytes=262144,
                    ack_timeout_ms=30000,
                ),
                reconnect=pb.ReconnectPolicy(first_jitter_ms=5000, backoff_initial_ms=1000, backoff_max_ms=60000, degraded_after=5),
                subscribed=[subscribed, lost, refused],
                device_id="phone-1",
                user_id="alice",
                server_time_ms=1_790_000_000_000,
            )
        },
        "ping": {"ping": pb.Ping()},
        "pong": {"pong": pb.Pong()},
        "publish": {
            "publish": pb.Publish(
                channel="user:alice",
                payload=b'{"text":"hi"}',
                content_type="application/json",
                headers={"trace": "abc"},
                ttl_ms=60000,
                durability=pb.DURABILITY_LOCAL_FSYNC,
                idempotency_key="order-17/shipped",
                priority=pb.PRIORITY_HIGH,
                collapse_key="order-17",
                deliver_at_ms=1_790_000_060_000,
                want_receipt=True,
                clear_on_processed=True,
                version=3,
            )
        },
        "publish-until": {
            "publish": pb.Publish(
                channel="device:phone-1",
                payload=b"until",
                expires_at_ms=1_790_000_120_000,
                priority=pb.PRIORITY_LOW,
            )
        },
        "publish-ok": {
            "publish_ok": pb.PublishOk(
                message_id="m-42",
                channel="user:alice",
                offset=42,
                epoch="e1",
                durability=pb.DURABILITY_MEMORY,
                connections=2,
                duplicate=True,
            )
        },
        "publish-ok-scheduled": {
            "publish_ok": pb.PublishOk(
                message_id="m-43",
                channel="user:alice",
                epoch="e1",
                durability=pb.DURABILITY_LOCAL_FSYNC,
                deliver_at_ms=1_790_000_060_000,
            )
        },
        "publish-ok-superseded": {
            "publish_ok": pb.PublishOk(
                message_id="m-44",
                channel="user:alice",
                offset=44,
                epoch="e1",
                durability=pb.DURABILITY_LOCAL_FSYNC,
                superseded=True,
            )
        },
        "delivery": {
            "delivery": pb.Delivery(
                channel="user:alice",
                offset=42,
                message_id="m-42",
                payload=b'{"text":"hi"}',
                published_at_ms=1_790_000_000_000,
                expires_at_ms=1_790_000_060_000,
                content_type="application/json",
                headers={"trace": "abc"},
                collapse_key="order-17",
                priority=pb.PRIORITY_HIGH,
            )
        },
        "recall-notice": {
            "delivery": pb.Delivery(
                channel="user:alice",
                offset=43,
                message_id="m-45",
                published_at_ms=1_790_000_001_000,
                recalls="m-42",
            )
        },
        "ack": {"ack": pb.Ack(channel="user:alice", offset=42, outcome=pb.OUTCOME_PROCESSED, epoch="e1")},
        "credit": {"credit": pb.Credit(messages=16, bytes=65536)},
        "backlog-end": {"backlog_end": pb.BacklogEnd(channel="user:alice", offset=42)},
        "receipt": {
            "receipt": pb.Receipt(
                message_id="m-42",
                channel="user:alice",
                offset=42,
                device_id="phone-1",
                milestone=pb.MILESTONE_PROCESSED,
                at_ms=1_790_000_000_123,
            )
        },
        "subscribe": {"subscribe": pb.Subscribe(channel="news/sport", position=position, start=pb.START_EARLIEST, durable=True)},
        "subscribed": {"subscribed": subscribed},
        "subscribed-with-loss": {"subscribed": lost},
        "unsubscribe": {"unsubscribe": pb.Unsubscribe(channel="news/sport")},
        "register-token": {
            "register_token": pb.RegisterToken(
                provider=pb.TOKEN_PROVIDER_APNS, token=bytes(range(32)), topic="com.example.app", sandbox=True
            )
        },
        "state": {"state": pb.State(state=pb.APP_STATE_BACKGROUND)},
        "error": {
            "error": pb.Error(
                code=pb.CODE_MESSAGE_RATE_EXCEEDED,
                advice=pb.ADVICE_SLOW_DOWN,
                detail="message rate exceeded",
                retry_after_ms=250,
                jitter_ms=100,
                channel="user:alice",
            )
        },
        "go-away": {
            "go_away": pb.GoAway(
                code=pb.CODE_DRAINING,
                advice=pb.ADVICE_RECONNECT_ELSEWHERE,
                detail="draining",
                retry_after_ms=1000,
                jitter_ms=5000,
                close_after_ms=10000,
            )
        },
        "ok": {"ok": pb.Ok()},
    }
    return [good(f"message-{name}", "Every field set.", envelope(7, **body)) for name, body in bodies.items()]


def default_messages() -> list[Vector]:
    """Every message with all fields at their defaults: the body is there, and empty."""
    vectors = []
    for field in pb.Envelope.DESCRIPTOR.oneofs_by_name["body"].fields:
        body = pb.Envelope()
        getattr(body, field.name).SetInParent()
        name = f"default-{field.name.replace('_', '-')}"
        vectors.append(good(name, "Every field at its default.", body.SerializeToString(deterministic=True)))
    return vectors


def extremes() -> list[Vector]:
    """The ends of ranges, unicode, binary payloads, and what a newer peer may send."""
    return [
        good("id-largest", "The largest envelope id.", envelope(U64, ping=pb.Ping())),
        good(
            "integers-largest",
            "The largest 32-bit and 64-bit integers.",
            envelope(publish_ok=pb.PublishOk(message_id="m", channel="c", offset=U64, epoch="e", durability=3, connections=U32)),
            envelope(error=pb.Error(retry_after_ms=U32, jitter_ms=U32)),
            envelope(credit=pb.Credit(messages=U32, bytes=U64)),
        ),
        good("offset-above-2-53", "An offset that a double cannot hold.", envelope(ack=pb.Ack(channel="c", offset=2**53 + 1))),
        good(
            "unicode",
            "Strings of several scripts, a right-to-left override, a combining mark and a zero character.",
            envelope(delivery=pb.Delivery(channel="thème/東京", offset=1, message_id="m", content_type=UNICODE)),
            envelope(error=pb.Error(code=pb.CODE_FORBIDDEN, detail=UNICODE)),
        ),
        good(
            "headers-many",
            "A map of several entries, one with an empty value, one with a unicode key.",
            envelope(publish=pb.Publish(channel="c", headers={"a": "1", "b": "", "ключ": "значение"})),
        ),
        good("payload-all-bytes", "Every byte value.", envelope(publish=pb.Publish(channel="c", payload=bytes(range(256))))),
        good(
            "payload-holds-a-frame",
            "A payload that is itself a good frame is not looked into.",
            envelope(publish=pb.Publish(channel="c", payload=frame(PING))),
        ),
        good("payload-zeros", "A payload of zeros.", envelope(publish=pb.Publish(channel="c", payload=bytes(64)))),
        good("channel-longest", "A channel name of 255 bytes.", envelope(unsubscribe=pb.Unsubscribe(channel="é" * 127 + "x"))),
        good("frame-of-exactly-the-limit", "max_frame is inclusive.", PING, max_frame=len(PING)),
        good("smallest-payload", "One frame of two bytes of payload.", bytes.fromhex("1a00")),
        good("unknown-code-and-advice", "Numbers that only a newer peer knows.", envelope(error=pb.Error(code=4242, advice=77))),
        good("unknown-priority", "The same.", envelope(delivery=pb.Delivery(channel="c", offset=1, message_id="m", priority=9))),
        good("unknown-outcome", "An enumeration value of the future.", envelope(ack=pb.Ack(channel="c", offset=1, outcome=9))),
        good("enumeration-negative", "Enumerations are signed.", envelope(go_away=pb.GoAway(code=-1))),
        good("unknown-message", "A body of field 30, id 5: answered with Error 2010.", bytes.fromhex("7805f20103616263")),
        good("unknown-message-private", "A body of the private field 100.", bytes.fromhex("a2060178")),
        good("no-message", "An id and no body at all.", bytes.fromhex("7805")),
        good("unknown-field", "A Ping with a field 50 inside, and a field 99 beside it.", bytes.fromhex("1a0390030178019a0600")),
        good("fields-reversed", "id in front of the body; the order of fields means nothing.", bytes.fromhex("78051a00")),
        good("varint-longer-than-needed", "The id 5 in three bytes.", bytes.fromhex("1a0078858000")),
    ]


def streams() -> list[Vector]:
    """Several frames, and streams that end in the middle."""
    pings = tuple(envelope(number, ping=pb.Ping()) for number in range(1, 51))
    whole = frame(DELIVERY)
    cuts = {"header": 2, "length": 4, "payload": 10, "payload-end": len(whole) - 4, "checksum": len(whole) - 1}
    truncated = [
        Vector(f"truncated-in-{name}", "The rest is waited for.", frame(PING) + whole[:cut], (PING,), waiting=True)
        for name, cut in cuts.items()
    ]
    return [
        Vector("empty-stream", "Nothing.", b"", ()),
        good("three-frames", "Three different messages.", PING, ACK, DELIVERY),
        good("fifty-frames", "Fifty pings.", *pings),
        *truncated,
    ]


def bad_checksums() -> list[Vector]:
    right = crc32(ACK)
    about = "The frame is dropped alone, its length is trusted."
    return [
        Vector("checksum-off-by-one", about, frame(PING) + frame(ACK, right ^ 1) + frame(DELIVERY), (PING, 2003, DELIVERY)),
        Vector("checksum-zero", about, frame(ACK, 0) + frame(PING), (2003, PING)),
        Vector("checksum-little-endian", about, frame(ACK, int.from_bytes(pack("<I", right), "big")) + frame(PING), (2003, PING)),
        Vector("checksum-of-the-header-too", about, frame(ACK, crc32(frame(ACK)[:-4])) + frame(PING), (2003, PING)),
        Vector("payload-bit-flipped", about, frame(b"\x1b" + PING[1:], crc32(PING)) + frame(PING), (2003, PING)),
        Vector("dropped-frame-holds-a-frame", about, frame(frame(ACK), 1) + frame(PING), (2003, PING)),
        Vector("checksums-wrong-in-a-row", about, frame(ACK, 1) * 3 + frame(PING), (2003, 2003, 2003, PING)),
    ]


def undecodable() -> list[Vector]:
    about = "The checksum is right, the payload is no Envelope: answered with Error 2002."
    payloads = {
        "field-ends-early": "0a0561",
        "wire-type-7": "970300",
        "varint-without-end": "78ffffffffffffffffffffff",
        "inner-message-ends-early": "12020a05",
        "end-group-alone": "9403",
    }
    return [
        Vector(f"garbage-{name}", about, frame(bytes.fromhex(data)) + frame(PING), ([bytes.fromhex(data)], PING))
        for name, data in payloads.items()
    ]


def bad_lengths() -> list[Vector]:
    ping = frame(PING)
    over = len(DELIVERY) - 1
    http = b"GET /v1/devices HTTP/1.1\r\nHost: push.example.com\r\n\r\n"
    hello = bytes.fromhex("160301003c010000380303") + b"\x42" * 54
    found = "The position is lost; the frames behind it are found."
    return [
        Vector("length-zero", found, bytes(8) + ping + frame(ACK), (2005, PING, ACK)),
        Vector("length-zero-header-only", found, bytes(4) + ping, (2005, PING)),
        Vector("length-zero-waits", "A scan that has found nothing yet.", bytes(8), (2005,), waiting=True),
        Vector("length-above-the-limit", found, frame(DELIVERY) + ping, (2004, PING), max_frame=over),
        Vector("length-ffffffff", found, b"\xff" * 4 + ping, (2004, PING)),
        Vector("length-negative", found, b"\x80\x00\x00\x00" + ping, (2004, PING)),
        Vector(
            "length-little-endian",
            "Read as big-endian it is far above the limit; behind it stands by chance a length of 4628, which is waited for.",
            pack("<I", len(ACK)) + ACK + pack("<I", crc32(ACK)) + ping,
            (2004,),
            waiting=True,
        ),
        Vector("http-waits", "HTTP on the wrong port.", http, (2004,), waiting=True),
        Vector("http-then-frames", found, http + ping + frame(ACK), (2004, PING, ACK)),
        Vector("tls-waits", "A TLS record inside the stream; 00003803 is a plausible length.", hello + ping, (2004,), waiting=True),
        Vector("tls-then-frames", found, hello + ping + frame(ACK), (2004, PING, ACK), max_resync_bytes=1024),
        Vector("damage-twice", found, b"\xff" * 5 + ping + bytes(4) + frame(ACK), (2004, PING, 2005, ACK)),
        Vector("bytes-missing", "A frame lost its first three bytes.", ping[3:] + frame(ACK) + ping, (2004, ACK, PING)),
        Vector("bytes-inserted", "Two bytes too many between frames.", ping + b"\x55\xaa" + frame(ACK), (PING, 2004, ACK)),
        Vector(
            "plausible-length-is-waited-for",
            "Behind the damage stands a length of 40: the frame inside is not found before 48 bytes are there.",
            b"\xff\xff\xff\xff" + pack(">I", 40) + ping,
            (2004,),
            waiting=True,
            max_resync_bytes=200,
        ),
        Vector(
            "plausible-length-proves-wrong",
            "The same, and enough bytes: every frame behind the damage is found.",
            b"\xff\xff\xff\xff" + pack(">I", 40) + ping * 5,
            (2004, *([PING] * 5)),
            max_resync_bytes=200,
        ),
    ]


def failures() -> list[Vector]:
    """Streams beyond repair: what was decoded before still counts."""
    ping = frame(PING)
    window = 32
    fits = b"\xff" * (1 + window - len(ping))
    return [
        Vector("no-resync-length-zero", "Without resynchronisation.", ping + bytes(8) + ping, (PING,), 2005, max_resync_bytes=0),
        Vector("no-resync-too-large", "Without resynchronisation.", ping + b"\xff" * 4, (PING,), 2004, max_resync_bytes=0),
        Vector(
            "no-resync-checksum", "A wrong checksum alone is no failure.", frame(ACK, 1) + ping, (2003, PING), max_resync_bytes=0
        ),
        Vector("window-just-enough", "The frame ends where the window ends.", fits + ping, (2004, PING), max_resync_bytes=window),
        Vector(
            "window-one-byte-short",
            "The frame ends one byte behind the window.",
            fits + b"\xff" + ping,
            (2004,),
            2004,
            max_resync_bytes=window,
        ),
        Vector("window-full-of-garbage", "No frame in 64 KiB.", ping, (PING, 2004), 2004, repeat=(b"\xff", RESYNC + 1)),
        Vector(
            "too-many-false-frames",
            "Every third byte begins a false frame of 32512 bytes: given up before it costs too much.",
            ping + b"\xff",
            (PING, 2004),
            2003,
            repeat=(b"\x00\x00\x7f", 22000),
        ),
        Vector(
            "false-frames-behind-each-good-one",
            "Fifteen false frames of 32512 bytes before each Ping: what they cost is added up over all scans.",
            b"",
            (2004, PING, 2004, PING, 2004),
            2003,
            repeat=(b"\xff" + b"\x00\x00\x7f" * 15 + ping, 600),
        ),
    ]


def paid_back() -> list[Vector]:
    """What is checksummed in vain is paid back by good frames: without that the stream would fail after 26 of the 30 damages."""
    count = -(-40 // len(frame(PING)))  # good frames that together are at least as long as the false one
    damage = b"\xff" + pack(">I", 40) + frame(PING) * count
    about = (
        "Thirty damages, each with a false frame of 40 bytes and as many bytes of good frames behind it; the budget is 1024 bytes."
    )
    return [Vector("false-frames-paid-back", about, damage * 30, (2004, *[PING] * count) * 30, max_resync_bytes=64)]


def vectors() -> list[Vector]:
    groups = (
        filled_messages,
        default_messages,
        extremes,
        streams,
        bad_checksums,
        undecodable,
        bad_lengths,
        failures,
        paid_back,
    )
    return [vector for group in groups for vector in group()]


def document() -> str:
    """The text of frames.json."""
    body = {"format": 1, "protocol": 1, "vectors": [vector.as_json() for vector in vectors()]}
    return json.dumps(body, ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")

"""What answers are made of: Apple's fields and reasons; and one whose headers have no end."""

from __future__ import annotations

import json

from streampush.apns.http2 import frames
from streampush.apns.http2.frames import FrameType
from streampush.apns.http2.hpack import block, literal
from streampush.apns.simulator.broadcasts import Kind
from streampush.apns.simulator.judging import Verdict
from streampush.apns.simulator.orders import EndlessHeaders


def reason_body(reason: str, timestamp_ms: int | None = None) -> bytes:
    """The JSON that tells a reason, as an answer's body or GOAWAY's debug data; empty when there is none."""
    if not reason:
        return b""
    content: dict[str, object] = {"reason": reason}
    if timestamp_ms is not None:
        content["timestamp"] = timestamp_ms
    return json.dumps(content, separators=(",", ":")).encode()


def make_answer(verdict: Verdict, unique_id: str, *, date: str = "", filler: int = 0) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Fields and body. `unique_id` and `date`: those headers, empty: none. `filler`: bytes of a header that means nothing."""
    name = b"apns-id" if verdict.kind is Kind.PUSH else b"apns-request-id"
    fields = [(b":status", b"%d" % verdict.status), (name, verdict.apns_id.encode())]
    if unique_id and verdict.kind is not Kind.CHANNELS:
        fields.append((b"apns-unique-id", unique_id.encode()))
    if date:
        fields.append((b"date", date.encode()))
    if verdict.retry_after is not None:
        fields.append((b"retry-after", b"%d" % verdict.retry_after))
    if filler:
        fields.append((b"x-filler", b"a" * filler))
    body = reason_body(verdict.reason.word if verdict.reason is not None else "", verdict.timestamp_ms)
    if verdict.done is not None:
        body = verdict.done.body
        if verdict.done.channel_id:
            fields.append((b"apns-channel-id", verdict.done.channel_id.encode()))
    if body:
        fields.append((b"content-type", b"application/json"))
    return fields, body


def endless_headers(stream_id: int, order: EndlessHeaders) -> bytes:
    """An answer whose field block has no end."""
    filler = literal(b"x-filler", b"a" * order.frame_size)[: order.frame_size]
    parts = [frames.frame(FrameType.HEADERS, 0, stream_id, block([(b":status", b"200")]))]
    parts += [frames.frame(FrameType.CONTINUATION, 0, stream_id, filler)] * (order.size // order.frame_size)
    return b"".join(parts)

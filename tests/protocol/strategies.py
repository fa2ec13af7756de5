"""Hypothesis strategies for the wire: messages with values of every size, ways to cut a stream, and bytes near to frames."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack

from hypothesis import strategies as st

from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from streampush.protocol.framing import encode_frame
from streampush.protocol.terms import AppState, Durability, LossReason, Milestone, Outcome, Priority, Start, TokenProvider

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
text = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
payloads = st.binary(max_size=200)
headers = st.dictionaries(text, text, max_size=4)
codes = st.sampled_from(Code) | st.integers(-(2**31), 2**31 - 1).map(lambda number: number if number not in set(Code) else 0)
positions = st.builds(m.Position, text, u64, text)
subscribed = st.builds(
    m.Subscribed, text, text, u64, u64, st.booleans(), st.sampled_from(LossReason), u64, codes, text, text, st.booleans()
)

alerts = st.builds(
    m.Alert,
    title=text,
    subtitle=text,
    body=text,
    badge=st.none() | u32,
    sound=text,
    category=text,
    thread_id=text,
    mutable_content=st.booleans(),
    interruption_level=text,
    relevance_score=st.none() | st.floats(allow_nan=False),
    custom=text,
    background=st.booleans(),
    fallback_after_ms=u32,
    only_when_away=st.booleans(),
)

MESSAGES: dict[type[m.Message], st.SearchStrategy[m.Message]] = {
    m.Hello: st.builds(
        m.Hello,
        protocol_min=u32,
        protocol_max=u32,
        features=u64,
        app=text,
        app_version=text,
        sdk=text,
        sdk_version=text,
        device_id=text,
        receive_window_messages=u32,
        receive_window_bytes=u64,
        resume=st.lists(st.builds(m.Resume, text, positions), max_size=3).map(tuple),
        state=st.sampled_from(AppState),
    ),
    m.Welcome: st.builds(
        m.Welcome,
        protocol=u32,
        features=u64,
        session_id=text,
        node=text,
        heartbeat=st.builds(m.HeartbeatPolicy, u32, u32, u32, u32),
        limits=st.builds(m.Limits, u32, u32, u32, u32, u64, u32),
        reconnect=st.builds(m.ReconnectPolicy, u32, u32, u32, u32),
        subscribed=st.lists(subscribed, max_size=3).map(tuple),
        device_id=text,
        user_id=text,
        server_time_ms=u64,
    ),
    m.Ping: st.just(m.Ping()),
    m.Pong: st.just(m.Pong()),
    m.State: st.builds(m.State, st.sampled_from(AppState)),
    m.RegisterToken: st.builds(m.RegisterToken, st.sampled_from(TokenProvider), payloads, text, st.booleans()),
    m.Credit: st.builds(m.Credit, u32, u64),
    m.Ok: st.just(m.Ok()),
    m.Error: st.builds(m.Error, codes, st.sampled_from(Advice), text, u32, u32, text),
    m.GoAway: st.builds(m.GoAway, codes, st.sampled_from(Advice), text, u32, u32, u32),
    m.Delivery: st.builds(m.Delivery, text, u64, text, payloads, u64, u64, text, headers, text, text, st.sampled_from(Priority)),
    m.Ack: st.builds(m.Ack, text, u64, st.sampled_from(Outcome), text),
    m.Publish: st.builds(
        m.Publish,
        channel=text,
        payload=payloads,
        content_type=text,
        headers=headers,
        ttl_ms=u64,
        durability=st.sampled_from(Durability),
        idempotency_key=text,
        priority=st.sampled_from(Priority),
        collapse_key=text,
        deliver_at_ms=u64,
        want_receipt=st.booleans(),
        clear_on_processed=st.booleans(),
        version=u64,
        expires_at_ms=u64,
        alert=st.none() | alerts,
    ),
    m.PublishOk: st.builds(m.PublishOk, text, text, u64, text, st.sampled_from(Durability), u32, st.booleans(), u64, st.booleans()),
    m.Subscribe: st.builds(m.Subscribe, text, st.none() | positions, st.sampled_from(Start), st.booleans()),
    m.Subscribed: subscribed,
    m.Unsubscribe: st.builds(m.Unsubscribe, text),
    m.BacklogEnd: st.builds(m.BacklogEnd, text, u64),
    m.Receipt: st.builds(m.Receipt, text, text, u64, text, st.sampled_from(Milestone), u64),
}

messages = st.one_of(*MESSAGES.values())


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` in chunks that end at `cuts` (any integers)."""
    ends = [*sorted({cut % len(data) for cut in cuts} if data else ()), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


chunkings = st.lists(st.integers(0, 2**20), max_size=12)

good_frames = st.binary(min_size=1, max_size=60).map(encode_frame)


def _damaged(change: Callable[[bytes, int], bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(change, good_frames, st.integers(0, 2**16))


def _flip(frame: bytes, where: int) -> bytes:
    at = where // 8 % len(frame)
    return frame[:at] + bytes((frame[at] ^ 1 << where % 8,)) + frame[at + 1 :]


pieces = st.one_of(
    good_frames,
    _damaged(_flip),
    _damaged(lambda frame, where: frame[: where % len(frame)]),
    st.integers(0, 300).map(lambda length: pack(">I", length)),
    st.sampled_from([bytes(4), bytes(9), b"\xff" * 4, b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x00\x3c", b"\x00\x00\x00\x30" * 5]),
    st.binary(max_size=20),
)
"""Parts of a stream: good frames, frames with a flipped bit or cut short, lone lengths, other protocols, noise."""

streams = st.lists(pieces, max_size=12).map(b"".join)

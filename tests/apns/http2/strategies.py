"""Hypothesis strategies for HTTP/2: ways to cut a stream, frames in hyperframe's words and as raw bytes."""

from __future__ import annotations

from hyperframe import frame as theirs
from hypothesis import strategies as st

from streampush.apns.http2 import frames

chunkings = st.lists(st.integers(0, 2**20), max_size=12)

stream_ids = st.integers(1, frames.MAX_STREAM_ID)
any_stream_ids = st.integers(0, frames.MAX_STREAM_ID)
codes = st.integers(0, 2**32 - 1)
payloads = st.binary(max_size=120)

raw_frames = st.builds(frames.frame, st.integers(0, 255), st.integers(0, 255), any_stream_ids, payloads)
"""One frame as bytes, mostly one that means nothing."""

settings_pairs = st.lists(
    st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)), max_size=6, unique_by=lambda pair: pair[0]
)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` in chunks that end at `cuts` (any integers)."""
    ends = [*sorted({cut % len(data) for cut in cuts} if data else ()), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@st.composite
def padded_data(draw: st.DrawFn) -> theirs.DataFrame:
    flags = [name for name in ("END_STREAM", "PADDED") if draw(st.booleans())]
    pad = draw(st.integers(0, 255)) if "PADDED" in flags else 0
    return theirs.DataFrame(draw(stream_ids), draw(payloads), pad_length=pad, flags=flags)


@st.composite
def padded_headers(draw: st.DrawFn) -> theirs.HeadersFrame:
    flags = [name for name in ("END_STREAM", "END_HEADERS", "PADDED", "PRIORITY") if draw(st.booleans())]
    pad = draw(st.integers(0, 255)) if "PADDED" in flags else 0
    depends, weight = draw(any_stream_ids), draw(st.integers(0, 255))
    return theirs.HeadersFrame(
        draw(stream_ids), draw(payloads), pad_length=pad, depends_on=depends, stream_weight=weight, flags=flags
    )

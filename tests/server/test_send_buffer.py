from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streampush.server.send_buffer import JOIN_BYTES, SendBuffer

buffers = st.binary(min_size=1, max_size=20) | st.integers(JOIN_BYTES - 2, JOIN_BYTES + 2).map(lambda size: b"x" * size)


def filled(*buffers: bytes) -> SendBuffer:
    buffer = SendBuffer()
    for data in buffers:
        buffer.put(data)
    return buffer


@given(st.lists(buffers | st.integers(1, JOIN_BYTES), max_size=12))
def test_what_was_put_comes_out_in_order_however_little_is_sent_at_once(steps: list[bytes | int]) -> None:
    buffer, written, out = SendBuffer(), b"", b""
    for step in [*steps, *[JOIN_BYTES] * 30]:
        if isinstance(step, bytes):
            buffer.put(step)
            written += step
        elif buffer.size:
            head = buffer.head()
            assert head
            assert buffer.head() is head
            out += head[:step]
            buffer.sent(head, min(step, len(head)))
        assert buffer.size == len(written) - len(out)
    assert out == written


def test_a_single_buffer_is_given_as_it_was_put() -> None:
    data = b"x" * 100
    assert filled(data).head() is data


def test_small_buffers_are_joined_and_a_large_one_is_not() -> None:
    large = b"l" * (JOIN_BYTES + 1)
    buffer = filled(b"a", b"b", large, b"c")
    assert buffer.head() == b"ab"
    buffer.sent(b"ab", 2)
    assert buffer.head() is large
    buffer.sent(large, len(large))
    assert buffer.head() == b"c"


def test_only_the_first_of_those_that_wait_needs_a_flush() -> None:
    buffer = SendBuffer()
    assert [buffer.put(b"a"), buffer.put(b"b"), buffer.put(b"c")] == [True, False, False]
    buffer.sent(buffer.head(), 1)
    assert [buffer.put(b"d"), buffer.put(b"e")] == [True, False]


def test_nothing_is_left_of_what_was_dropped() -> None:
    buffer = filled(b"a", b"b")
    buffer.sent(buffer.head(), 1)
    buffer.put(b"c")
    buffer.clear()
    assert (buffer.size, buffer.head()) == (0, b"")

"""What a server can make us work: lines of the core that run, which no other process disturbs."""

from __future__ import annotations

from streampush.apns.http2 import frames
from streampush.apns.http2.frames import MAX_WINDOW
from streampush.apns.http2.limits import Limits
from tests.apns.http2.counting import lines_run
from tests.apns.http2.driving import BLOCK, OK, Driven, answer, connected

MANY = Limits(max_streams=2000)


def busy(count: int, initial_window: int = MAX_WINDOW) -> Driven:
    """So many written requests wait for their answers, with bodies of a byte."""
    driven = connected(MANY, max_streams=2000, initial_window=initial_window)
    driven.requests(count)
    driven.written()
    return driven


def test_an_answer_costs_the_same_however_many_are_open() -> None:
    few, many = busy(2), busy(1000)
    assert lines_run(lambda: few.serve(answer(3))) == lines_run(lambda: many.serve(answer(3)))


def test_a_request_and_its_answer_take_few_lines() -> None:
    driven = busy(1)
    connection, now = driven.connection, driven.now
    answers = b"".join(answer(3 + 2 * number) for number in range(100))

    def work() -> None:
        for _ in range(100):
            connection.request(BLOCK, b"x")
        connection.outbound()
        assert len(connection.receive(answers, now)) == 100

    assert lines_run(work) < 100 * 75


def test_a_window_update_costs_the_same_however_many_wait() -> None:
    few, many = busy(2, initial_window=0), busy(1000, initial_window=0)
    for update in (frames.window_update(0, 1), frames.window_update(3, 1)):
        assert lines_run(lambda: few.serve(update)) == lines_run(lambda: many.serve(update))  # noqa: B023 - called at once


def test_a_goaway_again_costs_the_same_however_many_are_open() -> None:
    few, many = busy(2), busy(1000)
    goaway = frames.goaway(99_999, 0)
    assert lines_run(lambda: few.serve(goaway)) == lines_run(lambda: many.serve(goaway))


def test_taking_requests_back_is_linear() -> None:
    def cost(count: int) -> int:
        driven = connected(MANY, max_streams=2000)
        streams = driven.requests(count)

        def work() -> None:
            for stream_id in streams:
                driven.connection.reset(stream_id)
            driven.connection.outbound()

        return lines_run(work)

    assert cost(800) < 4.4 * cost(200)


def test_an_answer_byte_by_byte_is_linear() -> None:
    def cost(size: int) -> int:
        driven = busy(1)
        stream = frames.headers(1, OK, False) + frames.data(1, bytes(size), True)

        def work() -> None:
            for at in range(len(stream)):
                driven.connection.receive(stream[at : at + 1], driven.now)

        return lines_run(work)

    assert cost(4000) < 4.4 * cost(1000)

"""The queue of those who wait for room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.exchange import Exchange
from streampush.apns.waiting import Waiting


def exchange(size: int = 10) -> Exchange:
    return Exchange(b"", b"x" * size, 1.0)


@given(dues=st.lists(st.floats(0, 100), max_size=30))
def test_the_earliest_comes_out_first_and_equals_in_order(dues: list[float]) -> None:
    waiting = Waiting(100, 10_000)
    added = [(due, number, exchange()) for number, due in enumerate(dues)]
    for due, _, each in added:
        waiting.add(each, due)
    out = [waiting.pop() for _ in dues]
    assert out == [each for *_, each in sorted(added, key=lambda one: one[:2])]
    assert waiting.pop() is None


@given(steps=st.lists(st.tuples(st.sampled_from(("add", "remove", "pop")), st.integers(0, 50), st.integers(0, 100)), max_size=200))
def test_count_and_size_are_those_of_who_waits(steps: list[tuple[str, int, int]]) -> None:
    waiting = Waiting(1000, 100_000)
    model: list[tuple[int, int, Exchange]] = []
    for number, (step, at, size) in enumerate(steps):
        if step == "add":
            one = exchange(size)
            waiting.add(one, float(at))
            model.append((at, number, one))
        elif step == "remove" and model:
            waiting.remove(model.pop(at % len(model))[2])
        elif step == "pop":
            popped = waiting.pop()
            first = min(model, key=lambda entry: entry[:2], default=None)
            assert popped is (first[2] if first else None)
            if first:
                model.remove(first)
        assert len(waiting) == len(model)
        assert waiting.size == sum(entry[2].size for entry in model)
        assert waiting.due() == min((float(entry[0]) for entry in model), default=None)


def test_there_is_no_room_beyond_either_bound() -> None:
    waiting = Waiting(2, 100)
    waiting.add(exchange(60), 1.0)
    assert waiting.has_room(exchange(40))
    assert not waiting.has_room(exchange(41))
    waiting.add(exchange(1), 1.0)
    assert not waiting.has_room(exchange(1))


def test_who_was_taken_out_is_not_kept() -> None:
    waiting = Waiting(100_000, 10**9)
    waiting.add(exchange(), 0.0)
    for _ in range(10_000):
        one = exchange()
        waiting.add(one, 1.0)
        waiting.remove(one)
    assert len(waiting._heap) < 200

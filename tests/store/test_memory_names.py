"""Names in order against a sorted list."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.store.memory import names
from streampush.store.memory.names import OrderedNames

NAMES = st.text("ab\u00e4\U0001f600", max_size=3)


@settings(max_examples=150, deadline=None)
@given(st.lists(NAMES, max_size=60), NAMES, st.integers(0, 9), st.integers(1, 4))
def test_they_are_read_in_order_from_any_place_however_they_came_and_went(
    changes: list[str], after: str, limit: int, piece: int
) -> None:
    with patch.object(names, "PIECE", piece):
        ordered, expected = OrderedNames(), set[str]()
        for name in changes:
            if name in expected:
                ordered.remove(name)
                expected.remove(name)
            else:
                ordered.add(name)
                expected.add(name)
            assert bool(ordered) == bool(expected)
        assert ordered.behind(after, limit) == sorted(name for name in expected if name > after)[:limit]
        assert ordered.behind("", 100) == sorted(expected - {""})


def test_many_are_kept_in_pieces_that_are_not_large() -> None:
    ordered = OrderedNames()
    for number in range(5000):
        ordered.add(f"{number * 7919 % 5000:04}")
    assert ordered.behind("1233", 3) == ["1234", "1235", "1236"]
    assert max(len(piece) for piece in ordered._pieces) <= names.PIECE

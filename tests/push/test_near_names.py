"""What a typing error may have made of a name."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streampush.push.near_names import near_names


@given(st.text("ab-", min_size=1, max_size=6), st.lists(st.text("abAB-", max_size=6), max_size=20))
def test_near_names_are_those_within_one_typing_error(name: str, names: list[str]) -> None:
    def near(left: str, right: str) -> bool:
        left, right = left.casefold(), right.casefold()
        cut = {left[:at] + left[at + 1 :] for at in range(len(left))}
        less = {right[:at] + right[at + 1 :] for at in range(len(right))}
        parts, others = ({(name[:at], name[at + 1 :]) for at in range(len(name))} for name in (left, right))
        swapped = {left[:at] + left[at + 1] + left[at] + left[at + 2 :] for at in range(len(left) - 1)}
        return left == right or right in cut or left in less or bool(parts & others) or right in swapped

    assert near_names(name, names, 100) == tuple(sorted(other for other in names if near(name, other)))


def test_no_more_near_names_than_asked_for() -> None:
    assert len(near_names("a", ("b", "c", "d"), 2)) == 2

"""What the apps may have under way: one that is slow does not hold up the others."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.shares import LONGEST, SHORTEST, Shares


def shares(total: int, *apps: str) -> Shares:
    one = Shares(total)
    one.reload(apps)
    return one


def fill(one: Shares, app: str, now: float = 0.0) -> int:
    """Takes all that it gets; gives how many that were."""
    taken = 0
    while not one.enter(app, now):
        taken += 1
    return taken


def test_one_app_has_all() -> None:
    assert fill(shares(100, "a"), "a") == 100
    assert fill(shares(1, "a"), "a") == 1


def test_a_busy_app_leaves_the_others_their_share() -> None:
    one = shares(100, "a", "b")
    assert fill(one, "a") == 75
    assert not one.has_room("a")
    assert one.has_room("b")
    assert fill(one, "b") == 25


def test_a_place_that_is_left_can_be_taken_again() -> None:
    one = shares(8, "a", "b")
    fill(one, "a")
    one.leave("a", 1.0)
    assert one.has_room("a")
    assert fill(one, "a") == 1


def test_with_more_apps_than_places_there_are_places_all_the_same() -> None:
    one = shares(2, *"abcdef")
    assert fill(one, "f") == 2
    assert not one.has_room("a")


def test_an_app_that_is_gone_leaves_its_places_to_the_others() -> None:
    one = shares(100, "a", "b")
    fill(one, "a")
    one.reload(["b", "c"])
    assert fill(one, "b") == 25
    for _ in range(75):
        one.leave("a", 1.0)
    assert fill(one, "b") + fill(one, "c") == 75
    one.reload(["b", "c"])
    one.reload(["a", "b", "c"])
    assert not one.enter("a", 2.0) or not one.has_room("a")


def test_those_that_are_put_off_come_again_one_after_the_other_as_fast_as_pushes_end() -> None:
    one = shares(100, "a")
    fill(one, "a")
    for number in range(100):
        one.leave("a", number / 10)
        one.enter("a", number / 10)
    pauses = [one.enter("a", 10.0) for _ in range(100)]
    steps = [after - before for before, after in pairwise(pauses)]
    assert pauses[0] >= SHORTEST
    assert all(0.08 < step < 0.12 for step in steps)


def test_nobody_is_put_off_for_longer_than_the_longest() -> None:
    one = shares(1, "a")
    assert max(one.enter("a", 0.0) for _ in range(10_000)) == LONGEST
    assert SHORTEST < one.enter("a", 500.0) < SHORTEST + 1.0


@given(
    st.integers(1, 30),
    st.lists(
        st.one_of(
            st.tuples(st.just("enter"), st.sampled_from("abcd")),
            st.tuples(st.just("leave"), st.sampled_from("abcd")),
            st.tuples(st.just("reload"), st.sets(st.sampled_from("abcd"), min_size=1)),
        ),
        max_size=200,
    ),
)
def test_whatever_happens_the_sum_is_bounded_and_who_has_less_than_its_own_gets_in(
    total: int, events: list[tuple[str, object]]
) -> None:
    one = shares(total, *"abcd")
    apps: set[str] = set("abcd")
    held: Counter[str] = Counter()
    reloaded = False
    for now, (what, arg) in enumerate(events):
        if what == "reload":
            assert isinstance(arg, set)
            apps, reloaded = arg, True
            one.reload(apps)
        elif what == "leave" and held[str(arg)]:
            held[str(arg)] -= 1
            one.leave(str(arg), now)
        elif what == "enter" and arg in apps:
            room = one.has_room(str(arg))
            entered = not one.enter(str(arg), now)
            assert entered == room
            if held[str(arg)] < total // (2 * len(apps)):
                assert entered
            held[str(arg)] += entered
        assert reloaded or held.total() <= total
    for app, number in held.items():
        for _ in range(number):
            one.leave(app, len(events))
    one.reload("ab")
    assert fill(one, "a") + fill(one, "b") == total

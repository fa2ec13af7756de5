from __future__ import annotations

from streampush.observe.sampling import Sampler


def test_memory_is_bounded_and_a_kind_given_up_is_still_reported() -> None:
    sampler: Sampler[str] = Sampler(1, 10.0, max_kinds=2)
    assert sampler.admit("a", 0.0)
    assert not sampler.admit("a", 0.0)
    assert sampler.admit("b", 1.0)
    assert sampler.admit("c", 2.0)
    assert len(sampler._windows) == 2
    assert list(sampler.ended(2.0)) == [("a", 1)]


def test_window_without_withheld_lines_is_not_reported() -> None:
    sampler: Sampler[str] = Sampler(1, 10.0)
    sampler.admit("a", 0.0)
    assert list(sampler.ended(10.0)) == []
    assert len(sampler._windows) == 0


def test_windows_end_in_the_order_in_which_they_began() -> None:
    sampler: Sampler[str] = Sampler(1, 10.0)
    for kind, now in (("a", 0.0), ("b", 5.0)):
        sampler.admit(kind, now)
        sampler.admit(kind, now)
    assert list(sampler.ended(10.0)) == [("a", 1)]
    assert list(sampler.ended(15.0)) == [("b", 1)]

"""A QuickDeferred does what a Deferred does, whatever its callbacks do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import AlreadyCalledError, CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure

from streampush.apns import quick_deferred
from streampush.apns.quick_deferred import QuickDeferred, is_known

DOES = ("nothing", "value", "raises", "failure", "fired", "failed", "later", "adds", "cancels", "pauses")
ADDED = ("callback", "errback", "both", "pair")


class Story:
    """One Deferred, its callbacks, and what they saw."""

    def __init__(self, kind: type[Deferred[Any]]) -> None:
        self.seen: list[object] = []
        self.deferred = kind(lambda _: self.seen.append("cancelled"))
        self.later: list[Deferred[Any]] = []

    def step(self, number: int, does: str) -> Callable[..., Any]:
        def run(result: Any, *more: object, **named: object) -> Any:
            shown = type(result.value) if isinstance(result, Failure) else result
            self.seen.append((number, shown, more, tuple(named), self.deferred.called))
            return self._act(number, does)

        return run

    def _act(self, number: int, does: str) -> Any:
        if does == "raises":
            raise KeyError(number)
        if does == "later":
            self.later.append(Deferred())
            return self.later[-1]
        if does == "adds":
            self.deferred.addCallback(self.step(100 + number, "nothing"))
        elif does == "cancels":
            self.deferred.cancel()
        elif does == "pauses":
            self.deferred.pause()
        given: dict[str, Callable[[], Any]] = {
            "value": lambda: number,
            "failure": lambda: Failure(ValueError(number)),
            "fired": lambda: succeed(number),
            "failed": lambda: fail(ValueError(number)),
        }
        return given[does]() if does in given else None

    def add(self, number: int, does: str, how: str) -> None:
        step = self.step(number, does)
        if how == "callback":
            self.deferred.addCallback(step, number, name=number)
        elif how == "errback":
            self.deferred.addErrback(step)
        elif how == "both":
            self.deferred.addBoth(step)
        else:
            self.deferred.addCallbacks(step, self.step(200 + number, "nothing"), callbackArgs=(number,))

    def end(self) -> list[object]:
        if self.deferred.paused and not self.later:
            self.deferred.unpause()
        for each in self.later:
            each.callback("later")
        self.deferred.addErrback(lambda failure: self.seen.append(("left", type(failure.value))))
        self.deferred.addBoth(lambda result: self.seen.append(("end", result)))
        return self.seen


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.sampled_from(("before", "behind")), st.sampled_from(DOES), st.sampled_from(ADDED)), max_size=4),
    st.booleans(),
)
def test_it_calls_what_a_deferred_calls(steps: list[tuple[str, str, str]], paused: bool) -> None:
    stories = Story(Deferred), Story(QuickDeferred)
    for story in stories:
        for number, (when, does, how) in enumerate(steps):
            if when == "before":
                story.add(number, does, how)
        if paused:
            story.deferred.pause()
        story.deferred.callback("result")
        if paused:
            story.deferred.unpause()
        for number, (when, does, how) in enumerate(steps):
            if when == "behind":
                story.add(number, does, how)
    plain, quick = (story.end() for story in stories)
    assert quick == plain
    assert bool(stories[0].deferred.paused) == bool(stories[1].deferred.paused)


def test_it_can_be_waited_for_by_another() -> None:
    inner: QuickDeferred[str] = QuickDeferred()
    outer: Deferred[Any] = Deferred()
    seen: list[object] = []
    outer.addCallback(lambda _: inner)
    outer.addCallback(seen.append)
    outer.callback(None)
    inner.callback("inner")
    assert seen == ["inner"]


def test_it_can_be_awaited() -> None:
    quick: QuickDeferred[str] = QuickDeferred()
    seen: list[str] = []

    async def wait() -> None:
        seen.append(await quick)

    Deferred.fromCoroutine(wait())
    quick.callback("it")
    assert seen == ["it"]


def test_it_fires_once_and_is_not_cancelled_behind_that() -> None:
    quick: QuickDeferred[str] = QuickDeferred(lambda _: seen.append("cancelled"))
    seen: list[str] = []
    quick.addCallback(seen.append)
    quick.callback("it")
    quick.cancel()
    assert seen == ["it"]
    with pytest.raises(AlreadyCalledError):
        quick.callback("again")
    assert seen == ["it"]


def test_one_that_is_cancelled_fails() -> None:
    quick: QuickDeferred[str] = QuickDeferred()
    seen: list[object] = []
    quick.addCallbacks(seen.append, lambda failure: seen.append(failure.type))
    quick.cancel()
    assert seen == [CancelledError]


def test_twisted_is_as_it_is_known() -> None:
    assert is_known(Deferred)


def test_another_twisted_is_not_taken_for_this_one() -> None:
    class Different(Deferred[Any]):
        def addCallback(self, callback: Any, *arguments: Any, **named: Any) -> Any:
            return self.addCallbacks(lambda result: callback(result, *arguments, **named))

    class Renamed(Deferred[Any]):
        def __getattribute__(self, name: str) -> Any:
            if name == "_runCallbacks":
                raise AttributeError(name)
            return super().__getattribute__(name)

    assert not is_known(Different)
    assert not is_known(Renamed)


def test_with_another_twisted_it_fires_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_deferred, "_IS_KNOWN", False)
    quick: QuickDeferred[str] = QuickDeferred()
    seen: list[str] = []
    quick.addCallback(seen.append)
    quick.callback("it")
    assert seen == ["it"]

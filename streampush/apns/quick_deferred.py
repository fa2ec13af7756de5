"""A Deferred that is quick to fire for the one callback that most of them have.

Theory of operation. There is a Deferred for each push, and Twisted's loop over callbacks is written for chains of many: with one
callback it takes as long as all that a connection does for the answer. Here the first callback is called directly if it is the
only one. Whatever is not as simple as that (more callbacks, a chain, a callback that gave a Failure or a Deferred) goes through
Twisted's own loop.

For that some of its attributes are used that are Twisted's own matter. So it is looked at once whether they are as they are known
(Twisted 26.10); with a Twisted where they are not, a `QuickDeferred` fires as any other does.
"""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


def _unchanged(result: Any, *arguments: Any, **named: Any) -> Any:
    return result


_UNCHANGED: Any = ((_unchanged, (), {}), (_unchanged, (), {}))


def is_known(kind: type[Deferred[Any]]) -> bool:
    """Whether Deferreds of this class keep their callbacks as it is known here."""
    probe = kind(_unchanged)
    probe.addCallback(_unchanged, 1, name=2)
    try:
        [((call, arguments, named), _)] = probe._callbacks
        now = call, arguments, named, probe._canceller, probe._runningCallbacks, probe.called, probe.paused, probe.debug
        return now == (_unchanged, (1,), {"name": 2}, _unchanged, False, False, 0, False) and callable(probe._runCallbacks)
    except (AttributeError, TypeError, ValueError):
        return False


class QuickDeferred(Deferred[T]):
    """To be fired by `callback` with what is neither a Failure nor a Deferred."""

    def callback(self, result: Any) -> None:
        """See Deferred."""
        if not _IS_KNOWN or self.called or self.paused or self.debug or len(self._callbacks) != 1:
            super().callback(result)
            return
        callbacks = self._callbacks
        call: Any
        value: Any
        call, arguments, named = callbacks[0][0]
        if not callable(call):  # another Deferred waits for this one
            super().callback(result)
            return
        callbacks.clear()
        self.called = self._runningCallbacks = True
        self._canceller = None
        self.result = result
        try:
            value = call(result, *arguments, **named)
        except BaseException:  # noqa: BLE001 - as a Deferred does: it is its result
            value = Failure()  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        self._runningCallbacks = False
        self.result = value
        if value is not None or callbacks:
            callbacks.insert(0, _UNCHANGED)  # so that Twisted's loop looks at the value
            self._runCallbacks()


_IS_KNOWN = is_known(Deferred)

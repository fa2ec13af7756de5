"""What is let in of a request before it is complete: decided on its headers, and on the bytes that have come so far."""

from __future__ import annotations

from streampush.protocol.codes import Code
from streampush.rest.keys import Keys
from streampush.rest.problems import JSON, Problem

MAX_CONNECTIONS = 512
"""HTTP connections at once, each with at most one request in work; for more, those that say nothing are cut. Publishers keep few
connections."""
BODIES_HELD = 16
"""Bodies of the largest size that may be in memory at once, of all connections together."""


class Intake:
    """Bounds memory: no body from a client without a key, none above `max_body` bytes, no more than `max_held` in all."""

    def __init__(self, keys: Keys, max_body: int, *, max_held: int | None = None, max_connections: int = MAX_CONNECTIONS) -> None:
        self._keys = keys
        self._max_body = max_body
        self._max_held = max_body * BODIES_HELD if max_held is None else max_held
        self.max_connections = max_connections
        self._connections = 0
        self.held = 0
        """Bytes of bodies in memory."""

    def connect(self) -> bool:
        """A connection wants in; False: there is no room, and `disconnect` must not be called."""
        if self._connections >= self.max_connections:
            return False
        self._connections += 1
        return True

    def disconnect(self) -> None:
        """A connection that was let in is gone."""
        self._connections -= 1

    def begin(self, length: int | None, authorization: list[str], content_types: list[str]) -> None:
        """The headers are complete; a body of `length` bytes follows, None: not known. Raises Problem 401, 413 or 415."""
        if length == 0:
            return
        self._keys.caller(authorization)
        if len(content_types) != 1 or content_types[0].partition(";")[0].strip().lower() != JSON:
            raise Problem(415, f"the body must be {JSON}")
        self.fits(length or 0)

    def fits(self, size: int) -> None:
        """Raises Problem 413 for a body above the limit."""
        if size > self._max_body:
            raise Problem(413, f"the limit of a body is {self._max_body} bytes", code=Code.PAYLOAD_TOO_LARGE)

    def take(self, size: int) -> None:
        """`size` more bytes are held. Raises Problem 503 if that is too much; then they are not counted."""
        if self.held + size > self._max_held:
            raise Problem(503, "too many requests are being received", code=Code.OVERLOADED)
        self.held += size

    def give_back(self, size: int) -> None:
        """`size` bytes are held no longer."""
        self.held -= size

"""The exceptions that an application of the client meets, and the one that it may raise itself."""

from __future__ import annotations

from streampush.protocol.codes import Advice, Code


class ClientError(Exception):
    """Base of everything that the client raises."""


class CredentialsError(ClientError):
    """A CA, certificate or key cannot be used. The text names the file or the part, and never shows the key."""


class RequestRefused(ClientError):
    """The server understood the request and refused it; nothing was done.

    `advice` says what to do next, also for a code that this version does not know. `retry_after` is in seconds, 0 for none.
    """

    def __init__(self, code: Code | int, advice: Advice, detail: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{int(code)}: {detail}")
        self.code = code
        self.advice = advice
        self.detail = detail
        self.retry_after = retry_after


class ConnectionLost(ClientError):
    """The connection went while the request was open: whether the server has done it is not known."""


class NotConnected(ClientError):
    """There is no connection that takes requests now; nothing was sent."""


class RequestTimeout(ClientError):
    """No reply came in time: whether the server has done it is not known."""


class TooManyRequests(ClientError):
    """As many requests as allowed are open; nothing was sent. Wait for one of them."""


class InvalidRequest(ClientError):
    """The request cannot be sent: too large for a frame, or a value that the schema cannot carry. Nothing was sent."""


class UnexpectedReply(ClientError):
    """The server answered a request with a message that is no answer to it."""


class ClientStopped(ClientError):
    """The client has stopped, by itself or because it was told to, and will not connect again."""


class Reject(Exception):
    """Raised by the application's `on_message`: it will never take this message. The client acknowledges it as REJECTED."""

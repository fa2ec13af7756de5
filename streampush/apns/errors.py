"""What a caller of `streampush.apns` does wrong, said in words that are safe to log and to send."""

from __future__ import annotations

from streampush.errors import StreampushError


class BadPush(StreampushError):
    """A push that Apple would not take, or not as it was meant; it was not sent.

    `field` names what is wrong as the caller knows it ("device_token", "payload", "badge" ...), `problem` says why in one sentence.
    Neither ever holds a device token or a part of the payload.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class BadCredential(StreampushError):
    """A certificate, a key or a trust root cannot be used. The text names the file or the part, and nothing of what is in it."""

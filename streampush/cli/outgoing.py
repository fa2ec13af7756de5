"""What `streampush publish` is asked to send, and what it hears back; the two ways of sending implement `Publisher`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from streampush.protocol.codes import Advice, Code


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish. `ttl` in seconds, 0: as long as the log keeps it."""

    channel: str
    payload: bytes = field(repr=False)
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ttl: float = 0.0


@dataclass(frozen=True, slots=True)
class Sent:
    """The server's success reply. `connections`: how many connections follow the channel there now."""

    message_id: str
    channel: str
    offset: int
    connections: int


class PublishRefused(Exception):
    """The server did not take the message. `retry_after` in seconds, 0: no advice when to try again."""

    def __init__(self, code: Code | int, advice: Advice, detail: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{int(code)}: {detail}")
        self.code = code
        self.advice = advice
        self.detail = detail
        self.retry_after = retry_after


class Publisher(Protocol):
    """A way to the server."""

    async def publish(self, message: Outgoing) -> Sent:
        """Returns when the message is stored. Raises PublishRefused, or an exits.Failure that says what is wrong."""

    async def close(self) -> None:
        """Ends what is open; the publisher is not used afterwards."""

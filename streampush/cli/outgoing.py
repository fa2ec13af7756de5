"""What `streampush publish` is asked to send, and what it hears back; the two ways of sending implement `Publisher`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from streampush.protocol.codes import Advice, Code
from streampush.protocol.terms import Priority
from streampush.push.values import Alert


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish; docs/protocol.md section 5.5 says what its parts do.

    `ttl` in seconds, 0: as long as the log keeps it. `expires_at_ms` and `deliver_at_ms` are Unix time, 0: not given.
    """

    channel: str
    payload: bytes = field(repr=False)
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ttl: float = 0.0
    expires_at_ms: int = 0
    deliver_at_ms: int = 0
    priority: Priority = Priority.UNSPECIFIED
    collapse_key: str = ""
    version: int = 0
    want_receipt: bool = False
    clear_on_processed: bool = False
    idempotency_key: str = field(default="", repr=False)
    alert: Alert | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """The server's success reply. `connections`: how many connections follow the channel there now.

    `duplicate`: it was stored before, under the same idempotency key. `superseded`: it was not stored, for a version that is no
    older is there, at `offset`. `deliver_at_ms`: it is stored for that time, and has no offset yet; else 0. `durability`: the name.
    """

    message_id: str
    channel: str
    offset: int
    connections: int
    duplicate: bool = False
    superseded: bool = False
    deliver_at_ms: int = 0
    epoch: str = ""
    durability: str = ""

    def document(self) -> dict[str, Any]:
        """The same as REST's answer to a publish."""
        document = asdict(self)
        document["deliver_at"] = document.pop("deliver_at_ms")
        return document


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

    @property
    def answer_timeout(self) -> float:
        """Seconds that an answer is waited for."""

    async def publish(self, message: Outgoing) -> Sent:
        """Returns when the message is stored. Raises PublishRefused, or an exits.Failure that says what is wrong."""

    async def close(self) -> None:
        """Ends what is open; the publisher is not used afterwards."""

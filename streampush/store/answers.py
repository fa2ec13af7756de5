"""What is kept of a request with an idempotency key, in any store."""

from __future__ import annotations

from dataclasses import dataclass

from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.values import Accepted, Idempotency


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """The answer to the first request with a key; `fingerprint` stands for the rest of that request."""

    fingerprint: bytes
    expires_at_ms: int
    accepted: Accepted

    def given_to(self, asked: Idempotency, now_ms: int, channel: str) -> Accepted | None:
        """It again, None if it has expired. Raises Refused(DUPLICATE) if the key was used for another request."""
        if self.expires_at_ms <= now_ms:
            return None
        if self.fingerprint != asked.fingerprint:
            raise Refused(Code.DUPLICATE, "the idempotency key was used for another request", channel=channel)
        return self.accepted

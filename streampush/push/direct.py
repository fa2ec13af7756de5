"""A push without a message: straight to a device token, with no push stored and nothing repeated after its answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from streampush.errors import StreampushError
from streampush.push.values import Alert


@dataclass(frozen=True, slots=True)
class DirectPush:
    """What is asked for.

    `app`: its name in the configuration, empty: the only one. `device_token`: hexadecimal, secret. Either `alert`, or `payload`,
    a JSON object as text, which is sent as it is. Empty, None and 0: as the app and the push type have it. `ttl`: seconds that the
    push service tries, 0: once. `push_id`: a UUID; the same one for a repeat.
    """

    app: str
    device_token: str = field(repr=False)
    alert: Alert | None = None
    payload: str = field(default="", repr=False)
    push_type: str = ""
    topic: str = ""
    priority: int = 0
    ttl: float | None = None
    collapse_id: str = ""
    push_id: str = ""


@dataclass(frozen=True, slots=True)
class DirectResult:
    """How it ended.

    `outcome`: delivered, rejected, not_sent, refused or unknown. `status`: that of the push service's answer, 0: it gave none.
    `reason`: its word, or ours. `meaning`, `advice`: English, for people; `advice` may be empty. `repeat`: whether the same push,
    with the same id, may be sent again later without being shown twice; `retry_after`: in so many seconds, None: not known.
    `token_dropped`: a device had the token, and it was forgotten because the push service says that it is dead.
    """

    outcome: str
    apns_id: str
    status: int
    reason: str
    meaning: str
    advice: str
    repeat: bool
    retry_after: float | None
    token_dropped: bool = False


class BadDirectPush(StreampushError):
    """It was not sent, because of what it says. `field` names what is wrong; neither it nor `problem` holds a token or payload."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class NoApp(StreampushError):
    """There is no app of this name; `configured`: but others."""

    def __init__(self, problem: str, *, configured: bool) -> None:
        super().__init__(problem)
        self.configured = configured

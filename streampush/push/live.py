"""Channels of a push service that Live Activities follow: what is asked about one, and how that ended. Nothing of it is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class LiveAction(StrEnum):
    """What is to be done."""

    CREATE = "create"
    LIST = "list"
    READ = "read"
    DELETE = "delete"
    PUBLISH = "publish"


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """What is asked for.

    `app`: its name in the configuration, empty: the only one. `channel`: its id, for all but create and list. `keep_latest`: of
    create: the service keeps the latest broadcast for devices that are away. The others are of publish: `payload`, a JSON object as
    text, which is sent as it is; `ttl`: seconds that it is kept; `priority`, 0: 10; `request_id`: a UUID, or empty.
    """

    action: LiveAction
    app: str = ""
    channel: str = ""
    keep_latest: bool = False
    payload: str = field(default="", repr=False)
    ttl: float = 0.0
    priority: int = 0
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class LiveResult:
    """How it ended.

    `outcome`: done, rejected, not_sent, refused or unknown. `status`: that of the push service's answer if it rejected it, else 0.
    `reason`: its word, or ours. `meaning`, `advice`: English, for people; `advice` may be empty. `repeat`: whether the same may be
    asked again without being done twice; `retry_after`: in so many seconds, None: not known. If it is done: `channel`, its id;
    `keep_latest` as it was made, None but for create and read; `channels`, the ids of all, of a list; `request_id`: under which the
    push service knows a broadcast, or empty.
    """

    outcome: str
    status: int = 0
    reason: str = ""
    meaning: str = ""
    advice: str = ""
    repeat: bool = False
    retry_after: float | None = None
    channel: str = ""
    keep_latest: bool | None = None
    channels: tuple[str, ...] = ()
    request_id: str = ""

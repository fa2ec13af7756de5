"""The enumerations of the schema that the application speaks too: docs/protocol.md section 5.

With `codes` this is the only part of the wire that `push/` may know: words, no messages.
"""

from __future__ import annotations

import re
from enum import IntEnum, IntFlag

ID_PATTERN = r"[A-Za-z0-9._~@-]{1,128}"
"""The id of a device or user, or the name of a publisher or REST key: docs/protocol.md section 2.4."""

_is_id = re.compile(ID_PATTERN).fullmatch


def is_id(text: str) -> bool:
    """Whether this may be the id of a device or user, or the name of a publisher or REST key."""
    return _is_id(text) is not None


class Feature(IntFlag):
    """Bits of the feature mask in Hello and Welcome; a side ignores bits it does not know."""

    NONE = 0
    RECEIPTS = 1


class Durability(IntEnum):
    """How safe a stored publication is when the publisher is told."""

    UNSPECIFIED = 0
    MEMORY = 1
    LOCAL_FSYNC = 2
    REPLICATED = 3


class Outcome(IntEnum):
    """What became of a delivered message in the application."""

    UNSPECIFIED = 0
    DELIVERED = 1
    PROCESSED = 2
    RETRY_LATER = 3
    REJECTED = 4


class Priority(IntEnum):
    """How much a publication matters. It never changes the order within a channel."""

    UNSPECIFIED = 0
    LOW = 1
    NORMAL = 2
    HIGH = 3


class Start(IntEnum):
    """Where a subscription without a position starts."""

    UNSPECIFIED = 0
    LATEST = 1
    EARLIEST = 2


class LossReason(IntEnum):
    """Why a subscription could not be recovered without loss."""

    UNSPECIFIED = 0
    EPOCH_CHANGED = 1
    TRIMMED = 2
    EXPIRED = 3
    REWOUND = 4
    ID_MISMATCH = 5


class AppState(IntEnum):
    """Whether a person is looking at the application."""

    UNSPECIFIED = 0
    FOREGROUND = 1
    BACKGROUND = 2


class TokenProvider(IntEnum):
    """Whose push token it is."""

    UNSPECIFIED = 0
    APNS = 1


class Milestone(IntEnum):
    """The steps of a message's way to one device."""

    UNSPECIFIED = 0
    STORED = 1
    WRITTEN = 2
    DELIVERED = 3
    PROCESSED = 4
    EXPIRED = 5
    REJECTED = 6
    DEAD_LETTERED = 7
    RECALLED = 8
    ACCEPTED = 9

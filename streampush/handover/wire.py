"""What the process that serves and the one that follows it say to one another, without IO.

    frame   = length (4 bytes, big-endian, bytes of what follows) · one JSON object in UTF-8
    object  = {"v": 1, "kind": KIND, ...}

    successor                     incumbent
    ask                     ->
                            <-    offer {sockets: [{name, foreign}, ...], wait}    descriptors with it, in this order (SCM_RIGHTS)
    held                    ->                                                     it can start and has the sockets
                            <-    free                                             what only one process may use is closed
    taken                   ->                                                     it serves

    anybody's command             incumbent
    upgrade                 ->
                            <-    started {pid}
                            <-    done {pid}

Instead of its next word the incumbent may say refused {reason}, and either side failed {reason}; then nothing more follows. Fields
that a side does not know are passed over; another version is refused. The order is the table of `steps`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

VERSION: Final = 1
"""Of what is said. Two releases of streampush that follow one another must speak it both."""

MAX_MESSAGE: Final = 32 * 1024
"""Bytes of an object: 250 sockets with their names, and room."""

MAX_SOCKETS: Final = 250
"""Descriptors of one offer. The kernel passes 253 with one message (SCM_MAX_FD)."""

MAX_REASON: Final = 1_000
"""Characters of a reason: some lines of what a process said that did not start."""

MAX_WAIT: Final = 86_400.0
"""Seconds. The longest wait that an offer may name."""

KINDS: Final = ("ask", "offer", "held", "free", "taken", "refused", "failed", "upgrade", "started", "done")

STDERR: Final = "stderr"
"""The name of a descriptor in an offer that is no socket: standard error, which the incumbent's child had to itself so far."""

_NAME: Final = re.compile(r"[a-z]{1,32}(\.[0-9]{1,4})?")
_LENGTH: Final = 4


class HandoverFault(Exception):
    """The other side said what it may not say. `str()` is English, without anything the other side chose."""


@dataclass(frozen=True, slots=True)
class Message:
    """One word of either side, with its fields."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """A field for people, one line, cut where it is long. Empty if there is none."""
        value = self.fields.get(name)
        text = value if isinstance(value, str) else ""
        return "".join(char if char.isprintable() else " " for char in text[:MAX_REASON])

    def number(self, name: str, low: float, high: float) -> float:
        """A number in a range. Raises HandoverFault if there is none."""
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise HandoverFault(f"{name} of {self.kind} is not a number from {low:g} to {high:g}")
        return float(value)


@dataclass(frozen=True, slots=True)
class Offered:
    """A descriptor of an offer. `foreign`: it was not opened after the settings, which do not count for it."""

    name: str
    foreign: bool = False


def encode(kind: str, **fields: Any) -> bytes:
    """The frame of one word."""
    body = json.dumps({"v": VERSION, "kind": kind, **fields}, separators=(",", ":")).encode()
    assert len(body) <= MAX_MESSAGE, kind
    return len(body).to_bytes(_LENGTH, "big") + body


def encode_offer(offered: list[Offered], wait: float) -> bytes:
    """The frame of an offer. `wait`: seconds until the incumbent has let go of everything, at most."""
    return encode("offer", sockets=[{"name": each.name, "foreign": each.foreign} for each in offered], wait=wait)


def parse_offer(message: Message) -> tuple[list[Offered], float]:
    """Descriptors and seconds of an offer. Raises HandoverFault."""
    rows = message.fields.get("sockets")
    if not isinstance(rows, list) or len(rows) > MAX_SOCKETS:
        raise HandoverFault(f"sockets of offer is not a list of at most {MAX_SOCKETS}")
    offered = [_parse_offered(row) for row in rows]
    if len({each.name for each in offered}) != len(offered):
        raise HandoverFault("two sockets of an offer have one name")
    return offered, message.number("wait", 0, MAX_WAIT)


def _parse_offered(row: object) -> Offered:
    if not isinstance(row, dict):
        raise HandoverFault("a socket of offer is not an object")
    name, foreign = row.get("name"), row.get("foreign", False)
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(foreign, bool):
        raise HandoverFault("a socket of offer has no proper name")
    return Offered(name, foreign)


class Reader:
    """Makes messages of bytes as they come, however they are cut. What waits in it is never longer than one message."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete now. Raises HandoverFault; nothing can be read behind that."""
        self._waiting += data
        found = []
        while len(self._waiting) >= _LENGTH:
            length = int.from_bytes(self._waiting[:_LENGTH], "big")
            if not 1 <= length <= MAX_MESSAGE:
                raise HandoverFault(f"a message of {length} bytes, allowed are 1 to {MAX_MESSAGE}")
            if len(self._waiting) < _LENGTH + length:
                break
            found.append(_parse(bytes(self._waiting[_LENGTH : _LENGTH + length])))
            del self._waiting[: _LENGTH + length]
        return found


def _parse(body: bytes) -> Message:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise HandoverFault("a message is not JSON") from None
    if not isinstance(fields, dict):
        raise HandoverFault("a message is not an object")
    version, kind = fields.pop("v", None), fields.pop("kind", None)
    if version != VERSION or isinstance(version, bool):
        raise HandoverFault(f"the other side does not speak version {VERSION} of the handover")
    if kind not in KINDS:
        raise HandoverFault("a message of an unknown kind")
    return Message(kind, fields)

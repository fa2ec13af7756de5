"""Pushes of a topic's message that are sent together: one piece of work in the outbox, and one step that stores what came of them.

A row of the outbox for each follower costs more than all else that is done for its push. So those that are pushed to at once are
one piece of work, of the kind FALLBACK, whose body names them. What is to be sent again later, and who is still connected, leads to
work of its own. A crash sends to all of them again, under the same ids.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from streampush.push.values import PUSH, OutboxWork, PushOutcome, PushRecord, PushResult, PushToken


def push_key(message_id: str, device_id: str) -> str:
    """The key of the work of the kind PUSH."""
    return f"{message_id}/{device_id}"


def group_body(device_ids: Sequence[str], form: bytes) -> bytes:
    """The body of the work that is a group: who is pushed to, and the canonical form of the alert (see push/alerts.py)."""
    return json.dumps(device_ids, separators=(",", ":")).encode() + b"\n" + form


def split_group(body: bytes) -> tuple[Sequence[str], bytes]:
    """Who is pushed to, and the canonical form; nobody if the work is no group: a canonical form begins with a brace."""
    if not body.startswith(b"["):
        return (), body
    line, _, form = body.partition(b"\n")
    device_ids: list[str] = json.loads(line)
    return device_ids, form


class PushGroup:
    """What has become of a group. `lease`: the newest token of its work; `form`: see `group_body`; `left`: pushes without an
    answer. `settled` are those that need no push, or cannot get one. Of what has ended only counts are kept.
    """

    __slots__ = ("_ended", "again", "dead", "form", "key", "lease", "left", "message_id")

    def __init__(self, key: str, lease: str, form: bytes, settled: Counter[PushOutcome]) -> None:
        self.key = key
        self.lease = lease
        self.form = form
        self.message_id = key.partition("/")[0]
        self.left = 0
        self.again: list[tuple[str, int, int | None]] = []
        """Devices, when they are pushed to again, Unix milliseconds, and as in PushInWork what they wait for (`held`)."""
        self.dead: list[tuple[str, PushToken, int]] = []
        """Devices whose token was good until then at most."""
        self._ended = settled

    def ended(self, outcome: PushOutcome) -> None:
        """A push has its result."""
        self._ended[outcome] += 1

    def works(self) -> list[OutboxWork]:
        """What it leads to."""
        return [OutboxWork(PUSH, push_key(self.message_id, device_id), self.form, at_ms) for device_id, at_ms, _ in self.again]

    def records(self) -> list[PushRecord]:
        """What is counted of it."""
        return [PushRecord(self.message_id, "", PushResult(0, outcome), count=count) for outcome, count in self._ended.items()]

"""Pushes of a message that are sent together: one piece of work in the outbox, and one step that stores what came of them.

A row of the outbox for each device costs more than all else that is done for its push. So those that are pushed to at once are
one piece of work, of the kind FALLBACK. What is to be sent again later, and who is still connected, leads to work of its own. A
crash sends to all of them again, under the same ids.

Of a topic's followers the body of the work names those of the group: results are only counted, so nobody may be counted in another
group too. A message to a user keeps a result of each device, of which the last one stands: there the work stays as it is, and a
second try asks anew who the devices are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from streampush.push.values import PUSH, OutboxEntry, OutboxWork, PushOutcome, PushRecord, PushResult, PushToken


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

    def ended(self, device_id: str, result: PushResult) -> None:
        """A push has its result."""
        self._ended[result.outcome] += 1

    def cancelled(self, count: int) -> None:
        """So many pushes are not needed any more."""
        self._ended[PushOutcome.CANCELLED] += count

    def works(self) -> list[OutboxWork]:
        """What it leads to."""
        return [OutboxWork(PUSH, push_key(self.message_id, device_id), self.form, at_ms) for device_id, at_ms, _ in self.again]

    def records(self) -> list[PushRecord]:
        """What is stored of it, in one step with the end of its work."""
        return [PushRecord(self.message_id, "", PushResult(0, outcome), count=count) for outcome, count in self._ended.items()]


class UserGroup(PushGroup):
    """The devices of the user that a message is for, from when its work was leased. `attempts`: how often that was."""

    __slots__ = ("_entry", "_results", "attempts")

    def __init__(self, entry: OutboxEntry) -> None:
        super().__init__(entry.key, entry.token, entry.body, Counter())
        self._entry = entry
        self._results: list[PushRecord] = []
        self.attempts = entry.attempts

    def entry(self) -> OutboxEntry:
        """Its work, under the newest lease."""
        return self._entry if self._entry.token == self.lease else replace(self._entry, token=self.lease)

    def ended(self, device_id: str, result: PushResult) -> None:
        self._results.append(PushRecord(self.message_id, device_id, result))

    def records(self) -> list[PushRecord]:
        return list(self._results)

    @property
    def ends_with_results(self) -> bool:
        """Whether its work ends when its results are recorded under its lease."""
        return bool(self._results) and not self.again

    def records_under(self, lease: str) -> list[PushRecord]:
        """The same, with the end of the work."""
        *others, last = self._results
        return [*others, PushRecord(last.message_id, last.device_id, last.result, lease)]

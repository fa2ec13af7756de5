"""What waits for its time: scheduled publications, and the work of senders."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count

from streampush.push.values import Draft, OutboxEntry


class Schedule:
    """Scheduled drafts by id and by time; of equal times the one that came first is first."""

    def __init__(self) -> None:
        self._drafts: dict[str, Draft] = {}
        self._due: list[tuple[int, int, str]] = []  # time, serial number, id; what was removed stays until its turn
        self._serial = count()

    def __len__(self) -> int:
        return len(self._drafts)

    def get(self, message_id: str) -> Draft | None:
        return self._drafts.get(message_id)

    def add(self, draft: Draft) -> None:
        self._drafts[draft.message_id] = draft
        heappush(self._due, (draft.deliver_at_ms, next(self._serial), draft.message_id))

    def remove(self, message_id: str) -> Draft | None:
        """Takes a draft out, and gives it."""
        draft = self._drafts.pop(message_id, None)
        if len(self._due) > 2 * len(self._drafts) + 100:  # removed ones must not pile up
            self._due = sorted(entry for entry in self._due if entry[2] in self._drafts)
        return draft

    def next_ms(self) -> int | None:
        """When the first is due."""
        while self._due and self._due[0][2] not in self._drafts:
            heappop(self._due)
        return self._due[0][0] if self._due else None

    def take_due(self, now_ms: int) -> Draft | None:
        """Takes out the first draft if it is due."""
        due_ms = self.next_ms()
        if due_ms is None or due_ms > now_ms:
            return None
        return self._drafts.pop(heappop(self._due)[2])


class _Work:
    __slots__ = ("attempts", "body", "due_ms", "key", "kind", "serial", "token")

    def __init__(self, kind: str, key: str, body: bytes, due_ms: int, serial: int) -> None:
        self.kind = kind
        self.key = key
        self.body = body
        self.due_ms = due_ms  # or when its lease ends
        self.serial = serial  # of its place in the queue
        self.attempts = 0
        self.token = ""


class Outbox:
    """Work by kind and key, and by the time when it is due."""

    def __init__(self) -> None:
        self._work: dict[tuple[str, str], _Work] = {}
        self._due: dict[str, list[tuple[int, int, _Work]]] = {}  # by kind; places that were left stay until their turn
        self._leased: dict[str, _Work] = {}  # by token
        self._serial = count()

    def __len__(self) -> int:
        return len(self._work)

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._work

    def add(self, kind: str, key: str, body: bytes, not_before_ms: int) -> None:
        """Adds work of a kind and key that is not there."""
        work = self._work[kind, key] = _Work(kind, key, body, not_before_ms, 0)
        self._place(work, not_before_ms)

    def lease(self, kind: str, limit: int, now_ms: int, lease_ms: int) -> tuple[OutboxEntry, ...]:
        """See push.ports.OutboxStore.outbox_lease."""
        leased: list[_Work] = []
        while len(leased) < limit:
            due_ms = self.next_ms(kind)
            if due_ms is None or due_ms > now_ms:
                break
            leased.append(heappop(self._due[kind])[2])
        for work in leased:
            self._leased.pop(work.token, None)
            work.attempts += 1
            self._place(work, now_ms + lease_ms)
            work.token = f"{work.serial}"
            self._leased[work.token] = work
        return tuple(OutboxEntry(work.token, kind, work.key, work.body, work.attempts) for work in leased)

    def complete(self, token: str) -> bytes | None:
        """The work is done; gives its body, None if the lease has passed to somebody else."""
        work = self._leased.pop(token, None)
        if work is None:
            return None
        del self._work[work.kind, work.key]
        work.serial = -1  # no place is its own
        return work.body

    def release(self, token: str, not_before_ms: int) -> bool:
        """See push.ports.OutboxStore.outbox_release."""
        work = self._leased.pop(token, None)
        if work is None:
            return False
        work.token = ""
        self._place(work, not_before_ms)
        return True

    def next_ms(self, kind: str) -> int | None:
        """When the next work of the kind is due or its lease ends."""
        places = self._due.get(kind, [])
        while places and places[0][2].serial != places[0][1]:
            heappop(places)
        if not places:
            self._due.pop(kind, None)
            return None
        return places[0][0]

    def _place(self, work: _Work, due_ms: int) -> None:
        work.due_ms = due_ms
        work.serial = next(self._serial)
        places = self._due.setdefault(work.kind, [])
        heappush(places, (due_ms, work.serial, work))
        if len(places) > 2 * len(self._work) + 100:  # left places must not pile up
            self._due[work.kind] = sorted(place for place in places if place[2].serial == place[1])

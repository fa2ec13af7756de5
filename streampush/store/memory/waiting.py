"""What waits for its time: scheduled publications, and the work of senders."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count

from streampush.push.values import Draft, OutboxEntry, OutboxWork
from streampush.store.drafts import weight
from streampush.store.memory.logs import Space
from streampush.store.work import check, check_growth, new_among


def draft_weight(draft: Draft) -> int:
    """Bytes of a scheduled draft that count against the limits: with its fallback."""
    return weight(draft.headers, draft.payload, draft.content_type) + len(draft.fallback)


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
    """Work by kind and key, and by the time when it is due; at most `max_works`, whose bodies count in `space`."""

    def __init__(self, max_works: int, space: Space) -> None:
        self._max_works = max_works
        self._space = space
        self._work: dict[tuple[str, str], _Work] = {}
        self._due: dict[str, list[tuple[int, int, _Work]]] = {}  # by kind; places that were left stay until their turn
        self._leased: dict[str, _Work] = {}  # by token
        self._serial = count()

    def __len__(self) -> int:
        return len(self._work)

    def add(self, work: OutboxWork) -> bool:
        """See push.store_ports.OutboxStore.outbox_add."""
        if (work.kind, work.key) in self._work:
            return False
        check(len(self._work), self._max_works)
        self._space.check(len(work.body))
        self.keep(work)
        return True

    def check(self, channel: str = "") -> None:
        """Raises Refused(QUOTA_EXCEEDED) if there is as much work as may be."""
        check(len(self._work), self._max_works, channel)

    def keep(self, work: OutboxWork) -> None:
        """Adds what is not there yet, whatever the limits say."""
        if (work.kind, work.key) not in self._work:
            added = self._work[work.kind, work.key] = _Work(work.kind, work.key, work.body, work.not_before_ms, 0)
            self._place(added, work.not_before_ms)
            self._space.used += len(work.body)

    def lease(self, kind: str, limit: int, now_ms: int, lease_ms: int) -> tuple[OutboxEntry, ...]:
        """See push.store_ports.OutboxStore.outbox_lease."""
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

    def complete(self, token: str) -> bool:
        """See push.store_ports.OutboxStore.outbox_complete."""
        work = self._leased.pop(token, None)
        if work is None:
            return False
        del self._work[work.kind, work.key]
        work.serial = -1  # no place is its own
        self._space.used -= len(work.body)
        return True

    def release(self, token: str, not_before_ms: int) -> bool:
        """See push.store_ports.OutboxStore.outbox_release."""
        work = self._leased.pop(token, None)
        if work is None:
            return False
        work.token = ""
        self._place(work, not_before_ms)
        return True

    def hasten(self, kind: str, keys: Sequence[str], not_before_ms: int) -> None:
        """See push.store_ports.OutboxStore.outbox_hasten."""
        for key in keys:
            work = self._work.get((kind, key))
            if work is not None and not work.token and work.due_ms > not_before_ms:
                self._place(work, not_before_ms)

    def replace(self, token: str, works: Sequence[OutboxWork]) -> bool:
        """See push.store_ports.OutboxStore.outbox_replace."""
        own = self._leased.get(token)
        if own is None:
            return False
        new = new_among(works, lambda key: key in self._work and key != (own.kind, own.key))
        check_growth(len(self._work), len(new), self._max_works)
        self.complete(token)
        for work in new:
            self.keep(work)
        return True

    def branch(self, token: str, body: bytes, works: Sequence[OutboxWork]) -> str | None:
        """See push.store_ports.OutboxStore.outbox_branch."""
        own = self._leased.get(token)
        if own is None:
            return None
        new = new_among(works, self._work.__contains__)
        check_growth(len(self._work), 1 + len(new), self._max_works)
        self._space.used += len(body) - len(own.body)
        own.body, own.token = body, f"{token}+"
        self._leased[own.token] = self._leased.pop(token)
        for work in new:
            self.keep(work)
        return own.token

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

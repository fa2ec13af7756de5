"""Batches of everything that the writer does, under tight limits: no operation fails by a fault of ours, and the file is sound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from streampush.config import StoreConfig
from streampush.protocol.codes import Advice
from streampush.protocol.terms import Milestone
from streampush.push.values import (
    FALLBACK,
    Close,
    CursorMove,
    DeviceRecord,
    Draft,
    Idempotency,
    Mark,
    OutboxEntry,
    OutboxWork,
    PushOutcome,
    PushRecord,
    PushResult,
    PushToken,
    Undeliverable,
)
from streampush.store.sqlite import SqliteStore
from streampush.store.sqlite.checking import examine
from streampush.store.sqlite.worker import InlineExecutor, Task
from tests.store.folders import quick_folder
from tests.store.sqlite_file import NOW_MS, done, opened

SEEDS = 30
STEPS = 12
CHANNELS = ("a", "b", "c", "device:d1", "device:d2", "user:u1", "device:nobody")
DEVICES = ("d1", "d2", "d3", "nobody")
KINDS = ("push", FALLBACK)


class Work:
    """Makes up operations. `tokens` are of leases that were given."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now_ms = NOW_MS
        self.tokens = ["none"]
        self.messages = ["none"]
        self._makers = [getattr(self, name) for name in dir(self) if name.startswith("do_")]
        self._weights = [12 if maker == self.do_append else 5 if maker == self.do_record else 1 for maker in self._makers]

    def task(self) -> Task[Any]:
        maker = self.random.choices(self._makers, self._weights)[0]
        return Task(maker.__name__.removeprefix("do_"), maker())

    def _message(self) -> str:
        self.messages.append(f"m{len(self.messages)}")
        return self.messages[-1]

    def _known(self) -> str:
        return self.random.choice(self.messages[-12:])

    def _token(self) -> str:
        return self.random.choice(self.tokens[-4:])

    def _device(self) -> str:
        return self.random.choice(DEVICES)

    def _key(self) -> Idempotency:
        return Idempotency(self.random.choice("pq"), self.random.choice("123"), b"f", self.now_ms + self.random.choice((0, 5000)))

    def do_append(self) -> tuple[Any, ...]:
        random = self.random
        fields: dict[str, Any] = {
            "idempotency": self._key(),
            "collapse_key": random.choice("kl"),
            "version": random.randint(1, 5),
            "expires_at_ms": self.now_ms + random.choice((3, 3000)),
            "deliver_at_ms": self.now_ms + random.choice((1, 500)),
            "fallback": random.randbytes(random.randint(1, 30)),
            "want_receipt": True,
            "clear_on_processed": True,
            "headers": {"ü": "€"},
        }
        said = {name: value for name, value in fields.items() if random.random() < 0.3}
        payload = bytes(random.choice((0, 5, 50, 200)))
        return Draft(random.choice(CHANNELS), self._message(), payload, self.now_ms, **said), self.now_ms

    def do_record(self) -> tuple[Any, ...]:
        random, device, channel = self.random, self._device(), self.random.choice(CHANNELS)
        first, last = sorted((random.randint(1, 30), random.randint(1, 30)))
        milestone = random.choice((Milestone.WRITTEN, Milestone.REJECTED))
        moves = [CursorMove(device, channel, "epoch", last, random.randint(0, last), 0, self.now_ms)]
        marks = [Mark(device, channel, "epoch", first, last, milestone, self.now_ms)]
        failed = [Undeliverable(device, channel, "epoch", first, 3, "poison", self.now_ms)]
        return *(each if random.random() < 0.5 else [] for each in (moves, marks, failed)), self.now_ms

    def do_recall(self) -> tuple[Any, ...]:
        return self._known(), self._message(), self.now_ms, self.now_ms

    def do_fire_due(self) -> tuple[Any, ...]:
        return self.now_ms, self.random.choice((1, 10))

    def do_record_pushes(self) -> tuple[Any, ...]:
        result = PushResult(self.now_ms, self.random.choice(list(PushOutcome)), "why", self.random.choice(("", "id")))
        return (tuple(PushRecord(self._known(), self._device(), result, self._token()) for _ in range(self.random.choice((1, 5)))),)

    def do_outbox_add(self) -> tuple[Any, ...]:
        return self.random.choice(KINDS), self.random.choice("abc"), self.random.randbytes(9), self.now_ms

    def do_outbox_lease(self) -> tuple[Any, ...]:
        return self.random.choice(KINDS), 5, self.now_ms, self.random.choice((1, 2000))

    def do_outbox_complete(self) -> tuple[Any, ...]:
        return (self._token(),)

    def do_outbox_release(self) -> tuple[Any, ...]:
        return self._token(), self.now_ms

    def do_outbox_hasten(self) -> tuple[Any, ...]:
        return self.random.choice(KINDS), tuple(self.random.choice("abc") for _ in range(3)), self.now_ms - 1

    def do_outbox_replace(self) -> tuple[Any, ...]:
        result = PushResult(self.now_ms, self.random.choice(list(PushOutcome)))
        records = (PushRecord(self._known(), self._device(), result, count=self.random.randrange(1, 5)),)
        return self._token(), self._works(), records[: self.random.randrange(2)]

    def do_outbox_branch(self) -> tuple[Any, ...]:
        return self._token(), self.random.randbytes(5), self._works()

    def _works(self) -> tuple[OutboxWork, ...]:
        works = (OutboxWork(self.random.choice(KINDS), self.random.choice("abcdef"), b"work", self.now_ms) for _ in range(4))
        return tuple(works)[: self.random.randrange(5)]

    def do_remember_device(self) -> tuple[Any, ...]:
        token = PushToken(self.random.choice((b"1", b"2")), "app", True, self.now_ms - self.random.choice((0, 5)))
        return (DeviceRecord(self._device(), self.random.choice(("", "u1")), 1, self.now_ms, token),)

    def do_forget_device(self) -> tuple[Any, ...]:
        return (self._device(),)

    def do_drop_token(self) -> tuple[Any, ...]:
        return self._device(), self.random.choice((b"1", b"2")), self.now_ms

    def do_closed(self) -> tuple[Any, ...]:
        return self._device(), Close(1001, Advice.RETRY, "gone", self.now_ms)

    def do_add_subscription(self) -> tuple[Any, ...]:
        return self._device(), self.random.choice(CHANNELS), self.now_ms, 2

    def do_drop_dead_letter(self) -> tuple[Any, ...]:
        return self._device(), self._known()

    def do_first_answer(self) -> tuple[Any, ...]:
        return self._key(), self.now_ms

    def do_sweep(self) -> tuple[Any, ...]:
        return (self.now_ms,)


def limits(random: Random) -> StoreConfig:
    return replace(
        StoreConfig(),
        history_messages=random.choice((1, 2, 5, 1000)),
        history_bytes=random.choice((200, 500, 1_000_000)),
        history_age=random.choice((5.0, 1e6)),
        max_bytes=random.choice((500, 1500, 1_000_000)),
        max_idempotency_keys=random.choice((1, 2, 1000)),
        max_idempotency_keys_total=random.choice((2, 6, 1000)),
        max_channels=random.choice((3, 100)),
        max_devices=3,
        max_scheduled=random.choice((1, 3, 100)),
        max_outbox=random.choice((1, 3, 100)),
    )


def run(store: SqliteStore, work: Work) -> None:
    """One batch."""
    assert isinstance(store.writer, InlineExecutor)
    tasks = [work.task() for _ in range(work.random.choice((1, 3, 8, 40)))]
    report = store.writer.run(tasks)
    assert (report.fault, report.bug) == (None, None)
    for task, outcome in zip(tasks, report.outcomes, strict=True):
        if task.kind == "outbox_lease":
            work.tokens += [entry.token for entry in outcome if isinstance(entry, OutboxEntry)]
        elif task.kind == "outbox_branch" and isinstance(outcome, str):
            work.tokens.append(outcome)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_batches_of_everything_leave_a_sound_file(seed: int) -> None:
    random = Random(seed)
    with quick_folder() as folder:
        path = Path(folder) / "store.db"
        work = Work(random)
        with opened(path, limits(random)) as store:
            for device in DEVICES[:2]:
                done(store.remember_device(DeviceRecord(device, "u1")))
            for _ in range(STEPS):
                work.now_ms += random.choice((0, 1, 10, 1000, 6000))
                run(store, work)
        # that a cursor is ahead is not the store's fault: devices here acknowledge what is not there
        assert [fault for fault in examine(str(path)).faults if "cursors are ahead" not in fault] == []

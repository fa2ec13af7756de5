"""What is done together with others of its kind does what it would do alone, one after the other."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from streampush.config import StoreConfig
from streampush.errors import Refused
from streampush.push.values import DeviceRecord, OutboxWork, PushOutcome, PushRecord, PushResult
from streampush.store.sqlite import SqliteStore
from streampush.store.sqlite.checking import examine
from streampush.store.sqlite.worker import InlineExecutor, Task
from tests.store.folders import quick_folder
from tests.store.sqlite_file import NOW_MS, done, draft, opened

LIMITS = StoreConfig(max_outbox=4)
KINDS = ("outbox_complete", "outbox_replace", "outbox_release", "record_pushes")
MESSAGES = ("to-d", "topic", "gone")


class TogetherTests(SynchronousTestCase):
    def setUp(self) -> None:
        stack = ExitStack()
        self.addCleanup(stack.close)
        folder = Path(stack.enter_context(quick_folder()))
        self.paths = [folder / "together.db", folder / "alone.db"]
        self.stores = [stack.enter_context(opened(path, LIMITS)) for path in self.paths]
        for store in self.stores:
            done(store.remember_device(DeviceRecord("d")))
            done(store.append(draft("device:d", "to-d")))
            done(store.append(draft("news", "topic")))

    def on_both(self, method: str, *arguments: Any) -> Any:
        """Called on both stores, which must answer alike."""
        found = [done(getattr(store, method)(*arguments)) for store in self.stores]
        self.assertEqual(found[0], found[1])
        return found[0]

    def add(self, key: str, not_before_ms: int) -> None:
        """As far as there is room."""
        if done(self.stores[0].status()).outbox < LIMITS.max_outbox:
            self.on_both("outbox_add", "push", key, key.encode(), not_before_ms)

    def pushes(self, store: SqliteStore) -> list[Any]:
        """What is kept of pushes."""
        records = [done(store.message(message_id, 10)) for message_id in MESSAGES]
        return [(record.devices, record.push_counts) for record in records if record is not None]

    def arguments(self, random: Random, kind: str, token: str) -> tuple[Any, ...]:
        match kind:
            case "outbox_complete":
                return (token,)
            case "outbox_release":
                return token, NOW_MS + random.randrange(100)
            case "outbox_replace":
                works = (OutboxWork("push", random.choice("abcdefghij"), random.randbytes(3), NOW_MS) for _ in range(9))
                result = PushResult(0, random.choice(list(PushOutcome)))
                records = (PushRecord("topic", "", result, count=random.randrange(1, 9)),)
                return token, tuple(works)[: random.randrange(9)], records[: random.randrange(2)]
            case _:
                result = PushResult(random.randrange(9), random.choice(list(PushOutcome)))
                return ((PushRecord(random.choice(MESSAGES), "d", result, token),),)

    def test_operations_of_one_kind_in_a_batch_do_what_they_do_one_after_the_other(self) -> None:
        refusals = 0
        for seed in range(60):
            random = Random(seed)
            for key in "abcdef":
                self.add(key, NOW_MS + random.randrange(100))
            leased = self.on_both("outbox_lease", "push", 4, NOW_MS + 50 * seed, 40)
            tokens = [entry.token for entry in leased] + ["none", ""]
            kind = random.choice(KINDS)
            calls = [self.arguments(random, kind, random.choice(tokens)) for _ in range(6)]
            together = run(self.stores[0], [Task(kind, call) for call in calls])
            alone = [outcome for call in calls for outcome in run(self.stores[1], [Task(kind, call)])]
            refusals += sum(isinstance(outcome, Refused) for outcome in alone)
            self.assertEqual([plain(one) for one in together], [plain(one) for one in alone], (seed, kind, calls))
            self.on_both("status")
            self.on_both("outbox_next_ms", "push")
            self.assertEqual(*(self.pushes(store) for store in self.stores))
        self.assertGreater(refusals, 0)
        for path in self.paths:
            self.assertEqual(examine(str(path)).faults, ())


def run(store: SqliteStore, tasks: list[Task[Any]]) -> list[Any]:
    assert isinstance(store.writer, InlineExecutor)
    report = store.writer.run(tasks)
    assert report.fault is None and report.bug is None
    return list(report.outcomes)


def plain(outcome: Any) -> Any:
    return outcome.code if isinstance(outcome, Refused) else outcome

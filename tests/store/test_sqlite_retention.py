"""What is over the limits goes in small steps: no step is long, all of it goes in the end, and the disk gets its room back."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from streampush.config import StoreConfig
from streampush.protocol.terms import Milestone
from streampush.push.values import DeviceRecord, Head, Mark, PushOutcome, PushRecord, PushResult, StoreStatus
from streampush.store.sqlite import SqliteStore
from streampush.store.sqlite.checking import examine
from streampush.store.sqlite.file import CHECKPOINT_PAGES
from streampush.store.sqlite.retention import STEP
from streampush.store.sqlite.sweeping import PAGES, SPARE_PAGES
from streampush.store.sqlite.worker import InlineExecutor, Task
from tests.store.folders import quick_folder
from tests.store.sqlite_file import NOW_MS, ROOMY, done, draft, everything

PAGE = 4096
DAY_MS = 86_400_000


class RetentionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.path = Path(self.stack.enter_context(quick_folder())) / "store.db"
        self.now_ms = NOW_MS
        self.reopen(ROOMY)
        self.stack.callback(lambda: done(self.store.stop()))

    def reopen(self, limits: StoreConfig) -> None:
        """The same file with other limits."""
        if hasattr(self, "store"):
            done(self.store.stop())
        self.store = SqliteStore(str(self.path), limits, lambda: self.now_ms, lambda: "epoch")
        self.store.open()

    def append_many(self, channel: str, count: int, size: int = 7, **fields: Any) -> None:
        """As one batch."""
        batch = [Task[Any]("append", (draft(channel, payload=bytes(size), **fields), self.now_ms)) for _ in range(count)]
        self.run_batch(batch)

    def run_batch(self, batch: list[Task[Any]]) -> None:
        writer = self.store.writer
        assert isinstance(writer, InlineExecutor)
        self.assertIsNone(writer.run(batch).fault)

    def sweep(self) -> bool:
        return bool(self.successResultOf(self.store.sweep()))

    def held(self) -> StoreStatus:
        status: StoreStatus = done(self.store.status())
        return status

    def sweep_all(self) -> list[StoreStatus]:
        """Sweeps until nothing is left to do; gives what was held before and after each sweep."""
        seen = [self.held()]
        while self.sweep():
            seen.append(self.held())
            assert len(seen) < 10_000
        return [*seen, self.held()]

    def test_the_age_of_the_oldest_is_known_also_when_more_go_than_were_likely_to(self) -> None:
        self.reopen(StoreConfig(history_bytes=200))
        for size in (*[0] * 8, 150, 100):
            self.now_ms += 1
            done(self.store.append(draft("news", payload=bytes(size), published_at_ms=self.now_ms)))
        self.assertEqual(self.sweep_all()[-1].bytes, 100)
        self.assertEqual(examine(str(self.path)).faults, ())

    # -------------------------------------------------------------------------------------------------------------- sweeps

    def test_what_is_too_old_goes_in_bounded_steps_but_for_the_newest(self) -> None:
        for number in range(30):
            self.append_many(f"news/{number}", 100)
        self.now_ms += 2 * DAY_MS
        seen = self.sweep_all()
        dropped = [before.publications - after.publications for before, after in itertools.pairwise(seen)]
        self.assertLessEqual(max(dropped), STEP)
        self.assertGreater(sum(dropped), 5 * STEP)
        self.assertEqual(seen[-1].publications, 30)
        self.assertEqual(examine(str(self.path)).faults, ())

    def test_large_payloads_go_in_fewer_at_a_time(self) -> None:
        size = 50 * PAGE
        self.append_many("news", 40, size)
        self.now_ms += 2 * DAY_MS
        seen = self.sweep_all()
        dropped = [before.bytes - after.bytes for before, after in itertools.pairwise(seen)]
        self.assertLessEqual(max(dropped), STEP * PAGE + size)
        self.assertEqual(seen[-1].publications, 1)

    def test_expired_payloads_are_freed_in_bounded_steps(self) -> None:
        size = 50 * PAGE
        self.append_many("news", 40, size, expires_at_ms=self.now_ms + 1000)
        self.now_ms += 2000
        seen = self.sweep_all()
        freed = [before.bytes - after.bytes for before, after in itertools.pairwise(seen)]
        self.assertLessEqual(max(freed), STEP * PAGE + size)
        self.assertEqual((seen[-1].bytes, seen[-1].publications), (0, 40))

    def test_a_sweep_with_nothing_to_do_says_so(self) -> None:
        self.append_many("news", 10)
        self.assertFalse(self.sweep())

    # -------------------------------------------------------------------------------------------------------------- appends

    def test_an_append_behind_lower_limits_drops_a_bounded_number(self) -> None:
        self.append_many("news", 2000)
        self.reopen(replace(ROOMY, history_messages=10))
        self.append_many("news", 1)
        dropped = 2001 - self.held().publications
        self.assertGreater(dropped, 1)
        self.assertLessEqual(dropped, STEP + 2)

    def test_what_an_append_has_left_goes_with_the_sweeps(self) -> None:
        self.append_many("news", 2000)
        self.reopen(replace(ROOMY, history_messages=10))
        self.append_many("news", 1)
        self.sweep_all()
        self.assertEqual(self.held().publications, 10)

    def test_a_batch_for_many_channels_drops_a_bounded_number_of_all_of_them(self) -> None:
        for number in range(50):
            self.append_many(f"news/{number}", 100)
        self.reopen(replace(ROOMY, history_messages=10))
        batch = [Task[Any]("append", (draft(f"news/{number}"), self.now_ms)) for number in range(50)]
        self.run_batch(batch)
        self.assertLessEqual(5050 - self.held().publications, STEP + 2 * 50)

    def test_a_channel_that_is_full_does_not_grow_however_fast_it_is_appended_to(self) -> None:
        self.reopen(replace(ROOMY, history_messages=100))
        for _ in range(10):
            self.append_many("news", 1000)
            self.assertEqual(self.held().publications, 100)

    def test_a_channel_that_is_full_of_bytes_does_not_grow_either(self) -> None:
        self.reopen(replace(ROOMY, history_bytes=100_000))
        self.append_many("news", 300, 300)
        for _ in range(20):
            self.append_many("news", 30, 9000)
            self.assertLessEqual(self.held().bytes, 100_000)

    def test_receipts_go_with_their_entries(self) -> None:
        self.append_many("news", 50, want_receipt=True)
        done(self.store.record([], [Mark("d", "news", "epoch", 1, 50, Milestone.WRITTEN, self.now_ms)]))
        self.now_ms += 2 * DAY_MS
        self.sweep_all()
        self.assertEqual(examine(str(self.path)).faults, ())

    def test_what_goes_by_the_count_is_taken_off_everything_that_is_counted(self) -> None:
        self.reopen(replace(ROOMY, history_messages=20))
        done(self.store.remember_device(DeviceRecord("d", "", NOW_MS, NOW_MS)))
        for channel in ("news", "device:d"):
            self.append_many(channel, 40, 5000, want_receipt=True, expires_at_ms=self.now_ms + DAY_MS)
            done(self.store.record([], [Mark("d", channel, "epoch", 1, 40, Milestone.WRITTEN, self.now_ms)]))
            for _ in range(3):
                self.now_ms += 1
                self.append_many(channel, 10, published_at_ms=self.now_ms)
            self.append_many(channel, 1, published_at_ms=self.now_ms)
            ids = [one.message_id for one in everything(self.store, channel)]
            self.append_many(channel, 1)
            self.assertEqual(done(self.store.peek(channel)), Head("epoch", 72, 52, ids[0]))
        self.assertEqual(self.held().publications, 40)
        self.assertEqual(examine(str(self.path)).faults, ())

    # ----------------------------------------------------------------------------------------------------------------- disk

    def test_free_pages_are_given_back_to_the_disk_in_small_steps_but_for_some(self) -> None:
        self.append_many("news", 600, 10 * PAGE)
        self.now_ms += 2 * DAY_MS
        self.append_many("news", 1)
        self.assertLess(len(self.sweep_all()), 40)
        done(self.store.stop())  # the log goes into the file
        self.assertLess(self.path.stat().st_size, (SPARE_PAGES + 3 * PAGES) * PAGE)
        self.reopen(ROOMY)

    def test_the_write_ahead_log_stays_small(self) -> None:
        for _ in range(60):
            self.append_many("news", 100, 1000)
        size = Path(f"{self.path}-wal").stat().st_size
        self.assertLess(size, 1.5 * CHECKPOINT_PAGES * PAGE)

    def test_the_write_ahead_log_is_cut_back_after_a_rush(self) -> None:
        self.append_many("news", 800, 100_000)
        wal = Path(f"{self.path}-wal")
        self.assertGreater(wal.stat().st_size, 64 * 1024 * 1024)
        for _ in range(3):
            self.append_many("news", 1)
        self.assertLessEqual(wal.stat().st_size, 64 * 1024 * 1024)

    def test_what_stays_is_readable_whatever_went(self) -> None:
        self.reopen(replace(ROOMY, history_messages=20))
        for number in range(100):
            done(self.store.append(draft("news", f"m{number}")))
        self.assertEqual([one.message_id for one in everything(self.store, "news")], [f"m{number}" for number in range(80, 100)])

    def test_counts_of_pushes_go_with_the_entries_of_a_channel_that_is_over_its_count(self) -> None:
        self.reopen(replace(ROOMY, history_messages=3))
        for number in range(9):
            done(self.store.append(draft("news", f"m{number}")))
            done(self.store.record_pushes([PushRecord(f"m{number}", "d", PushResult(1, PushOutcome.DELIVERED))]))
        self.assertEqual(examine(str(self.path)).faults, ())
        self.assertEqual(done(self.store.message("m8", 1)).push_counts, {PushOutcome.DELIVERED: 1})

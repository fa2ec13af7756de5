"""When the disk fails: callers are told, what was acknowledged stays, readiness says why, and it goes on by itself."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from streampush.config import StoreConfig
from streampush.errors import StoreUnavailable
from streampush.push.values import CursorMove, DeviceRecord, Draft
from streampush.store.sqlite import FileFault, SqliteStore, upkeep
from streampush.store.sqlite.checking import examine
from streampush.store.sqlite.file import FAULT_KINDS, explain, prepare
from streampush.store.sqlite.upkeep import INTERVAL, Upkeep, Watch
from streampush.store.sqlite.worker import ReactorThreads, Report
from tests.store.folders import quick_folder, small_disk
from tests.store.sqlite_file import NOW_MS, damage, done, draft, fill, opened, root_page

MIB = 1024 * 1024


class Counting:
    """Counts faults by their kind."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.batches = 0

    def store_batch(self, operations: int, seconds: float) -> None:
        self.batches += 1

    def store_fault(self, kind: str) -> None:
        self.faults.append(kind)


class FaultTestCase(SynchronousTestCase):
    """A store without threads, with its upkeep on a clock of the test."""

    def setUp(self) -> None:
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)

    def open(self, folder: Path) -> None:
        self.path = folder / "store.db"
        self.metrics = Counting()
        self.clock = Clock()
        writes, reads = Watch("writes", self.metrics, counts=True), Watch("reads", self.metrics, counts=False)
        self.store = SqliteStore(
            str(self.path), StoreConfig(), lambda: NOW_MS, lambda: "epoch", observe_writes=writes, observe_reads=reads
        )
        self.store.open()
        self.writes, self.reads = writes, reads
        self.upkeep = Upkeep(self.clock, self.store, writes, reads, self.metrics)
        self.upkeep.start()
        self.stack.callback(lambda: done(self.store.stop()))
        self.stack.callback(self.upkeep.stop)

    @property
    def reason(self) -> str:
        return self.upkeep.reason(self.clock.seconds())

    def append(self, *drafts: Draft) -> None:
        for one in drafts:
            done(self.store.append(one))

    def refused(self, one: Draft, words: str) -> None:
        with self.assertRaises(StoreUnavailable) as caught:
            self.append(one)
        self.assertIn(words, caught.exception.detail)

    def readable(self) -> list[str]:
        """The ids of everything in `news`, page by page."""
        ids: list[str] = []
        after = 0
        while True:
            page = done(self.store.read("news", after, 64, MIB))
            ids += [one.message_id for one in page.publications]
            if page.next_offset >= page.head.top_offset:
                return ids
            after = page.next_offset


class FullDiskTests(FaultTestCase):
    def setUp(self) -> None:
        super().setUp()
        folder = self.stack.enter_context(small_disk(10 * MIB))
        self.ballast = folder / "ballast"
        self.ballast.write_bytes(bytes(6 * MIB))
        self.open(folder)

    def fill_up(self) -> list[str]:
        """Appends until the disk is full; gives the ids of what was accepted."""
        accepted: list[str] = []
        with self.assertRaises(StoreUnavailable) as caught:
            for number in range(10_000):
                self.append(draft("news", f"m{number}", bytes(10_000)))
                accepted.append(f"m{number}")
        self.assertIn("the disk is full", caught.exception.detail)
        return accepted

    def test_readiness_and_metrics_name_the_full_disk(self) -> None:
        self.assertEqual(self.reason, "")
        self.fill_up()
        self.assertIn("the disk is full", self.reason)
        self.assertEqual(self.metrics.faults, ["full"])

    def test_the_log_has_one_line_however_often_it_fails_and_one_when_it_is_over(self) -> None:
        with capturedLogs() as lines:
            self.fill_up()
            self.refused(draft("news", "again", bytes(100_000)), "the disk is full")
            self.clock.pump([INTERVAL] * 3)
            self.ballast.unlink()
            self.clock.advance(INTERVAL)
        began, ended = map(formatEvent, lines)
        self.assertRegex(began, "^the store cannot write: the disk is full")
        self.assertRegex(ended, "^the store writes again, after ")

    def test_what_was_accepted_is_there_and_what_was_refused_is_not(self) -> None:
        accepted = self.fill_up()
        self.assertGreater(len(accepted), 10)
        self.assertEqual(self.readable(), accepted)
        self.refused(draft("news", "again", bytes(100_000)), "the disk is full")
        self.assertEqual(self.readable(), accepted)

    def test_it_does_not_recover_while_there_is_no_room(self) -> None:
        self.fill_up()
        self.clock.pump([INTERVAL] * 5)
        self.assertIn("the disk is full", self.reason)
        self.ballast.write_bytes(bytes(5 * MIB))  # a little room, which the next messages would fill
        self.clock.pump([INTERVAL] * 5)
        self.assertIn("the disk is full", self.reason)

    def test_a_small_thing_that_still_fits_is_stored_and_does_not_make_it_ready(self) -> None:
        self.fill_up()
        os.truncate(self.ballast, 6 * MIB - 64 * 1024)  # less than it takes to copy the write-ahead log
        self.append(draft("news", "small"))
        self.assertIn("the disk is full", self.reason)

    def test_it_recovers_by_itself_when_there_is_room_again(self) -> None:
        accepted = self.fill_up()
        self.ballast.unlink()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.reason, "")
        self.append(draft("news", "afterwards"))
        self.assertEqual(self.readable(), [*accepted, "afterwards"])

    def test_offsets_have_no_hole_where_the_disk_was_full(self) -> None:
        accepted = self.fill_up()
        self.ballast.unlink()
        self.append(draft("news"))
        self.assertEqual(done(self.store.head("news")).top_offset, len(accepted) + 1)

    def test_the_file_is_sound_afterwards_and_after_a_restart(self) -> None:
        accepted = self.fill_up()
        self.ballast.unlink()
        self.append(draft("news", "afterwards"))
        self.upkeep.stop()
        done(self.store.stop())
        self.assertEqual(examine(str(self.path)).faults, ())
        with opened(self.path) as store:
            self.assertEqual(done(store.head("news")).top_offset, len(accepted) + 1)

    def test_cursors_are_recorded_again_when_there_is_room(self) -> None:
        done(self.store.remember_device(DeviceRecord("d", "")))
        accepted = self.fill_up()
        self.ballast.unlink()
        done(self.store.record([CursorMove("d", "news", "epoch", len(accepted), 0, 0, NOW_MS)]))
        self.assertEqual(done(self.store.cursors("d"))["news"].offset, len(accepted))


HOLDER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
"""


class LockedTests(FaultTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.open(Path(self.stack.enter_context(quick_folder())))
        self.append(draft("news", "before"))
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(self.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(holder.communicate)
        self.addCleanup(holder.kill)
        assert holder.stdout is not None
        holder.stdout.readline()
        self.holder = holder

    def test_writes_fail_with_the_reason_and_reads_go_on(self) -> None:
        self.refused(draft("news", "refused"), "another process holds a lock on the file")
        self.assertIn("another process holds a lock", self.reason)
        self.assertEqual(self.metrics.faults, ["locked"])
        self.assertEqual(self.readable(), ["before"])

    def test_it_recovers_by_itself_when_the_lock_is_gone(self) -> None:
        self.refused(draft("news", "refused"), "another process holds a lock on the file")
        self.holder.communicate("enough\n")
        self.clock.advance(INTERVAL)
        self.assertEqual(self.reason, "")
        self.append(draft("news", "afterwards"))
        self.assertEqual(self.readable(), ["before", "afterwards"])


class WatchTests(FaultTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.open(Path(self.stack.enter_context(quick_folder())))

    def test_every_kind_of_fault_of_either_thread_is_over_when_a_try_succeeds(self) -> None:
        for watch in (self.writes, self.reads):
            for kind in FAULT_KINDS:
                watch(Report([], fault=(kind, f"it is {kind}")), 0)
                self.assertEqual(self.reason, f"it is {kind}")
                self.clock.advance(INTERVAL)
                self.assertEqual(self.reason, "")

    def test_nothing_is_left_of_the_upkeep_after_its_stop(self) -> None:
        self.upkeep.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PaceTests(TestCase):
    """A store in threads whose disk does not keep up; the upkeep is on a clock of the test."""

    def setUp(self) -> None:
        folder = quick_folder()
        self.addCleanup(folder.cleanup)
        self.metrics = Counting()
        self.clock = Clock()
        writes, reads = Watch("writes", self.metrics, counts=True), Watch("reads", self.metrics, counts=False)
        limits = StoreConfig(max_queue=3)
        self.store = SqliteStore(
            f"{folder.name}/store.db",
            limits,
            lambda: NOW_MS,
            lambda: "epoch",
            cast(ReactorThreads, reactor),
            observe_writes=writes,
            observe_reads=reads,
        )
        self.store.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.store.stop()))
        self.upkeep = Upkeep(self.clock, self.store, writes, reads, self.metrics)
        self.upkeep.start()
        self.addCleanup(self.upkeep.stop)

    def turn(self) -> list[str]:
        """What the log says in a turn of the upkeep."""
        with capturedLogs() as lines:
            self.clock.advance(INTERVAL)
        return [formatEvent(line) for line in lines]

    def test_a_queue_that_is_full_is_told_counted_and_makes_readiness_red_until_it_is_not(self) -> Deferred[None]:
        async def test() -> None:
            waiting = [Deferred.fromCoroutine(self.store.append(draft("news"))) for _ in range(3)]
            full = "3 operations wait for the disk, as many as may (store.max_queue)"
            self.assertEqual(self.turn(), [f"the store cannot answer: {full}"])
            self.assertEqual((self.upkeep.reason(0.0), self.turn()), (full, []))
            self.assertEqual(self.metrics.faults, ["slow"])
            for one in waiting:
                await one
            (said,) = self.turn()
            self.assertRegex(said, r"^the store answers again, after 0\.\d s$")
            self.assertEqual(self.upkeep.reason(0.0), "")

        return Deferred.fromCoroutine(test())

    def test_a_disk_that_does_not_answer_is_told_and_counted_once(self) -> None:
        self.patch(upkeep, "SLOW_AFTER", -1.0)  # no batch is so quick
        self.assertEqual(self.turn(), ["the store cannot answer: the disk has not answered for 0 s"])
        self.assertEqual((self.turn(), self.metrics.faults), ([], ["slow"]))


class DamagedPageTests(FaultTestCase):
    def setUp(self) -> None:
        super().setUp()
        folder = Path(self.stack.enter_context(quick_folder()))
        with opened(folder / "store.db") as store:
            fill(store)
        damage(folder / "store.db", root_page(folder / "store.db", "entries"))
        self.open(folder)

    def test_what_lies_on_the_page_fails_with_the_reason_when_it_is_read(self) -> None:
        with self.assertRaises(StoreUnavailable) as caught:
            self.readable()
        self.assertIn("the file is damaged, see `streampush store check`", caught.exception.detail)
        self.assertIn("the file is damaged", self.reason)
        self.assertEqual(self.metrics.faults, ["damaged"])

    def test_writing_to_the_damaged_page_is_refused_and_told(self) -> None:
        self.refused(draft("news", "new"), "the file is damaged")
        self.assertIn("the file is damaged", self.reason)

    def test_what_lies_elsewhere_is_read(self) -> None:
        record = done(self.store.device("d"))
        assert record is not None
        self.assertEqual(record.user_id, "u")


class LimitedFileTests(SynchronousTestCase):
    """For where nothing can be mounted: a process that may write no more than a megabyte to a file."""

    def test_a_file_that_may_not_grow_refuses_and_keeps_what_was_accepted(self) -> None:
        with quick_folder() as folder:
            path = Path(folder) / "store.db"
            found = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True)
            accepted, words = found.stdout.splitlines()
            self.assertIn("the disk failed to read or write", words)
            self.assertEqual(examine(str(path)).faults, ())
            with opened(path) as store:
                self.assertEqual(done(store.head("news")).top_offset, int(accepted))


LIMITED = """
import resource, sys
from pathlib import Path
from streampush.errors import StoreUnavailable
from tests.store.sqlite_file import done, draft, opened
with opened(Path(sys.argv[1])) as store:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    for number in range(10_000):
        try:
            done(store.append(draft("news", f"m{number}", bytes(10_000))))
        except StoreUnavailable as error:
            print(number)
            print(error.detail)
            break
"""


def as_nobody(path: Path) -> str:
    """What opening the file says to a user without rights."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        text = "opened"
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            prepare(str(path), lambda: "epoch", NOW_MS)
        except FileFault as fault:
            text = str(fault)
        finally:
            os.write(writer, text.encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with open(reader, "rb") as answer:
        return answer.read().decode()


def test_a_file_that_may_not_be_read_or_written_is_named(tmp_path: Path) -> None:
    with quick_folder() as folder:
        path = Path(folder) / "store.db"
        with opened(path):
            pass
        os.chmod(folder, 0o777)
        path.chmod(0o000)
        assert as_nobody(path) == f"{path} cannot be opened: Permission denied"
        path.chmod(0o444)
        assert as_nobody(path) == f"{path} cannot be opened: Permission denied"


def test_a_folder_in_which_nothing_may_be_made_is_named(tmp_path: Path) -> None:
    with quick_folder() as folder:
        path = Path(folder) / "store.db"
        with opened(path):
            pass
        path.chmod(0o666)
        os.chmod(folder, 0o555)
        assert as_nobody(path).startswith(f"{path}: ")


def test_a_store_on_a_full_disk_says_so_at_its_start() -> None:
    with small_disk(64 * 1024) as folder:
        (folder / "ballast").write_bytes(bytes(60 * 1024))
        with pytest.raises(FileFault, match="the disk is full") as caught, opened(folder / "store.db"):
            pass
        assert str(caught.value).startswith(f"{folder}/store.db: ")
        assert "\n" not in str(caught.value)


def error_of(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("details of SQLite's own")
    error.sqlite_errorcode = code
    error.sqlite_errorname = "NAME"
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (error_of(sqlite3.SQLITE_FULL), "full"),
        (error_of(sqlite3.SQLITE_BUSY_SNAPSHOT), "locked"),
        (error_of(sqlite3.SQLITE_CORRUPT_INDEX), "damaged"),
        (error_of(sqlite3.SQLITE_NOTADB), "damaged"),
        (error_of(sqlite3.SQLITE_READONLY_DBMOVED), "readonly"),
        (error_of(sqlite3.SQLITE_CANTOPEN), "unopened"),
        (error_of(sqlite3.SQLITE_IOERR_FSYNC), "io"),
        (error_of(sqlite3.SQLITE_NOMEM), "memory"),
        (error_of(sqlite3.SQLITE_CONSTRAINT_UNIQUE), "other"),
        (OSError(errno.ENOSPC, ""), "full"),
        (OSError(errno.EDQUOT, ""), "full"),
        (OSError(errno.EIO, ""), "io"),
        (ValueError("secret"), "other"),
    ],
)
def test_every_fault_has_a_kind_and_words_without_data(error: Exception, kind: str) -> None:
    found, words = explain(error)
    assert found == kind
    assert found in FAULT_KINDS
    assert "secret" not in words
    assert "details" not in words

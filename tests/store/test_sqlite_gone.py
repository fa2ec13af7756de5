"""A store's file that somebody deletes, moves or replaces under the server: nothing more is accepted, and all that was is there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from twisted.logger import capturedLogs, formatEvent

from streampush.errors import StoreUnavailable
from streampush.push.values import CursorMove
from streampush.store.sqlite.checking import examine
from streampush.store.sqlite.upkeep import INTERVAL
from streampush.store.sqlite.worker import Report
from tests.store.folders import quick_folder
from tests.store.sqlite_file import NOW_MS, done, draft, everything, opened
from tests.store.test_sqlite_faults import FaultTestCase

DELETED = "the store's file was deleted or moved away"
REPLACED = "another file is in the place of the store's file"
LOGLESS = "the write-ahead log of the store's file was deleted"


class GoneTests(FaultTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.stack.enter_context(quick_folder())) / "data"
        self.folder.mkdir()
        self.open(self.folder)
        self.append(draft("news", "m1"), draft("news", "m2"))
        self.turn()
        self.assertEqual((self.reason, self.readable()), ("", ["m1", "m2"]))

    def turn(self) -> None:
        self.clock.advance(INTERVAL)

    def is_refused(self, words: str) -> None:
        """Publishers, and whoever else wants to write, are told; devices read on."""
        self.assertEqual(self.reason, words)
        self.refused(draft("news", "refused"), words)
        with self.assertRaises(StoreUnavailable):
            done(self.store.record([CursorMove("d", "news", "epoch", 1, 0, 0, NOW_MS)]))
        self.assertEqual(self.readable(), ["m1", "m2"])

    def works(self) -> None:
        self.assertEqual(self.reason, "")
        self.append(draft("news", "m3"))
        self.assertEqual(self.readable(), ["m1", "m2", "m3"])

    def test_a_file_that_was_deleted_is_noticed_at_the_next_turn(self) -> None:
        self.path.unlink()
        self.turn()
        self.is_refused(DELETED)

    def test_it_is_counted_and_logged_once_and_so_is_its_return(self) -> None:
        with capturedLogs() as lines:
            self.path.rename(self.folder / "aside.db")
            for _ in range(3):
                self.turn()
            (self.folder / "aside.db").rename(self.path)
            self.turn()
        said = [formatEvent(line) for line in lines]
        self.assertEqual((self.metrics.faults, said[0]), (["gone"], f"the store cannot write: {DELETED}"))
        self.assertEqual((len(said), said[1].startswith("the store writes again, after ")), (2, True))
        self.works()

    def test_a_folder_that_was_moved_away_is_noticed_and_so_is_its_return(self) -> None:
        self.folder.rename(self.folder.with_name("aside"))
        self.turn()
        self.is_refused(DELETED)
        self.folder.with_name("aside").rename(self.folder)
        self.turn()
        self.works()

    def test_another_file_in_its_place_is_noticed_and_not_written(self) -> None:
        other = self.folder / "other.db"
        with opened(other):
            pass
        before = other.read_bytes()
        other.rename(self.path)
        self.turn()
        self.is_refused(REPLACED)
        self.clock.pump([INTERVAL] * 3)
        self.assertEqual(self.path.read_bytes(), before)

    def test_a_write_ahead_log_that_was_deleted_is_noticed_and_a_stop_saves_what_was_in_it(self) -> None:
        Path(f"{self.path}-wal").unlink()
        self.append(draft("news", "late"))  # before it was noticed
        self.turn()
        self.assertEqual(self.reason, LOGLESS)
        self.refused(draft("news", "refused"), LOGLESS)
        self.upkeep.stop()
        done(self.store.stop())
        self.assertEqual(examine(str(self.path)).faults, ())
        with opened(self.path) as store:
            self.assertEqual([one.message_id for one in everything(store, "news")], ["m1", "m2", "late"])

    def test_what_was_in_a_deleted_file_is_copied_from_the_process(self) -> None:
        self.append(draft("news", "late"))
        self.path.unlink()
        self.turn()
        rescued = self.folder / "rescued.db"
        for number in os.listdir("/proc/self/fd"):
            name = os.path.realpath(f"/proc/self/fd/{number}")
            if name == f"{self.path} (deleted)":
                shutil.copy(f"/proc/self/fd/{number}", rescued)
        shutil.copy(f"{self.path}-wal", f"{rescued}-wal")
        self.assertEqual(examine(str(rescued)).faults, ())
        with opened(rescued) as store:
            self.assertEqual([one.message_id for one in everything(store, "news")], ["m1", "m2", "late"])

    def test_the_sizes_of_files_that_are_not_there_are_no_fault(self) -> None:
        shutil.rmtree(self.folder)
        self.assertEqual(done(self.sizes()), (0, 0))
        self.assertEqual(self.readable(), ["m1", "m2"])

    async def sizes(self) -> tuple[int, int]:
        return await self.store.files()

    def test_another_fault_does_not_hide_that_it_is_back(self) -> None:
        self.path.rename(self.folder / "aside.db")
        self.turn()
        self.writes(Report([], fault=("io", "the disk failed")), 0)
        self.reads(Report([], fault=("io", "the disk failed")), 0)
        self.turn()
        self.assertEqual(self.reason, DELETED)
        (self.folder / "aside.db").rename(self.path)
        self.clock.pump([INTERVAL] * 2)
        self.works()


class LinkTests(FaultTestCase):
    def test_a_path_that_is_a_link_is_followed(self) -> None:
        folder = Path(self.stack.enter_context(quick_folder()))
        for name in ("there", "elsewhere"):
            (folder / name).mkdir()
            with opened(folder / name / "real.db"):
                pass
        (folder / "store.db").symlink_to(folder / "there" / "real.db")
        self.open(folder)
        self.clock.pump([INTERVAL] * 3)
        self.assertEqual(self.reason, "")
        self.append(draft("news"))
        self.path.unlink()
        self.path.symlink_to(folder / "elsewhere" / "real.db")
        self.clock.advance(INTERVAL)
        self.assertEqual(self.reason, REPLACED)

"""Nothing that the store does takes longer because the file is larger: no statement scans a table, and neither does a start."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from streampush.config import StoreConfig
from streampush.push.values import CursorMove, DeviceRecord, Idempotency, Want
from streampush.store.sqlite import batches, file
from streampush.store.sqlite.worker import Task
from tests.store.folders import quick_folder
from tests.store.sqlite_file import NOW_MS, done, draft, fill, opened
from tests.store.test_alike import SqlitePair

HARMLESS = re.compile(
    r"SCAN (store|sqlite_master"  # one row, some dozens
    r"|.* VIRTUAL TABLE .*"  # the arguments of the statement, as JSON
    r"|(\d+ )?CONSTANT ROWS?"
    r"|\(?(found|taken|t|s|wanted|subquery-\d+)\)?"  # what another part of the statement has found
    r")"
)
"""Scans of what is small."""


class PlanTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = quick_folder()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "store.db"
        self.statements: set[str] = set()
        self.steps = 0
        connect = file.connect

        def watched(path: str) -> sqlite3.Connection:
            db = connect(path)
            db.set_trace_callback(self.statements.add)
            db.set_progress_handler(self._count, 1)
            return db

        self.patch(batches, "connect", watched)
        self.patch(file, "connect", watched)

    def _count(self) -> None:
        self.steps += 1

    def plan(self, db: sqlite3.Connection, statement: str) -> list[str]:
        return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]

    def test_no_statement_scans_a_table(self) -> None:
        for seed in range(3):
            SqlitePair(self.path.with_name(f"{seed}.db"), Random(seed)).run()
        self.work_in_batches()
        upgrades = "".join(statements for _, statements in file.schema_steps())  # may look at everything, once
        kinds = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
        plain = [one for one in self.statements if one.lstrip().startswith(kinds) and one not in upgrades]
        self.assertGreater(len(plain), 1000)
        with closing(sqlite3.connect(self.path.with_name("0.db"))) as db:
            scans = {
                f"{line}: {' '.join(statement.split())[:150]}"
                for statement in plain
                for line in self.plan(db, statement)
                if line.startswith("SCAN") and not HARMLESS.fullmatch(line)
            }
        self.assertEqual(scans, set())

    def work_in_batches(self) -> None:
        """Much of each kind in one transaction, which takes other statements than one of each."""
        with opened(self.path) as store:
            fill(store)
            epoch = done(store.head("news")).epoch
            tasks = []
            for number in range(100):
                key = Idempotency(f"p{number % 3}", f"k{number}", b"1", NOW_MS + 1000)
                one = draft(f"news/{number % 9}", collapse_key=f"c{number % 20}", version=number, idempotency=key)
                moves = [CursorMove("d", f"news/{channel}", epoch, 1 + number % 5, 1, 0, NOW_MS) for channel in range(9)]
                tasks += [Task[Any]("append", (one, NOW_MS)), Task[Any]("record", (moves, (), (), NOW_MS))]
            assert store.writer.run(tasks).fault is None  # type: ignore[attr-defined]  # without threads
            done(store.survey("d", [Want(f"news/{channel}", (0, 3)) for channel in range(9)]))

    def test_followers_of_a_topic_are_read_in_as_many_steps_however_many_they_are(self) -> None:
        steps = {}
        with opened(self.path, ROOMY) as store:
            for count in (50, 2000):
                for number in range(count):
                    done(store.remember_device(DeviceRecord(f"d{number:05}")))
                    done(store.add_subscription(f"d{number:05}", "topic", NOW_MS, 10))
                done(store.subscribers("topic", "", 1))  # the reader has its connection then
                self.steps = 0
                self.assertEqual(done(store.subscribers("topic", "d00019", 3)), ["d00020", "d00021", "d00022"])
                steps[count] = self.steps
        self.assertEqual(steps[2000], steps[50])

    def start(self, path: Path) -> int:
        """The steps of SQLite's machine for a start, the first look and the first message."""
        self.steps = 0
        with opened(path, ROOMY) as store:
            done(store.status())
            done(store.append(draft("news")))
            done(store.read("news", 0, 1, 100))
        return self.steps

    def test_a_start_takes_as_many_steps_with_a_hundred_times_as_much_in_the_file(self) -> None:
        small, large = self.path.with_name("small.db"), self.path.with_name("large.db")
        for path, count in ((small, 50), (large, 5000)):
            with opened(path, ROOMY) as store:
                tasks = [Task[Any]("append", (draft(f"news/{number}"), NOW_MS)) for number in range(count)]
                store.writer.run(tasks)  # type: ignore[attr-defined]  # without threads
        self.assertLess(self.start(large), 1.2 * self.start(small))


ROOMY = StoreConfig(max_bytes=1 << 40)

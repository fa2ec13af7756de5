"""A store that cannot be used at the start: one line that names file, setting and fault, and status 1."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from subprocess import Popen

from streampush.store.sqlite.file import SCHEMA_VERSION
from tests.forked import Forked
from tests.integration.test_startup import TIMEOUT, ForkedTestCase
from tests.store.sqlite_file import change, damage, opened


class StoreFaultTests(ForkedTestCase):
    def store_fault(self, *arguments: str) -> str:
        """What the line says behind file and setting."""
        prefix = f"streampush: {self.toml}: store.path: "
        line = self.fault(*arguments)
        self.assertTrue(line.startswith(prefix), line)
        return line.removeprefix(prefix)

    def setUp(self) -> None:
        super().setUp()
        self.path = self.root / "streampush.db"

    def test_folder_that_is_not_there(self) -> None:
        folder = self.root / "none"
        said = self.store_fault("--set", "store.path=none/streampush.db")
        self.assertEqual(said, f"the folder {folder} cannot be used: No such file or directory")

    def test_folder_instead_of_a_file(self) -> None:
        self.path.mkdir()
        self.assertEqual(self.store_fault(), f"{self.path} is a folder")

    def test_file_that_is_no_database(self) -> None:
        self.path.write_text("notes of somebody " * 100)
        self.assertEqual(self.store_fault(), f"{self.path} is not an SQLite database, or its header is damaged")
        self.assertEqual(self.path.read_text(), "notes of somebody " * 100)

    def test_database_of_another_program(self) -> None:
        with closing(sqlite3.connect(self.path)) as db:
            db.execute("CREATE TABLE bookmarks (url TEXT)")
            db.commit()
        self.assertEqual(self.store_fault(), f"{self.path} is an SQLite database of another program")

    def test_schema_of_a_later_version(self) -> None:
        with opened(self.path):
            pass
        change(self.path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        said = self.store_fault()
        self.assertEqual(
            said,
            f"{self.path} has version {SCHEMA_VERSION + 1} of the schema,"
            f" this streampush knows up to {SCHEMA_VERSION}: use a newer one",
        )

    def test_first_page_of_noise_behind_a_good_beginning(self) -> None:
        with opened(self.path):
            pass
        head = self.path.read_bytes()[:16]
        damage(self.path, 1)
        with open(self.path, "r+b") as file:
            file.write(head)
        said = self.store_fault()
        self.assertTrue(said.startswith(f"{self.path}: the file is damaged, see `streampush store check`"), said)

    def test_a_run_that_was_killed_is_told_at_the_next_start_and_one_that_was_stopped_is_not(self) -> None:
        killed = self.launch()
        self.assertEqual(self.words_until_it_serves(killed), [])
        killed.kill()
        killed.wait(TIMEOUT)
        stopped = self.launch()
        said = self.words_until_it_serves(stopped)
        self.assertEqual(len(said), 1)
        self.assertIn(f"(process {killed.pid}) did not end by a stop", said[0])
        stopped.terminate()
        stopped.wait(TIMEOUT)
        self.assertEqual(self.words_until_it_serves(self.launch()), [])

    def words_until_it_serves(self, process: Popen[bytes] | Forked) -> list[str]:
        """What the log says of the last run."""
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            record = json.loads(line)
            if "rest" in record:
                return said
            if "last run" in record["event"]:
                self.assertEqual(record["level"], "warn")
                said.append(record["message"])
        raise AssertionError("it does not serve")

    def test_second_server_on_the_same_file(self) -> None:
        first = self.launch()
        assert first.stdout is not None
        next(line for line in first.stdout if "rest" in json.loads(line))
        self.assertEqual(self.store_fault(), f"{self.path} is in use by another process, {first.pid}")
        self.assertIsNone(first.poll())

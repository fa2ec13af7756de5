"""Backups, restored ones, and compacting: what the copies hold, and that a failure changes nothing."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from streampush.config import StoreConfig
from streampush.store.sqlite import FileFault, Locked
from streampush.store.sqlite.checking import examine
from streampush.store.sqlite.copying import back_up, compact, put_back
from tests.store.folders import quick_folder
from tests.store.sqlite_file import damage, done, draft, fill, opened, root_page

APPEND = """
import sys
from pathlib import Path
from tests.store.sqlite_file import done, draft, opened
with opened(Path(sys.argv[1])) as store:
    done(store.append(draft("news", "meanwhile")))
"""
"""Another process: opening the file once more in this one would end SQLite's locks."""


def quietly(done: int, total: int) -> None:
    """Nobody watches the progress."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as folder:
        path = Path(folder)
        with opened(path / "store.db") as store:
            fill(store)
        yield path


def names(folder: Path) -> list[str]:
    """What is there, but for what SQLite and the lock leave beside a store."""
    passing = tuple(f"store.db{suffix}" for suffix in (".lock", "-wal", "-shm"))
    return sorted(entry.name for entry in folder.iterdir() if entry.name not in passing)


def ids(path: Path) -> list[str]:
    with opened(path) as store:
        return [one.message_id for one in done(store.read("news", 0, 1000, 1 << 30)).publications]


def test_a_backup_holds_everything_and_is_private(folder: Path) -> None:
    size = back_up(str(folder / "store.db"), str(folder / "backup.db"), quietly)
    backup = folder / "backup.db"
    assert backup.stat().st_size == size
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert examine(str(backup)) == examine(str(folder / "store.db"))
    assert ids(backup) == ids(folder / "store.db")


def test_a_backup_says_how_far_it_is(folder: Path) -> None:
    with opened(folder / "store.db") as store:
        for _ in range(25):
            done(store.append(draft(payload=b"x" * 250_000)))
    told: list[tuple[int, int]] = []
    size = back_up(str(folder / "store.db"), str(folder / "backup.db"), lambda *now: told.append(now))
    assert len(told) > 1
    assert told == sorted(told)
    assert told[-1] == (size, size)


def test_a_backup_is_of_one_moment_whatever_is_written_meanwhile(folder: Path) -> None:
    path = folder / "store.db"
    with opened(path) as store:
        for _ in range(25):
            done(store.append(draft(payload=b"x" * 250_000)))
    expected = ids(path)
    told: list[tuple[int, int]] = []

    def write(*now: int) -> None:
        told.append(now)
        assert len(told) < 10, "it begins anew again and again"
        subprocess.run([sys.executable, "-c", APPEND, str(path)], check=True)

    back_up(str(path), str(folder / "backup.db"), write)
    assert len(told) > 1
    assert ids(folder / "backup.db") == expected
    assert len(ids(path)) == len(expected) + len(told)


def test_a_backup_leaves_nothing_else_behind(folder: Path) -> None:
    back_up(str(folder / "store.db"), str(folder / "backup.db"), quietly)
    assert names(folder) == ["backup.db", "store.db"]


def test_a_backup_replaces_nothing_unasked(folder: Path) -> None:
    (folder / "backup.db").write_text("precious")
    with pytest.raises(FileFault, match=r"backup\.db exists"):
        back_up(str(folder / "store.db"), str(folder / "backup.db"), quietly)
    assert (folder / "backup.db").read_text() == "precious"


def test_a_backup_replaces_the_last_one_and_what_a_look_at_it_has_left(folder: Path) -> None:
    back_up(str(folder / "store.db"), str(folder / "backup.db"), quietly)
    (folder / "backup.db-wal").write_text("of the last one")
    with opened(folder / "store.db") as store:
        done(store.append(draft("news", "newer")))
    back_up(str(folder / "store.db"), str(folder / "backup.db"), quietly, replace=True)
    assert not (folder / "backup.db-wal").exists()
    assert ids(folder / "backup.db")[-1] == "newer"


def test_a_backup_never_replaces_the_store_itself(folder: Path) -> None:
    (folder / "link.db").symlink_to(folder / "store.db")
    for name in ("store.db", "link.db"):
        with pytest.raises(FileFault, match="is the store itself"):
            back_up(str(folder / "store.db"), str(folder / name), quietly, replace=True)
    assert examine(str(folder / "store.db")).faults == ()


def test_a_damaged_store_is_not_copied(folder: Path) -> None:
    damage(folder / "store.db", root_page(folder / "store.db", "entries_by_message"))
    with pytest.raises(FileFault, match="damaged"):
        back_up(str(folder / "store.db"), str(folder / "backup.db"), quietly)
    assert names(folder) == ["store.db"]


def test_a_backup_to_a_folder_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(FileFault, match="cannot be made: No such file or directory"):
        back_up(str(folder / "store.db"), str(folder / "none" / "backup.db"), quietly)


def test_a_backup_does_not_write_where_another_one_does(folder: Path) -> None:
    (folder / "backup.db.part").write_text("of the other one")
    with pytest.raises(FileFault, match="another copy is under way"):
        back_up(str(folder / "store.db"), str(folder / "backup.db"), quietly)
    assert (folder / "backup.db.part").read_text() == "of the other one"


def test_a_restored_backup_is_the_store_again_and_the_other_one_is_kept(folder: Path) -> None:
    back_up(str(folder / "store.db"), str(folder / "backup.db"), quietly)
    before = ids(folder / "store.db")
    with opened(folder / "store.db") as store:
        done(store.append(draft("news", "lost")))
    put_back(str(folder / "backup.db"), str(folder / "store.db"), quietly)
    assert ids(folder / "store.db") == before
    assert ids(folder / "store.db.before") == [*before, "lost"]
    assert stat.S_IMODE((folder / "store.db").stat().st_mode) == 0o600


def crash(path: Path) -> None:
    """Leaves the file as a process that was killed does: what was written last is in the write-ahead log only."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE devices SET user_id = 'of the last moment'")
        db.commit()
        crashed = [(name, name.read_bytes()) for name in (path, Path(f"{path}-wal"))]
    for name, data in crashed:
        name.write_bytes(data)


def test_what_the_replaced_store_wrote_last_is_kept_with_it(folder: Path) -> None:
    back_up(str(folder / "store.db"), str(folder / "backup.db"), quietly)
    crash(folder / "store.db")
    put_back(str(folder / "backup.db"), str(folder / "store.db"), quietly)
    with opened(folder / "store.db") as store:
        assert done(store.device("d")).user_id == "u"
    with opened(folder / "store.db.before") as store:
        assert done(store.device("d")).user_id == "of the last moment"


def test_the_log_of_a_damaged_store_is_not_taken_for_that_of_the_backup(folder: Path) -> None:
    back_up(str(folder / "store.db"), str(folder / "backup.db"), quietly)
    crash(folder / "store.db")
    damage(folder / "store.db", 1)
    put_back(str(folder / "backup.db"), str(folder / "store.db"), quietly)
    with opened(folder / "store.db") as store:
        assert done(store.device("d")).user_id == "u"
    assert examine(str(folder / "store.db")).faults == ()


def test_a_backup_is_restored_where_no_store_is(folder: Path) -> None:
    back_up(str(folder / "store.db"), str(folder / "backup.db"), quietly)
    put_back(str(folder / "backup.db"), str(folder / "new.db"), quietly)
    assert ids(folder / "new.db") == ids(folder / "store.db")


def test_a_damaged_backup_is_not_restored(folder: Path) -> None:
    back_up(str(folder / "store.db"), str(folder / "backup.db"), quietly)
    damage(folder / "backup.db", root_page(folder / "backup.db", "entries"))
    before = (folder / "store.db").read_bytes()
    with pytest.raises(FileFault, match="damaged"):
        put_back(str(folder / "backup.db"), str(folder / "store.db"), quietly)
    assert (folder / "store.db").read_bytes() == before
    assert names(folder) == ["backup.db", "store.db"]


def test_what_is_no_store_is_not_restored(folder: Path) -> None:
    (folder / "backup.db").write_text("not a database " * 100)
    with pytest.raises(FileFault, match="not an SQLite database"):
        put_back(str(folder / "backup.db"), str(folder / "store.db"), quietly)


def test_nothing_is_restored_twice_over_what_was_kept(folder: Path) -> None:
    back_up(str(folder / "store.db"), str(folder / "backup.db"), quietly)
    put_back(str(folder / "backup.db"), str(folder / "store.db"), quietly)
    with pytest.raises(FileFault, match=r"store\.db\.before exists"):
        put_back(str(folder / "backup.db"), str(folder / "store.db"), quietly)


def test_compacting_gives_free_room_back_and_keeps_everything(folder: Path) -> None:
    path = folder / "store.db"
    with opened(path) as store:
        for _ in range(20):
            done(store.append(draft("big", payload=b"x" * 100_000)))
    with opened(path, StoreConfig(history_messages=3)) as store:
        done(store.append(draft("big")))
    expected, held = ids(path), examine(str(path)).held
    before, after = compact(str(path))
    assert after < before / 2
    assert path.stat().st_size == after
    found = examine(str(path))
    assert (found.faults, found.held) == ((), held)
    assert ids(path) == expected


def test_a_store_in_use_is_neither_compacted_nor_replaced(folder: Path) -> None:
    back_up(str(folder / "store.db"), str(folder / "backup.db"), quietly)
    with opened(folder / "store.db"):
        with pytest.raises(Locked, match=f"in use by another process, {os.getpid()}"):
            compact(str(folder / "store.db"))
        with pytest.raises(Locked):
            put_back(str(folder / "backup.db"), str(folder / "store.db"), quietly)


def test_a_damaged_store_is_not_compacted(folder: Path) -> None:
    damage(folder / "store.db", root_page(folder / "store.db", "entries"))
    with pytest.raises(FileFault, match="damaged"):
        compact(str(folder / "store.db"))

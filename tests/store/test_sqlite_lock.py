"""The lock file: who has the store, and whether the one before has let go of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streampush.store.sqlite import FileFault, Locked
from streampush.store.sqlite.copying import compact, put_back
from streampush.store.sqlite.file import SCHEMA_VERSION, Abandoned, FileLock
from tests.store.folders import quick_folder
from tests.store.sqlite_file import change, done, draft, opened

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.store.sqlite_file import done, draft, opened
with opened(Path(sys.argv[1])) as store:
    done(store.append(draft("news", "before")))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path() -> Iterator[Path]:
    with quick_folder() as folder:
        yield Path(folder) / "store.db"


def killed(path: Path) -> int:
    """A process that is killed while it has the store; its id."""
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)]) as process:
        pass
    assert process.returncode == -9
    return process.pid


def found(path: Path) -> Abandoned | None:
    """What the next one to open the store is told."""
    with opened(path) as store:
        return store.abandoned


def test_a_new_store_and_one_that_was_stopped_tell_nothing(path: Path) -> None:
    assert [found(path), found(path)] == [None, None]
    assert Path(f"{path}.lock").read_text() == f"{os.getpid()} stopped\n"


def test_a_run_that_was_killed_is_told_once_with_the_log_that_it_left(path: Path) -> None:
    process = killed(path)
    size = Path(f"{path}-wal").stat().st_size
    with opened(path) as store:
        assert store.abandoned == Abandoned(str(process), size)
        assert done(store.head("news")).top_offset == 1
    assert size > 0
    assert found(path) is None


def test_a_start_that_fails_does_not_take_the_word_away(path: Path) -> None:
    process = killed(path)
    change(path, "PRAGMA user_version = 99")
    with pytest.raises(FileFault, match="version 99"):
        found(path)
    change(path, f"PRAGMA user_version = {SCHEMA_VERSION}")
    abandoned = found(path)
    assert abandoned is not None
    assert abandoned.process == str(process)


def test_neither_do_the_commands_that_take_the_store(path: Path) -> None:
    backup = path.with_name("backup.db")
    with opened(backup):
        pass
    process = killed(path)
    compact(str(path))
    put_back(str(backup), str(path), lambda copied, total: None)
    assert found(path) == Abandoned(str(process), 0)


def test_a_lock_file_of_before_that_names_a_process_only_tells_nothing(path: Path) -> None:
    Path(f"{path}.lock").write_text("4711\n")
    assert found(path) is None


def test_a_lock_that_is_held_names_its_holder(path: Path) -> None:
    lock = FileLock(str(path))
    lock.take()
    with pytest.raises(Locked, match=f"is in use by another process, {os.getpid()}$"):
        FileLock(str(path)).take()
    lock.release()
    FileLock(str(path)).take()


def test_what_is_written_over_a_longer_mark_is_read_alone(path: Path) -> None:
    Path(f"{path}.lock").write_text("123456 in use and more\n")
    assert found(path) is None
    with opened(path) as store:
        assert store.abandoned is None
        done(store.append(draft()))
        assert Path(f"{path}.lock").read_text() == f"{os.getpid()} in use\n"

"""Copies of a store: a backup beside a server that goes on, a backup put back, and the file written anew without its gaps."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

from streampush.store.sqlite.file import (
    FileFault,
    FileLock,
    check_header,
    connect,
    connect_read_only,
    explain,
    sync_folder,
)

PAGES_AT_ONCE = 1024
"""Pages of 4 KiB between two reports of a copy's progress."""

Progress = Callable[[int, int], None]
"""Is told how many bytes are copied, and how many there are."""


def back_up(path: str, destination: str, progress: Progress, *, replace: bool = False) -> int:
    """Copies the store as it is at this moment to a file that only its owner can read; gives its bytes.

    The server may go on meanwhile: its write-ahead log is not cut back until the end. The copy appears under its name when it is
    whole, checked and on the disk. Raises FileFault; then nothing has changed.
    """
    check_header(path)
    if os.path.isdir(destination):
        raise FileFault(f"{destination} is a directory")
    if os.path.exists(destination) and os.path.samefile(path, destination):
        raise FileFault(f"{destination} is the store itself")
    if os.path.exists(destination) and not replace:
        raise FileFault(f"{destination} exists, and is replaced only when that is asked for (--replace)")
    with _appearing(path, destination, before=lambda: _remove_logs(destination)) as part:
        _copy(path, part, progress)
    return os.path.getsize(destination)


def put_back(backup: str, path: str, progress: Progress) -> int:
    """Makes a backup the store; gives its bytes. What was the store is kept as `<path>.before`, with its write-ahead log in it.

    Raises Locked while a server has the store, FileFault for anything else; then the store is what it was.
    """
    check_header(backup)
    if os.path.exists(path) and os.path.samefile(backup, path):
        raise FileFault(f"{backup} is the store itself")
    if os.path.exists(f"{path}.before"):
        raise FileFault(f"{path}.before exists: it is the store that was replaced last time, move it away")
    lock = FileLock(path)
    lock.take()
    try:
        with _appearing(backup, path, before=lambda: _set_aside(path)) as part:
            _copy(backup, part, progress)
    finally:
        lock.release(unchanged=True)
    return os.path.getsize(path)


def compact(path: str) -> tuple[int, int]:
    """Writes the file anew, without free pages and in order; gives its bytes before and after. Takes twice as many meanwhile.

    Raises Locked while a server has the store, FileFault for anything else; then the store is what it was.
    """
    check_header(path)
    lock = FileLock(path)
    lock.take()
    try:
        with closing(connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            before = os.path.getsize(path)
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        raise FileFault(f"{path}: {explain(error)[1]}") from error
    finally:
        lock.release(unchanged=True)
    return before, os.path.getsize(path)


@contextmanager
def _appearing(source: str, name: str, before: Callable[[], None] = lambda: None) -> Iterator[str]:
    """The name of a new file, empty, private and with the owner of `source`, that gets its own name when it is whole."""
    part = f"{name}.part"
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise FileFault(f"{part} exists: another copy is under way, or was cut off; then remove it") from error
    except OSError as error:
        raise FileFault(f"{part} cannot be made: {error.strerror}") from error
    try:
        if os.geteuid() == 0:
            owner = os.stat(source)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        yield part
        os.fsync(descriptor)
        before()
        os.rename(part, name)
        sync_folder(name)
    except OSError as error:
        raise FileFault(f"{name}: {error.strerror}") from error
    finally:
        os.close(descriptor)
        _remove_logs(part)
        with suppress(FileNotFoundError):
            os.unlink(part)


def _copy(source_path: str, target_path: str, progress: Progress) -> None:
    """One moment of the source. A read transaction holds it still: without one every commit would make the copy begin anew."""
    path = source_path
    try:
        with closing(connect_read_only(source_path)) as source:
            page_size: int = source.execute("PRAGMA page_size").fetchone()[0]
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            path = target_path
            with closing(connect(target_path)) as target:
                # The copy is made sure of as a whole, at its end.
                target.execute("PRAGMA synchronous = OFF")
                source.backup(
                    target,
                    pages=PAGES_AT_ONCE,
                    progress=lambda status, left, total: progress((total - left) * page_size, total * page_size),
                )
        with closing(connect(target_path)) as copied:
            # One file, until a server takes it: it can be read where nothing can be written.
            copied.execute("PRAGMA journal_mode = DELETE").fetchone()
            found = str(copied.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        raise FileFault(f"{path}: {explain(error)[1]}") from error
    if found != "ok":
        raise FileFault(f"{source_path} is damaged, see `streampush store check`; nothing was copied")


def _remove_logs(path: str) -> None:
    """What SQLite has left beside a copy that was looked at: beside another file of that name it would be taken for that one's."""
    for suffix in ("-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            os.unlink(path + suffix)


def _set_aside(path: str) -> None:
    """Keeps the store under another name. Its write-ahead log goes into it or with it: beside another file it would be taken
    for that one's."""
    if not os.path.exists(path):
        return
    with suppress(sqlite3.DatabaseError), closing(connect(path)) as db:  # a damaged one goes as it is
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    for suffix in ("-wal", "-shm", ""):
        if os.path.exists(path + suffix):
            os.rename(path + suffix, f"{path}.before{suffix}")

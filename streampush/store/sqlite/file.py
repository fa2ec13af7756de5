"""The file on disk: opening, its schema and versions, who may use it, and what its faults mean in English."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from typing import Final
from urllib.parse import quote

from streampush.errors import StreampushError

APPLICATION_ID: Final = 0x53505348
"""In the header of every file of ours ("SPSH"), so that no other database is taken for one."""

BUSY_TIMEOUT = 1.0
"""Seconds that a statement waits for a lock of another process, `streampush store backup` for one, before it fails."""

WRITER_CACHE_KIB = 16 * 1024
READER_CACHE_KIB = 8 * 1024
"""Pages kept in memory by each connection: they hold the upper levels of trees over millions of rows."""

CHECKPOINT_PAGES = 1000
"""Pages of 4 KiB in the write-ahead log before they are copied into the file, by the writer between two batches."""

ROOM_BYTES = CHECKPOINT_PAGES * 4096
"""Free on the disk before a store that found it full counts as working again: the write-ahead log between two checkpoints."""

WAL_LIMIT_BYTES = 64 * 1024 * 1024
"""To this the write-ahead log is cut back after a rush."""

MIN_SQLITE = (3, 37, 0)
"""Has strict tables."""

_MAGIC = b"SQLite format 3\x00"


SUFFIX = ".lock"
"""Of the lock file's name."""


class FileFault(StreampushError):
    """The store's file cannot be used; `str()` is one line without the setting's name. Waiting does not help."""


class Locked(FileFault):
    """Another process has the file."""


def schema_steps() -> list[tuple[int, str]]:
    """The schema's versions with the SQL that leads to each from the one before, the oldest first."""
    folder = resources.files("streampush.store").joinpath("schema")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name.partition("_")[0]), folder.joinpath(name).read_text("utf-8")) for name in names]


SCHEMA_VERSION = len(schema_steps())


_IN_USE = "in use"
"""What the lock file says behind the holder's process id while it is held, and for ever if the holder has not let go of it."""
_STOPPED = "stopped"
_MAX_MARK = 64
"""Bytes of the lock file that are read."""


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A run of a server that did not end by a stop: killed, crashed, or the system went down. `process`: its id;
    `log_bytes`: of the write-ahead log that it left, which SQLite takes over by itself."""

    process: str
    log_bytes: int


class FileLock:
    """Keeps other servers away from the file while it is held: `<path>.lock`, locked, with the holder's process id in it.

    What the lock file says is on the disk before the file is used, and again when it is let go: so it tells, also behind a loss
    of power, whether the one before has stopped.
    """

    def __init__(self, path: str) -> None:
        self._path = path + SUFFIX
        self._descriptor = -1
        self._found = ""

    def look_back(self) -> Abandoned | None:
        """After `take`, and before the file is opened: what the last holder has left, if it has not let go."""
        holder, _, state = self._found.partition(" ")
        return Abandoned(holder, size_of(log_path(self._path.removesuffix(SUFFIX)))) if state == _IN_USE else None

    def take(self) -> None:
        """Raises Locked if another process holds it, FileFault if it cannot be made."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FileFault(f"{self._path} cannot be made: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _read_mark(descriptor).partition(" ")[0]
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise FileFault(f"{self._path} cannot be locked: {error.strerror}") from error
            file = self._path.removesuffix(SUFFIX)
            raise Locked(f"{file} is in use by another process, {holder or 'unknown'}") from error
        self._descriptor = descriptor
        self._found = _read_mark(descriptor)
        with suppress(OSError):
            self._give_to_owner(descriptor)
        self._write(f"{os.getpid()} {_IN_USE}")

    def _give_to_owner(self, descriptor: int) -> None:
        """What root has made beside the file of a server that is not root must not keep that server out."""
        file = self._path.removesuffix(SUFFIX)
        if os.geteuid() == 0 and os.path.exists(file):
            owner = os.stat(file)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)

    def release(self, *, unchanged: bool = False) -> None:
        """The next one may have it. The lock file stays: removing it would let two processes lock two files of one name.

        `unchanged`: this was no server; what the lock file said of the last one it says again.
        """
        if self._descriptor >= 0:
            self._write(self._found if unchanged else f"{os.getpid()} {_STOPPED}")
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, mark: str) -> None:
        with suppress(OSError):  # on a full disk the next one is told less
            text = f"{mark}\n".encode() if mark else b""
            os.pwrite(self._descriptor, text, 0)  # first: an empty file would say nothing if the power failed now
            os.ftruncate(self._descriptor, len(text))
            os.fsync(self._descriptor)


def _read_mark(descriptor: int) -> str:
    """What a lock file says."""
    with suppress(OSError):
        return os.pread(descriptor, _MAX_MARK, 0).decode("ascii", "replace").partition("\n")[0]
    return ""


def log_path(path: str) -> str:
    """Of the write-ahead log: beside the file itself, where SQLite has it, not beside a link to it."""
    return f"{os.path.realpath(path)}-wal"


def size_of(path: str) -> int:
    """Bytes of a file; 0 if it is not there."""
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def identity(path: str) -> tuple[int, int]:
    """What tells a file from another one of its name while it is open; zeros if there is none. Raises OSError."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return 0, 0
    return found.st_dev, found.st_ino


def place(path: str) -> tuple[tuple[int, int], bool]:
    """The identity of what is at a store's path now, and whether a write-ahead log is there, as it must be while somebody writes.

    Raises OSError.
    """
    return identity(path), os.path.exists(log_path(path))


def prepare(path: str, new_epoch: Callable[[], str], now_ms: int) -> None:
    """Makes the file if it is not there (mode 0600), or brings it to our version of the schema, each step in one transaction.

    Raises FileFault: no folder, no permission, not a database of ours, of a later version, damaged.
    """
    if sqlite3.sqlite_version_info < MIN_SQLITE:
        raise FileFault(f"SQLite {sqlite3.sqlite_version} is too old, {'.'.join(map(str, MIN_SQLITE))} is needed")
    is_new = _look(path)
    try:
        connection = connect(path)
        try:
            if is_new:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            _upgrade(connection, path, new_epoch, now_ms)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise FileFault(f"{path}: {explain(error)[1]}") from error
    except OSError as error:
        raise FileFault(f"{path}: {error.strerror}") from error
    if is_new:
        sync_folder(path)


def check_header(path: str) -> None:
    """Raises FileFault if the file is not there, or is no database of ours; opens it for reading only."""
    if not os.path.exists(path):
        raise FileFault(f"{path} is not there")
    if _look(path, create=False):
        raise FileFault(f"{path} is empty")
    try:
        connection = connect_read_only(path)
        try:
            _check_version(connection, path)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise FileFault(f"{path}: {explain(error)[1]}") from error


def _look(path: str, *, create: bool = True) -> bool:
    """Makes an empty private file if there is none; whether the file is empty. Raises FileFault."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise FileFault(f"{path}: there is no folder {folder}")
    flags = (os.O_RDWR | os.O_CREAT) if create else os.O_RDONLY
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except IsADirectoryError as error:
        raise FileFault(f"{path} is a folder") from error
    except OSError as error:
        raise FileFault(f"{path} cannot be opened: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileFault(f"{path} is not a regular file")
        head = os.read(descriptor, len(_MAGIC))
    except OSError as error:
        raise FileFault(f"{path} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if head and head != _MAGIC:
        raise FileFault(f"{path} is not an SQLite database, or its header is damaged")
    return not head


def _check_version(connection: sqlite3.Connection, path: str) -> int:
    """The file's version of the schema; 0: it is new. Raises FileFault if it is not for us."""
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != APPLICATION_ID and (application or version or tables):
        raise FileFault(f"{path} is an SQLite database of another program")
    if version > SCHEMA_VERSION:
        raise FileFault(
            f"{path} has version {version} of the schema, this streampush knows up to {SCHEMA_VERSION}: use a newer one"
        )
    return version


def _upgrade(connection: sqlite3.Connection, path: str, new_epoch: Callable[[], str], now_ms: int) -> None:
    version = _check_version(connection, path)
    tune(connection, WRITER_CACHE_KIB)
    for number, statements in schema_steps():
        if number > version:
            script = f"BEGIN IMMEDIATE;\n{statements}\nPRAGMA user_version = {number};\nPRAGMA application_id = {APPLICATION_ID};"
            connection.executescript(script)
            if number == 1:
                connection.execute("INSERT INTO store (id, epoch, created_at) VALUES (1, ?, ?)", (new_epoch(), now_ms))
            connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def check_room(connection: sqlite3.Connection) -> None:
    """Raises OSError if the disk has less room than ROOM_BYTES: it would be full again at once."""
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    disk = os.statvfs(path)
    if disk.f_bavail * disk.f_frsize < ROOM_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def sync_folder(path: str) -> None:
    """Makes a new file's name as durable as what is in it. Raises OSError."""
    descriptor = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def connect(path: str) -> sqlite3.Connection:
    """A connection for whichever thread uses it, one at a time; transactions are begun by hand. Raises sqlite3.Error."""
    address = f"file:{quote(os.path.abspath(path))}?mode=rw"  # never makes a file
    return sqlite3.connect(
        address, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT, cached_statements=256
    )


def connect_read_only(path: str) -> sqlite3.Connection:
    """As `connect`, for reading only, beside a server that writes."""
    address = f"file:{quote(os.path.abspath(path))}?mode=ro"
    return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT)


def tune(connection: sqlite3.Connection, cache_kib: int) -> None:
    """Sets what SQLite does not keep in the file. Raises sqlite3.Error."""
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise sqlite3.OperationalError(f"the file system does not take a write-ahead log (journal mode {mode})")
    connection.execute("PRAGMA synchronous = FULL")  # every commit is on the disk when it returns
    connection.execute(f"PRAGMA cache_size = -{cache_kib}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA trusted_schema = OFF")


_KINDS = {
    sqlite3.SQLITE_FULL: ("full", "the disk is full"),
    sqlite3.SQLITE_BUSY: ("locked", "another process holds a lock on the file"),
    sqlite3.SQLITE_LOCKED: ("locked", "another process holds a lock on the file"),
    sqlite3.SQLITE_PROTOCOL: ("locked", "another process holds a lock on the file"),
    sqlite3.SQLITE_CORRUPT: ("damaged", "the file is damaged, see `streampush store check`"),
    sqlite3.SQLITE_NOTADB: ("damaged", "the file is damaged, see `streampush store check`"),
    sqlite3.SQLITE_READONLY: ("readonly", "the file cannot be written"),
    sqlite3.SQLITE_PERM: ("readonly", "the file cannot be written"),
    sqlite3.SQLITE_CANTOPEN: ("unopened", "the file cannot be opened"),
    sqlite3.SQLITE_IOERR: ("io", "the disk failed to read or write"),
    sqlite3.SQLITE_NOMEM: ("memory", "there is no memory left"),
}

GONE = "gone"
"""The file is no longer where it was: what is written reaches a file without a name."""

SLOW = "slow"
"""The disk does not answer, or more waits for it than may."""

FAULT_KINDS = (*dict.fromkeys(kind for kind, _ in _KINDS.values()), GONE, SLOW, "other")
"""Labels of the metric of faults."""


def explain(error: Exception) -> tuple[str, str]:
    """What a fault is, as one of FAULT_KINDS and in words that name no data."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) or 0
        name = getattr(error, "sqlite_errorname", "") or type(error).__name__
        kind, text = _KINDS.get(code & 0xFF, ("other", "SQLite failed"))
        return kind, f"{text} ({name})"
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "full", "the disk is full"
        return "io", f"the disk failed: {os.strerror(error.errno or 0)}"
    return "other", f"an error of streampush itself ({type(error).__name__}), see the log"


def is_of_one_operation(error: Exception) -> bool:
    """Whether the fault comes from what one operation asked for, not from the disk: others may do their work."""
    if isinstance(error, sqlite3.Error):
        code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
        return code not in _KINDS and not (isinstance(error, sqlite3.OperationalError) and code == 0)
    return not isinstance(error, OSError | MemoryError)

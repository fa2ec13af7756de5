"""A batch of operations as one transaction: done wholly, or not at all; and what happens when the disk fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Protocol

from streampush.config import DeliveryConfig, StoreConfig
from streampush.errors import Refused, StoreUnavailable
from streampush.store.sqlite.appending import DURABILITY, Appending
from streampush.store.sqlite.devices import Devices
from streampush.store.sqlite.file import (
    READER_CACHE_KIB,
    WRITER_CACHE_KIB,
    check_room,
    connect,
    explain,
    is_of_one_operation,
    place,
    tune,
)
from streampush.store.sqlite.keys import Keys
from streampush.store.sqlite.ledger import Ledger
from streampush.store.sqlite.outbox import Outbox
from streampush.store.sqlite.pushes import Pushes
from streampush.store.sqlite.reading import Reading
from streampush.store.sqlite.recalling import Recalling
from streampush.store.sqlite.recording import Recording
from streampush.store.sqlite.retention import Retention
from streampush.store.sqlite.sweeping import Sweeping
from streampush.store.sqlite.waiting import Waiting
from streampush.store.sqlite.worker import Report, Task

APPEND = "append"
RECORD = "record"
_APPENDS_ALONE = {APPEND}
RECORD_PUSHES = "record_pushes"
BULK = (APPEND, RECORD, RECORD_PUSHES, "outbox_complete", "outbox_replace", "outbox_release")
"""Kinds of which all that wait are done together, kind by kind in this order: what is recorded is about publications that were told
of, so about earlier ones. The other kinds are done one by one, and in their order."""


HARMLESS = ("full", "locked")
"""Kinds of faults behind which everything in the write-ahead log has been synced. (A sync that fails for want of room is "io".)"""


class _Session(Protocol):
    """What is done on one connection, until it fails."""

    def perform(self, tasks: Sequence[Task[Any]]) -> list[Any]:
        """A result or Refused for each task; raises what the disk does."""


class Writing:
    """The writer's session."""

    def __init__(self, db: sqlite3.Connection, limits: StoreConfig, max_dead_letters: int, max_cursors: int) -> None:
        self._ledger = ledger = Ledger(db)
        retention = Retention(ledger, limits)
        outbox = Outbox(ledger, limits)
        pushes = Pushes(ledger, outbox)
        self._appending = Appending(ledger, limits, retention, Keys(ledger, limits, DURABILITY), outbox)
        recalling = Recalling(ledger, self._appending)
        recording = Recording(ledger, recalling, max_dead_letters, max_cursors)
        devices = Devices(ledger, limits.max_devices)
        waiting = Waiting(ledger, self._appending, recalling)
        self._many: dict[str, Callable[[Sequence[Any]], Sequence[Any]]] = {
            APPEND: self._appending.append,
            RECORD: recording.record,
            RECORD_PUSHES: pushes.record,
            "outbox_complete": outbox.complete,
            "outbox_replace": pushes.replace,
            "outbox_release": outbox.release,
        }
        self._single: dict[str, Callable[..., Any]] = {
            "remember_device": devices.remember,
            "forget_device": devices.forget,
            "drop_token": devices.drop_token,
            "closed": devices.closed,
            "forget_cursor": devices.forget_cursor,
            "add_subscription": devices.add_subscription,
            "remove_subscription": devices.remove_subscription,
            "drop_dead_letter": devices.drop_dead_letter,
            "first_answer": self._appending.first_answer,
            "fire_due": waiting.fire_due,
            "recall": waiting.recall,
            "outbox_add": outbox.add,
            "outbox_lease": outbox.lease,
            "outbox_hasten": outbox.hasten,
            "outbox_branch": outbox.branch,
            "sweep": Sweeping(ledger, retention).sweep,
            "take_trimmed": retention.trimmed.take,
            "touch": self._touch,
            "place": place,
        }

    def _touch(self) -> None:
        check_room(self._ledger.db)
        self._ledger.change()

    def perform(self, tasks: Sequence[Task[Any]]) -> list[Any]:
        if {task.kind for task in tasks} == _APPENDS_ALONE:  # nearly always, where much is published
            outcomes: list[Any] = [*self._appending.append([task.arguments for task in tasks])]
        else:
            outcomes = self._perform_mixed(tasks)
        self._ledger.write()
        return outcomes

    def _perform_mixed(self, tasks: Sequence[Task[Any]]) -> list[Any]:
        outcomes: dict[Task[Any], Any] = {}
        waiting: list[Task[Any]] = []
        for task in tasks:
            if task.kind in BULK:
                waiting.append(task)
                continue
            self._bulk(waiting, outcomes)
            waiting = []
            try:
                outcomes[task] = self._single[task.kind](*task.arguments)
            except Refused as refused:
                outcomes[task] = refused
        self._bulk(waiting, outcomes)
        return [outcomes[task] for task in tasks]

    def _bulk(self, tasks: Sequence[Task[Any]], outcomes: dict[Task[Any], Any]) -> None:
        kinds: dict[str, list[Task[Any]]] = {}
        for task in tasks:
            kinds.setdefault(task.kind, []).append(task)
        for kind in BULK if kinds else ():
            if kind in kinds:
                done = self._many[kind]([task.arguments for task in kinds[kind]])
                outcomes.update(zip(kinds[kind], done, strict=True))


class ReadingSession:
    """The reader's session."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._reading = Reading(db)

    def perform(self, tasks: Sequence[Task[Any]]) -> list[Any]:
        return [getattr(self._reading, task.kind)(*task.arguments) for task in tasks]


class BatchRunner:
    """Runs batches on a connection that is opened when it is needed, and again after every failure.

    `begin`: SQL. After a failure everything is forgotten that was not committed.
    """

    def __init__(self, path: str, begin: str, make_session: Callable[[sqlite3.Connection], _Session], cache_kib: int) -> None:
        self._path = path
        self._begin = begin
        self._make_session = make_session
        self._cache_kib = cache_kib
        self._db: sqlite3.Connection | None = None
        self._session: _Session | None = None
        self._is_in_doubt = False  # whether the log is on the disk

    def run(self, tasks: Sequence[Task[Any]]) -> Report:
        started_at = perf_counter()
        try:
            outcomes = self._attempt(tasks)
        except Exception as error:  # noqa: BLE001 - whatever it is, callers get an answer, and it is reported
            return self._after(error, tasks, started_at)
        return Report(outcomes, seconds=perf_counter() - started_at)

    def _attempt(self, tasks: Sequence[Task[Any]]) -> list[Any]:
        db = self._open()
        db.execute(self._begin)
        if self._session is None:
            self._session = self._make_session(db)
        outcomes = self._session.perform(tasks)
        db.execute("COMMIT")
        return outcomes

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            db = connect(self._path)
            try:
                tune(db, self._cache_kib)
                if self._is_in_doubt and self._begin != READ:
                    _save_log(db)
            except BaseException:
                db.close()
                raise
            self._db, self._is_in_doubt = db, False
        return self._db

    def _after(self, error: Exception, tasks: Sequence[Task[Any]], started_at: float) -> Report:
        """Nothing of the batch is done. If one of its tasks is at fault, the others are tried again, each alone."""
        kind, text = explain(error)
        alone = is_of_one_operation(error)
        self._is_in_doubt = self._is_in_doubt or kind not in HARMLESS
        self._forget(close=not alone)
        if not alone:
            outcomes = [StoreUnavailable(text) for _ in tasks]
            return Report(outcomes, (kind, text), seconds=perf_counter() - started_at)
        if len(tasks) == 1:
            return Report([StoreUnavailable(text)], bug=error, seconds=perf_counter() - started_at)
        reports = [self.run([task]) for task in tasks]
        fault = next((report.fault for report in reports if report.fault), None)
        bug = next((report.bug for report in reports if report.bug), error)
        outcomes = [outcome for report in reports for outcome in report.outcomes]
        return Report(outcomes, fault, bug, perf_counter() - started_at)

    def _forget(self, *, close: bool) -> None:
        self._session = None
        db = self._db
        if db is None:
            return
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error:
            close = True  # closing rolls back
        if close:
            self.close()

    def close(self) -> None:
        db, self._db, self._session = self._db, None, None
        if db is not None:
            try:
                db.close()
            except sqlite3.Error:
                return  # it was on its way out; what is committed is committed


def _save_log(db: sqlite3.Connection) -> None:
    """Copies the write-ahead log into the file.

    What a failed sync left in the log is in the system's memory and perhaps not on the disk, and would not be synced again.
    """
    if db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        raise sqlite3.OperationalError("the write-ahead log cannot be copied into the file now")


READ = "BEGIN"
WRITE = "BEGIN IMMEDIATE"


def make_writer(
    path: str, limits: StoreConfig, max_dead_letters: int, max_cursors: int = DeliveryConfig().max_subscriptions
) -> BatchRunner:
    """Runs the tasks that change something."""
    return BatchRunner(path, WRITE, lambda db: Writing(db, limits, max_dead_letters, max_cursors), WRITER_CACHE_KIB)


def make_reader(path: str) -> BatchRunner:
    """Runs the tasks that only look."""
    return BatchRunner(path, READ, ReadingSession, READER_CACHE_KIB)

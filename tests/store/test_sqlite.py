"""The store on disk: the contract, done in the calling thread and in threads, and that everything is there after a restart."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from streampush.config import StoreConfig
from streampush.store.sqlite import SqliteStore
from tests.store.contract import LIMITS, NOW_MS, StoreContract
from tests.store.folders import quick_folder


class SqliteTestCase(TestCase):
    """Makes stores in a temporary folder and stops them at the end."""

    now_ms = NOW_MS
    threaded = False

    def setUp(self) -> None:
        folder = quick_folder()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self._names = count(1)
        self._epochs = count(1)

    def make_store(self, limits: StoreConfig) -> SqliteStore:
        return self.open_store(self.folder / f"{next(self._names)}.db", limits)

    def open_store(self, path: Path, limits: StoreConfig = LIMITS) -> SqliteStore:
        store = SqliteStore(
            str(path), limits, lambda: self.now_ms, lambda: f"epoch-{next(self._epochs)}", reactor if self.threaded else None
        )
        store.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(store.stop()))
        return store


class InlineTests(SqliteTestCase, StoreContract):
    pass


class ThreadedTests(SqliteTestCase, StoreContract):
    threaded = True

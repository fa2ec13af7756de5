"""A store from the start of a process to its end: what is shown of it, and that nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from streampush.config import Config, DeliveryConfig, StoreConfig
from streampush.errors import ConfigError
from streampush.observe.store_figures import StoreFigures
from streampush.push.values import CursorMove
from streampush.store.keeping import MemoryKeeping, SqliteKeeping
from tests.store.folders import quick_folder
from tests.store.sqlite_file import NOW_MS, draft


class KeepingTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        folder = quick_folder()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "store.db"
        self.registry = CollectorRegistry()
        self.figures = StoreFigures(self.registry)

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"streampush_store_{name}", labels) or 0.0

    async def shown(self, name: str, **labels: str) -> float:
        """The value, when it is there."""
        while not self.value(name, **labels):
            await deferLater(reactor, 0.001)  # type: ignore[arg-type]  # a module stands for the reactor
        return self.value(name, **labels)

    def keeping(
        self, kind: type[MemoryKeeping] | type[SqliteKeeping], delivery: DeliveryConfig | None = None
    ) -> MemoryKeeping | SqliteKeeping:
        store = StoreConfig(path=str(self.path))
        config = Config(file="streampush.toml", store=store, delivery=delivery or DeliveryConfig())
        return kind(reactor, config, lambda: NOW_MS, lambda: "epoch", self.figures)

    def test_the_store_on_disk_shows_what_it_holds_and_the_size_of_its_files(self) -> Deferred[None]:
        async def test() -> None:
            first = self.keeping(SqliteKeeping)
            first.start()
            await first.store.append(draft("news"))
            await first.stop()
            second = self.keeping(SqliteKeeping)
            second.start()
            self.assertEqual(await self.shown("held", what="channels"), 1)
            self.assertEqual(await self.shown("file_bytes", file="store"), self.path.stat().st_size)
            self.assertEqual((self.value("works"), second.reason(0.0)), (1, ""))
            await second.stop()

        return Deferred.fromCoroutine(test())

    def test_a_run_that_did_not_end_by_a_stop_is_a_line_in_the_log_and_a_figure_of_the_next_one(self) -> Deferred[None]:
        async def test() -> None:
            for mark, crashed in (("4711 in use", 1), ("4711 stopped", 0)):
                Path(f"{self.path}.lock").write_text(f"{mark}\n")
                keeping = self.keeping(SqliteKeeping)
                with capturedLogs() as lines:
                    keeping.start()
                said = [formatEvent(line) for line in lines]
                self.assertEqual(
                    [text.startswith("the last run (process 4711) did not end by a stop") for text in said], [True] * crashed
                )
                self.assertEqual(self.value("after_crash"), crashed)
                await keeping.stop()

        return Deferred.fromCoroutine(test())

    def test_as_many_cursors_are_kept_of_a_device_as_it_may_follow_channels(self) -> Deferred[None]:
        async def test() -> None:
            for kind in (MemoryKeeping, SqliteKeeping):
                keeping = self.keeping(kind, DeliveryConfig(max_subscriptions=3000))
                keeping.start()
                await keeping.store.record([CursorMove("d", f"c{number}", "e", 1) for number in range(3500)])
                self.assertEqual(len(await keeping.store.cursors("d")), 3000)
                await keeping.stop()

        return Deferred.fromCoroutine(test())

    def test_the_store_in_memory_shows_what_it_holds(self) -> Deferred[None]:
        async def test() -> None:
            keeping = self.keeping(MemoryKeeping)
            await keeping.store.append(draft("news"))
            keeping.start()
            self.assertEqual(await self.shown("held", what="publications"), 1)
            await keeping.stop()

        return Deferred.fromCoroutine(test())

    def test_a_file_in_use_is_a_fault_of_the_setting(self) -> Deferred[None]:
        async def test() -> None:
            first, second = self.keeping(SqliteKeeping), self.keeping(SqliteKeeping)
            first.start()
            with pytest.raises(ConfigError, match=r"^streampush\.toml: store\.path: .* is in use by another process"):
                second.start()
            await first.stop()

        return Deferred.fromCoroutine(test())

"""The simulated store keeps the contract, and survives its process as it says."""

from __future__ import annotations

from itertools import count
from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from streampush.config import StoreConfig
from streampush.errors import StoreUnavailable
from streampush.push.values import Draft, Want
from tests.simulation.store import Disk, Pace, SimulatedStore
from tests.store.contract import LIMITS, StoreContract


class SimulatedStoreTests(StoreContract, TestCase):
    def make_store(self, limits: StoreConfig) -> Any:
        epochs = count(1)
        disk = Disk(limits, lambda: self.now_ms, lambda: f"epoch-{next(epochs)}")
        clock: Any = reactor
        return SimulatedStore(disk, clock, Random(1), Pace(commit=0.001, read=0.0005, batch=2))


class SurvivalTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.committed: list[str] = []
        epochs = count(1)
        self.disk = Disk(LIMITS, lambda: 1, lambda: f"epoch-{next(epochs)}", observe=lambda name, *_: self.committed.append(name))
        self.store = self.process()

    def process(self, seed: int = 1) -> SimulatedStore:
        return SimulatedStore(self.disk, self.clock, Random(seed), Pace(commit=1.0, batch=2))

    def append(self, message_id: str) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.store.append(Draft("news", message_id, b"", 1)))

    def top(self) -> int:
        return int(self.disk.look("head", ("news",)).top_offset)

    def test_nobody_is_told_before_the_commit(self) -> None:
        done = self.append("m1")
        self.clock.advance(0)
        self.assertNoResult(done)
        assert self.top() == 0
        self.clock.advance(1.0)
        assert self.successResultOf(done).offset == self.top() == 1

    def test_what_waits_goes_into_one_commit_up_to_the_batch(self) -> None:
        done = [self.append(f"m{number}") for number in range(3)]
        self.clock.pump([0, 1.0])
        assert [deferred.called for deferred in done] == [True, True, False]
        self.clock.pump([0, 1.0])
        self.successResultOf(done[2])

    def test_a_death_takes_what_was_not_committed_and_tells_nobody(self) -> None:
        kept = self.append("m1")
        self.clock.pump([0, 1.0])
        done = [self.append(f"m{number}") for number in range(2, 6)]
        self.clock.advance(0)
        survives = self.store.die()
        assert self.successResultOf(kept).offset == 1
        assert self.top() == (3 if survives else 1)
        for deferred in done:
            self.assertNoResult(deferred)

    def test_the_commit_under_way_survives_or_not(self) -> None:
        outcomes = set()
        for seed in range(20):
            self.store = self.process(seed)
            self.append("m")
            self.clock.advance(0)
            outcomes.add(self.store.die())
        assert outcomes == {True, False}

    def test_a_full_disk_fails_the_commit_and_serves_reads(self) -> None:
        done = self.append("m1")
        self.disk.full = True
        self.clock.pump([0, 1.0])
        self.failureResultOf(done, StoreUnavailable)
        assert self.successResultOf(Deferred.fromCoroutine(self.store.head("news"))).top_offset == 0

    def test_a_broken_disk_fails_reads(self) -> None:
        self.disk.broken = True
        self.failureResultOf(Deferred.fromCoroutine(self.store.head("news")), StoreUnavailable)

    def test_a_restored_backup_is_the_state_of_then(self) -> None:
        for number in range(5):
            self.append(f"m{number}")
            self.clock.pump([0, 1.0])
        epoch = self.disk.look("head", ("news",)).epoch
        self.disk.restore(2)
        head = self.disk.look("head", ("news",))
        assert (head.top_offset, head.epoch) == (2, epoch)
        (survey,) = self.disk.look("survey", ("d", [Want("news")]))
        assert survey.spots[2].message_id == "m1"

    def test_observers_hear_of_committed_writes_only(self) -> None:
        self.append("m1")
        self.clock.advance(0)
        assert self.committed == []
        self.clock.advance(1.0)
        assert self.committed == ["append"]

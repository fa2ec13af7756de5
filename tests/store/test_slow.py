"""The slow store of the tests keeps the contract of the store that it wraps."""

from __future__ import annotations

from itertools import count

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from streampush.config import StoreConfig
from streampush.errors import StoreUnavailable
from streampush.push.values import Draft
from streampush.store.memory import MemoryStore
from tests.store.contract import LIMITS, StoreContract
from tests.store.slow import Call, SlowStore


class SlowStoreTests(StoreContract, TestCase):
    def make_store(self, limits: StoreConfig) -> SlowStore:
        epochs = count(1)
        memory = MemoryStore(limits, lambda: self.now_ms, lambda: f"epoch-{next(epochs)}")

        def begun(call: Call) -> None:
            reactor.callLater(0, call.finish)

        return SlowStore(memory, begun)


class SlowStoreControlTests(TestCase):
    def setUp(self) -> None:
        self.memory = MemoryStore(LIMITS, lambda: 1, lambda: "epoch")
        self.store = SlowStore(self.memory)

    def test_a_call_takes_effect_before_it_is_finished(self) -> None:
        done = Deferred.fromCoroutine(self.store.append(Draft("news", "m", b"", 1)))
        call = self.store.take("append")
        call.act()
        self.assertIsNotNone(self.successResultOf(Deferred.fromCoroutine(self.memory.peek("news"))))
        self.assertNoResult(done)
        call.finish()
        assert self.successResultOf(done).epoch == "epoch"

    def test_a_failed_call_changes_nothing(self) -> None:
        done = Deferred.fromCoroutine(self.store.append(Draft("news", "m", b"", 1)))
        self.store.fail()
        self.failureResultOf(done, StoreUnavailable)
        self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(self.memory.peek("news"))))

"""The store in memory and another one are given the same work, and must answer alike: random operations, seeded."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from streampush.config import StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Advice
from streampush.protocol.terms import Durability, Milestone, Priority
from streampush.push.values import (
    FALLBACK,
    Accepted,
    Appended,
    Close,
    CursorMove,
    DeviceRecord,
    Draft,
    Idempotency,
    Mark,
    MessageReach,
    MessageRecord,
    OutboxEntry,
    OutboxWork,
    PushOutcome,
    PushRecord,
    PushResult,
    PushToken,
    Session,
    StoreStatus,
    Undeliverable,
    Want,
)
from streampush.store.memory import MemoryStore
from streampush.store.sqlite import SqliteStore, ledger, retention
from streampush.store.sqlite.checking import examine
from tests.store.folders import quick_folder

SEEDS = 20
OPERATIONS = 120

LIMITS = StoreConfig(
    history_messages=6,
    history_bytes=1024,
    history_age=20.0,
    max_channels=7,
    max_devices=3,
    max_bytes=3000,
    max_scheduled=4,
    max_idempotency_keys=3,
    max_idempotency_keys_total=5,
    max_outbox=4,
)
DEVICES = ("d1", "d2", "d3", "d4")
USERS = ("", "u1", "u2")
TOKENS = (b"t1", b"t2")
CHANNELS = ("news", "sport", "a", "b", "c", "d", "device:d1", "device:d2", "user:u1", "user:u2")


class AlikeTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = quick_folder()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_both_stores_answer_alike(self) -> None:
        for seed in range(SEEDS):
            SqlitePair(self.folder / f"{seed}.db", Random(seed)).run()

    def test_they_do_so_when_the_one_on_disk_remembers_next_to_nothing(self) -> None:
        self.patch(ledger, "MAX_LOGS", 1)
        self.patch(ledger, "MAX_RECIPIENTS", 1)
        self.patch(retention, "MAX_BEHIND", 1)
        for seed in range(SEEDS, SEEDS + 5):
            SqlitePair(self.folder / f"{seed}.db", Random(seed)).run()


class Pair:
    """Both stores, and operations for them. `other` is the one that is compared; it answers in the calling thread."""

    other: Any

    def __init__(self, random: Random) -> None:
        self.now_ms = 1_000_000
        self.random = random
        self.serial = 0
        self.messages = ["none"]
        self.tokens: list[tuple[str, str]] = [("none", "none")]
        self.history: list[str] = []
        self.memory = MemoryStore(LIMITS, lambda: self.now_ms, lambda: "epoch", max_dead_letters=2)

    def run(self) -> None:
        operations = [getattr(self, name) for name in dir(self) if name.startswith("do_")]
        weights = [6 if operation.__name__ in ("do_append", "do_record") else 1 for operation in operations]
        for _ in range(OPERATIONS):
            self.random.choices(operations, weights)[0]()
            if self.random.random() < 0.3:
                self.now_ms += self.random.choice((1, 500, 3000, 15_000))
        self.look()
        faults = self.finish()
        assert not faults, "\n".join([*self.history, *faults])

    def finish(self) -> list[str]:
        """Ends the other store; gives what it has in disorder."""
        raise NotImplementedError

    def both(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Calls both stores; their answers must be equal. Gives that of the store in memory."""
        self.history.append(f"{name}{arguments}")
        expected = answer(getattr(self.memory, name)(*arguments, **named))
        found = answer(getattr(self.other, name)(*arguments, **named))
        assert plain(found) == plain(expected), "\n".join([*self.history, f"other:  {found}", f"memory: {expected}"])
        return expected

    def look(self) -> None:
        """Everything that can be asked."""
        for channel in CHANNELS:
            after = 0
            page = self.both("read", channel, after, 3, 150)
            for _ in range(20):
                if page.next_offset >= page.head.top_offset:
                    break
                page = self.both("read", channel, page.next_offset, 3, 150)
            self.both("subscribers", channel, "", 10)
            self.both("subscribers", channel, "d1", 1)
        wants = [Want(channel, tuple(range(0, 60, 7))) for channel in CHANNELS]
        for device in DEVICES:
            self.both("survey", device, wants)
            for name in ("cursors", "device", "subscriptions"):
                self.both(name, device)
            self.both("dead_letters", device, 0, 10)
        for message_id in self.messages[-40:]:
            self.both("message", message_id, 10)
            self.both("push_of", f"{message_id}/d1")
        for user in USERS:
            self.both("devices_of_user", user, 10)
        for channel in CHANNELS:
            self.both("reach", channel, DEVICES)
        for results in (False, True):
            self.both("reach_with", [(message_id, DEVICES) for message_id in self.messages[-40:]], results=results)
            for limit in (1, 10):
                self.both("reach_users", self.messages[-40:], limit, results=results)
        self.both("count_readable", [(channel, after, after + 9) for channel in CHANNELS for after in range(0, 30, 4)])
        for prefix in ("", "d", "d1"):
            self.both("devices_named", prefix, 2)
        self.both("next_due_ms")
        self.both("status")

    # ------------------------------------------------------------------------------------------------------- operations

    def channel(self) -> str:
        return self.random.choice(CHANNELS)

    def device(self) -> str:
        return self.random.choice(DEVICES)

    def chance(self, probability: float, value: Any, otherwise: Any) -> Any:
        return value if self.random.random() < probability else otherwise

    def do_append(self) -> None:
        random = self.random
        self.serial += 1
        key = Idempotency(
            random.choice("pqr"), random.choice("abcde"), random.choice((b"1", b"2")), self.now_ms + random.choice((100, 9000))
        )
        delay = self.chance(0.1, random.choice((10, 5000)), 0)
        draft = Draft(
            self.channel(),
            f"m{self.serial}",
            random.randbytes(random.choice((0, 1, 40, 200))),
            self.now_ms,
            self.chance(0.3, self.now_ms + random.choice((10, 4000)) + delay, 0),
            random.choice(("", "text/plain")),
            random.choice(({}, {"name": "wert"}, {"ü": "\u20ac"})),
            random.choice((Priority.LOW, Priority.NORMAL, Priority.HIGH)),
            self.chance(0.4, random.choice("xyz"), ""),
            self.chance(0.3, random.randint(1, 5), 0),
            self.now_ms + delay if delay else 0,
            random.random() < 0.5,
            random.random() < 0.5,
            "publisher:p",
            self.chance(0.2, key, None),
            self.chance(0.2, random.randbytes(random.choice((1, 60))), b""),
        )
        self.messages.append(draft.message_id)
        self.both("append", draft)

    def do_record(self) -> None:
        random = self.random
        device, channel = self.device(), self.channel()
        head = answer(self.memory.head(channel))
        epoch = self.chance(0.9, head.epoch, "other")
        offset = random.randint(0, head.top_offset + 1)
        first, last = sorted((random.randint(1, head.top_offset + 1), random.randint(1, head.top_offset + 1)))
        milestone = random.choice((Milestone.WRITTEN, Milestone.WRITTEN, Milestone.REJECTED))
        begun = self.chance(0.3, random.randint(0, head.top_offset + 1), 0)
        move = CursorMove(device, channel, epoch, offset, random.randint(0, offset), random.randint(0, 3), self.now_ms, begun)
        mark = Mark(device, channel, epoch, first, last, milestone, self.now_ms)
        dead = Undeliverable(device, channel, epoch, random.randint(1, head.top_offset + 1), 3, "poison", self.now_ms)
        self.both(
            "record",
            [move] if random.random() < 0.7 else [],
            [mark] if random.random() < 0.5 else [],
            [dead] if random.random() < 0.3 else [],
        )

    def do_fire(self) -> None:
        self.both("fire_due", self.now_ms, self.random.choice((1, 10)))

    def do_recall(self) -> None:
        self.serial += 1
        self.messages.append(f"r{self.serial}")
        self.both("recall", self.random.choice(self.messages[-10:]), f"r{self.serial}", self.now_ms)

    def do_remember(self) -> None:
        close = self.chance(0.5, Close(1001, Advice.RETRY, "gone", self.now_ms), None)
        token = self.chance(0.5, PushToken(self.random.choice(TOKENS), "org.example", True, self.now_ms - 500), None)
        self.both(
            "remember_device",
            DeviceRecord(self.device(), self.random.choice(USERS), 1, self.now_ms, token, {"a": "b"}, close),
        )

    def do_drop_token(self) -> None:
        self.both("drop_token", self.device(), self.random.choice(TOKENS), self.now_ms - self.random.choice((0, 500, 501, 3000)))

    def do_device_of_token(self) -> None:
        self.both("device_of_token", self.random.choice(TOKENS))

    def do_forget(self) -> None:
        if self.random.random() < 0.3:
            self.both("forget_device", self.device())

    def do_forget_cursor(self) -> None:
        self.both("forget_cursor", self.device(), self.channel())

    def do_subscribe(self) -> None:
        self.both("add_subscription", self.device(), self.channel(), self.now_ms, 2)

    def do_unsubscribe(self) -> None:
        self.both("remove_subscription", self.device(), self.channel())

    def do_drop_letter(self) -> None:
        self.both("drop_dead_letter", self.device(), self.random.choice(self.messages[-20:]))

    def do_session(self) -> None:
        device = self.device()
        ends, close = self.random.random() < 0.7, Close(2001, Advice.RECONNECT, "lost", self.now_ms)
        ended = []
        for store in (self.memory, self.other):
            generation = answer(store.begin_session(Session(device, "s", "n")))
            ended.append(ends and answer(store.end_session(device, generation, close)))
        assert ended[0] == ended[1]

    def do_outbox(self) -> None:
        random = self.random
        self.now_ms += 1  # no two have the same time: which of them is first is left open
        step, kind = random.randrange(6), random.choice(("push", FALLBACK))
        if step == 0:
            self.both("outbox_add", kind, random.choice("abcdef"), b"body" * random.randrange(9), self.now_ms)
        elif step == 1:
            expected = answer(self.memory.outbox_lease(kind, 1, self.now_ms, 2000))
            found = answer(self.other.outbox_lease(kind, 1, self.now_ms, 2000))
            assert [replace(one, token="") for one in found] == [replace(one, token="") for one in expected]
            self.tokens += [(one.token, other.token) for one, other in zip(expected, found, strict=True)]
        elif step == 5:
            self.both("outbox_hasten", kind, [random.choice("abcdef")], self.now_ms)
        else:
            ours, theirs = random.choice(self.tokens[-4:])
            works = [
                OutboxWork(random.choice(("push", FALLBACK)), random.choice("abcdef"), random.randbytes(9), self.now_ms + number)
                for number in range(random.randrange(5))
            ]
            self.now_ms += len(works)
            result = PushResult(self.now_ms, random.choice(list(PushOutcome)))
            records = [PushRecord(random.choice(self.messages[-20:]), self.device(), result, count=random.randrange(1, 4))]
            calls: dict[int, tuple[Any, ...]] = {
                2: ("outbox_complete",),
                3: ("outbox_release", self.now_ms + 700),
                4: ("outbox_replace", works, records),
                5: ("outbox_branch", random.randbytes(5), works),
            }
            name, *rest = calls[step]
            self.history.append(f"{name}{ours, *rest}")
            results = [answer(getattr(self.memory, name)(ours, *rest)), answer(getattr(self.other, name)(theirs, *rest))]
            if all(isinstance(result, str) for result in results):  # tokens
                self.tokens.append((results[0], results[1]))
            else:
                assert plain(results[0]) == plain(results[1]), "\n".join([*self.history, str(results)])
        for name in ("push", FALLBACK):
            self.both("outbox_next_ms", name)

    def do_push(self) -> None:
        random = self.random
        rows = []
        for _ in range(random.choice((1, 1, 30))):
            message_id, device_id = random.choice(self.messages[-20:]), self.device()
            apns_id = self.chance(0.7, f"{message_id}/{device_id}", "")
            at_ms = self.now_ms - random.choice((0, 0, 700))
            rows.append(PushRecord(message_id, device_id, PushResult(at_ms, random.choice(list(PushOutcome)), "why", apns_id)))
        ours, theirs = random.choice(self.tokens[-4:])
        self.history.append(f"record_pushes{rows, ours}")
        for store, lease in ((self.memory, ours), (self.other, theirs)):
            answer(store.record_pushes([replace(rows[0], lease=lease), *rows[1:]]))

    def do_look(self) -> None:
        self.look()


class SqlitePair(Pair):
    """With the store on disk."""

    def __init__(self, path: Path, random: Random) -> None:
        super().__init__(random)
        self.path = str(path)
        self.other = SqliteStore(self.path, LIMITS, lambda: self.now_ms, lambda: "epoch", max_dead_letters=2)
        self.other.open()

    def finish(self) -> list[str]:
        answer(self.other.stop())
        # some here acknowledge too much
        return [fault for fault in examine(self.path).faults if "cursors are ahead" not in fault]


def answer(work: Coroutine[Any, Any, Any]) -> Any:
    """What it gives at once; an exception as a value."""
    results: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    result = results[0]
    if isinstance(result, Failure):
        result.trap(Refused)
        return result.value
    return result


def plain(value: Any) -> Any:
    """Comparable: durability is what the stores differ in, a detail need not be the same."""
    if isinstance(value, Refused):
        return value.code
    if isinstance(value, StoreStatus):
        return replace(value, keys=0)  # when those that have expired go is up to the store
    if isinstance(value, Appended | Accepted | MessageRecord):
        value = replace(value, durability=Durability.MEMORY)
        if isinstance(value, Accepted) and value.appended is not None:
            value = replace(value, appended=replace(value.appended, durability=Durability.MEMORY))
        return value
    if isinstance(value, MessageReach):
        return replace(value, record=plain(value.record))
    if isinstance(value, list | tuple) and not isinstance(value, OutboxEntry):
        return [plain(one) for one in value]
    return value

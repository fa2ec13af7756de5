"""Watchers of messages: what they are told is what the store has, each milestone once, whatever the timing."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.protocol.codes import Code
from streampush.protocol.terms import Milestone
from streampush.push.progress import EXPIRY_GRACE_MS, ORDER, MessageState, progress_of
from streampush.push.receipts import COUNTS_INTERVAL, GATHER, READS
from streampush.push.values import Position, PublishRequest, PushOutcome, PushRecord, PushResult, Undeliverable
from tests.push.receipt_world import EPOCH, Listener, ReceiptWorld
from tests.push.world import PUBLISHER, World, device, refuses
from tests.store.slow import Call, SlowStore

ACCEPTED, STORED, WRITTEN, DELIVERED, PROCESSED, REJECTED, DEAD_LETTERED, RECALLED, EXPIRED = ORDER

EXPIRY_GRACE = EXPIRY_GRACE_MS / 1000


def reads(world: ReceiptWorld) -> list[str]:
    """The ids of the messages that are read from now on."""
    ids: list[str] = []
    message = world.memory.message

    async def counted(message_id: str, max_devices: int) -> Any:
        ids.append(message_id)
        return await message(message_id, max_devices)

    world.receipts._store.message = counted  # type: ignore[method-assign]
    return ids


# ------------------------------------------------------------------------------------------------------------------ asking


def test_progress_has_a_row_for_each_device_of_the_user() -> None:
    world = ReceiptWorld()
    accepted = world.publish()
    world.delivered("tablet", accepted.offset)
    found = world.run(world.receipts.progress(accepted.message_id))
    assert [(row.device_id, row.state) for row in found.devices] == [("phone", "waiting"), ("tablet", "delivered")]


def test_progress_of_a_device_message_has_its_row() -> None:
    world = ReceiptWorld()
    found = world.run(world.receipts.progress(world.publish("device:phone").message_id))
    assert [row.device_id for row in found.devices] == ["phone"]


def test_unknown_message_is_refused() -> None:
    world = ReceiptWorld()
    with refuses(Code.UNKNOWN_RECIPIENT):
        world.run(world.receipts.progress("M99"))


def test_a_push_is_found_by_its_id_in_capitals_too() -> None:
    world = ReceiptWorld()
    accepted = world.publish("device:phone")
    pushed = PushRecord(accepted.message_id, "phone", PushResult(1_300, PushOutcome.REJECTED, "Unregistered", "ab-1"))
    world.run(world.memory.record_pushes([pushed]))
    assert world.run(world.receipts.push("AB-1")) == pushed


def test_a_push_that_is_not_known_is_refused() -> None:
    world = ReceiptWorld()
    with refuses(Code.UNKNOWN_RECIPIENT):
        world.run(world.receipts.push("ab-1"))


# ----------------------------------------------------------------------------------------------------------------- telling


def test_each_step_of_a_device_is_told_once() -> None:
    world = ReceiptWorld()
    accepted = world.publish()
    listener = world.watch_published(accepted)
    for step in (world.written, world.delivered, world.processed):
        step("phone", accepted.offset)
        world.pause()
    assert listener.milestones("phone") == [ACCEPTED, STORED, WRITTEN, DELIVERED, PROCESSED]


def test_what_was_there_before_is_told_first() -> None:
    world = ReceiptWorld()
    accepted = world.publish()
    world.delivered("phone", accepted.offset)
    listener = world.watch(accepted.message_id)
    world.pause()
    assert listener.milestones("phone") == [ACCEPTED, STORED, DELIVERED]
    world.processed("phone", accepted.offset)
    world.pause()
    assert listener.milestones("phone")[-1] == PROCESSED


def test_a_rejected_and_a_dead_lettered_message_are_told() -> None:
    world = ReceiptWorld()
    accepted = world.publish()
    listener = world.watch_published(accepted)
    offset = accepted.offset
    world.record([world.move("phone", "user:ada", offset)], [world.mark("phone", "user:ada", offset, offset, REJECTED)])
    letter = Undeliverable("tablet", "user:ada", EPOCH, offset, 3, "it crashes", world.wall_ms())
    world.record([world.move("tablet", "user:ada", offset)], (), [letter])
    world.pause()
    assert listener.milestones("phone")[2:] == [DELIVERED, REJECTED]
    assert listener.milestones("tablet")[2:] == [DEAD_LETTERED]
    assert listener.ended == "complete"


def test_a_dead_letter_is_told_before_the_cursor_has_passed_it() -> None:
    world = ReceiptWorld()
    accepted = world.publish()
    listener = world.watch_published(accepted)
    world.record(undeliverable=[Undeliverable("phone", "user:ada", EPOCH, accepted.offset, 3, "it crashes", world.wall_ms())])
    world.pause()
    assert listener.milestones("phone")[-1] == DEAD_LETTERED


def test_a_recall_is_told() -> None:
    world = ReceiptWorld()
    accepted = world.publish()
    listener = world.watch_published(accepted)
    world.recall(accepted.message_id)
    world.pause()
    assert listener.milestones("phone")[-1] == RECALLED
    assert listener.progress[-1].state is MessageState.RECALLED


def test_a_newer_version_is_told() -> None:
    world = ReceiptWorld()
    listener = world.watch_published(world.publish(collapse_key="score"))
    world.publish(collapse_key="score")
    world.pause()
    assert listener.progress[-1].state is MessageState.SUPERSEDED
    assert listener.ended == "complete"


def test_an_acknowledgement_behind_a_newer_version_does_not_take_the_end_back() -> None:
    world = ReceiptWorld()
    accepted = world.publish("device:phone", collapse_key="score")
    listener = world.watch_published(accepted)
    world.publish("device:phone", collapse_key="score")
    world.pause()
    world.written("phone", accepted.offset, "device:phone")
    world.delivered("phone", accepted.offset, "device:phone")
    world.pause()
    found = world.run(world.receipts.progress(accepted.message_id))
    assert (listener.milestones("phone"), listener.ended) == ([ACCEPTED, STORED], "complete")
    assert (found.devices[0].state, found.ending) == ("delivered", "complete")


def test_expiry_is_told_though_nothing_happens() -> None:
    world = ReceiptWorld()
    expires_at_ms = world.wall_ms() + 5_000
    listener = world.watch_published(world.publish(expires_at_ms=expires_at_ms), expires_at_ms)
    world.pause(4.9)
    assert listener.told == []
    world.pause(0.1 + EXPIRY_GRACE + GATHER + 0.1)
    assert listener.times["phone", EXPIRED] == expires_at_ms
    assert listener.ended == "expired" or listener.ended == "complete"


def test_expiry_is_told_also_if_the_time_that_was_given_was_too_early() -> None:
    world = ReceiptWorld()
    expires_at_ms = world.wall_ms() + 5_000
    listener = world.watch_published(world.publish(expires_at_ms=expires_at_ms), world.wall_ms() + 1)
    world.pause(3.0)
    assert not listener.ended
    world.pause(4.0)
    assert listener.ended


def test_a_scheduled_message_is_told_of_when_it_goes_out() -> None:
    world = ReceiptWorld()
    accepted = world.publish(deliver_at_ms=world.wall_ms() + 1_000)
    listener = world.watch_published(accepted)
    world.pause(1.0)
    (fired,) = world.run(world.memory.fire_due(world.wall_ms(), 10))
    world.heard(fired)
    world.pause()
    world.delivered("phone", fired.publication.offset)
    world.pause()
    assert listener.milestones("phone") == [ACCEPTED, STORED, DELIVERED]


def test_a_scheduled_message_that_is_taken_back_is_gone() -> None:
    world = ReceiptWorld()
    accepted = world.publish(deliver_at_ms=world.wall_ms() + 1_000)
    listener = world.watch_published(accepted)
    world.recall(accepted.message_id)
    world.pause()
    assert listener.lost
    assert world.receipts.watched == 0


def test_a_scheduled_message_that_does_not_go_out_is_gone() -> None:
    world = ReceiptWorld()
    accepted = world.publish(deliver_at_ms=world.wall_ms() + 1_000)
    listener = world.watch_published(accepted)
    for device_id in ("phone", "tablet"):
        world.run(world.memory.forget_device(device_id))
    world.pause(1.0)
    assert not world.run(world.memory.fire_due(world.wall_ms(), 10))
    world.pause(EXPIRY_GRACE + 0.2)
    assert listener.lost


def test_the_service_tells_of_recalls_scheduled_ones_too() -> None:
    world = World()
    world.attach(device("phone"))
    listeners = []
    for deliver_at_ms in (0, world.wall_ms() + 60_000):
        request = PublishRequest("device:phone", b"", deliver_at_ms=deliver_at_ms)
        published = world.run(world.service.publish(PUBLISHER, request))
        listeners.append(Listener(world.service.receipts))
        world.service.receipts.watch(published.message_id, listeners[-1])
        world.advance(0.1)
        world.run(world.service.recall(PUBLISHER, published.message_id))
        world.advance(0.1)
    assert listeners[0].milestones("phone")[-1] == RECALLED
    assert listeners[1].lost


def test_all_watchers_of_a_message_are_told_by_one_read() -> None:
    world = ReceiptWorld()
    accepted = world.publish()
    listeners = [world.watch_published(accepted) for _ in range(3)]
    ids = reads(world)
    world.delivered("phone", accepted.offset)
    world.pause()
    assert ids == [accepted.message_id]
    assert {tuple(listener.milestones("phone")) for listener in listeners} == {(ACCEPTED, STORED, DELIVERED)}


def test_counts_of_a_topic_are_looked_at_once_a_second() -> None:
    world = ReceiptWorld()
    accepted = world.publish("news", want_receipt=True)
    listener = world.watch(accepted.message_id)
    world.pause(COUNTS_INTERVAL + 0.2)
    seen = len(listener.progress)
    for number in range(50):
        world.delivered(f"d{number}", accepted.offset, "news")
        world.pause(0.02)
    world.pause(COUNTS_INTERVAL + 0.2)
    assert listener.progress[-1].record.counts == {DELIVERED: 50}
    assert len(listener.progress) - seen <= 3


# ------------------------------------------------------------------------------------------------------------------- costs


def test_nothing_is_read_for_messages_that_nobody_watches() -> None:
    world = ReceiptWorld()
    watched, other = world.publish(), world.publish()
    world.watch_published(watched)
    ids = reads(world)
    world.written("phone", other.offset)
    world.publish("device:phone")
    world.pause()
    assert ids == []


def test_hints_of_a_moment_make_one_read() -> None:
    world = ReceiptWorld()
    accepted = world.publish()
    world.watch_published(accepted)
    ids = reads(world)
    for step in (world.written, world.delivered, world.processed):
        step("phone", accepted.offset)
    world.pause()
    assert ids == [accepted.message_id]


def test_an_acknowledgement_reads_what_it_is_about_and_not_what_was_acknowledged_before() -> None:
    world = ReceiptWorld()
    messages = [world.publish() for _ in range(10)]
    for accepted in messages:
        world.watch_published(accepted)
    world.delivered("phone", 5)
    world.pause()
    ids = reads(world)
    world.delivered("phone", 7)
    world.pause()
    assert ids == ["M6", "M7"]


def test_a_cursor_that_was_rewound_is_believed() -> None:
    world = ReceiptWorld()
    for _ in range(3):
        world.watch_published(world.publish())
    world.delivered("phone", 3)
    world.pause()
    ids = reads(world)
    world.receipts.recorded([world.move("phone", "user:ada", 2)], (), ())
    world.pause()
    assert ids == ["M1", "M2"]


def test_a_hint_of_another_epoch_is_about_nothing() -> None:
    world = ReceiptWorld()
    world.watch_published(world.publish())
    ids = reads(world)
    move = world.move("phone", "user:ada", 9)
    world.receipts.recorded([type(move)("phone", "user:ada", "E0", 9)], (), ())
    world.pause()
    assert ids == []


# ------------------------------------------------------------------------------------------------------------------ bounds


def test_messages_watched_at_once_are_bounded() -> None:
    world = ReceiptWorld(max_watched=2)
    first, second, third = (world.publish() for _ in range(3))
    listener = world.watch_published(first)
    world.watch_published(second)
    with refuses(Code.OVERLOADED):
        world.watch_published(third)
    assert listener.watch is not None
    world.receipts.unwatch(listener.watch, listener)
    world.watch_published(third)


def test_when_the_last_watcher_has_gone_nothing_is_left() -> None:
    world = ReceiptWorld()
    expires_at_ms = world.wall_ms() + 60_000
    listeners = [world.watch_published(world.publish(expires_at_ms=expires_at_ms), expires_at_ms) for _ in range(5)]
    listeners += [world.watch("M1")]
    world.delivered("phone", 3)
    world.pause()
    for listener in listeners:
        assert listener.watch is not None
        world.receipts.unwatch(listener.watch, listener)
        world.receipts.unwatch(listener.watch, listener)
    assert (world.receipts.watched, world.receipts._logs, world.receipts._due) == (0, {}, {})
    assert world.clock.getDelayedCalls() == []


def test_a_message_that_left_the_log_is_watched_no_more() -> None:
    world = ReceiptWorld()
    listener = world.watch("M99")
    world.pause()
    assert listener.lost
    assert world.receipts.watched == 0


def test_a_stop_leaves_no_timer() -> None:
    world = ReceiptWorld()
    world.watch(world.publish(expires_at_ms=world.wall_ms() + 60_000).message_id)
    world.receipts.stop()
    world.delivered("phone", 1)
    assert world.clock.getDelayedCalls() == []


# ------------------------------------------------------------------------------------------------------------- slow stores


def test_only_a_few_messages_are_read_at_a_time() -> None:
    stores: list[SlowStore] = []
    world = ReceiptWorld(wrap=lambda store: stores.append(SlowStore(store)) or stores[0])  # type: ignore[func-returns-value]
    for _ in range(20):
        world.watch_published(world.publish("device:phone"))
    world.delivered("phone", 20, "device:phone")
    world.pause()
    assert len(stores[0].calls) == READS
    for _ in range(20):
        stores[0].finish()
    assert stores[0].calls == []


def test_a_store_that_is_away_is_asked_again() -> None:
    stores: list[SlowStore] = []
    world = ReceiptWorld(wrap=lambda store: stores.append(SlowStore(store)) or stores[0])  # type: ignore[func-returns-value]
    listener = world.watch_published(world.publish("device:phone"))
    world.delivered("phone", 1, "device:phone")
    world.pause()
    stores[0].fail()
    world.pause()
    assert stores[0].calls == []
    (again,) = world.later
    again()
    stores[0].finish()
    assert listener.milestones("phone")[-1] == DELIVERED
    assert world.failures == []


def test_what_happens_while_a_message_is_read_is_told_too() -> None:
    stores: list[SlowStore] = []
    world = ReceiptWorld(wrap=lambda store: stores.append(SlowStore(store)) or stores[0])  # type: ignore[func-returns-value]
    listener = world.watch_published(world.publish("device:phone"))
    world.written("phone", 1, "device:phone")
    world.pause()
    stores[0].calls[0].act()
    world.delivered("phone", 1, "device:phone")
    world.pause()
    stores[0].finish()
    world.pause()
    stores[0].finish()
    assert listener.milestones("phone") == [ACCEPTED, STORED, WRITTEN, DELIVERED]


def test_what_happens_while_a_message_is_read_is_told_though_another_reader_comes_by() -> None:
    stores: list[SlowStore] = []
    world = ReceiptWorld(wrap=lambda store: stores.append(SlowStore(store)) or stores[0])  # type: ignore[func-returns-value]
    listener, _ = (world.watch_published(world.publish("device:phone")) for _ in range(2))
    world.record(marks=[world.mark("phone", "device:phone", 1, 2)])
    world.pause()
    first, second = stores[0].calls
    stores[0].calls.clear()
    first.act()
    world.delivered("phone", 1, "device:phone")
    second.finish()  # its reader looks at what is due, and finds the first message being read
    first.finish()
    stores[0].finish()
    assert listener.milestones("phone")[-1] == DELIVERED


def test_what_happens_before_it_is_known_where_a_message_is_is_told_too() -> None:
    stores: list[SlowStore] = []
    world = ReceiptWorld(wrap=lambda store: stores.append(SlowStore(store)) or stores[0])  # type: ignore[func-returns-value]
    listener = world.watch(world.publish("device:phone").message_id)
    world.pause()
    stores[0].calls[0].act()
    world.delivered("phone", 1, "device:phone")
    stores[0].finish()
    world.pause()
    stores[0].finish()
    assert listener.milestones("phone") == [ACCEPTED, STORED, DELIVERED]


def test_a_recall_that_is_stored_while_a_message_is_read_until_its_time_is_over_is_told_and_no_expiry() -> None:
    stores: list[SlowStore] = []
    world = ReceiptWorld(wrap=lambda store: stores.append(SlowStore(store)) or stores[0])  # type: ignore[func-returns-value]
    expires_at_ms = world.wall_ms() + 2_000
    accepted = world.publish(expires_at_ms=expires_at_ms)
    listener = world.watch_published(accepted, expires_at_ms)
    world.written("phone", accepted.offset)
    world.pause()
    stores[0].finish("message")
    world.recall(accepted.message_id)
    world.pause(4.0)  # so long it takes to find the user's devices
    stores[0].finish("devices_of_user")
    assert listener.milestones("phone") == [ACCEPTED, STORED, WRITTEN]
    world.pause()
    stores[0].finish("message")
    stores[0].finish("devices_of_user")
    assert listener.milestones("phone") == [ACCEPTED, STORED, WRITTEN, RECALLED]
    assert EXPIRED not in listener.milestones("tablet")


def test_a_message_that_was_read_until_its_time_was_over_expires_all_the_same() -> None:
    stores: list[SlowStore] = []
    world = ReceiptWorld(wrap=lambda store: stores.append(SlowStore(store)) or stores[0])  # type: ignore[func-returns-value]
    accepted = world.publish("device:phone", expires_at_ms=world.wall_ms() + 2_000)
    listener = world.watch_published(accepted)  # its publisher has not said when it expires
    world.written("phone", accepted.offset, "device:phone")
    world.pause(4.0)
    stores[0].finish("message")
    assert listener.milestones("phone") == [ACCEPTED, STORED, WRITTEN]
    world.pause(0.2)
    stores[0].finish("message")
    assert listener.milestones("phone") == [ACCEPTED, STORED, WRITTEN, EXPIRED]
    assert listener.ended


class Scenario:
    """Two devices, a few messages, and a store that takes its time, driven by drawn steps."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.store: SlowStore
        self.world = ReceiptWorld(wrap=self._slow)
        self.messages: list[tuple[str, str, int]] = []  # id, channel, offset
        self.listeners: dict[str, list[Listener]] = {}
        self.sent: dict[tuple[str, str], int] = {}
        self.acknowledged: dict[tuple[str, str], int] = {}
        self.hints: list[Any] = []

    def _slow(self, store: Any) -> Any:
        self.store = SlowStore(store)
        return self.store

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def publish(self) -> None:
        channel = ("user:ada", "device:phone")[self.number(0, 1)]
        ttl = (0, 2_000, 10_000)[self.number(0, 2)]
        expires_at_ms = self.world.wall_ms() + ttl if ttl else 0
        accepted = self.world.append(channel, expires_at_ms=expires_at_ms, collapse_key=("", "k")[self.number(0, 1)])
        self.messages.append((accepted.message_id, channel, accepted.offset))
        self.listeners[accepted.message_id] = [self.world.watch_published(accepted, expires_at_ms)] if self.number(0, 3) else []
        self.hints.append(lambda: self.world.heard(accepted.appended))

    def watch(self) -> None:
        if self.messages:
            message_id = self.messages[self.number(0, len(self.messages) - 1)][0]
            self.listeners[message_id].append(self.world.watch(message_id))

    def recall(self) -> None:
        if self.messages:
            message_id = self.messages[self.number(0, len(self.messages) - 1)][0]
            self.world.numbers += 1
            world = self.world
            appended = world.run(world.memory.recall(message_id, f"M{world.numbers}", world.wall_ms()))
            self.hints.append(lambda: world.heard(appended))

    def device(self) -> None:
        """A device is sent some, and answers some of it."""
        world = self.world
        channel = ("user:ada", "device:phone")[self.number(0, 1)]
        device_id = "phone" if channel == "device:phone" else ("phone", "tablet")[self.number(0, 1)]
        offsets = [offset for _, name, offset in self.messages if name == channel]
        if not offsets:
            return
        key = device_id, channel
        sent, done = self.sent.get(key, 0), self.acknowledged.get(key, 0)
        last = max(sent, self.number(sent, max(offsets)))
        marks = [world.mark(device_id, channel, sent + 1, last)] if last > sent else []
        self.sent[key] = last
        moves, letters = [], []
        reached = self.number(done, last)
        if reached > done:
            self.acknowledged[key] = reached
            how = self.number(0, 3)
            moves = [world.move(device_id, channel, reached, reached if how == 1 else 0)]
            if how == 2:
                marks.append(world.mark(device_id, channel, reached, reached, REJECTED))
            elif how == 3:
                letters = [Undeliverable(device_id, channel, EPOCH, reached, 3, "in vain", world.wall_ms())]
        world.run(world.memory.record(moves, marks, letters))
        self.hints.append(lambda: world.receipts.recorded(moves, marks, letters))

    def hint(self) -> None:
        if self.hints:
            self.hints.pop(0)()

    def time(self) -> None:
        self.world.pause((0.1, 1.0, 4.0)[self.number(0, 2)])

    def answer(self) -> None:
        if self.store.calls:
            call: Call = self.store.calls.pop(self.number(0, len(self.store.calls) - 1))
            if call.effect is None and not self.number(0, 4):
                call.fail()
            else:
                call.finish()

    def act(self) -> None:
        if self.store.calls:
            self.store.calls[self.number(0, len(self.store.calls) - 1)].act()

    def rest(self) -> None:
        """Everything that was under way comes to its end."""
        while self.hints:
            self.hint()
        for _ in range(60):
            self.world.pause(0.25)
            while self.store.calls:
                self.store.finish()
            for again in [self.world.later.pop() for _ in self.world.later]:
                again()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_watchers_are_told_is_what_the_store_has(data: Any) -> None:
    scenario = Scenario(data.draw)
    steps = (
        *(scenario.publish, scenario.watch, scenario.recall, scenario.device, scenario.device),
        *(scenario.hint, scenario.hint, scenario.time, scenario.answer, scenario.answer, scenario.act),
    )
    for step in data.draw(st.lists(st.sampled_from(range(len(steps))), max_size=40)):
        steps[step]()
    scenario.rest()
    world = scenario.world
    assert world.failures == []
    for message_id, channel, _ in scenario.messages:
        record = world.run(world.memory.message(message_id, 10))
        assert record is not None
        meant = ["phone"] if channel == "device:phone" else ["phone", "tablet"]
        final = progress_of(record, meant, world.wall_ms(), 10)
        stored = {(row.device_id, milestone): at for row in final.devices for milestone, at in row.times.items()}
        for listener in scenario.listeners[message_id]:
            assert len(listener.told) == len(set(listener.told))
            for device_id in meant:
                told = listener.milestones(device_id)
                assert told == sorted(told, key=ORDER.index)
            if not listener.ended and listener.told:
                assert listener.times == stored
            else:  # what came behind the end is not told
                assert listener.times.items() <= stored.items()
            assert bool(final.ending) == bool(listener.ended) or not listener.told


def test_every_milestone_of_the_wire_can_be_told() -> None:
    assert set(ORDER) == set(Milestone) - {Milestone.UNSPECIFIED}


def test_what_a_device_acknowledged_before_a_crash_is_delivered_when_it_proves_its_position() -> None:
    world = World()
    attachment, _ = world.attach(device("phone"))
    world.subscribe(attachment, "device:phone")
    first, second = world.publish("device:phone"), world.publish("device:phone")
    world.settle()
    # both were acknowledged, and the server was killed before it stored that
    again, _ = world.attach(device("phone"))
    world.subscribe(again, "device:phone", position=Position(first.epoch, 1, first.message_id))
    world.settle()
    states = [world.run(world.service.receipts.progress(one.message_id)).devices[0].state for one in (first, second)]
    assert states[0] == "delivered"
    assert states[1] != "delivered"

"""Every invariant can fail: each test breaks the product in one place, and the simulation finds it within some hundred seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from streampush.client.answered import Answered
from streampush.client.channel import Channel
from streampush.client.inbox import Inbox
from streampush.client.positions import MemoryPositions
from streampush.protocol.heartbeat import Heartbeat
from streampush.protocol.messages import Delivery, Resume
from streampush.protocol.terms import LossReason, Outcome
from streampush.push import recovery
from streampush.push.connections import Connections
from streampush.push.cursors import CursorWriter
from streampush.push.delivery import Attachment
from streampush.push.fanout import FanOut, Piece
from streampush.push.feed import Feed
from streampush.push.values import FALLBACK, Close, Subscription
from streampush.server.admission import Admission
from streampush.store.memory import MemoryStore
from streampush.store.memory.keys import Keys
from streampush.store.memory.waiting import Outbox
from tests.simulation.scenario import simulate
from tests.simulation.store import SimulatedStore
from tests.simulation.world import Broken

pytestmark = pytest.mark.usefixtures("collected")

SEEDS = 400


def found(*rules: str, besides: tuple[str, ...] = (), first: int = 0) -> None:
    """Some seed, of those from `first` on, breaks one of these rules, and none before it another one but for those `besides`."""
    for seed in range(first, first + SEEDS):
        try:
            simulate(seed)
        except Broken as broken:
            if broken.rule in rules:
                return
            assert broken.rule in besides, f"seed {seed}: {broken}"
    raise AssertionError(f"{SEEDS} seeds did not find it")


def wrap(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replaces a function by what `make` gives for it."""
    monkeypatch.setattr(where, name, make(getattr(where, name)))


def every(count: int) -> Callable[[], bool]:
    """True at every so manieth call."""
    calls = iter(range(10**9))
    return lambda: next(calls) % count == count - 1


def test_a_frame_that_is_offered_and_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    now = every(20)

    def make(offer: Any) -> Any:
        def sabotaged(self: Feed, piece: Piece) -> bool:
            if self.live and self.sent == piece.before and now():
                self.sent = piece.last
                return True
            return bool(offer(self, piece))

        return sabotaged

    wrap(monkeypatch, Feed, "offer", make)
    found("I1", "I4")


def test_a_feed_that_takes_what_does_not_continue_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(offer: Any) -> Any:
        def sabotaged(self: Feed, piece: Piece) -> bool:
            self.sent = max(self.sent, piece.before)
            return bool(offer(self, piece))

        return sabotaged

    wrap(monkeypatch, Feed, "offer", make)
    found("I3", "I4")


def test_a_feed_that_falls_behind_and_never_reads_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attachment, "lags", lambda self, feed: None)
    found("I1", "I4")


def test_an_acknowledgement_to_the_publisher_before_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store answers before the commit, and the commit fails."""
    now = every(5)

    def make(commit: Any) -> Any:
        def sabotaged(self: SimulatedStore) -> None:
            batch = self._under_way
            if [write.name for write in batch] == ["append"] and now():
                self._under_way, self._awake = [], False
                disk, observe = self._disk, self._disk._observe
                disk._observe = lambda *what: None
                (result,) = self._apply(batch)
                if not isinstance(result, Exception):
                    disk.restore(disk.writes - 1)
                disk._observe = observe
                self._wake()
                (batch[0].done.errback if isinstance(result, Exception) else batch[0].done.callback)(result)
            else:
                commit(self)

        return sabotaged

    wrap(monkeypatch, SimulatedStore, "_commit", make)
    found("I1", "I3")


def test_a_cursor_that_is_moved_further_than_what_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Feed, "place", lambda self: (self.sent, self.processed, 0))
    found("I1", "I4")


def test_a_cursor_that_moves_past_a_loss_that_was_not_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(begin: Any) -> Any:
        def sabotaged(self: Feed, subscription: Subscription) -> None:
            begin(self, subscription)
            self.unheard = False

        return sabotaged

    def resume(self: Channel) -> Resume:  # a client may leave the place to the server's cursor
        return Resume(self.name) if self.later else Resume(self.name, self.position)

    monkeypatch.setattr(Channel, "resume", property(resume))
    wrap(monkeypatch, Feed, "begin", make)
    found("I1", "I4", first=600)


def test_a_position_that_is_proven_without_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    wrap(monkeypatch, recovery, "_prove", lambda prove: lambda survey, position, known_id: prove(survey, position, known_id=False))
    found("I4")


def test_a_loss_that_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(prove: Any) -> Any:
        def sabotaged(*args: Any, known_id: bool) -> Subscription:
            answer: Subscription = prove(*args, known_id=known_id)
            if answer.loss is LossReason.TRIMMED:
                return replace(answer, loss=LossReason.UNSPECIFIED, lost_at_most=0, recovered=True)
            return answer

        return sabotaged

    wrap(monkeypatch, recovery, "_prove", make)
    found("I4")


def test_a_dead_letter_that_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CursorWriter, "undeliverable", lambda self, failed: None)
    found("I1", "I4")


def test_a_receipt_that_lacks_a_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CursorWriter, "move", _without_receipts(CursorWriter.move))
    found("I1")


def _without_receipts(move: Any) -> Any:
    return lambda self, one: move(self, replace(one, begun=one.offset))


def test_what_is_wanted_later_that_does_not_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Feed, "_retry_later", lambda self, offset: self._settle(offset, Outcome.PROCESSED))
    found("I1", "I4")


def test_a_recall_notice_that_the_client_keeps_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(ask: Any) -> Any:
        async def sabotaged(self: Inbox, delivery: Delivery) -> Outcome:
            return Outcome.PROCESSED if delivery.recalls else await ask(self, delivery)

        return sabotaged

    wrap(monkeypatch, Inbox, "_ask", make)
    found("I1", "I4")


def test_a_key_that_is_not_known_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Keys, "answer", lambda self, asked, now_ms, channel: None)
    found("I2")


def test_a_scheduled_message_that_goes_out_early(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(due: Any) -> Any:
        async def sabotaged(self: MemoryStore, now_ms: int, limit: int) -> Any:
            return await due(self, now_ms + 300, limit)

        return sabotaged

    wrap(monkeypatch, MemoryStore, "fire_due", make)
    found("schedule")


def test_presence_by_whoever_writes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(detach: Any) -> Any:
        def sabotaged(self: Connections, attachment: Attachment, close: Close) -> None:
            detach(self, attachment, close)
            if self._connected.pop(attachment.principal.name, None) is not None:  # also if a newer connection is there
                self._presence.ended(attachment.principal.name, attachment.info.session_id, close)

        return sabotaged

    wrap(monkeypatch, Connections, "detach", make)
    found("I6", besides=("I5",))


def test_a_dead_peer_that_is_never_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Heartbeat, "deadline", property(lambda self: float("inf")))
    found("I6", besides=("I1", "I5"))


def test_a_client_that_gives_repeats_to_its_application(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(disconnected: Any) -> Any:
        def sabotaged(self: Inbox) -> None:
            disconnected(self)
            for channel in self._channels.values():
                channel.seen = 0
                channel.answered.forget()

        return sabotaged

    wrap(monkeypatch, Inbox, "disconnected", make)
    found("I2", "I3")


def test_a_client_that_does_not_know_its_messages_in_another_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answered, "outcome", lambda self, message_id: None)
    found("I2", "I3")


def test_a_client_that_remembers_a_position_before_the_application_has_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(process: Any) -> Any:
        async def sabotaged(self: Inbox, channel: Any, item: Any) -> None:
            delivery = item.delivery
            self._move(
                channel, replace(channel.position, epoch=item.epoch, offset=delivery.offset, last_message_id=delivery.message_id)
            )
            await process(self, channel, item)

        return sabotaged

    wrap(monkeypatch, Inbox, "_process", make)
    found("I1", "I4")


def test_positions_that_are_not_kept_over_a_restart_of_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryPositions, "save", lambda self, channel, position: None)
    # I4 follows from it: a backup without the device's cursor begins the channel anew at the newest, in a greeting that the device
    # does not get, and goes on from there in the next one. Only a saved position says that the device was further back (seed 28).
    found("I2", besides=("I4",))


def test_a_window_that_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attachment, "takes", lambda self, messages, size: True)
    found("I5")


def test_a_follower_that_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FanOut, "unfollow", lambda self, channel, follower: None)
    found("I5", "fault")


def test_a_connection_that_is_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Admission, "released", lambda self, address, *, told=False: None)
    found("I5")


def test_a_message_with_an_alert_that_is_stored_without_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now = every(10)
    wrap(monkeypatch, Outbox, "keep", lambda keep: lambda self, work: None if work.kind == FALLBACK and now() else keep(self, work))
    found("I7")


def test_work_that_is_done_before_its_push(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(release: Any) -> Any:
        return lambda self, token, not_before_ms: self.complete(token) or release(self, token, not_before_ms)

    wrap(monkeypatch, Outbox, "release", make)
    found("I7")
